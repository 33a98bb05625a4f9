/*! Credentials that run out, and are fetched again before they do. */

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::remote::client::Fault;

/// So long before they run out.
const EARLY: Duration = Duration::from_secs(120);

/// What was fetched, and until when it works.
pub type Leased<T> = (T, Option<SystemTime>);

/// What is fetched once, by one for all.
pub struct Lease<T>(Mutex<State<T>>);

enum State<T> {
    Unknown,
    /// There is none.
    Nothing,
    Kept(Leased<T>),
}

impl<T> Default for Lease<T> {
    fn default() -> Self {
        Self(Mutex::new(State::Unknown))
    }
}

impl<T> fmt::Debug for Lease<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

impl<T: Clone> Lease<T> {
    /// What works for a while yet; none, if there is none to be had.
    pub fn get(
        &self,
        fetch: impl FnOnce() -> Result<Option<Leased<T>>, Fault>,
    ) -> Result<Option<T>, Fault> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let works = |state: &State<T>, for_another| match state {
            State::Kept((value, end)) => {
                let until = SystemTime::now() + for_another;
                end.is_none_or(|end| until < end).then(|| value.clone())
            }
            _ => None,
        };
        if let Some(value) = works(&state, EARLY) {
            return Ok(Some(value));
        }
        let fetched = match &*state {
            State::Nothing => return Ok(None),
            State::Unknown => fetch(),
            // Who had credentials has not become nobody.
            State::Kept(_) => fetch().and_then(|fetched| {
                fetched.map(Some).ok_or_else(|| Fault::passing("the credentials are not renewed"))
            }),
        };
        match fetched {
            Ok(Some(fetched)) => {
                let value = fetched.0.clone();
                *state = State::Kept(fetched);
                Ok(Some(value))
            }
            Ok(None) => {
                *state = State::Nothing;
                Ok(None)
            }
            Err(fault) => works(&state, Duration::ZERO).map(Some).ok_or(fault),
        }
    }

    /// Whether there is something.
    pub fn is_held(&self) -> bool {
        matches!(*self.0.lock().unwrap_or_else(PoisonError::into_inner), State::Kept(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_out_is_fetched_again() {
        let after = |seconds| Some(SystemTime::now() + Duration::from_secs(seconds));
        let failed = || Err(Fault::passing("no"));
        let lease = Lease::default();
        assert!(lease.get(failed).is_err());
        assert_eq!(lease.get(|| Ok(Some((1, after(60))))).ok(), Some(Some(1)));
        assert_eq!(lease.get(failed).ok(), Some(Some(1)), "it works for a minute yet");
        assert_eq!(lease.get(|| Ok(None)).ok(), Some(Some(1)), "nobody is none of its successors");
        assert_eq!(lease.get(|| Ok(Some((2, after(600))))).ok(), Some(Some(2)));
        assert_eq!(lease.get(|| Ok(Some((3, None)))).ok(), Some(Some(2)));
        let lease = Lease::<u8>::default();
        assert_eq!(lease.get(|| Ok(None)).ok(), Some(None));
        assert_eq!(lease.get(failed).ok(), Some(None), "it is asked for once");
        assert!(!lease.is_held());
    }
}
