/*!
One model alone: non-finite values and digests of what its tensors decode to.
*/

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};

use super::plan::CHUNK;
use crate::codec::Class;
use crate::model::{Model, ReadError, Scratch, Tensor};

/// What a scan of one tensor found.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Decoded values that are NaN or infinite.
    pub nonfinite: u64,
    /// SHA-256 of the decoded f32 values, little-endian, row-major; lower-case hex. None for
    /// integers and booleans, which are not decoded, and if it was not asked for.
    pub decoded_sha256: Option<String>,
}

/// Scans every tensor of `model`, in its order, on `threads` threads.
pub fn scan(model: &Model, digest: bool, threads: usize) -> Vec<Result<Scan, ReadError>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(vec![Ok(Scan::default()); model.tensors.len()]);
    let work = || {
        let (mut scratch, mut values) = (Scratch::default(), Vec::new());
        while let Some((index, tensor)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            model.tensors.get(index).map(|tensor| (index, tensor))
        } {
            let result = scan_tensor(model, tensor, digest, &mut scratch, &mut values);
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
    digest: bool,
    scratch: &mut Scratch,
    values: &mut Vec<f32>,
) -> Result<Scan, ReadError> {
    if tensor.class() == Class::Exact {
        return Ok(Scan::default());
    }
    let numel = tensor.numel();
    let mut hasher = Sha256::new();
    let mut bytes = Vec::new();
    let mut found = Scan::default();
    let mut start = 0;
    while start < numel {
        let end = (start + CHUNK).min(numel);
        values.resize((end - start) as usize, 0.0);
        tensor.decode(&model.files, start..end, scratch, values)?;
        found.nonfinite += values.iter().filter(|value| !value.is_finite()).count() as u64;
        if digest {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            hasher.update(&bytes);
        }
        start = end;
    }
    found.decoded_sha256 = digest.then(|| crate::model::hex(&hasher.finalize()));
    Ok(found)
}
