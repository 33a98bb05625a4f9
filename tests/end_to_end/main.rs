/*!
The program from the outside: what it prints, what it writes, how it exits.
*/

mod baselines;
mod checkpoints;
mod converted;
mod diff;
mod fail_closed;
#[path = "../forge/mod.rs"]
mod forge;
mod golden;
mod hostile;
mod layouts;
mod many;
mod metrics;
mod own_books;
mod packings;
mod places;
mod program;
mod published;
mod reports;
mod robust;
mod sampled;
mod sparse;
mod spec_keys;
mod thousand;
mod vectors;
mod verify;
