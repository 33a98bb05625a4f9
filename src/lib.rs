/*!
qualm: a cargo-test-style regression harness for quantized neural-network weights.

The command line is what most users want; this library is what it is made of. See `ARCHITECTURE.md` for the
rooms and what flows between them.

# Specs as tests of a crate

[`harness!`] runs the specs below a directory under `cargo test` and `cargo nextest`.

# Two models

[`model::open`] takes whatever the command line takes: a file, a directory, an index of shards.
[`measure::pair_up`] finds out which tensors answer to each other, [`measure::measure`] reads both once, and
[`metrics::Metrics`] are what their sums give.

```
use std::path::Path;

use qualm::measure::{Measured, Policy, Progress, measure, pair_up};
use qualm::metrics::Metrics;

let reference = qualm::model::open(Path::new("specs/models/minilm-block0-f16.gguf"))?;
let quantized = qualm::model::open(Path::new("specs/models/minilm-block0-q8_0.gguf"))?;

let pairing = pair_up(&reference, &quantized, &Policy::STRICT);
assert!(pairing.findings.is_empty(), "a tensor is missing, superfluous or of another shape");

for measured in measure(&reference, &quantized, &pairing.matched, 2, &Progress::default()) {
    let Measured::Values { sums, .. } = measured else { panic!("integers, or unreadable") };
    assert!(Metrics::from_moments(&sums).is_some_and(|metrics| metrics.cosine > 0.9999));
}
# Ok::<(), qualm::model::ModelError>(())
```

# Tolerances in one's own snapshots

[`baseline::ToleranceComparator`] lets the numbers of an insta snapshot move a little.

# Stability

Before version 1.0, a change of the second number may change the library. What the command line takes and
prints, exit codes, specs, snapshots and `contract.json` change only with a line in the changelog; exit codes
do not change.
*/

pub mod baseline;
pub mod cli;
pub mod codec;
pub mod counterpart;
mod date;
pub mod diagnose;
pub mod disk;
pub mod fault;
pub mod gate;
pub mod internal;
pub mod measure;
pub mod metrics;
pub mod model;
pub mod rank;
mod remote;
pub mod report;
pub mod shown;
pub mod spec;
pub mod suite;

pub use cli::harness;

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
