/*!
Code books of vectors: read once, widened, and kept by the thread for its next chunks.
*/

use std::sync::atomic::{AtomicU64, Ordering};

use super::grid::numbers;
use crate::codec::TensorType;
use crate::model::{Extent, ReadError, Scratch, SourceFile};

/// Most numbers of one book: far more than any tool writes.
const LARGEST: u64 = 1 << 24;

/// Books that a thread keeps.
const KEPT: usize = 4;

/// The next book's number.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Where a code book lies.
#[derive(Clone, Debug)]
pub struct Book {
    id: u64,
    at: Extent,
    ty: TensorType,
    len: usize,
}

/// The numbers of a code book.
#[derive(Debug, Default)]
pub struct Loaded {
    id: u64,
    /// In the order in which they are stored.
    pub values: Vec<f32>,
}

impl Book {
    /// A book of `len` numbers at the beginning of an extent that is known to hold them.
    pub fn new(at: Extent, ty: TensorType, len: u64) -> Result<Self, String> {
        if len > LARGEST {
            return Err(format!("has {len} numbers, more than any tool writes"));
        }
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { id, at, ty, len: len as usize })
    }

    /// Takes the book out of the thread's store, or reads it.
    pub fn take(&self, files: &[SourceFile], scratch: &mut Scratch) -> Result<Loaded, ReadError> {
        if let Some(place) = scratch.books.iter().position(|book| book.id == self.id) {
            return Ok(scratch.books.remove(place));
        }
        let mut book =
            if scratch.books.len() < KEPT { None } else { scratch.books.pop() }.unwrap_or_default();
        book.values.resize(self.len, 0.0);
        numbers(files, self.at, self.ty, 0, &mut book.values, scratch)?;
        book.id = self.id;
        Ok(book)
    }
}

impl Loaded {
    /// Gives the book back to the thread's store.
    pub fn give_back(self, scratch: &mut Scratch) {
        scratch.books.insert(0, self);
    }
}
