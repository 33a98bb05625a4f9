/*!
Snapshot baselines: what a pair measured when a person last said "so be it".

A baseline is one file in insta's format. [`Snapshot`] reads and writes it, [`compare`] says how a
new measurement moved against it, [`Store`] decides what is written where, [`Review`] lets people
accept or reject what is pending, and [`ToleranceComparator`] gives the same tolerance to users'
own insta tests.
*/

mod compare;
mod environment;
mod error;
mod file;
mod header;
mod measurement;
mod name;
mod snapshot;
mod store;

pub use compare::{
    Comparison, MetricMove, Move, Structure, TensorComparison, Tolerance, Tolerances, Trend,
    compare,
};
pub use environment::{Environment, Update};
pub use error::BaselineError;
pub use file::write_atomically;
pub use header::Header;
pub use measurement::{Entry, Global, Measurement, Values};
pub use name::file_stem;
pub use snapshot::{SCHEMA, Snapshot};
pub use store::{Action, Decision, Policy, Request, Status, Store, Write, act};
