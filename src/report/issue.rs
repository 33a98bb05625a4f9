/*!
Failures and warnings as code-review tools take them: each on a line of its spec, the worst first.
*/

use sha2::{Digest, Sha256};

use super::failure::{failure_kind, failure_lines, headline};
use super::gravity::{worst_check, worst_first};
use super::located::{Located, is_bad, is_violated, pairs, tests};
use super::numbers;
use crate::model::hex;
use crate::suite::record::{Contract, PairRecord, Source, TestOutcome};

/// Issues that a file holds: GitHub shows no more of a run.
pub const MOST: usize = 5000;

/// How grave an issue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It could not be judged.
    Unjudged,
    /// A test failed.
    Failed,
    /// A warning.
    Warning,
}

/// A test with something to say.
pub struct Issue<'a> {
    /// The test.
    pub located: Located<'a>,
    /// How grave it is.
    pub severity: Severity,
    /// Where the bound is written, or else the pair.
    pub source: &'a Source,
}

impl Issue<'_> {
    /// The kind of the failure.
    pub fn kind(&self) -> String {
        failure_kind(self.located.test)
    }

    /// The cause, or what the worst check says.
    pub fn headline(&self) -> String {
        headline(self.located.test).unwrap_or_else(|| self.kind())
    }

    /// All that the test says.
    pub fn lines(&self) -> Vec<String> {
        failure_lines(self.located.test)
    }

    /// What tells it from every other, and is the same in the next run: the test.
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(self.located.test.id.as_bytes()))
    }
}

/// A note on a pair: what is odd but no failure.
pub struct Note<'a> {
    /// The pair.
    pub pair: &'a PairRecord,
    /// The note.
    pub text: &'a str,
}

impl Note<'_> {
    /// What tells it from every other, and is the same in the next run: the pair and the text.
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(format!("{}\n{}", self.pair.id, self.text)))
    }
}

/// The notes of all pairs.
pub fn notes(contract: &Contract) -> impl Iterator<Item = Note<'_>> {
    pairs(contract).flat_map(|(_, pair)| pair.notes.iter().map(move |text| Note { pair, text }))
}

/// Says how many of the issues that were found a file does not hold.
pub fn left_out(file: &str, found: usize) -> Vec<String> {
    let more = found.saturating_sub(MOST) as u64;
    let said = || format!("{file} leaves out the least grave {}", numbers::counted(more, "result"));
    (more > 0).then(said).into_iter().collect()
}

/// Failures, the worst first, then warnings.
pub fn issues<'a>(contract: &'a Contract) -> Vec<Issue<'a>> {
    let warned =
        tests(contract).filter(|it| !is_bad(it.test) && it.test.checks.iter().any(is_violated));
    let issue = |located: Located<'a>| {
        let check = worst_check(located.test);
        Issue {
            severity: match located.test.outcome {
                TestOutcome::Error => Severity::Unjudged,
                TestOutcome::Failed => Severity::Failed,
                TestOutcome::Passed | TestOutcome::Ignored => Severity::Warning,
            },
            source: check.and_then(|it| it.source.as_ref()).unwrap_or(&located.pair.source),
            located,
        }
    };
    worst_first(contract).into_iter().chain(warned).map(issue).collect()
}
