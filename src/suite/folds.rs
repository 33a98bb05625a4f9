/*!
Scales that a quantizer folded out of weights into norms or other weights. The model computes the same, and
nothing is damaged: they are taken out before models are compared, and named where they do not cancel. Columns at
which nothing arrives are left out.
*/

use std::collections::HashMap;

use super::id;
use super::record::{TestKind, TestOutcome, TestRecord};
use crate::model::scheme::{self, Fold};
use crate::model::{Model, ReadError};
use crate::spec::{Pair, Quantized, Resolver};

/// What to write to have them taken out.
const REMEDY: &str = "`unfold = true` in the pair takes them out before comparing";

/// Whether factors in the rows of weights are looked for, which must be estimated: the spec may say not to, a spot
/// check reads no more than it was asked to, and a round trip folds nothing.
fn looks_at_rows(pair: &Pair) -> bool {
    pair.unfold && pair.sample.is_none() && is_file(pair)
}

fn is_file(pair: &Pair) -> bool {
    matches!(pair.quantized, Quantized::File(_))
}

/// Takes folded scales out of the quantized model, where they cancel: those in norms always, others where they are
/// looked for. Returns what was taken out, and what is to be said of tensors whose folds do not cancel.
pub fn unfold(
    reference: &mut Model,
    quantized: &mut Model,
    resolver: &Resolver,
) -> Result<(Vec<String>, HashMap<String, String>), ReadError> {
    let rename = |name: &str| resolver.rename(name);
    let all = looks_at_rows(resolver.pair());
    let find = if all { scheme::folds } else { scheme::into_norms };
    let (folds, broken): (Vec<_>, Vec<_>) =
        find(reference, quantized, &rename)?.into_iter().partition(Fold::cancels);
    scheme::unfold(quantized, &folds, &rename);
    let mut notes = scheme::leave_out_silent(reference, quantized, &rename)?;
    notes.extend(folds.iter().map(|fold| format!("{}: taken out", fold.describe())));
    let by_tensor = scheme::folds_by_tensor(&broken).into_iter();
    let broken = by_tensor.filter_map(|(name, folds)| Some((name, folds.first()?.describe())));
    Ok((notes, broken.collect()))
}

/// Says of tensors that failed that scales were folded into or out of them, if that is so; returns
/// what was found. Tensors are only looked at again if one has failed.
pub fn explain(
    reference: &Model,
    quantized: &Model,
    resolver: &Resolver,
    prefix: &str,
    tests: &mut [TestRecord],
) -> Vec<String> {
    let failed =
        |test: &TestRecord| test.kind == TestKind::Tensor && test.outcome == TestOutcome::Failed;
    // What was looked for is taken out already, and a round trip has nothing to look for.
    let pair = resolver.pair();
    if !is_file(pair) || looks_at_rows(pair) || !tests.iter().any(failed) {
        return Vec::new();
    }
    let rename = |name: &str| resolver.rename(name);
    let Ok(mut folds) = scheme::folds(reference, quantized, &rename) else { return Vec::new() };
    folds.retain(Fold::cancels);
    let by_tensor = scheme::folds_by_tensor(&folds);
    for test in tests.iter_mut().filter(|test| failed(test)) {
        let Some(tensor) = id::tensor(prefix, test.kind, &test.id) else {
            continue;
        };
        let Some(fold) = by_tensor.get(tensor).and_then(|folds| folds.first()) else { continue };
        let reason = test.reason.take().unwrap_or_default();
        test.reason = Some(format!("{}; {REMEDY} ({reason})", fold.describe()));
    }
    folds.iter().map(|fold| format!("{}; {REMEDY}", fold.describe())).collect()
}
