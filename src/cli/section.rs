/*!
What a section of the run's output holds, and how much of it is shown.
*/

use std::collections::HashSet;

use crate::report::{self, numbers};
use crate::shown::one_line;
use crate::suite::record::TestRecord;

/// Lines from `failures:` on that hold details and names; titles, counts and the result are a dozen more.
const MOST_LINES: usize = 46;

/// Of these, causes and names.
const MOST_GROUPS: usize = 12;
const MOST_NAMES: usize = 30;

/// What a section tells: tests, each with the name of what counts as one.
pub type Told<'c> = Vec<(&'c str, &'c TestRecord)>;

/// A section as lines.
pub struct Section {
    /// What is behind the failures.
    pub groups: Vec<String>,
    /// The lines of each test.
    pub blocks: Vec<Vec<String>>,
    /// The names of what counts as a test.
    pub names: Vec<String>,
}

impl Section {
    /// Everything, in the order of `told`.
    pub fn new(told: &Told, groups: Vec<String>) -> Self {
        let blocks = told.iter().map(|(_, test)| block(test)).collect();
        Self { groups, blocks, names: names(told) }
    }

    /// As much of it as a screen or two hold, and how much is left out.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        let details: usize = self.blocks.iter().map(Vec::len).sum();
        if self.groups.len() + details + self.names.len() <= MOST_LINES {
            return self;
        }
        cut(&mut self.groups, MOST_GROUPS, "causes");
        cut(&mut self.names, MOST_NAMES, "");
        let all = self.blocks.len();
        let room = MOST_LINES.saturating_sub(self.groups.len() + self.names.len());
        shorten(&mut self.blocks, room);
        let left = (all - self.blocks.len()) as u64;
        if left > 0 {
            let left = numbers::counted(left, "failure");
            let line =
                format!("{left} more: see report.html and contract.json, or run with --verbose");
            self.blocks.push(vec![line, String::new()]);
        }
        self
    }
}

/// The names, each once, in the order of the first of its tests.
fn names(told: &Told) -> Vec<String> {
    let mut seen = HashSet::new();
    let first = told.iter().filter(|(name, _)| seen.insert(*name));
    first.map(|(name, _)| one_line(name).into_owned()).collect()
}

/// A test with all that it has to say, the cause first, and a blank line.
fn block(test: &TestRecord) -> Vec<String> {
    let head = format!("---- {} ----", one_line(&test.id));
    let mut lines = vec![head];
    lines.extend(report::cause_first(test));
    lines.push(String::new());
    lines
}

/// Keeps the first lines, and says how many are left out.
fn cut(lines: &mut Vec<String>, most: usize, noun: &str) {
    let more = lines.len().saturating_sub(most);
    if more > 0 {
        lines.truncate(most);
        lines.push(format!("… and {more} more {noun}").trim_end().to_owned());
    }
}

/// Keeps the blocks that fit into so many lines: the first of them, cut if it must be, and others whole.
fn shorten(blocks: &mut Vec<Vec<String>>, room: usize) {
    let mut used = 0;
    let fits = |block: &Vec<String>| {
        used += block.len();
        used <= room
    };
    let whole = blocks.iter().map(fits).take_while(|fits| *fits).count();
    blocks.truncate(whole.max(1));
    if let Some(first) = blocks.first_mut().filter(|first| first.len() > room) {
        let more = first.len() - room.max(2);
        first.truncate(room.max(2));
        first.extend([format!("… and {more} more lines"), String::new()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_kept_whole_while_they_fit() {
        let block = |len: usize| vec![String::new(); len];
        for (lengths, room, expected, why) in [
            (&[3, 3, 3][..], 9, &[3, 3, 3][..], "all fit"),
            (&[3, 3, 3], 8, &[3, 3], "two fit"),
            (&[3, 9, 1], 5, &[3], "none after the first that does not fit"),
            (&[9, 1], 5, &[7], "the first, cut"),
        ] {
            let mut blocks: Vec<Vec<String>> = lengths.iter().map(|len| block(*len)).collect();
            shorten(&mut blocks, room);
            let kept: Vec<usize> = blocks.iter().map(Vec::len).collect();
            assert_eq!(kept, expected, "{why}");
        }
    }
}
