/*!
Wrong conversions of real pairs: each tensor that a converter's rule makes is made in another way, and the
diagnosis must name what was done, or nothing; never something else for certain.

`QUALM_HF_GGUF=DIR` runs all pairs of a folder instead of those of `tests/data/hf-gguf`.
*/

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use qualm::codec::TensorType;
use qualm::counterpart::{self, Choice, Depth};
use qualm::diagnose::{Cause, Certainty, Subject, of_shape, of_values};
use qualm::measure::Matched;
use qualm::metrics::Moments;
use qualm::model::view::{Quantizer, Recipe, Step, View};
use qualm::model::{self, Model, Scratch, Tensor};

/// A mutation: what a converter did wrong, how, and the cause.
type Mutation = (&'static str, fn(&View, &Facts) -> Option<View>, Cause);

/// What a recipe says.
struct Facts {
    ops: Vec<Step>,
    joined_by: &'static str,
    /// The axis of the join.
    axis: usize,
}

impl Facts {
    fn of(view: &View) -> Self {
        fn collect(recipe: &Recipe, ops: &mut Vec<Step>) {
            match recipe {
                Recipe::Single { ops: own, .. } => ops.extend(own.iter().cloned()),
                Recipe::Joined { pieces, ops: own, .. } => {
                    pieces.iter().take(1).for_each(|piece| collect(piece, ops));
                    ops.extend(own.iter().cloned());
                }
            }
        }
        let recipe = view.recipe();
        let mut ops = Vec::new();
        collect(&recipe, &mut ops);
        let (joined_by, axis) = match &recipe {
            Recipe::Joined { join, .. } => (join.op, join.args[0].1.as_u64().unwrap_or(0)),
            Recipe::Single { .. } => ("", 0),
        };
        Self { ops, joined_by, axis: axis as usize }
    }

    fn heads(&self) -> Option<u64> {
        let step = self.ops.iter().rev().find(|step| step.op == "permute_qk")?;
        step.args[0].1.as_u64()
    }

    fn has(&self, op: &str) -> Option<()> {
        self.ops.iter().any(|step| step.op == op).then_some(())
    }
}

const MUTATIONS: &[Mutation] = &[
    ("not permuted", |v, f| v.unpermute_qk(f.heads()?).ok(), Cause::QkNotPermuted),
    ("permuted twice", |v, f| v.permute_qk(f.heads()?).ok(), Cause::QkPermutedTwice),
    (
        "twice the heads",
        |v, f| v.unpermute_qk(f.heads()?).ok()?.permute_qk(f.heads()? * 2).ok(),
        Cause::WrongHeadCount,
    ),
    (
        "half the heads",
        |v, f| v.unpermute_qk(f.heads()?).ok()?.permute_qk(f.heads()? / 2).ok(),
        Cause::WrongHeadCount,
    ),
    ("no +1", |v, f| f.has("add").map(|()| v.add(-1.0)), Cause::PlusOneMissing),
    ("+1 twice", |v, f| f.has("add").map(|()| v.add(1.0)), Cause::PlusOneTwice),
    ("no -exp", |v, f| f.has("neg_exp").map(|()| v.ln_neg()), Cause::NotFromConfig),
    (
        "two experts exchanged",
        |v, f| {
            let [experts, _, _] = *v.shape() else { return None };
            let mut order: Vec<u64> = (0..experts).collect();
            order.get(1)?;
            order.swap(0, 1);
            (f.joined_by == "stack").then(|| v.gather(0, &order).ok())?
        },
        Cause::ExpertsReordered,
    ),
    (
        "experts in reverse",
        |v, f| {
            let [experts, _, _] = *v.shape() else { return None };
            let order: Vec<u64> = (0..experts).rev().collect();
            (f.joined_by == "stack").then(|| v.gather(0, &order).ok())?
        },
        Cause::ExpertsReordered,
    ),
    (
        "parts in reverse",
        |v, f| {
            let parts: Vec<View> = v.pieces().iter().rev().cloned().collect();
            (f.joined_by == "concat" && parts.len() < 5)
                .then(|| View::concat(&parts, f.axis).ok())?
        },
        Cause::PartsReordered,
    ),
    (
        "not transposed",
        |v, f| {
            let ops = f.ops.iter().filter(|step| step.op != "reshape").collect::<Vec<_>>();
            let [step] = ops[..] else { return None };
            let rank = v.shape().len();
            (step.op == "transpose" && rank == 2).then(|| v.transpose(&[1, 0]).ok())?
        },
        Cause::NotTransposed,
    ),
    (
        "fused parts as they were",
        |v, f| {
            // Parts, not the rows and columns of each.
            let moved = f
                .ops
                .iter()
                .any(|step| step.op == "transpose" && step.args[0].1[0].as_u64() != Some(0))
                && f.ops.iter().any(|step| step.op == "reshape");
            let sources: Vec<&Tensor> = v.sources().collect();
            let [source] = sources[..] else { return None };
            let whole = source.numel() == v.numel() && f.joined_by.is_empty();
            (moved && whole && f.heads().is_none())
                .then(|| View::of(source).reshape(v.shape()).ok())?
        },
        Cause::PartsReordered,
    ),
    (
        "the rows at the other end",
        |v, f| {
            let ([step], Some(source)) = (&f.ops[..], v.sources().next()) else { return None };
            let (all, len) = (source.shape[0], v.shape()[0]);
            let rows = source.shape[1..] == v.shape()[1..] && !all.is_multiple_of(len);
            let start = step.args.iter().find(|(name, _)| *name == "start")?.1.as_u64()?;
            let other = if start == 0 { all - len } else { 0 };
            (step.op == "slice" && f.joined_by.is_empty() && rows)
                .then(|| View::of(source).slice(0, other..other + len, 1).ok())?
        },
        Cause::RowsCut,
    ),
    (
        "other values than the configuration's",
        |v, _| v.sources().next().is_none().then(|| v.mul(1.5)),
        Cause::NotFromConfig,
    ),
];

/// What a converter did to the rows of a tensor that it should not have.
type Rows = (&'static str, fn(&View) -> Option<View>);

const ROWS: &[Rows] = &[
    ("the last row cut", |v| v.slice(0, 0..v.shape()[0] - 1, 1).ok()),
    ("the first rows cut", |v| v.slice(0, 2..v.shape()[0], 1).ok()),
    ("rows of zeros added", |v| v.pad_zero(0, v.shape()[0] + 3).ok()),
];

fn folder() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hf-gguf");
    std::env::var_os("QUALM_HF_GGUF").map_or_else(own, PathBuf::from)
}

fn values(model: &Model, tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0; tensor.numel() as usize];
    let range = 0..tensor.numel();
    tensor.decode(&model.files, range, &mut Scratch::default(), &mut values).unwrap();
    values
}

/// A model with one tensor made in another way, quantized where a quantizer takes it.
fn mutant(sound: &Model, at: usize, view: &View) -> Option<Model> {
    let tensor = &sound.tensors[at];
    let view = view.reshape(&tensor.shape).ok()?;
    let quantized = match tensor.shape[..] {
        [.., cols] if tensor.shape.len() > 1 && cols % 32 == 0 => {
            view.round_trip(TensorType::Q8_0, Quantizer::Flat).ok()?
        }
        _ => view.clone(),
    };
    let mut mutant = sound.clone();
    let differs = values(sound, tensor) != values(sound, &view.into_tensor("v"));
    mutant.tensors[at] = quantized.into_tensor(&tensor.name);
    differs.then_some(mutant)
}

#[test]
fn what_a_converter_did_instead_is_named_in_every_architecture() {
    let mut named: BTreeMap<&str, (usize, usize, BTreeSet<String>)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let directory = entry.unwrap().path();
        if !directory.join("expected.json").is_file() {
            continue;
        }
        let case = directory.file_name().unwrap().to_string_lossy().into_owned();
        let checkpoint = model::open(&directory).unwrap();
        let converted = model::open(&directory.join("model-f.gguf")).unwrap();
        let choice = Choice::Automatic;
        let mapped = counterpart::apply(checkpoint, &converted, &choice, Depth::Values).unwrap();
        let sound = mapped.reference;
        let all: Vec<Matched> =
            (0..sound.tensors.len()).map(|at| Matched { reference: at, quantized: at }).collect();
        for at in 0..sound.tensors.len() {
            let Some(view) = sound.tensors[at].view() else { continue };
            let facts = Facts::of(view);
            for (what, mutate, cause) in MUTATIONS {
                let Some(other) = mutate(view, &facts) else { continue };
                let Some(quantized) = mutant(&sound, at, &other) else { continue };
                let subject = Subject {
                    reference: &sound,
                    quantized: &quantized,
                    at: all[at],
                    all: &all,
                    locals: None,
                    twin: None,
                };
                let sums = Moments { rr: 1.0, qq: 1.0, ..Moments::default() };
                let found = of_values(&subject, &sums);
                let counts = named.entry(what).or_default();
                counts.1 += 1;
                counts.2.insert(case.clone());
                match found {
                    Some(found) if found.cause == *cause => counts.0 += 1,
                    Some(found) if found.certainty == Certainty::Certain => {
                        wrong.push(format!("{case}: {}: {what}: {found}", sound.tensors[at].name));
                    }
                    _ => {}
                }
            }
        }
    }
    for (what, (right, of, cases)) in &named {
        println!("{what}: {right} of {of} named, in {} pairs", cases.len());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let (right, of) = named.values().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    assert!(right * 20 >= of * 19, "{right} of {of}: {named:#?}");
    assert!(named.len() >= 9, "kinds of mutations: {:?}", named.keys());
}

#[test]
fn rows_that_are_cut_or_added_are_named_in_every_architecture() {
    let (mut right, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(folder()).unwrap() {
        let directory = entry.unwrap().path();
        if !directory.join("expected.json").is_file() {
            continue;
        }
        let checkpoint = model::open(&directory).unwrap();
        let converted = model::open(&directory.join("model-f.gguf")).unwrap();
        let choice = Choice::Automatic;
        let mapped = counterpart::apply(checkpoint, &converted, &choice, Depth::Values).unwrap();
        let sound = mapped.reference;
        for (at, tensor) in sound.tensors.iter().enumerate() {
            let [rows, .., cols] = tensor.shape[..] else { continue };
            if rows < 4 || cols < 32 {
                continue;
            }
            for (what, change) in ROWS {
                let view = change(&View::of(tensor)).unwrap();
                let quantized = match cols % 32 {
                    0 => view.round_trip(TensorType::Q8_0, Quantizer::Flat).unwrap(),
                    _ => view,
                };
                let mut mutant = Model { format: converted.format, ..sound.clone() };
                mutant.tensors[at] = quantized.into_tensor(&tensor.name);
                let matched = Matched { reference: at, quantized: at };
                let subject = Subject {
                    reference: &sound,
                    quantized: &mutant,
                    at: matched,
                    all: &[],
                    locals: None,
                    twin: None,
                };
                match of_shape(&subject) {
                    Some(found) if found.cause == Cause::RowsCut => right += 1,
                    found => wrong.push(format!(
                        "{}: {}: {what}: {found:?}",
                        directory.display(),
                        tensor.name
                    )),
                }
            }
        }
    }
    println!("{right} named");
    assert!(right > 300, "{right}");
    assert!(wrong.is_empty(), "{} of {}: {}", wrong.len(), right, wrong.join("\n"));
}
