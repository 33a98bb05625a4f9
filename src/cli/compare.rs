/*! `qualm compare OLD NEW`: two runs against each other. */

use std::io::Write;

use super::args::CompareArgs;
use super::report::read_record;
use super::{Failure, streams};
use crate::report::compare::{Comparison, Style};
use crate::suite::exit::Exit;

/// Compares two records: 0 if nothing fails that did not fail before, else 101.
pub fn run(args: &CompareArgs) -> Result<Exit, Failure> {
    let (old, new) = (read_record(&args.old)?, read_record(&args.new)?);
    let comparison = Comparison::new(&old, &new);
    let style = if args.markdown { Style::Markdown } else { Style::Text };
    let text = comparison.render(style, args.max_bytes);
    let mut out = streams::text();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    let exit = if comparison.newly_failing.is_empty() { Exit::Ok } else { Exit::TestFailed };
    Ok(streams::printed(printed, exit))
}
