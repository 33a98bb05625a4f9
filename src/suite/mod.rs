/*!
The run: ids, selection, the loop over pairs, and the record of what came out.
*/

mod alone;
pub mod baseline;
pub mod blob;
pub mod exit;
mod experts;
pub mod falsify;
mod folds;
pub mod id;
mod judge;
mod listing;
pub mod merge;
pub mod obligations;
pub mod plan;
pub mod record;
mod rows;
mod run;
mod sample;
pub mod schedulers;
pub mod select;
pub mod shard;
pub mod swapped;
mod verdict;

pub use judge::SPEC_CHECK;
pub use rows::{finding_record, global_row, model_record, sort_rows, tensor_row};
pub use run::{Listener, Options, Silent, run};
pub use verdict::is_internal;
