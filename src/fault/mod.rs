/*!
Faults put into a sound pair of models, to see whether the gates of its spec notice.

Everything happens in memory: a mutant shares the open files, and its bytes or values are changed as
they are read. One table ([`FAULTS`]) lists the faults.
*/

mod blocks;
mod inject;
mod stored;
mod table;
mod values;

pub use inject::{ATTEMPTS, Injected, Models, Reach, Site, inject};
pub use table::{FAULTS, Fault, FaultInfo, NAMES, Scope, markdown_table};
