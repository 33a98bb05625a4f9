/*!
Snapshot baselines: what a pair measured when a person last said "so be it".

A baseline is one file in insta's format. [`Snapshot`] reads and writes it, [`compare()`] says how a
new measurement moved against it, [`Store`] decides what is written where, [`Places`] finds what is
pending, [`accept`], [`reject`] and [`review()`] are what people do about it, and
[`ToleranceComparator`] gives the same tolerance to users' own insta tests.
*/

mod artefact;
mod comparator;
mod compare;
mod environment;
mod error;
mod file;
mod header;
mod measurement;
mod name;
mod pending;
mod prompt;
mod prune;
mod review;
#[cfg(test)]
mod sample;
mod search;
mod snapshot;
mod store;
mod table;

pub use comparator::ToleranceComparator;
pub use compare::{
    Comparison, MetricMove, Move, Structure, TensorComparison, Tolerance, Tolerances, Trend,
    compare,
};
pub use environment::{Environment, Update, in_ci};
pub use error::BaselineError;
pub use file::write_atomically;
pub use header::Header;
pub use measurement::{Entry, Global, Measurement, Values};
pub use name::file_stem;
pub use pending::{Origin, Pending, Places, select};
pub use prompt::{Tally, how_to_act, review};
pub use prune::{Pruned, References, prune};
pub use review::{Accept, Reviewed, accept, list_json, list_text, reject};
pub use snapshot::{SCHEMA, Snapshot};
pub use store::{Action, Decision, Policy, Request, Status, Store, Write, act};
