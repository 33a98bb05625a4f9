/*!
From outcomes to counts, one word, and one exit code: printed text and exit code come from here
alone, so that they cannot disagree.
*/

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::exit::Exit;
use super::judge::{INTERNAL_CHECK, SPEC_CHECK, is_baseline};
use super::record::{
    BaselineStatus, CheckOutcome, Level, PairRecord, Summary, TestOutcome, TestRecord, Time,
    Verdict,
};

/// Counts the tests of a run.
pub fn summary(pairs: &[&PairRecord], filtered_out: u64) -> Summary {
    let mut summary = Summary { filtered_out, ..Summary::default() };
    for pair in pairs {
        summary.pending += u64::from(matches!(
            pair.baseline.status,
            BaselineStatus::New | BaselineStatus::Changed
        ));
        for test in &pair.tests {
            summary.tests += 1;
            match test.outcome {
                TestOutcome::Passed => summary.passed += 1,
                TestOutcome::Failed => summary.failed += 1,
                TestOutcome::Error => summary.errors += 1,
                TestOutcome::Ignored => summary.ignored += 1,
            }
            summary.warnings += warnings(test);
            summary.gates.add(&test.gates());
        }
    }
    summary
}

/// Violated warnings of a test.
fn warnings(test: &TestRecord) -> u64 {
    let warned = test
        .checks
        .iter()
        .filter(|check| check.level == Level::Warn && check.outcome == CheckOutcome::Violated);
    warned.count() as u64
}

/// Did the program break down over this test?
pub fn is_internal(test: &TestRecord) -> bool {
    test.checks.iter().any(|check| check.check == INTERNAL_CHECK)
}

/// The exit code: no tests, then mistakes of the program, then wrong specs, then input errors, then failures, then baselines alone.
pub fn exit(pairs: &[&PairRecord]) -> Exit {
    let tests = || pairs.iter().flat_map(|pair| &pair.tests);
    let bad = |test: &&TestRecord| test.outcome == TestOutcome::Failed;
    let spec_is_wrong = |test: &TestRecord| {
        test.checks.iter().any(|it| {
            it.check == SPEC_CHECK
                && it.level == Level::Fail
                && it.outcome == CheckOutcome::Violated
        })
    };
    // Nothing to compare is a failure, whether nothing was selected or all of it is ignored.
    if tests().all(|test| test.outcome == TestOutcome::Ignored) {
        Exit::NoTests
    } else if tests().any(is_internal) {
        Exit::Internal
    } else if tests().any(spec_is_wrong) {
        Exit::SpecInvalid
    } else if tests().any(|test| test.outcome == TestOutcome::Error) {
        Exit::InputError
    } else if tests().filter(bad).any(|test| !is_baseline(test)) {
        Exit::TestFailed
    } else if tests().any(|test| bad(&test)) {
        Exit::BaselinesPending
    } else {
        Exit::Ok
    }
}

/// The word that goes with an exit code.
pub fn of(exit: Exit, pairs: &[&PairRecord]) -> Verdict {
    match exit {
        Exit::Ok if pairs.iter().any(|pair| pair.sample.is_some()) => Verdict::Sampled,
        Exit::Ok => Verdict::Passed,
        Exit::BaselinesPending => Verdict::Pending,
        Exit::InputError | Exit::Internal => Verdict::Error,
        _ => Verdict::Failed,
    }
}

/// When the run began, and how long it has taken. `SOURCE_DATE_EPOCH` stands in for the clock, so
/// that reports over the same files can be the same to the byte.
pub fn time(started: Instant) -> Option<Time> {
    let fixed = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|epoch| epoch.parse().ok());
    let (since, seconds) = if let Some(epoch) = fixed {
        (epoch, 0.0)
    } else {
        let began = SystemTime::now().checked_sub(started.elapsed())?;
        (began.duration_since(UNIX_EPOCH).ok()?.as_secs(), started.elapsed().as_secs_f64())
    };
    let day = crate::spec::Date::from_days(since / 86_400);
    let clock = since % 86_400;
    let started = format!("{day}T{:02}:{:02}:{:02}Z", clock / 3600, clock / 60 % 60, clock % 60);
    Some(Time { started, seconds })
}
