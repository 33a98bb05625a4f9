/*!
A cursor over a file's header, read in bounded pieces.

Every number that a header claims is held against the bytes that are left in the file before
anything is skipped, kept or allocated. What was consumed is digested on the way.
*/

use sha2::{Digest, Sha256};

use crate::model::file::hex;
use crate::model::{FileFault, ModelError, SourceFile};

/// Bytes read from the file at a time; no single take may be longer.
const WINDOW: usize = 64 << 10;

/// Reads little-endian values of a header, one after the other.
pub struct HeaderReader<'a> {
    source: &'a SourceFile,
    window: Vec<u8>,
    /// Position in the file of the window's first byte.
    window_at: u64,
    position: u64,
    digest: Sha256,
    /// Digest of the value being read, if somebody asked for it.
    tap: Option<Sha256>,
}

macro_rules! numbers {
    ($($name:ident)*) => {$(
        /// Reads one little-endian number.
        pub fn $name(&mut self, what: &str) -> Result<$name, ModelError> {
            let mut bytes = [0; size_of::<$name>()];
            bytes.copy_from_slice(self.take(size_of::<$name>(), what)?);
            Ok($name::from_le_bytes(bytes))
        }
    )*};
}

impl<'a> HeaderReader<'a> {
    /// A cursor at the file's first byte.
    pub fn new(source: &'a SourceFile) -> Self {
        Self {
            source,
            window: Vec::new(),
            window_at: 0,
            position: 0,
            digest: Sha256::new(),
            tap: None,
        }
    }

    /// Position of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes from the cursor to the file's end.
    pub fn remaining(&self) -> u64 {
        self.source.len - self.position
    }

    /// A problem at the cursor.
    pub fn error(&self, problem: impl Into<String>) -> ModelError {
        ModelError::new(&self.source.path, problem).at(self.position)
    }

    /// The next `len` bytes, at most [`WINDOW`] of them.
    pub fn take(&mut self, len: usize, what: &str) -> Result<&[u8], ModelError> {
        self.need(len as u64, what)?;
        let in_window = (self.position - self.window_at) as usize;
        if self.window.len() < in_window + len {
            self.refill()?;
        }
        let start = (self.position - self.window_at) as usize;
        let bytes = self
            .window
            .get(start..start + len)
            .ok_or_else(|| self.error(format!("{what} is longer than {WINDOW} bytes")))?;
        self.digest.update(bytes);
        if let Some(tap) = &mut self.tap {
            tap.update(bytes);
        }
        self.position += len as u64;
        Ok(bytes)
    }

    /// Passes over `len` bytes, digesting them.
    pub fn skip(&mut self, len: u64, what: &str) -> Result<(), ModelError> {
        self.need(len, what)?;
        let mut left = len;
        while left > 0 {
            let piece = left.min(WINDOW as u64);
            self.take(piece as usize, what)?;
            left -= piece;
        }
        Ok(())
    }

    numbers! { u8 i8 u16 i16 u32 i32 u64 i64 f32 f64 }

    /// Reads a count, which ggml stores as a signed 64-bit number, and refuses one whose items,
    /// of `item_bytes` at least, could not fit into the rest of the file.
    pub fn count(&mut self, item_bytes: u64, what: &str) -> Result<u64, ModelError> {
        let at = self.position;
        let count = self.u64(what)?;
        if count > i64::MAX as u64 {
            let problem = format!("{what} is negative ({})", count as i64);
            return Err(self.error(problem).at(at));
        }
        if count > self.remaining() / item_bytes {
            let problem = format!(
                "{what} is {count}, but the {} bytes that are left in the file hold {} at most: \
                 the file is truncated or its header is wrong",
                self.remaining(),
                self.remaining() / item_bytes
            );
            return Err(self.error(problem).at(at).because(FileFault::Truncated));
        }
        Ok(count)
    }

    /// Reads the length of a string and refuses one that is over `limit` or past the file's end.
    pub fn string_len(&mut self, limit: u64, what: &str) -> Result<u64, ModelError> {
        let at = self.position;
        let len = self.u64(what)?;
        if len > self.remaining() {
            let problem = format!(
                "{what} claims {len} bytes, but the file has {} left: \
                 it is truncated or its header is wrong",
                self.remaining()
            );
            return Err(self.error(problem).at(at).because(FileFault::Truncated));
        }
        if len > limit {
            let problem = format!("{what} claims {len} bytes, over the limit of {limit}");
            return Err(self.error(problem).at(at));
        }
        Ok(len)
    }

    /// Reads a name (a key, a tensor's name): UTF-8, not empty, less than 64 KiB.
    pub fn name(&mut self, what: &str) -> Result<String, ModelError> {
        let len = self.string_len(0xFFFF, what)?;
        let at = self.position;
        if len == 0 {
            return Err(self.error(format!("{what} is empty")));
        }
        let bytes = self.take(len as usize, what)?.to_vec();
        String::from_utf8(bytes).map_err(|e| {
            let lossy = String::from_utf8_lossy(e.as_bytes()).into_owned();
            let bad = at + e.utf8_error().valid_up_to() as u64;
            self.error(format!("{what} is not UTF-8: {lossy:?}")).at(bad)
        })
    }

    /// Begins a digest of what is read from here on.
    pub fn begin_digest(&mut self) {
        self.tap = Some(Sha256::new());
    }

    /// Ends the digest begun last: lower-case hex of its SHA-256.
    pub fn end_digest(&mut self) -> String {
        hex(&self.tap.take().unwrap_or_default().finalize())
    }

    /// Lower-case hex of the SHA-256 of everything before the cursor.
    pub fn finish(self) -> String {
        hex(&self.digest.finalize())
    }

    fn need(&self, len: u64, what: &str) -> Result<(), ModelError> {
        if len <= self.remaining() {
            return Ok(());
        }
        Err(self
            .error(format!(
                "the file ends inside its header: {what} needs {len} bytes, {} are left; \
             it is truncated",
                self.remaining()
            ))
            .because(FileFault::Truncated))
    }

    /// Moves the window so that it begins at the cursor.
    fn refill(&mut self) -> Result<(), ModelError> {
        let len = self.remaining().min(WINDOW as u64) as usize;
        self.window.resize(len, 0);
        self.window_at = self.position;
        self.source
            .read_at(self.position, &mut self.window)
            .map_err(|e| ModelError::new(&self.source.path, e.to_string()).at(self.position))
    }
}
