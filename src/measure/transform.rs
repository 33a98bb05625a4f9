/*!
What a converter did to tensors on purpose, done to the reference as well, so that only damage is left.
*/

use std::ops::Range;
use std::sync::Arc;

use crate::model::{
    Model, Plane, PlaneFinding, ReadError, Scratch, SourceFile, Storage, Tensor, Weight,
};
use crate::spec::{Apply, Resolver};

/// Applies what the spec says the converter did; returns what could not be applied, and why.
pub fn transform(reference: &mut Model, quantized: &mut Model, resolver: &Resolver) -> Vec<String> {
    let mut problems = Vec::new();
    let mut folds = Vec::new();
    for tensor in &mut reference.tensors {
        let Some(transform) = resolver.tensor(&tensor.name).transform() else { continue };
        match &transform.apply {
            Apply::PlusOne => wrap(tensor, Change::PlusOne),
            Apply::RopePermute { heads } => match rope(tensor, *heads) {
                Ok(change) => wrap(tensor, change),
                Err(problem) => problems.push(format!("{}: {problem}", tensor.name)),
            },
            Apply::Fold { norm } => folds.push((tensor.name.clone(), norm.clone())),
        }
    }
    for (name, norm) in folds {
        if let Err(problem) = unfold(reference, quantized, resolver, &name, &norm) {
            problems.push(format!("{name}: {problem}"));
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
#[derive(Debug)]
enum Change {
    /// 1 is added to each.
    PlusOne,
    /// Rows go from the half-split rotary order to the interleaved one; the head's length in rows,
    /// and elements of a row.
    Rope { head: u64, row_len: u64 },
    /// Each column is divided by its factor.
    Columns { factors: Vec<f32> },
}

/// llama.cpp's order of query and key rows: `row[h·d + 2j + t] = source[h·d + t·(d/2) + j]`.
fn rope(tensor: &Tensor, heads: u64) -> Result<Change, String> {
    let rows = *tensor.shape.first().ok_or("a scalar has no rows to permute")?;
    if heads == 0 || !rows.is_multiple_of(heads) || !(rows / heads).is_multiple_of(2) {
        return Err(format!("{rows} rows are not {heads} heads of an even length"));
    }
    Ok(Change::Rope { head: rows / heads, row_len: tensor.numel() / rows.max(1) })
}

/// Divides the columns of a weight by what its norm was divided by: `s = norm / folded norm`. The
/// norm itself is then the reference's by definition.
fn unfold(
    reference: &Model,
    quantized: &mut Model,
    resolver: &Resolver,
    name: &str,
    norm: &str,
) -> Result<(), String> {
    let in_reference = |name: &str| reference.tensors.iter().find(|tensor| tensor.name == name);
    let in_quantized =
        |name: &str| quantized.tensors.iter().position(|it| resolver.rename(&it.name) == name);
    let original =
        in_reference(norm).ok_or_else(|| format!("the reference has no norm {norm:?}"))?;
    let folded =
        in_quantized(norm).ok_or_else(|| format!("there is no quantized norm {norm:?}"))?;
    let target = in_quantized(name).ok_or("the quantized model does not hold it")?;
    let read = |model: &Model, tensor: &Tensor| {
        let mut values = vec![0.0; tensor.numel() as usize];
        tensor
            .decode(&model.files, 0..tensor.numel(), &mut Scratch::default(), &mut values)
            .map(|()| values)
            .map_err(|error| error.to_string())
    };
    // A norm is one row: it is small, or it is no norm.
    if original.numel() > 1 << 20 || original.numel() != quantized.tensors[folded].numel() {
        return Err(format!("{norm:?} is no norm of one length on both sides"));
    }
    let original = read(reference, original)?;
    let folded = read(quantized, &quantized.tensors[folded])?;
    let factors: Vec<f32> = original.iter().zip(&folded).map(|(r, q)| r / q).collect();
    if factors.iter().any(|factor| !factor.is_finite() || *factor == 0.0) {
        return Err(format!("the factors that {norm:?} was divided by are not all finite"));
    }
    let tensor = &mut quantized.tensors[target];
    let columns = *tensor.shape.last().unwrap_or(&0);
    if columns != factors.len() as u64 {
        return Err(format!("it has {columns} columns, {norm:?} {} values", factors.len()));
    }
    let change = if name == norm {
        // norm / s, undone.
        Change::Columns { factors: factors.iter().map(|factor| 1.0 / factor).collect() }
    } else {
        Change::Columns { factors }
    };
    wrap(tensor, change);
    Ok(())
}

/// A tensor, changed as it is decoded.
#[derive(Debug)]
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
                values.iter_mut().for_each(|value| *value += 1.0);
            }
            Change::Columns { factors } => {
                let columns = factors.len() as u64;
                self.source.decode(files, range.clone(), scratch, values)?;
                for (at, value) in (range.start..).zip(values) {
                    *value /= factors[(at % columns) as usize];
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
