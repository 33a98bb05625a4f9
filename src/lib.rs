/*!
qualm: a cargo-test-style regression harness for quantized neural-network weights.

See `ARCHITECTURE.md` for the rooms and what flows between them.
*/

pub mod baseline;
pub mod cli;
pub mod codec;
pub mod counterpart;
pub mod diagnose;
pub mod disk;
pub mod fault;
pub mod gate;
pub mod internal;
pub mod measure;
pub mod metrics;
pub mod model;
pub mod report;
pub mod shown;
pub mod spec;
pub mod suite;

pub use cli::harness;

/// The `main` of a `harness = false` test: runs the specs below a directory of the package.
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
