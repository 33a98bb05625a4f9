/*!
Specs: TOML files → a validated suite with source locations.

A [`Spec`] that exists is valid: [`load`] reports every problem of a file at once, each with its
place. Nothing here opens a model.
*/

mod bound;
mod date;
mod diagnostic;
mod integrity;
mod location;
mod pair;
mod pattern;
mod spec;

pub use bound::{Bound, Bounds, Thresholds};
pub use date::Date;
pub use diagnostic::{Diagnostic, Severity, SpecErrors};
pub use integrity::{Gate, Integrity, Setting};
pub use location::{Located, Location, Source};
pub use pair::{
    Apply, BitsPerWeight, Companions, Group, ModelPath, Pair, QtypeRule, Quantized, Rename, Rule,
    Scheme, Skip, Transform, Waiver,
};
pub use pattern::{GlobError, Globs, Pattern};
pub use spec::{Granularity, LoadOptions, Spec, Tolerance};
