/*! Kinds 22, 23, 24, 27: experts in stacks and one by one, and what is wrong with one of many. */

use serde_json::json;

use crate::made::*;
use crate::program::f32s;
use crate::table::{Files, Table, files, model};

/// How a family names its experts: above them, gate, up and down of one, the stacks.
#[derive(Clone, Copy)]
struct Family {
    above: &'static str,
    parts: [&'static str; 3],
    router: &'static str,
}

const QWEN: Family = Family {
    above: "model.layers.1.mlp.experts",
    parts: ["gate_proj", "up_proj", "down_proj"],
    router: "model.layers.1.mlp.gate.weight",
};
const GEMMA: Family = Family {
    above: "model.language_model.layers.0.moe.experts",
    parts: ["gate_proj", "up_proj", "down_proj"],
    router: "model.language_model.layers.0.moe.router.weight",
};
const MIXTRAL: Family = Family {
    above: "model.layers.0.block_sparse_moe.experts",
    parts: ["w1", "w3", "w2"],
    router: "model.layers.0.block_sparse_moe.gate.weight",
};

/// Experts of a layer: gate, up and down of each.
struct Experts {
    family: Family,
    matrices: Vec<[Matrix; 3]>,
    router: Matrix,
}

impl Experts {
    fn new(family: Family, count: u64, wide: u64, inner: u64) -> Self {
        let one = |expert: u64| {
            let name =
                |part: usize| format!("{}.{expert}.{}.weight", family.above, family.parts[part]);
            [
                Matrix::new(name(0), &[inner, wide], expert * 3 + 1),
                Matrix::new(name(1), &[inner, wide], expert * 3 + 2),
                Matrix::new(name(2), &[wide, inner], expert * 3 + 3),
            ]
        };
        let router = Matrix::new(family.router, &[count, wide], 999);
        Self { family, matrices: (0..count).map(one).collect(), router }
    }

    fn all(&self) -> impl Iterator<Item = &Matrix> {
        self.matrices.iter().flatten()
    }

    fn name(&self, expert: usize, part: usize) -> String {
        format!("{}.{expert}.{}", self.family.above, self.family.parts[part])
    }

    /// The original with one matrix each.
    fn single(&self, dtype: &str) -> Files {
        let own = self.all().map(|it| it.stored(dtype)).chain([self.router.plain()]);
        model(file(&own.collect::<Vec<_>>()))
    }

    /// Gate above up, and down, in stacks.
    fn stacks(&self) -> [Matrix; 2] {
        let [gate, _, down] = &self.matrices[0];
        let count = self.matrices.len() as u64;
        let join = |parts: &[usize]| -> Vec<f32> {
            let all = self.matrices.iter();
            all.flat_map(|own| parts.iter().flat_map(|part| own[*part].values.clone())).collect()
        };
        let above = self.family.above;
        [
            Matrix {
                name: format!("{above}.gate_up_proj"),
                shape: vec![count, gate.shape[0] * 2, gate.shape[1]],
                values: join(&[0, 1]),
            },
            Matrix {
                name: format!("{above}.down_proj"),
                shape: vec![count, down.shape[0], down.shape[1]],
                values: join(&[2]),
            },
        ]
    }

    fn stacked(&self, dtype: &str) -> Files {
        let own = self
            .stacks()
            .iter()
            .map(|it| it.stored(dtype))
            .chain([self.router.plain()])
            .collect::<Vec<_>>();
        model(file(&own))
    }

    /// One by one, in a scheme.
    fn quantized(&self, scheme: Scheme) -> Vec<Owned> {
        let own = self.all().flat_map(|it| it.quantized(scheme));
        own.chain([self.router.plain()]).collect()
    }
}

fn of(all: &[Owned]) -> Files {
    model(file(all))
}

fn at(all: &[Owned], name: &str) -> usize {
    let found = all.iter().position(|it| it.0 == name);
    found.unwrap_or_else(|| panic!("no {name}"))
}

/// Multiplies the floats of a plane.
fn scale(all: &mut [Owned], name: &str, by: f32) {
    let at = at(all, name);
    let values = all[at].3.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()) * by);
    all[at].3 = f32s(&values.collect::<Vec<_>>());
}

const STACKS: [&str; 2] = ["stacked", "single"];

/// Kind 22-experts-layouts.
#[test]
fn layouts_of_experts() {
    let mut table = Table::of("22-experts-layouts");
    #[rustfmt::skip]
    let cases: [(Family, u64, u64, u64, Scheme, &str); 8] = [
        (QWEN, 4, 64, 48, Scheme::Fp8Rows, ".weight_scale"),
        (GEMMA, 3, 96, 32, Scheme::Int8Rows, ".weight_scale"),
        (QWEN, 5, 64, 64, Scheme::Fp8, ".weight_scale"),
        (GEMMA, 2, 128, 64, Scheme::Fp8Blocks(32), ".weight_scale_inv"),
        (QWEN, 3, 64, 64, Scheme::Packed(4, 32), ".weight_scale"),
        (QWEN, 3, 64, 32, Scheme::Nvfp4, ".weight_scale_2"),
        (GEMMA, 3, 64, 64, Scheme::Gptq(32), ".scales"),
        (MIXTRAL, 4, 64, 96, Scheme::Fp8, ".weight_scale"),
    ];
    for (family, count, wide, inner, scheme, suffix) in cases {
        let experts = Experts::new(family, count, wide, inner);
        for (stored, reference) in
            STACKS.iter().zip([experts.stacked("BF16"), experts.single("BF16")])
        {
            let what =
                format!("{} {count} x {wide} x {inner} {scheme:?} against {stored}", family.above);
            let sound = experts.quantized(scheme);
            table.healthy(&what, &reference, &of(&sound));
            let lost = experts.name(1, 2);
            let mut one_lost = sound.clone();
            one_lost.retain(|it| !it.0.starts_with(&format!("{lost}.")));
            table.damaged(&format!("{what}, one lost"), &reference, &of(&one_lost), &[&lost]);
            let last = count as usize - 1;
            let up = experts.name(last, 1);
            let mut last_lost = sound.clone();
            last_lost.retain(|it| !it.0.starts_with(&format!("{up}.")));
            table.damaged(&format!("{what}, the last lost"), &reference, &of(&last_lost), &[&up]);
            let whole = format!("{}.{last}.", family.above);
            let mut none_left = sound.clone();
            none_left.retain(|it| !it.0.starts_with(&whole));
            table.damaged(&format!("{what}, an expert lost"), &reference, &of(&none_left), &[&up]);
            let mut planes = sound.clone();
            planes.retain(|it| it.0 != format!("{lost}{suffix}"));
            table.damaged(&format!("{what}, a scale lost"), &reference, &of(&planes), &[&lost]);
            if matches!(
                scheme,
                Scheme::Fp8
                    | Scheme::Fp8Rows
                    | Scheme::Int8Rows
                    | Scheme::Fp8Blocks(_)
                    | Scheme::Nvfp4
            ) {
                let mut scaled = sound.clone();
                scale(&mut scaled, &format!("{lost}{suffix}"), 1.25);
                let named = [lost.as_str()];
                table.damaged(
                    &format!("{what}, a scale too large"),
                    &reference,
                    &of(&scaled),
                    &named[..usize::from(*stored == "single")],
                );
            }
        }
    }
    // Stacks of planes under bare names.
    for (family, scheme) in [
        (QWEN, Scheme::Packed(4, 32)),
        (GEMMA, Scheme::Packed(8, 32)),
        (QWEN, Scheme::Mxfp4),
        (GEMMA, Scheme::Fp8Rows),
        (QWEN, Scheme::Nvfp4),
    ] {
        let experts = Experts::new(family, 3, 64, 64);
        let what = format!("stacks of {} in {scheme:?}", family.above);
        let mut sound: Vec<Owned> =
            experts.stacks().iter().flat_map(|it| it.quantized(scheme)).collect();
        for plane in &mut sound {
            if matches!(scheme, Scheme::Packed(..)) {
                plane.0 = plane.0.replace("_weight_", "_");
            }
        }
        sound.push(experts.router.plain());
        for (stored, reference) in
            STACKS.iter().zip([experts.stacked("BF16"), experts.single("BF16")])
        {
            table.healthy(&format!("{what} against {stored}"), &reference, &of(&sound));
            let mut moved = sound.clone();
            let codes = &mut moved[0].3;
            codes.rotate_left(sound[0].3.len() / 3);
            table.damaged(
                &format!("{what} against {stored}, moved on"),
                &reference,
                &of(&moved),
                &["experts."],
            );
        }
    }
}

/// Fewer levels than the type has: values on a coarser grid of each group.
fn poor(matrix: &Matrix, levels: f32, group: usize) -> Matrix {
    let values = matrix.values.chunks(group).flat_map(|row| {
        let step = most(row) / levels;
        row.iter().map(move |value| (value / step).round() * step)
    });
    Matrix { values: values.collect(), ..matrix.clone() }
}

/// Kind 23-one-poor-expert-in-a-stack.
#[test]
fn one_poor_expert() {
    let mut table = Table::of("23-one-poor-expert-in-a-stack");
    for (family, count, scheme, group, (expert, part), levels) in [
        (QWEN, 12, Scheme::Packed(4, 32), 32, (5, 0), 1.5),
        (GEMMA, 16, Scheme::Packed(4, 32), 32, (15, 2), 1.5),
        (GEMMA, 10, Scheme::Gptq(32), 32, (3, 2), 1.5),
        (QWEN, 8, Scheme::Int8Rows, 64, (4, 1), 31.0),
        (QWEN, 8, Scheme::Fp8Rows, 64, (7, 0), 7.0),
        (QWEN, 6, Scheme::Packed(8, 32), 32, (0, 1), 15.0),
    ] {
        let experts = Experts::new(family, count, 64, 32);
        let mut worse = Experts::new(family, count, 64, 32);
        worse.matrices[expert][part] = poor(&worse.matrices[expert][part], levels, group);
        for (stored, reference) in
            STACKS.iter().zip([experts.stacked("BF16"), experts.single("BF16")])
        {
            let what = format!("{} of {count} in {scheme:?}, {stored}", family.above);
            table.healthy(&what, &reference, &of(&experts.quantized(scheme)));
            let name = experts.name(expert, part);
            let poor = of(&worse.quantized(scheme));
            table.damaged(&format!("{what}, one poor"), &reference, &poor, &[&name]);
        }
    }
}

/// Kind 23, in every way of storing: the verdict is that of the expert, whichever side stacks what.
#[test]
fn one_verdict_however_experts_are_stored() {
    let mut table = Table::of("23-one-poor-expert-in-a-stack, stored in all ways");
    // Levels to each side of zero of the poor expert, and whether that is damage: beyond what any rounding adds to
    // the noise of the file's own grid.
    #[rustfmt::skip]
    let cases: [(Family, Scheme, f32, bool); 9] = [
        (QWEN, Scheme::Packed(4, 32), 1.0, true),
        (QWEN, Scheme::Packed(4, 32), 2.0, true),
        (QWEN, Scheme::Packed(4, 32), 3.0, false),
        (QWEN, Scheme::Packed(4, 32), 5.0, false),
        (GEMMA, Scheme::Gptq(32), 2.0, true),
        (GEMMA, Scheme::Gptq(32), 3.0, false),
        (GEMMA, Scheme::Gptq(32), 6.0, false),
        (QWEN, Scheme::Packed(8, 32), 6.0, true),
        (QWEN, Scheme::Packed(8, 32), 15.0, true),
    ];
    for (family, scheme, levels, bad) in cases {
        let experts = Experts::new(family, 8, 64, 32);
        let mut worse = Experts::new(family, 8, 64, 32);
        worse.matrices[3][2] = poor(&worse.matrices[3][2], levels, 32);
        let singles = worse.quantized(scheme);
        let mut stacks: Vec<Owned> =
            worse.stacks().iter().flat_map(|it| it.quantized(scheme)).collect();
        for plane in &mut stacks {
            plane.0 = plane.0.replace("_weight_", "_");
        }
        stacks.push(worse.router.plain());
        let stacks = Some(stacks).filter(|_| matches!(scheme, Scheme::Packed(..)));
        for (how, quantized) in [("single", Some(singles)), ("stacked", stacks)] {
            let Some(quantized) = quantized.map(|it| of(&it)) else { continue };
            let references = STACKS.iter().zip([experts.stacked("BF16"), experts.single("BF16")]);
            for (stored, reference) in references {
                let what = format!("{scheme:?} at {levels} levels, {how} against {stored}");
                let codes = [if bad { 5 } else { 0 }];
                // The expert by its own name, or by its place in a stored stack.
                let name = if how == "single" || *stored == "single" {
                    ".3.down_proj"
                } else {
                    "down_proj[3]"
                };
                let says = if bad { &[name][..] } else { &[] };
                table.check(&what, &reference, &quantized, &codes, says, &[]);
                table.count(usize::from(!bad), usize::from(bad));
            }
        }
    }
}

/// The row of a stack names the expert that fares worst.
#[test]
fn the_worst_expert_of_a_stack_is_named() {
    for (family, scheme, count, (expert, part)) in [
        (QWEN, Scheme::Int8Rows, 6, (4, 2)),
        (GEMMA, Scheme::Fp8Rows, 4, (0, 2)),
        (QWEN, Scheme::Packed(4, 32), 5, (2, 1)),
        (GEMMA, Scheme::Nvfp4, 3, (1, 0)),
    ] {
        let experts = Experts::new(family, count, 64, 32);
        let mut worse = Experts::new(family, count, 64, 32);
        // A little worse than its siblings, which is no failure.
        worse.matrices[expert][part] = poor(&worse.matrices[expert][part], 20.0, 32);
        let suite = crate::program::Suite::new();
        suite.write("r.safetensors", &experts.stacked("BF16")[0].1);
        suite.write("q.safetensors", &of(&worse.quantized(scheme))[0].1);
        suite.spec("");
        let what = format!("{scheme:?}, expert {expert}");
        suite.qualm(&["run", "--no-baseline"]);
        let name = format!("{}.weight", experts.name(expert, part));
        let stack = if part == 2 { "down_proj" } else { "gate_up_proj" };
        let contract = suite.contract();
        let rows = contract["specs"][0]["pairs"][0]["tensors"].as_array().unwrap();
        let row = rows.iter().find(|it| it["tensor"].as_str().unwrap().ends_with(stack)).unwrap();
        let worst = &row["worst_expert"];
        assert_eq!(worst["index"], expert as u64, "{what}: {row}");
        let names = worst["names"].as_array().unwrap();
        assert!(names.iter().any(|it| it.as_str() == Some(&name)), "{what}: {row}");
        assert!(worst["sqnr_db"].as_f64() < row["sqnr_db"].as_f64(), "{what}: {row}");
        for report in ["contract.md", "report.html"] {
            let text = suite.read(&format!("target/qualm/{report}")).replace('\\', "");
            assert!(text.contains(&format!("worst: expert {expert} (")), "{what}: {report}");
        }
    }
}

/// Kind 24-companions-of-stacked-experts.
#[test]
fn companions_of_experts() {
    let mut table = Table::of("24-companions-of-stacked-experts");
    for (family, count, scheme, input) in [
        (QWEN, 4, Scheme::Nvfp4, ".input_scale"),
        (GEMMA, 3, Scheme::Fp8, ".input_scale"),
        (QWEN, 5, Scheme::Int8Rows, ".input_scale"),
        (QWEN, 3, Scheme::Fp8Rows, ".input_global_scale"),
    ] {
        let experts = Experts::new(family, count, 64, 32);
        let mut sound = experts.quantized(scheme);
        if !matches!(scheme, Scheme::Nvfp4) {
            for matrix in experts.all() {
                sound.push(scalar(
                    format!("{}{input}", matrix.name.strip_suffix(".weight").unwrap()),
                    0.02,
                ));
            }
        }
        let module = experts.name(count as usize - 1, 1);
        let plane = format!("{module}{input}");
        let weight = format!("{module}.weight_scale");
        for (stored, reference) in
            STACKS.iter().zip([experts.stacked("BF16"), experts.single("F32")])
        {
            let what = format!("{} of {count} in {scheme:?}, {stored}", family.above);
            table.healthy(&what, &reference, &of(&sound));
            let mut lost = sound.clone();
            lost.retain(|it| it.0 != plane);
            table.damaged(&format!("{what}, input lost"), &reference, &of(&lost), &[&module]);
            for value in [f32::NAN, 0.0, f32::INFINITY, -0.5] {
                let mut odd = sound.clone();
                let place = at(&odd, &plane);
                odd[place].3 = f32s(&[value]);
                table.damaged(&format!("{what}, input {value}"), &reference, &of(&odd), &[&module]);
            }
            let mut odd = sound.clone();
            let place = at(&odd, &weight);
            let width = if odd[place].1 == "F32" { 4 } else { 1 };
            let nan = if width == 4 { f32s(&[f32::NAN]) } else { vec![0x7F] };
            odd[place].3[..width].copy_from_slice(&nan);
            table.damaged(&format!("{what}, a scale NaN"), &reference, &of(&odd), &[&module]);
            let mut odd = sound.clone();
            let place = at(&odd, &format!("{module}.weight"));
            odd[place].3.fill(0);
            table.damaged(&format!("{what}, codes zero"), &reference, &of(&odd), &["experts."]);
        }
    }
}

/// Kind 27-one-odd-expert-switches-gates-off.
#[test]
fn one_odd_expert() {
    let mut table = Table::of("27-one-odd-expert-switches-gates-off");
    // Scheme of all, the odd one's scheme (none: as it is), which is odd, which is another's.
    #[rustfmt::skip]
    let cases: [(Family, u64, Scheme, Option<Scheme>, (usize, usize), (usize, usize)); 6] = [
        (QWEN, 8, Scheme::Fp8Rows, None, (2, 2), (5, 2)),
        (GEMMA, 12, Scheme::Int8Rows, None, (11, 2), (0, 2)),
        (QWEN, 6, Scheme::Nvfp4, Some(Scheme::Fp8), (0, 1), (4, 1)),
        (GEMMA, 6, Scheme::Packed(4, 32), Some(Scheme::Packed(8, 32)), (3, 2), (1, 2)),
        (QWEN, 16, Scheme::Fp8Blocks(32), None, (7, 2), (15, 2)),
        (QWEN, 6, Scheme::Fp8, None, (1, 2), (2, 2)),
    ];
    for (family, count, scheme, other, odd, bad) in cases {
        let experts = Experts::new(family, count, 64, 32);
        let make = |wrong: bool| {
            let mut all = vec![experts.router.plain()];
            for (expert, own) in experts.matrices.iter().enumerate() {
                for (part, matrix) in own.iter().enumerate() {
                    let values = if wrong && (expert, part) == bad {
                        experts.matrices[(expert + 1) % count as usize][part].named(&matrix.name)
                    } else {
                        matrix.clone()
                    };
                    match other {
                        None if (expert, part) == odd => all.push(values.plain()),
                        Some(other) if (expert, part) == odd => all.extend(values.quantized(other)),
                        _ => all.extend(values.quantized(scheme)),
                    }
                }
            }
            let name = experts.name(odd.0, odd.1);
            let config = json!({ "quantization_config": { "quant_method": "compressed-tensors", "ignore": [name] } });
            let config = config.to_string().into_bytes();
            match other {
                None => files([("model.safetensors", file(&all)), ("config.json", config)]),
                Some(_) => of(&all),
            }
        };
        for (stored, reference) in
            STACKS.iter().zip([experts.stacked("BF16"), experts.single("BF16")])
        {
            let what = format!("{} of {count} in {scheme:?} but {other:?}, {stored}", family.above);
            table.healthy(&what, &reference, &make(false));
            let name = experts.name(bad.0, bad.1);
            table.damaged(&format!("{what}, another's values"), &reference, &make(true), &[&name]);
        }
    }
}
