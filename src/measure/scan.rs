/*!
One model alone: non-finite values, zeros and digests of what its tensors decode to.
*/

use sha2::{Digest, Sha256};

use super::parallel::in_parallel;
use super::plan::CHUNK;
use super::stream::Progress;
use crate::codec::Class;
use crate::model::{Model, ReadError, Scratch, Storage, Tensor};

/// What a scan of one tensor found.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Decoded values that are NaN or infinite; none if the values were not looked at.
    pub nonfinite: Option<u64>,
    /// Rows without a value other than zero, and all rows.
    pub zero_rows: (u64, u64),
    /// Of stacks of matrices: outermost slices without a value other than zero, and all slices. Of a
    /// matrix or vector: itself.
    pub zero_slices: (u64, u64),
    /// SHA-256 of the decoded f32 values, little-endian, row-major; lower-case hex. None for
    /// integers and booleans, which are not decoded, and if it was not asked for.
    pub decoded_sha256: Option<String>,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What was read when the model was opened; a tensor that cannot be decoded is an error.
    Headers,
    /// The values.
    Values,
    /// The values, and their digest is made.
    Digests,
}

/// Scans `tensors` of `model`, in their order, on `threads` threads.
pub fn scan(
    model: &Model,
    tensors: &[&Tensor],
    depth: Depth,
    threads: usize,
    progress: &Progress,
) -> Vec<Result<Scan, ReadError>> {
    if depth != Depth::Headers {
        model.announce(0, tensors.iter().copied());
        progress.expect(tensors.iter().map(|tensor| tensor.stored_bytes()));
    }
    let buffers = || (Scratch::default(), Vec::new());
    in_parallel(tensors.len(), threads, buffers, |index, (scratch, values)| {
        scan_tensor(model, tensors[index], depth, (scratch, values), progress)
    })
}

fn scan_tensor(
    model: &Model,
    tensor: &Tensor,
    depth: Depth,
    (scratch, values): (&mut Scratch, &mut Vec<f32>),
    progress: &Progress,
) -> Result<Scan, ReadError> {
    let decodable = !matches!(tensor.storage, Storage::Undecodable { .. });
    if depth == Depth::Headers && decodable {
        return Ok(Scan::default());
    }
    if tensor.class() == Class::Exact {
        return Ok(Scan { nonfinite: Some(0), ..Scan::default() });
    }
    let digest = depth == Depth::Digests;
    let numel = tensor.numel();
    let mut hasher = Sha256::new();
    let mut bytes = Vec::new();
    let mut nonfinite = 0;
    let mut zeros = Zeros::of(&tensor.shape);
    let mut start = 0;
    while start < numel {
        let end = (start + CHUNK).min(numel);
        values.resize((end - start) as usize, 0.0);
        tensor.decode(&model.files, start..end, scratch, values)?;
        zeros.add(values);
        nonfinite += values.iter().filter(|value| !value.is_finite()).count() as u64;
        if digest {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            hasher.update(&bytes);
        }
        progress.decoded(tensor, end - start);
        start = end;
    }
    let decoded_sha256 = digest.then(|| crate::model::hex(&hasher.finalize()));
    Ok(Scan {
        nonfinite: Some(nonfinite),
        zero_rows: (zeros.rows.empty, zeros.rows.all),
        zero_slices: (zeros.slices.empty, zeros.slices.all),
        decoded_sha256,
    })
}

/// Parts of equal length that a tensor is cut into, and those that are zero so far.
struct Parts {
    /// Elements of a part.
    len: u64,
    all: u64,
    empty: u64,
    /// Elements of the current part that were seen, and whether all were zero.
    seen: u64,
    zero: bool,
}

impl Parts {
    fn of(len: u64, numel: u64) -> Self {
        let all = numel.checked_div(len).unwrap_or(0);
        Self { len, all, empty: 0, seen: 0, zero: true }
    }

    /// The elements that follow.
    fn add(&mut self, mut values: &[f32]) {
        while !values.is_empty() && self.len > 0 {
            let room = usize::try_from(self.len - self.seen).unwrap_or(usize::MAX);
            let (part, rest) = values.split_at(room.min(values.len()));
            self.zero = self.zero && part.iter().all(|value| *value == 0.0);
            self.seen += part.len() as u64;
            if self.seen == self.len {
                self.empty += u64::from(self.zero);
                (self.seen, self.zero) = (0, true);
            }
            values = rest;
        }
    }
}

/// Rows and slices that are zero.
struct Zeros {
    rows: Parts,
    slices: Parts,
}

impl Zeros {
    fn of(shape: &[u64]) -> Self {
        // The product was checked when the model was opened.
        let product =
            |extents: &[u64]| if extents.contains(&0) { 0 } else { extents.iter().product() };
        let numel = product(shape);
        let row = shape.last().copied().unwrap_or(1);
        let slice = if shape.len() > 2 { product(&shape[1..]) } else { numel };
        Self { rows: Parts::of(row, numel), slices: Parts::of(slice, numel) }
    }

    fn add(&mut self, values: &[f32]) {
        self.rows.add(values);
        self.slices.add(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_rows_and_slices_whatever_the_pieces() {
        let values = [0.0, 0.0, 0.0, -0.0, 1.0, 0.0, 0.0, 0.0];
        for (shape, rows, slices, why) in [
            (&[2, 2, 2][..], (3, 4), (1, 2), "a stack of two"),
            (&[4, 2], (3, 4), (0, 1), "a matrix"),
            (&[8], (0, 1), (0, 1), "a vector"),
        ] {
            for piece in 1..=8 {
                let mut zeros = Zeros::of(shape);
                values.chunks(piece).for_each(|values| zeros.add(values));
                let found =
                    ((zeros.rows.empty, zeros.rows.all), (zeros.slices.empty, zeros.slices.all));
                assert_eq!(found, (rows, slices), "{why}, pieces of {piece}");
            }
        }
    }
}
