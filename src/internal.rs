/*!
What becomes of a panic: an internal error that says what was being done. It is never a verdict.
*/

use std::any::Any;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};

/// The program broke down: a mistake of its own, whatever the input was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalError {
    /// What was being done.
    pub doing: String,
    /// What the panic said, and where.
    pub problem: String,
}

impl fmt::Display for InternalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { doing, problem } = self;
        write!(
            f,
            "internal error while {doing}: {problem}; this is a bug of qualm, please report it"
        )
    }
}

impl std::error::Error for InternalError {}

/// What the first panic since [`guard`] said: a thread's own words are lost when it is joined.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// From now on a panic is not printed by the runtime, as a failed test would be, but kept for
/// [`guard`]. For programs, not for libraries.
pub fn keep_panics() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|at| format!(" ({}:{})", at.file(), at.line()));
        let words = words(panic.payload()) + &place.unwrap_or_default();
        FIRST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(words);
    }));
}

fn words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned())
}

/// Does something; a panic in it, or in a thread that it waits for, is an error. `doing` follows upon
/// "while".
pub fn guard<T>(doing: impl fmt::Display, work: impl FnOnce() -> T) -> Result<T, InternalError> {
    drop(FIRST.lock().unwrap_or_else(PoisonError::into_inner).take());
    // What the work has half done is thrown away by whoever gets the error.
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let first = FIRST.lock().unwrap_or_else(PoisonError::into_inner).take();
        let problem = first.unwrap_or_else(|| words(payload.as_ref()));
        InternalError { doing: doing.to_string(), problem }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_says_what_was_being_done() {
        assert_eq!(guard("adding", || 1 + 1), Ok(2));
        let error = guard("dividing", || panic!("by {}", "zero")).unwrap_err();
        assert_eq!(error.doing, "dividing");
        let text = error.to_string();
        assert!(text.starts_with("internal error while dividing: by zero"), "{text}");
    }
}
