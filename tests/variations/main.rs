/*!
Variations of the kinds of published checkpoints in `tests/data/field-reports`, numbered as there: other
names, shapes, types and spellings. Each kind has one table of runs that are right and of damaged
counterparts that fail, and says its number in its first line.
*/
// Tables are long, and their rows are of many parts.
#![allow(clippy::type_complexity, clippy::too_many_lines)]

mod causes;
mod directories;
mod experts;
mod factors;
mod files_of;
#[path = "../forge/mod.rs"]
mod forge;
mod layouts;
mod made;
mod messages;
mod planes;
#[path = "../end_to_end/program.rs"]
#[allow(dead_code)]
mod program;
mod slips;
mod table;
