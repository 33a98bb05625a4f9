/*!
qualm: a cargo-test-style regression harness for quantized neural-network weights.

The command line is what most users want; this library is what it is made of. See `ARCHITECTURE.md` for the
rooms and what flows between them.

# Specs as tests of a crate

[`harness!`] runs the specs below a directory under `cargo test` and `cargo nextest`.

# Models

| | |
|---|---|
| [`open`] | a model of any format: its tensors, their types and shapes, its metadata |
| [`compare`] | two models measured: what `qualm diff` prints |
| [`check`] | the verdict on a pair, with causes: what `qualm check` prints |
| [`run`] | a suite of specs: what `contract.json` holds, whose types are in [`record`] |

```
let judged = qualm::check("specs/models/minilm-block0-f16.gguf", "specs/models/minilm-block0-q8_0.gguf")?;
assert!(judged.findings.is_empty(), "{} is damaged", judged.quantized.display());
# Ok::<(), qualm::Error>(())
```

# Tolerances in one's own snapshots

[`ToleranceComparator`] lets the numbers of an insta snapshot move a little.

# Stability

What this page lists follows semantic versioning; before version 1.0, a change of the second number may change it.
The modules that it does not list are the program's own: they are open so that benchmarks, tests and fuzz targets
reach them, and change as they need to. What the command line takes and
prints, exit codes, specs, snapshots and `contract.json` change only with a line in the changelog; exit codes
do not change.
*/

mod api;
mod date;
mod remote;

#[doc(hidden)]
pub mod baseline;
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod codec;
#[doc(hidden)]
pub mod counterpart;
#[doc(hidden)]
pub mod diagnose;
#[doc(hidden)]
pub mod disk;
#[doc(hidden)]
pub mod fault;
#[doc(hidden)]
pub mod gate;
#[doc(hidden)]
pub mod internal;
#[doc(hidden)]
pub mod measure;
#[doc(hidden)]
pub mod metrics;
#[doc(hidden)]
pub mod model;
#[doc(hidden)]
pub mod pairs;
#[doc(hidden)]
pub mod rank;
#[doc(hidden)]
pub mod report;
#[doc(hidden)]
pub mod shown;
#[doc(hidden)]
pub mod spec;
#[doc(hidden)]
pub mod suite;

pub use api::{check, compare, open, run};
pub use baseline::ToleranceComparator;
pub use cli::harness;
pub use model::{Model, ModelError};
pub use pairs::{Comparison, Error, Finding, Judged};

/// What runs and comparisons record: the types of `contract.json`, and causes of damage.
///
/// ```
/// use qualm::record::{Contract, TestOutcome};
///
/// fn failed(contract: &Contract) -> Vec<&str> {
///     let pairs = contract.specs.iter().flat_map(|spec| &spec.pairs);
///     let failed = pairs.flat_map(|pair| &pair.tests).filter(|test| test.outcome == TestOutcome::Failed);
///     failed.map(|test| test.id.as_str()).collect()
/// }
/// assert!(failed(&qualm::run("specs/minilm-roundtrip.toml")?).is_empty());
/// # Ok::<(), qualm::Error>(())
/// ```
pub mod record {
    pub use crate::diagnose::{Cause, Certainty, Diagnosis};
    pub use crate::suite::record::*;
}

/// The `main` of a `harness = false` test: runs the specs below a directory of the package.
///
/// ```no_run
/// // tests/quants.rs
/// qualm::harness!("specs");
/// ```
///
/// See [`harness`](mod@crate::harness).
#[macro_export]
macro_rules! harness {
    ($root:expr) => {
        fn main() -> ::std::process::ExitCode {
            $crate::harness::main($root)
        }
    };
}
