/*!
Exit codes: frozen, documented in `--help`, one test each.
*/

/// Why the process ends as it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything that was asked for holds.
    Ok = 0,
    /// A bug in qualm, or an error that nobody expected.
    Internal = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A spec does not parse or does not make sense.
    SpecInvalid = 3,
    /// No test was selected.
    NoTests = 4,
    /// `diff`, `check`, `rank`, `verify` and `init`: a tensor is below the threshold or damaged, or the structure differs.
    ValidationFailed = 5,
    /// A model is missing or corrupt.
    InputError = 6,
    /// `merge`: shards are missing, doubled, or do not belong together.
    MergeIncomplete = 7,
    /// All bounds hold; only baselines are new or changed.
    BaselinesPending = 8,
    /// A test failed.
    TestFailed = 101,
}

impl Exit {
    /// Every code, with what it means, for `--help` and the README.
    pub const ALL: [(Self, &str); 10] = [
        (Self::Ok, "ok"),
        (Self::Internal, "internal error"),
        (Self::Usage, "usage error"),
        (Self::SpecInvalid, "a spec is invalid"),
        (Self::NoTests, "no tests selected"),
        (Self::ValidationFailed, "diff, check, rank, verify, init: validation failed"),
        (Self::InputError, "a model is missing or corrupt"),
        (Self::MergeIncomplete, "merge: shards missing, doubled or foreign"),
        (Self::BaselinesPending, "only baselines pending (new or changed)"),
        (Self::TestFailed, "a test failed"),
    ];

    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The code that a record holds; a number that is none of them is a bug.
    pub fn from_code(code: u8) -> Self {
        let known = Self::ALL.into_iter().find(|(exit, _)| exit.code() == code);
        known.map_or(Self::Internal, |(exit, _)| exit)
    }

    /// The list of codes as `--help` prints it.
    pub fn help() -> String {
        let lines = Self::ALL.iter().map(|(exit, what)| format!("  {:>3}  {what}", exit.code()));
        format!("Exit codes:\n{}", lines.collect::<Vec<_>>().join("\n"))
    }
}
