/*!
One pass over the matched tensors of two models, over all cores, in constant memory.

Threads take units of work in order and hand in their sums; the sums are folded in the order of the
units, whoever finishes first, so that the result does not depend on the number of threads. Nothing
is allocated once every thread has its buffers.
*/

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::Matched;
use super::cancellation::restore_digits;
use super::fold::{Fold, Outcome};
use super::plan::{self, Chunk, Cursor, Extent};
use super::sides::{Buffers, Sides};
use crate::codec::Class;
use crate::codec::simd::{self, Level};
use crate::metrics::{Locals, Moments};
use crate::model::{Model, Tensor};

/// What the pass found out about one matched tensor.
#[derive(Clone, Debug)]
pub enum Measured {
    /// Float or quantized values, compared as f32.
    Values {
        /// The sums over all elements.
        sums: Moments,
        /// Rows, slices and blocks that stand out.
        locals: Locals,
    },
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
    /// Stored bytes that the pass has to read.
    pub total: AtomicU64,
}

impl Progress {
    /// The stored bytes of all that a pass will read.
    pub fn expect(&self, bytes: impl Iterator<Item = u64>) {
        self.total.store(bytes.fold(0, u64::saturating_add), Ordering::Relaxed);
    }

    /// So many elements of a tensor were decoded.
    pub fn decoded(&self, tensor: &Tensor, elements: u64) {
        let share = elements as f64 / tensor.numel().max(1) as f64;
        let bytes = share * tensor.stored_bytes() as f64;
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Stored bytes of matched tensors, both sides: what a pass over them reads.
pub fn bytes_of(reference: &Model, quantized: &Model, matched: &[Matched]) -> u64 {
    let stored = |matched: &Matched| {
        let reference = reference.tensors[matched.reference].stored_bytes();
        reference.saturating_add(quantized.tensors[matched.quantized].stored_bytes())
    };
    matched.iter().map(stored).fold(0, u64::saturating_add)
}

/// Says what a pass over matched tensors will read, so that it can be fetched beforehand; returns in
/// how many requests, none of files on this machine.
pub fn announce(reference: &Model, quantized: &Model, matched: &[Matched]) -> u64 {
    let r = reference.announce(0, matched.iter().map(|it| &reference.tensors[it.reference]));
    let q = quantized.announce(1, matched.iter().map(|it| &quantized.tensors[it.quantized]));
    (r + q) as u64
}

/// Measures matched tensors, in their order.
pub fn measure(
    reference: &Model,
    quantized: &Model,
    matched: &[Matched],
    threads: usize,
    progress: &Progress,
) -> Vec<Measured> {
    let extents: Vec<Extent> = matched
        .iter()
        .map(|matched| Extent::of(&reference.tensors[matched.reference].shape))
        .collect();
    let pass = Pass {
        reference,
        quantized,
        matched,
        extents: &extents,
        level: simd::current(),
        cursor: Mutex::new(Cursor::new(&extents)),
        fold: Mutex::new(Fold::new(&extents)),
        folded: Condvar::new(),
        progress,
    };
    let threads = threads.clamp(1, plan::most_threads(&extents));
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| pass.work());
        }
        pass.work();
    });
    let mut measured = pass.fold.into_inner().unwrap_or_else(PoisonError::into_inner).results();
    restore_digits(reference, quantized, matched, &mut measured);
    measured
}

/// What the threads share.
struct Pass<'a> {
    reference: &'a Model,
    quantized: &'a Model,
    matched: &'a [Matched],
    extents: &'a [Extent],
    level: Level,
    cursor: Mutex<Cursor<'a>>,
    fold: Mutex<Fold<'a>>,
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
        let mut parts = Vec::new();
        loop {
            let Some(unit) = lock(&self.cursor).next(&mut chunks) else { return };
            for chunk in &chunks {
                parts.push((chunk.job, self.chunk(chunk, &mut buffers)));
            }
            parts = self.hand_in(unit, parts);
        }
    }

    /// Folds a unit's parts when its turn has come; returns an empty vector for the next.
    fn hand_in(&self, unit: u64, parts: Vec<(usize, Outcome)>) -> Vec<(usize, Outcome)> {
        let mut fold = lock(&self.fold);
        while !fold.has_room_for(unit) {
            fold = self.folded.wait(fold).unwrap_or_else(PoisonError::into_inner);
        }
        if fold.take(unit, parts) {
            self.folded.notify_all();
        }
        fold.spare()
    }

    /// Reads and measures one chunk.
    fn chunk(&self, chunk: &Chunk, buffers: &mut Buffers) -> Outcome {
        let matched = self.matched[chunk.job];
        let sides = Sides {
            reference: (&self.reference.tensors[matched.reference], &self.reference.files),
            quantized: (&self.quantized.tensors[matched.quantized], &self.quantized.files),
        };
        let outcome = if sides.reference.0.class() == Class::Exact {
            sides.compare(&chunk.range, buffers)
        } else {
            sides.sum(&chunk.range, self.extents[chunk.job].layout, self.level, buffers)
        };
        for (tensor, _) in [sides.reference, sides.quantized] {
            self.progress.decoded(tensor, chunk.range.end - chunk.range.start);
        }
        outcome.unwrap_or_else(|reason| Outcome::Unreadable { reason })
    }
}
