/*!
The run: ids, selection, the loop over pairs, and the record of what came out.
*/

pub mod exit;
pub mod obligations;
pub mod record;
mod rows;
pub mod select;

pub use rows::{finding_record, global_row, model_record, sort_rows, tensor_row};
