/*!
Places in a spec file: byte spans to lines and columns, and values that know where they stand.
*/

use std::fmt;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

/// A place in a spec file. Lines and columns count from 1; columns count characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The file, as it was given to [`super::load()`].
    pub file: Arc<Path>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// First byte.
    pub start: u32,
    /// First byte after the place.
    pub end: u32,
}

impl Location {
    /// The bytes of the file that the place covers.
    pub fn span(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// A value and the place where it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it is written.
    pub at: Location,
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// The text of a spec file, for finding and showing places in it.
#[derive(Debug)]
pub struct Source {
    /// The file, as it was given to [`super::load()`].
    pub path: Arc<Path>,
    /// Its text.
    pub text: Arc<str>,
    /// Offset of the first byte of each line.
    line_starts: Vec<u32>,
}

impl Source {
    /// Largest spec file that is read, in bytes.
    pub const MAX_BYTES: usize = 16 << 20;

    /// Indexes the lines of a text of at most [`Source::MAX_BYTES`].
    pub fn new(path: &Path, text: &str) -> Self {
        let newlines = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        let line_starts =
            std::iter::once(0).chain(newlines.map(|(offset, _)| offset as u32 + 1)).collect();
        Self { path: path.into(), text: text.into(), line_starts }
    }

    /// The place of a span of bytes; a span beyond the text is drawn back to its end.
    pub fn locate(&self, span: Range<usize>) -> Location {
        let end = span.end.min(self.text.len());
        let start = span.start.min(end);
        let line = self.line_starts.partition_point(|&first| first as usize <= start).max(1);
        let first = self.line_starts.get(line - 1).map_or(0, |&first| first as usize);
        let before = self.text.as_bytes().get(first..start).unwrap_or_default();
        // Continuation bytes of UTF-8 do not begin a character.
        let column = before.iter().filter(|&&byte| byte & 0xc0 != 0x80).count() + 1;
        Location {
            file: Arc::clone(&self.path),
            line: line as u32,
            column: column as u32,
            start: start as u32,
            end: end as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_become_lines_and_columns() {
        let source = Source::new(Path::new("a.toml"), "x = 1\nµ = é7\n\r\nend");
        for (span, line, column, why) in [
            (0..1, 1, 1, "the first byte"),
            (5..6, 1, 6, "the newline belongs to its line"),
            (6..8, 2, 1, "the first character of a line"),
            (13..14, 2, 6, "characters count, not bytes"),
            (17..20, 4, 1, "after CR LF"),
            (20..20, 4, 4, "end of the file"),
            (99..120, 4, 4, "beyond the end"),
        ] {
            let at = source.locate(span.clone());
            assert_eq!((at.line, at.column), (line, column), "{span:?}: {why}");
        }
        assert_eq!(source.locate(6..8).to_string(), "a.toml:2:1");
    }
}
