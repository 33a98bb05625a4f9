/*! How many threads a command may use. */

use crate::measure::cores;

/// A number of threads on the command line.
pub fn threads(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("must not be 0".to_owned()),
        Ok(n) => Ok(n),
        Err(error) => Err(error.to_string()),
    }
}

/// The number of threads to use: what was asked for, or one per core.
pub fn thread_count(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(cores)
}
