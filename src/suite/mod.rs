/*!
The run: ids, selection, the loop over pairs, and the record of what came out.
*/

pub mod record;
