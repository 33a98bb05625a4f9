/*!
One pass over the matched tensors of two models, over all cores, in constant memory.

Threads take units of work in order and hand in their sums; the sums are folded in the order of the
units, whoever finishes first, so that the result does not depend on the number of threads.
*/

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::plan::{self, Chunk, Cursor, Extent};
use super::{Matched, Pairing};
use crate::codec::Class;
use crate::metrics::{self, Moments, PIECE};
use crate::model::{Model, ReadError, Scratch, SourceFile, Storage, Tensor};

/// Units that may wait for an earlier one before their threads wait too.
const MOST_WAITING: u64 = 64;

/// What the pass found out about one matched tensor.
#[derive(Clone, Debug)]
pub enum Measured {
    /// Float or quantized values, compared as f32.
    Values(Moments),
    /// Integers or booleans, compared bit for bit; the first element that differs, if any.
    Exact {
        /// Index in row-major order.
        first_difference: Option<u64>,
    },
    /// The values of one side could not be read.
    Unreadable {
        /// Which side, and why.
        reason: String,
    },
}

/// Counts what has been done, for a progress display on another thread.
#[derive(Debug, Default)]
pub struct Progress {
    /// Stored bytes read so far, both sides.
    pub bytes: AtomicU64,
}

/// Measures every matched tensor, in the order of `pairing.matched`.
pub fn measure(
    reference: &Model,
    quantized: &Model,
    pairing: &Pairing,
    threads: usize,
    progress: &Progress,
) -> Vec<Measured> {
    let extents: Vec<Extent> = pairing
        .matched
        .iter()
        .map(|matched| {
            let tensor = &reference.tensors[matched.reference];
            Extent { numel: tensor.numel(), row_len: plan::row_len(&tensor.shape) }
        })
        .collect();
    let pass = Pass {
        reference,
        quantized,
        matched: &pairing.matched,
        extents: &extents,
        cursor: Mutex::new(Cursor::new(&extents)),
        fold: Mutex::new(Fold::new(extents.len())),
        folded: Condvar::new(),
        progress,
    };
    // One unit needs one thread; a pair of small models is not worth more.
    let work: u64 = extents.iter().map(|extent| extent.numel.max(1024)).sum();
    let threads = threads.clamp(1, (work / plan::CHUNK + 1).min(1024) as usize);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| pass.work());
        }
        pass.work();
    });
    pass.fold.into_inner().unwrap_or_else(PoisonError::into_inner).results
}

/// What the threads share.
struct Pass<'a> {
    reference: &'a Model,
    quantized: &'a Model,
    matched: &'a [Matched],
    extents: &'a [Extent],
    cursor: Mutex<Cursor<'a>>,
    fold: Mutex<Fold>,
    folded: Condvar,
    progress: &'a Progress,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pass<'_> {
    /// Takes units until none is left.
    fn work(&self) {
        let mut buffers = Buffers::default();
        let mut chunks = Vec::new();
        while let Some(unit) = lock(&self.cursor).next(&mut chunks) {
            let mut parts = Vec::with_capacity(chunks.len());
            for chunk in &chunks {
                parts.push((chunk.job, self.chunk(chunk, &mut buffers)));
            }
            self.hand_in(unit, parts);
        }
    }

    /// Folds a unit's sums when its turn has come.
    fn hand_in(&self, unit: u64, parts: Vec<(usize, Measured)>) {
        let mut fold = lock(&self.fold);
        while unit > fold.next + MOST_WAITING {
            fold = self.folded.wait(fold).unwrap_or_else(PoisonError::into_inner);
        }
        fold.waiting.insert(unit, parts);
        let before = fold.next;
        fold.advance();
        if fold.next != before {
            self.folded.notify_all();
        }
    }

    /// Reads and measures one chunk.
    fn chunk(&self, chunk: &Chunk, buffers: &mut Buffers) -> Measured {
        let matched = self.matched[chunk.job];
        let sides = Sides {
            reference: (&self.reference.tensors[matched.reference], &self.reference.files),
            quantized: (&self.quantized.tensors[matched.quantized], &self.quantized.files),
        };
        let measured = if sides.reference.0.class() == Class::Exact {
            sides.compare(chunk, buffers)
        } else {
            sides.sum(chunk, self.extents[chunk.job].row_len, buffers)
        };
        let share = |tensor: &Tensor| {
            (chunk.range.end - chunk.range.start) as f64 / tensor.numel().max(1) as f64
                * tensor.stored_bytes() as f64
        };
        let bytes = share(sides.reference.0) + share(sides.quantized.0);
        self.progress.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        measured
    }
}

/// Buffers of one thread, kept from chunk to chunk.
#[derive(Default)]
struct Buffers {
    scratch: Scratch,
    reference: Vec<f32>,
    quantized: Vec<f32>,
    reference_bytes: Vec<u8>,
    quantized_bytes: Vec<u8>,
}

type Side<'a> = (&'a Tensor, &'a [SourceFile]);

/// The two tensors of a job.
struct Sides<'a> {
    reference: Side<'a>,
    quantized: Side<'a>,
}

impl Sides<'_> {
    /// Decodes both sides and sums them up, row by row.
    fn sum(&self, chunk: &Chunk, row_len: u64, buffers: &mut Buffers) -> Measured {
        let len = (chunk.range.end - chunk.range.start) as usize;
        buffers.reference.resize(len, 0.0);
        buffers.quantized.resize(len, 0.0);
        for (side, values, role) in [
            (self.reference, &mut buffers.reference, "reference"),
            (self.quantized, &mut buffers.quantized, "quantized"),
        ] {
            let (tensor, files) = side;
            let read = tensor.decode(files, chunk.range.clone(), &mut buffers.scratch, values);
            if let Err(error) = read {
                return unreadable(role, &error);
            }
        }
        let row_len = row_len as usize;
        let mut sums = Moments::default();
        for (r, q) in buffers.reference.chunks(row_len).zip(buffers.quantized.chunks(row_len)) {
            let mut row = Moments::default();
            for (r, q) in r.chunks(PIECE).zip(q.chunks(PIECE)) {
                row.add(&metrics::piece(r, q));
            }
            sums.add(&row);
        }
        Measured::Values(sums)
    }

    /// Compares both sides bit for bit.
    fn compare(&self, chunk: &Chunk, buffers: &mut Buffers) -> Measured {
        for (side, bytes, role) in [
            (self.reference, &mut buffers.reference_bytes, "reference"),
            (self.quantized, &mut buffers.quantized_bytes, "quantized"),
        ] {
            if let Err(error) = read_stored(side, chunk, bytes) {
                return unreadable(role, &error);
            }
        }
        let width = match self.reference.0.storage {
            Storage::Plain { ty, .. } => ty.info().block_bytes,
            _ => 1,
        };
        let pairs = buffers.reference_bytes.iter().zip(&buffers.quantized_bytes);
        let first = pairs.enumerate().find(|(_, (r, q))| r != q).map(|(at, _)| at / width);
        Measured::Exact { first_difference: first.map(|at| chunk.range.start + at as u64) }
    }
}

/// Reads the stored bytes of a chunk of a plain tensor.
fn read_stored(side: Side, chunk: &Chunk, bytes: &mut Vec<u8>) -> Result<(), ReadError> {
    let (tensor, files) = side;
    let Storage::Plain { ty, at } = tensor.storage else {
        return Err(ReadError::Undecodable(format!("{} has no stored integers", tensor.qtype())));
    };
    let width = ty.info().block_bytes as u64;
    bytes.resize(((chunk.range.end - chunk.range.start) * width) as usize, 0);
    files[at.file].read_at(at.offset + chunk.range.start * width, bytes)
}

fn unreadable(role: &str, error: &ReadError) -> Measured {
    Measured::Unreadable { reason: format!("{role}: {error}") }
}

/// Folds the parts of tensors in the order of their units.
struct Fold {
    next: u64,
    waiting: BTreeMap<u64, Vec<(usize, Measured)>>,
    results: Vec<Measured>,
}

impl Fold {
    fn new(jobs: usize) -> Self {
        let nothing = Measured::Values(Moments::default());
        Self { next: 0, waiting: BTreeMap::new(), results: vec![nothing; jobs] }
    }

    fn advance(&mut self) {
        while let Some(parts) = self.waiting.remove(&self.next) {
            for (job, part) in parts {
                let so_far = &mut self.results[job];
                *so_far = join(so_far, part);
            }
            self.next += 1;
        }
    }
}

/// What is known of a tensor after one more of its chunks.
fn join(so_far: &Measured, part: Measured) -> Measured {
    match (so_far, part) {
        (Measured::Unreadable { .. }, _)
        | (Measured::Exact { first_difference: Some(_) }, Measured::Exact { .. }) => so_far.clone(),
        (Measured::Values(sums), Measured::Values(next)) => {
            let mut sums = *sums;
            sums.add(&next);
            Measured::Values(sums)
        }
        (_, part) => part,
    }
}
