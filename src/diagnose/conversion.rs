/*!
A wrong conversion: a tensor that is not what the converter's rule makes of the checkpoint, but what
another expression over the same stored tensors gives.

Each candidate is a view. A cause is certain only if its view gives what the tensor's type gives, and no
other cause's does.
*/

use super::bench::{Bench, Subject, sqnr};
use super::{Cause, Certainty, Diagnosis};
use crate::measure::Matched;
use crate::model::view::{Recipe, Step, View, ViewError};
use crate::model::{Model, Tensor};

/// Most head counts that are tried in place of the rule's.
const HEADS: usize = 64;

/// Most experts whose places are searched.
const EXPERTS: u64 = 512;

/// Most parts whose orders are tried.
const PARTS: usize = 4;

/// Most parts of a fused tensor.
const MOST_PARTS: u64 = 8;

/// Elements by which experts are told apart.
const FINGERPRINT: u64 = 1024;

/// What the file may hold in place of what the rule gives.
struct Candidate {
    cause: Cause,
    /// What the file did, and what the rule is.
    how: String,
    view: View,
}

/// The cause, if the reference is one of several tensors and another expression explains the values.
pub fn undone(bench: &Bench) -> Option<Diagnosis> {
    let view = bench.subject.r().view()?;
    if view.sources().next().is_none() {
        let why = "the rule computes it from the configuration, and the file has other values";
        return Some(Diagnosis::certain(Cause::NotFromConfig, why));
    }
    let mut sound: Vec<(f64, Candidate)> = Vec::new();
    for candidate in candidates(bench, view) {
        let Some(score) = score(bench, &candidate.view) else { continue };
        if bench.is_sound(score) && score > bench.actual() + 3.0 {
            sound.push((score, candidate));
        }
    }
    sound.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let (best, candidate) = sound.first()?;
    let why = format!("{}: {}", candidate.how, bench.score(*best));
    let alone = sound.iter().all(|(_, other)| other.cause == candidate.cause);
    let certainty = if alone { Certainty::Certain } else { Certainty::Likely };
    Some(Diagnosis::of(candidate.cause, certainty, why))
}

/// SQNR of the sample against a candidate.
fn score(bench: &Bench, view: &View) -> Option<f64> {
    let shape = &bench.subject.r().shape;
    let candidate = view.reshape(shape).ok()?.into_tensor("candidate");
    let (mut r, mut q) = (Vec::new(), Vec::new());
    for (at, row) in bench.rows.iter().enumerate() {
        let start = row * bench.row_len;
        r.extend(bench.read(
            bench.subject.reference,
            &candidate,
            start..start + bench.width as u64,
        )?);
        q.extend_from_slice(bench.row(at).1);
    }
    Some(sqnr(&r, &q))
}

/// Everything that a converter may have done instead.
fn candidates(bench: &Bench, view: &View) -> Vec<Candidate> {
    let recipe = view.recipe();
    let (ops, pieces): (Vec<&Step>, usize) = match &recipe {
        Recipe::Single { ops, .. } => (ops.iter().collect(), 1),
        Recipe::Joined { pieces, ops, .. } => {
            let first = match pieces.first() {
                Some(Recipe::Single { ops, .. } | Recipe::Joined { ops, .. }) => ops.as_slice(),
                None => &[],
            };
            (first.iter().chain(ops).collect(), pieces.len())
        }
    };
    let mut found = Vec::new();
    let mut propose = |cause, how: String, view: Result<View, ViewError>| {
        found.extend(view.ok().map(|view| Candidate { cause, how, view }));
    };
    let number = |op: &str, argument: &str| {
        let step = ops.iter().rev().find(|step| step.op == op)?;
        step.args.iter().find(|(name, _)| *name == argument).map(|(_, value)| value)
    };
    if let Some(heads) = number("permute_qk", "n_head").and_then(serde_json::Value::as_u64) {
        let rule = format!("the rule permutes the rows of {heads} heads");
        let not = view.unpermute_qk(heads);
        propose(Cause::QkNotPermuted, format!("rows are as in the checkpoint, {rule}"), not);
        let twice = view.permute_qk(heads);
        propose(Cause::QkPermutedTwice, format!("rows are permuted twice, {rule}"), twice);
        let rows = view.shape().first().copied().unwrap_or(0);
        // Heads of two rows would be no permutation.
        let other = (1..=rows / 4).filter(|other| {
            *other != heads && rows.is_multiple_of(*other) && (rows / other).is_multiple_of(2)
        });
        for other in other.take(HEADS) {
            let how = format!("rows are permuted as those of {other} heads, {rule}");
            let view = view.unpermute_qk(heads).and_then(|view| view.permute_qk(other));
            propose(Cause::WrongHeadCount, how, view);
        }
    }
    if let Some(added) = number("add", "value").and_then(serde_json::Value::as_f64) {
        let not = Ok(view.add(-(added as f32)));
        propose(Cause::PlusOneMissing, format!("the rule adds {added}, the file has not"), not);
        let twice = Ok(view.add(added as f32));
        propose(
            Cause::PlusOneTwice,
            format!("the rule adds {added}, the file has it twice"),
            twice,
        );
    }
    if ops.iter().any(|step| step.op == "neg_exp") {
        let how = "the rule computes -exp(x), the file has x".to_owned();
        propose(Cause::NotFromConfig, how, Ok(view.ln_neg()));
    }
    for (how, view) in other_parts(view, &recipe) {
        propose(Cause::PartsReordered, how, Ok(view));
    }
    for (how, view) in other_rows(view, &recipe) {
        propose(Cause::RowsCut, how, Ok(view));
    }
    let transposes = ops.iter().any(|step| step.op == "transpose");
    let shape = view.shape();
    if let (true, [.., rows, cols]) = (transposes, shape) {
        let mut axes: Vec<usize> = (0..shape.len()).collect();
        axes.swap(shape.len() - 2, shape.len() - 1);
        let how = format!("the values are those of [{cols}, {rows}], the rule transposes them");
        propose(Cause::NotTransposed, how, view.transpose(&axes));
    }
    let source = View::of(&stored(view));
    if pieces == 1 && ops.len() > 1 && transposes && source.numel() == view.numel() {
        let how = "parts lie as in the checkpoint, the rule puts them in another order".to_owned();
        propose(Cause::PartsReordered, how, Ok(source));
    }
    if let Recipe::Joined { join, ops, .. } = &recipe
        && let ("concat", Some(axis)) = (join.op, axis(join))
        && ops.iter().all(|step| step.op == "reshape")
    {
        for order in orders(pieces) {
            let how = format!("its {pieces} parts are in the order {order:?}");
            let parts = order.iter().map(|part| view.pieces()[*part].clone());
            propose(Cause::PartsReordered, how, View::concat(&parts.collect::<Vec<_>>(), axis));
        }
    }
    if let Some(order) = experts(bench, view) {
        let moved: Vec<u64> =
            (0..).zip(&order).filter(|(at, from)| at != *from).map(|(at, _)| at).collect();
        let first = moved.first().copied().unwrap_or(0);
        let how = format!(
            "{} experts are in other places: expert {first} is the rule's {}",
            moved.len(),
            order[first as usize]
        );
        propose(Cause::ExpertsReordered, how, view.gather(0, &order));
    }
    found
}

/// The first stored tensor of a view that has one.
fn stored(view: &View) -> Tensor {
    let sources: Vec<&Tensor> = view.sources().collect();
    sources[0].clone()
}

/// The other parts of as many indices of the axis that a recipe takes a part of, one behind the other
/// and interleaved.
fn other_parts(view: &View, recipe: &Recipe) -> Vec<(String, View)> {
    let Recipe::Single { ops, .. } = recipe else { return Vec::new() };
    let Some(at) = ops.iter().position(|step| step.op == "slice") else { return Vec::new() };
    let source = View::of(&stored(view));
    let (before, after) = (&ops[..at], &ops[at + 1..]);
    let parts = || {
        let whole = source.replay_all(before)?;
        let taken = whole.replay(&ops[at])?.ok()?;
        let axis = axis(&ops[at])?;
        let (all, len) = (whole.shape()[axis], taken.shape()[axis]);
        let count = if len > 0 && all.is_multiple_of(len) { all / len } else { 0 };
        if !(2..=MOST_PARTS).contains(&count) {
            return None;
        }
        let part = |nth: u64| {
            let behind = whole.slice(axis, nth * len..(nth + 1) * len, 1);
            let between = whole.slice(axis, nth..all, count);
            let name = |how: &str| format!("the part is number {nth} of {count}, {how}");
            [(name("one behind the other"), behind), (name("interleaved"), between)]
        };
        let all = (0..count).flat_map(part);
        let rest = all.filter_map(|(how, view)| Some((how, view.ok()?.replay_all(after)?)));
        Some(rest.filter(|(_, other)| other.recipe() != *recipe).collect())
    };
    let rule = &ops[at];
    let parts: Vec<(String, View)> = parts().unwrap_or_default();
    parts.into_iter().map(|(how, view)| (format!("{how}; the rule is {rule}"), view)).collect()
}

/// The rows at the other ends, where a recipe cuts rows.
fn other_rows(view: &View, recipe: &Recipe) -> Vec<(String, View)> {
    let Recipe::Single { ops, .. } = recipe else { return Vec::new() };
    let Some(at) = ops.iter().position(|step| step.op == "slice") else { return Vec::new() };
    let (rule, source) = (&ops[at], View::of(&stored(view)));
    let rows = || {
        let whole = source.replay_all(&ops[..at])?;
        let len = *whole.replay(rule)?.ok()?.shape().first()?;
        let all = *whole.shape().first()?;
        // A whole part of several would be another part, not other rows.
        if axis(rule)? != 0 || len == 0 || all.is_multiple_of(len) {
            return None;
        }
        let ends = [(0, "first"), (all - len, "last")];
        let rows = ends.into_iter().filter_map(|(start, which)| {
            let part = whole.slice(0, start..start + len, 1).ok()?.replay_all(&ops[at + 1..])?;
            Some((format!("the {which} {len} of {all} rows; the rule is {rule}"), part))
        });
        Some(rows.filter(|(_, other)| other.recipe() != *recipe).collect())
    };
    rows().unwrap_or_default()
}

/// The cause of a difference in the number of rows: what the shorter side has is the beginning or the end of
/// the longer.
pub fn rows_cut(subject: &Subject) -> Option<Diagnosis> {
    let (r, q) = (subject.r(), subject.q());
    let (&rows, &kept) = (r.shape.first()?, q.shape.first()?);
    let (shared, differ) = (rows.min(kept), rows.abs_diff(kept));
    if r.shape[1..] != q.shape[1..] || shared == 0 || differ == 0 {
        return None;
    }
    [(0, "last"), (differ, "first")].into_iter().find_map(|(start, which)| {
        let start = |all: u64| if all > shared { start } else { 0 };
        let reference = part(subject.reference, r, start(rows)..start(rows) + shared)?;
        let quantized = part(subject.quantized, q, start(kept)..start(kept) + shared)?;
        let at = Matched { reference: 0, quantized: 0 };
        let (reference, quantized) = (&reference, &quantized);
        let of_part = Subject { reference, quantized, at, all: &[], locals: None, twin: None };
        let bench = Bench::new(&of_part)?;
        let score = bench.actual();
        let did = if kept < rows { "are cut off" } else { "are not the reference's" };
        let rule =
            r.view().map_or_else(String::new, |view| format!("; the rule is {}", view.recipe()));
        bench.is_sound(score).then(|| {
            let all = rows.max(kept);
            let why =
                format!("the {which} {differ} of {all} rows {did}: {}{rule}", bench.score(score));
            Diagnosis::certain(Cause::RowsCut, why)
        })
    })
}

/// A model of some rows of a tensor.
fn part(model: &Model, tensor: &Tensor, rows: std::ops::Range<u64>) -> Option<Model> {
    let view = View::of(tensor).slice(0, rows, 1).ok()?;
    let files = model.files.clone();
    let (path, format) = (model.path.clone(), model.format);
    let (loose, metadata) = (Vec::new(), Vec::new());
    let (notes, findings, configuration) = (Vec::new(), Vec::new(), None);
    let tensors = vec![view.into_tensor(&tensor.name)];
    Some(Model { path, format, files, tensors, loose, metadata, notes, findings, configuration })
}

/// The axis of a join or of a slice.
fn axis(join: &Step) -> Option<usize> {
    let (_, axis) = join.args.iter().find(|(name, _)| *name == "axis")?;
    axis.as_u64().map(|axis| axis as usize)
}

/// Every other order of a few parts.
fn orders(parts: usize) -> Vec<Vec<usize>> {
    if !(2..=PARTS).contains(&parts) {
        return Vec::new();
    }
    let mut orders: Vec<Vec<usize>> = vec![Vec::new()];
    for _ in 0..parts {
        let longer = |order: &Vec<usize>| -> Vec<usize> {
            (0..parts).filter(|part| !order.contains(part)).collect()
        };
        orders = orders
            .iter()
            .flat_map(|order| longer(order).into_iter().map(|part| [&order[..], &[part]].concat()))
            .collect();
    }
    orders.retain(|order| !order.is_sorted());
    orders
}

/// The reference's expert in the place of each, if they are all there once and not in order.
fn experts(bench: &Bench, view: &View) -> Option<Vec<u64>> {
    let [experts, rows, cols] = *view.shape() else { return None };
    if !(2..=EXPERTS).contains(&experts) {
        return None;
    }
    let (len, size) = ((rows * cols).min(FINGERPRINT), rows * cols);
    let range = |expert: u64| {
        let start = expert * size + (size - len) / 2 / 256 * 256;
        start..start + len
    };
    let own: Vec<Vec<f32>> =
        (0..experts).map(|expert| bench.reference(range(expert))).collect::<Option<_>>()?;
    let mut order = Vec::new();
    for expert in 0..experts {
        let q = bench.quantized(range(expert))?;
        let scores = own.iter().map(|r| sqnr(r, &q));
        let (from, best) = (0u64..).zip(scores).max_by(|(_, a), (_, b)| a.total_cmp(b))?;
        if !bench.is_sound(best) {
            return None;
        }
        order.push(from);
    }
    let mut all = order.clone();
    all.sort_unstable();
    (!order.is_sorted() && all.into_iter().eq(0..experts)).then_some(order)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::codec::TensorType;
    use crate::diagnose::{Subject, of_values};
    use crate::measure::Matched;
    use crate::metrics::Moments;
    use crate::model::view::Quantizer;
    use crate::model::{Format, Model};

    /// A checkpoint of stacked random values, or of values around one.
    fn checkpoint(shape: &[u64], norm: bool) -> Model {
        let numel: u64 = shape.iter().product();
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let noise = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
            if norm { 0.1 * noise } else { noise }
        };
        let header = format!(
            "{{\"t\":{{\"dtype\":\"F32\",\"shape\":{shape:?},\"data_offsets\":[0,{}]}}}}",
            numel * 4
        );
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.into_bytes());
        bytes.extend((0..numel).map(next).flat_map(f32::to_le_bytes));
        crate::model::from_bytes(Path::new("memory"), bytes).unwrap()
    }

    type Make = fn(&View) -> Result<View, ViewError>;

    /// One case: shape, rule, what the file did, and the cause.
    type Case = (&'static [u64], Make, Make, Option<Cause>, &'static str);

    fn halves(view: &View, first: u64) -> Result<View, ViewError> {
        let half = |part: u64| {
            let rows = view.shape()[0] / 2;
            view.slice(0, part * rows..(part + 1) * rows, 1)
        };
        View::concat(&[half(first)?.add(0.0), half(1 - first)?.add(0.0)], 0)
    }

    fn stack(view: &View, order: &[u64]) -> Result<View, ViewError> {
        let parts: Result<Vec<View>, ViewError> =
            order.iter().map(|expert| view.select(0, *expert)?.transpose(&[1, 0])).collect();
        View::stack(&parts?, 0)
    }

    fn fused(view: &View) -> Result<View, ViewError> {
        view.reshape(&[4, 3, 8, 64])?.transpose(&[1, 0, 2, 3])?.reshape(&[96, 64])
    }

    const CASES: &[Case] = &[
        (&[64, 64], |v| v.permute_qk(4), |v| Ok(v.clone()), Some(Cause::QkNotPermuted), "not"),
        (
            &[64, 64],
            |v| v.permute_qk(4),
            |v| v.permute_qk(4)?.permute_qk(4),
            Some(Cause::QkPermutedTwice),
            "twice",
        ),
        (
            &[64, 64],
            |v| v.permute_qk(4),
            |v| v.permute_qk(2),
            Some(Cause::WrongHeadCount),
            "as two heads",
        ),
        (&[64, 64], |v| v.permute_qk(4), |v| v.permute_qk(4), None, "sound"),
        (&[64], |v| Ok(v.add(1.0)), |v| Ok(v.clone()), Some(Cause::PlusOneMissing), "no one"),
        (
            &[64],
            |v| Ok(v.add(1.0)),
            |v| Ok(v.add(1.0).add(1.0)),
            Some(Cause::PlusOneTwice),
            "two ones",
        ),
        (
            &[64, 64],
            |v| v.transpose(&[1, 0]),
            |v| Ok(v.clone()),
            Some(Cause::NotTransposed),
            "square, as it was",
        ),
        (&[96, 64], fused, |v| Ok(v.clone()), Some(Cause::PartsReordered), "fused, as it was"),
        (
            &[64, 64],
            |v| halves(v, 0),
            |v| halves(v, 1),
            Some(Cause::PartsReordered),
            "the second part first",
        ),
        (
            &[4, 32, 32],
            |v| stack(v, &[0, 1, 2, 3]),
            |v| stack(v, &[0, 3, 2, 1]),
            Some(Cause::ExpertsReordered),
            "two experts exchanged",
        ),
        (
            &[128, 64],
            |v| Ok(v.slice(0, 0..128, 2)?.add(0.0)),
            |v| v.slice(0, 0..64, 1),
            Some(Cause::PartsReordered),
            "a half in place of even rows",
        ),
        (
            &[128, 64],
            |v| Ok(v.slice(0, 0..64, 1)?.mul(0.5)),
            |v| Ok(v.slice(0, 64..128, 1)?.mul(0.5)),
            Some(Cause::PartsReordered),
            "the other half",
        ),
        (&[64], |v| Ok(v.neg_exp()), |v| Ok(v.clone()), Some(Cause::NotFromConfig), "no exp"),
        (
            &[66, 64],
            |v| Ok(v.slice(0, 2..66, 1)?.add(0.0)),
            |v| v.slice(0, 0..64, 1),
            Some(Cause::RowsCut),
            "the last rows cut in place of the first",
        ),
        (
            &[64, 64],
            |v| v.permute_qk(4),
            |v| Ok(v.mul(-1.0)),
            None,
            "what no conversion does is none's fault",
        ),
    ];

    #[test]
    fn rows_that_are_cut_or_added_are_named() {
        let whole = checkpoint(&[64, 64], false);
        let stored = View::of(&whole.tensors[0]);
        let slice = |rows: std::ops::Range<u64>| stored.slice(0, rows, 1).unwrap();
        let cases: [(View, View, Option<&str>); 6] = [
            (slice(0..64), slice(0..60), Some("the last 4 of 64 rows are cut off")),
            (slice(0..64), slice(4..64), Some("the first 4 of 64 rows are cut off")),
            (slice(0..60), slice(0..64), Some("the last 4 of 64 rows are not the reference's")),
            (
                slice(0..60).add(0.0),
                slice(0..60).pad_zero(0, 64).unwrap(),
                Some("the last 4 of 64 rows are not"),
            ),
            (slice(0..64), slice(2..62), None),
            (slice(0..64).mul(-1.0), slice(0..60), None),
        ];
        for ty in [TensorType::F32, TensorType::Q8_0] {
            for (rule, did, expected) in &cases {
                let did = match ty {
                    TensorType::F32 => did.clone(),
                    ty => did.round_trip(ty, Quantizer::Flat).unwrap(),
                };
                let with =
                    |view: View| Model { tensors: vec![view.into_tensor("t")], ..whole.clone() };
                let reference = with(rule.clone());
                let quantized = Model { format: Format::Gguf, ..with(did) };
                let at = Matched { reference: 0, quantized: 0 };
                let subject = Subject {
                    reference: &reference,
                    quantized: &quantized,
                    at,
                    all: &[],
                    locals: None,
                    twin: None,
                };
                let found = crate::diagnose::of_shape(&subject);
                match (expected, &found) {
                    (Some(text), Some(found)) => {
                        assert_eq!(found.cause, Cause::RowsCut);
                        assert!(found.evidence.contains(text), "{found:?} {text}");
                    }
                    (expected, found) => {
                        assert!(expected.is_none() && found.is_none(), "{found:?} {expected:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_a_converter_did_instead_is_named() {
        for (shape, rule, did, expected, why) in CASES {
            for ty in [TensorType::F32, TensorType::Q8_0, TensorType::Q4_0] {
                let norm = shape.len() == 1;
                if norm && ty != TensorType::F32 {
                    continue;
                }
                let model = checkpoint(shape, norm);
                let stored = View::of(&model.tensors[0]);
                let own = rule(&stored).unwrap();
                let other = did(&stored).unwrap().reshape(own.shape()).unwrap();
                let other = match ty {
                    TensorType::F32 => other,
                    ty => other.round_trip(ty, Quantizer::Flat).unwrap(),
                };
                let with =
                    |view: View| Model { tensors: vec![view.into_tensor("t")], ..model.clone() };
                let (reference, quantized) = (with(own), with(other));
                let at = Matched { reference: 0, quantized: 0 };
                let subject = Subject {
                    reference: &reference,
                    quantized: &quantized,
                    at,
                    all: &[at],
                    locals: None,
                    twin: None,
                };
                let bench = Bench::new(&subject).unwrap();
                let found = undone(&bench);
                let cause = found.as_ref().map(|found| found.cause);
                assert_eq!(cause, *expected, "{why} ({ty}): {found:?}");
                if let Some(found) = found {
                    assert_eq!(found.certainty, Certainty::Certain, "{why} ({ty}): {found:?}");
                    let sums = Moments { rr: 1.0, qq: 1.0, ..Moments::default() };
                    let through = of_values(&subject, &sums);
                    assert_eq!(through.map(|it| it.cause), *expected, "{why} ({ty})");
                }
            }
        }
    }
}
