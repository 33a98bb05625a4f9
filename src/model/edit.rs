/*!
Bytes of a file that are changed as they are read: what a damaged file would hold, without a copy.
*/

use std::fmt;
use std::sync::Arc;

/// A change of a stretch of a file.
#[derive(Clone)]
pub struct Edit {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// What is done to them.
    pub change: Change,
}

/// Changes one unit, given its number; the last unit may be cut short.
type EditUnit = dyn Fn(u64, &mut [u8]) + Send + Sync;

/// What is done to a stretch.
#[derive(Clone)]
pub enum Change {
    /// Each unit of so many bytes goes through a function.
    Units(u64, Arc<EditUnit>),
    /// The bytes come from another place of the same file.
    From(u64),
    /// They are not there: to read one of them fails, as behind the end of a file.
    Cut,
}

impl Change {
    /// Units of `len` bytes, each with its number, through `edit`.
    pub fn units(len: usize, edit: impl Fn(u64, &mut [u8]) + Send + Sync + 'static) -> Self {
        Self::Units(len.max(1) as u64, Arc::new(edit))
    }
}

impl fmt::Debug for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = match &self.change {
            Change::Units(len, _) => format!("units of {len} bytes"),
            Change::From(offset) => format!("bytes from {offset}"),
            Change::Cut => "cut".to_owned(),
        };
        write!(f, "Edit({} bytes at {}, {change})", self.len, self.offset)
    }
}
