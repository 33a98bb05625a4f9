/*!
One model alone: non-finite values and digests of what its tensors decode to.
*/

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};

use super::plan::CHUNK;
use crate::codec::Class;
use crate::model::{Model, ReadError, Scratch, Storage, Tensor};

/// What a scan of one tensor found.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Decoded values that are NaN or infinite; none if the values were not looked at.
    pub nonfinite: Option<u64>,
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

/// Scans every tensor of `model`, in its order, on `threads` threads.
pub fn scan(model: &Model, depth: Depth, threads: usize) -> Vec<Result<Scan, ReadError>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(vec![Ok(Scan::default()); model.tensors.len()]);
    let work = || {
        let (mut scratch, mut values) = (Scratch::default(), Vec::new());
        while let Some((index, tensor)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            model.tensors.get(index).map(|tensor| (index, tensor))
        } {
            let result = scan_tensor(model, tensor, depth, &mut scratch, &mut values);
            let mut results = results.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            results[index] = result;
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn scan_tensor(
    model: &Model,
    tensor: &Tensor,
    depth: Depth,
    scratch: &mut Scratch,
    values: &mut Vec<f32>,
) -> Result<Scan, ReadError> {
    let decodable = !matches!(tensor.storage, Storage::Undecodable { .. });
    if depth == Depth::Headers && decodable {
        return Ok(Scan::default());
    }
    if tensor.class() == Class::Exact {
        return Ok(Scan { nonfinite: Some(0), decoded_sha256: None });
    }
    let digest = depth == Depth::Digests;
    let numel = tensor.numel();
    let mut hasher = Sha256::new();
    let mut bytes = Vec::new();
    let mut nonfinite = 0;
    let mut start = 0;
    while start < numel {
        let end = (start + CHUNK).min(numel);
        values.resize((end - start) as usize, 0.0);
        tensor.decode(&model.files, start..end, scratch, values)?;
        nonfinite += values.iter().filter(|value| !value.is_finite()).count() as u64;
        if digest {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            hasher.update(&bytes);
        }
        start = end;
    }
    let decoded_sha256 = digest.then(|| crate::model::hex(&hasher.finalize()));
    Ok(Scan { nonfinite: Some(nonfinite), decoded_sha256 })
}
