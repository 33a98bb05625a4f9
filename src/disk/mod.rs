/*!
The one door to files that are not weights: what is read is a regular file within the limit of its
kind; what is written is, at any moment, old or new, and whole.
*/

mod json;
mod marker;
mod read;
mod temporary;
mod write;

pub use json::{Bounded, value};
pub use marker::{Standing, Unfinished, standing};
pub use read::{
    ARCHIVE, BLOB, CONFIGURATION, FALSIFICATION, FileKind, PENDING, RECORD, SNAPSHOT, SPEC,
    STATISTICS, TOKENIZER, append, open, read, read_text,
};
pub use temporary::{clear_on_signals, sweep};
pub use write::{Files, parent, remove_if_present, replace, write_file, write_files};
