/*!
Specs: TOML files → a validated suite with source locations.

A [`Spec`] that exists is valid: [`load()`] reports every problem of a file at once, each with its
place. Nothing here opens a model.
*/

mod bound;
mod diagnostic;
mod discover;
mod file;
mod integrity;
mod judge;
mod keys;
mod load;
mod location;
mod pair;
mod pattern;
mod read;
mod read_pair;
mod read_parts;
mod read_rules;
mod resolve;
mod schema;
mod table;
mod template;
#[cfg(test)]
mod tests;
mod usage;
mod values;

pub use crate::date::Date;
pub use bound::{Bound, Bounds, Thresholds};
pub use diagnostic::{Diagnostic, Severity, SpecErrors};
pub use discover::{DiscoverError, below, discover, spec_name as name};
pub use file::{Granularity, LoadOptions, Spec, Tolerance};
pub use integrity::{ByDefault, Gate, Integrity, Setting};
pub use judge::{Effective, Judgement, Origin};
pub use load::{load, load_all, parse};
pub use location::{Located, Location, Source};
pub use pair::{
    Apply, BitsPerWeight, Companions, Group, MapChoice, ModelPath, Pair, QtypeRule, Quantized,
    Rename, Rule, Scheme, Skip, Survivor, Transform, Waiver,
};
pub use pattern::{GlobError, Globs, Pattern, glob_to_regex};
pub use resolve::{Resolver, Tensor};
pub use schema::{SCHEMA, schema};
pub use usage::Usage;
