/*!
What a converter did to tensors on purpose, done to the reference as well, so that only damage is left.
*/

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::model::{
    Model, OwnGrid, Plane, PlaneFinding, ReadError, Scratch, SourceFile, Storage, Tensor, Weight,
    scheme,
};
use crate::spec::{Apply, Resolver};

/// Applies what the spec says the converter did; returns what could not be applied, and why.
pub fn transform(reference: &mut Model, quantized: &mut Model, resolver: &Resolver) -> Vec<String> {
    let mut problems = Vec::new();
    let mut folds = BTreeMap::new();
    for tensor in &mut reference.tensors {
        let Some(transform) = resolver.tensor(&tensor.name).transform() else { continue };
        match &transform.apply {
            Apply::PlusOne => wrap(tensor, Change::PlusOne),
            Apply::RopePermute { heads } => match rope(tensor, *heads) {
                Ok(change) => wrap(tensor, change),
                Err(problem) => problems.push(format!("{}: {problem}", tensor.name)),
            },
            Apply::Fold { norm } => {
                let consumers: &mut Vec<String> = folds.entry(norm.clone()).or_default();
                if tensor.name != *norm {
                    consumers.push(tensor.name.clone());
                }
            }
        }
    }
    for (norm, consumers) in folds {
        let rename = |name: &str| resolver.rename(name);
        match scheme::declared(reference, quantized, &rename, &norm, consumers) {
            Ok(fold) => scheme::unfold(quantized, &[fold], &rename),
            Err(problem) => problems.push(format!("{norm}: {problem}")),
        }
    }
    problems
}

fn wrap(tensor: &mut Tensor, change: Change) {
    let source = tensor.clone();
    tensor.storage = Storage::Joined(Arc::new(Changed { planes: planes(&source), source, change }));
}

fn planes(tensor: &Tensor) -> Vec<Plane> {
    match &tensor.storage {
        Storage::Plain { ty, at } => {
            vec![Plane { name: tensor.name.clone(), ty: *ty, shape: tensor.shape.clone(), at: *at }]
        }
        Storage::Joined(weight) => weight.planes().to_vec(),
        Storage::Undecodable { .. } => Vec::new(),
    }
}

/// A change of a tensor's values.
#[derive(Clone, Debug)]
enum Change {
    /// 1 is added to each.
    PlusOne,
    /// Rows go from the half-split rotary order to the interleaved one; the head's length in rows,
    /// and elements of a row.
    Rope { head: u64, row_len: u64 },
}

/// llama.cpp's order of query and key rows: `row[h·d + 2j + t] = source[h·d + t·(d/2) + j]`.
fn rope(tensor: &Tensor, heads: u64) -> Result<Change, String> {
    let rows = *tensor.shape.first().ok_or("a scalar has no rows to permute")?;
    if heads == 0 || !rows.is_multiple_of(heads) || !(rows / heads).is_multiple_of(2) {
        return Err(format!("{rows} rows are not {heads} heads of an even length"));
    }
    Ok(Change::Rope { head: rows / heads, row_len: tensor.numel() / rows.max(1) })
}

/// A tensor, changed as it is decoded.
#[derive(Clone, Debug)]
struct Changed {
    source: Tensor,
    planes: Vec<Plane>,
    change: Change,
}

impl Weight for Changed {
    fn scheme(&self) -> &str {
        self.source.qtype()
    }

    fn planes(&self) -> &[Plane] {
        &self.planes
    }

    fn decode(
        &self,
        files: &[SourceFile],
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        match &self.change {
            Change::PlusOne => {
                self.source.decode(files, range, scratch, values)?;
                for value in values.iter_mut() {
                    *value += 1.0;
                }
            }
            Change::Rope { head, row_len } => {
                let mut at = range.start;
                while at < range.end {
                    let (row, column) = (at / row_len, at % row_len);
                    let len = (row_len - column).min(range.end - at);
                    let (first, within) = (row / head * head, row % head);
                    let source = first + within % 2 * (head / 2) + within / 2;
                    let start = source * row_len + column;
                    let from = (at - range.start) as usize;
                    let target = &mut values[from..from + len as usize];
                    self.source.decode(files, start..start + len, scratch, target)?;
                    at += len;
                }
            }
        }
        Ok(())
    }

    fn own_grid(&self) -> Option<OwnGrid> {
        let changed = |source: Tensor| Self { source, ..self.clone() };
        Some(self.source.own_grid()?.map(|end| Tensor {
            storage: Storage::Joined(Arc::new(changed(end))),
            ..self.source.clone()
        }))
    }

    fn check_planes(
        &self,
        files: &[SourceFile],
        scratch: &mut Scratch,
    ) -> Result<Vec<PlaneFinding>, ReadError> {
        match &self.source.storage {
            Storage::Joined(weight) => weight.check_planes(files, scratch),
            _ => Ok(Vec::new()),
        }
    }
}
