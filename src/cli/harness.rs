/*!
qualm as the harness of a test in a user's own crate, under `cargo test` and `cargo nextest`.

```toml
[[test]]
name = "quants"
harness = false
```

```no_run
// tests/quants.rs
qualm::harness!("specs");
# fn unused() {}
```

One test is one pair, because cargo-nextest starts a process per test; `--granularity tensor` or
`QUALM_GRANULARITY=tensor` makes it a test per tensor.
*/

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::run::{self, Caller};
use super::run_args::RunArgs;
use super::streams;
use crate::codec::simd;
use crate::suite::exit::Exit;

/// The arguments that cargo and cargo-nextest hand to a test binary.
#[derive(Debug, Parser)]
#[command(name = "qualm", version, about = "Run the quality specs of this crate")]
struct HarnessArgs {
    #[command(flatten)]
    run: RunArgs,
}

/// The process's arguments. What is asked for in their place, help or the version, is printed, and so
/// is what is wrong with them, which may hold anything.
pub(super) fn arguments<T: Parser>() -> Result<T, Exit> {
    T::try_parse().map_err(|error| {
        if error.use_stderr() {
            streams::tell(format_args!("{}", error.render().to_string().trim_end()));
            return Exit::Usage;
        }
        streams::printed(error.print(), Exit::Ok)
    })
}

/// The body of a test binary: runs the specs below `root`, relative to the package's directory.
///
/// Under cargo-nextest, and with `--exact`, the exit code is 0 or 101; otherwise it is qualm's own.
pub fn main(root: &str) -> ExitCode {
    let mut args = match arguments::<HarnessArgs>() {
        Ok(args) => args.run,
        Err(exit) => return ExitCode::from(exit.code()),
    };
    if args.spec.is_empty() {
        args.spec = vec![PathBuf::from(root)];
    }
    let plain = args.exact || std::env::var_os("NEXTEST").is_some();
    let run = || {
        simd::level()?;
        run::run(&args, Caller::TestBinary)
    };
    match super::end(super::guarded(run), "Error") {
        Exit::Ok => ExitCode::SUCCESS,
        _ if plain && !args.list => ExitCode::from(Exit::TestFailed.code()),
        exit => ExitCode::from(exit.code()),
    }
}
