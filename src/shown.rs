/*!
Foreign text, made safe to show: names, paths and messages may hold anything.

[`one_line`] is for a name within a line. [`Shown`] stands before a terminal or a log and sees to what
nobody thought of: whatever is printed through it drives no terminal, turns no direction, and is no
command for the system that reads the log.
*/

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

/// One line: control characters, line separators and marks that reorder text become escapes
/// (`\n`, `\u{1b}`). Everything else, backslashes included, stays as it is.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unprintable(c) { line.extend(c.escape_default()) } else { line.push(c) }
    }
    Cow::Owned(line)
}

/// Percent-encoded as a part of a URI, but for letters, digits, `-._~` and the characters of `keep`.
pub fn percent_encoded(text: &str, keep: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric()
            || b"-._~".contains(&byte)
            || keep.as_bytes().contains(&byte)
        {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// A text in which no zero has a sign: what was rounded away has none, whoever formatted it. `-0.00 dB` is
/// `0.00 dB`; `-0.01` and `x-0` stay.
pub fn unsigned_zeros(text: String) -> String {
    if !text.contains("-0") {
        return text;
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("-0") {
        let number = &rest[before.len() + 1..];
        let end = number.find(|c: char| c != '0' && c != '.').unwrap_or(number.len());
        let follows = number[end..].trim_start_matches("e0").chars().next();
        let joined = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':');
        shown += before;
        let led = shown.chars().next_back().is_some_and(joined);
        if led || follows.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            shown.push('-');
        }
        shown.push('0');
        rest = after;
    }
    shown + rest
}

/// Columns beyond which a cell is no longer padded: a table is for cells that fit on a screen.
const WIDEST: usize = 200;

/// The width of a column of a table with these cells, in characters.
pub fn width<'c>(cells: impl Iterator<Item = &'c str>) -> usize {
    cells.map(|cell| cell.chars().count()).max().unwrap_or(0).min(WIDEST)
}

fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            // Line and paragraph separator; marks, embeddings and isolates of bidirectional text.
            '\u{2028}' | '\u{2029}' | '\u{61c}' | '\u{200e}' | '\u{200f}'
            | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Byte order mark and noncharacters.
            | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        )
}

/// How a stream writes what it cannot write as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// `\u{202e}`, for people; with colour, sequences that set the colour stay.
    Text {
        /// Whether the program itself colours what it prints.
        color: bool,
    },
    /// `\u202e`: what is JSON stays JSON and means the same.
    Json,
}

/// A stream on which foreign text is text. Lines are passed on when they are complete, or flushed.
#[derive(Debug)]
pub struct Shown<W: Write> {
    inner: W,
    notation: Notation,
    /// What is not passed on yet.
    pending: Vec<u8>,
    /// Whether that begins a line.
    begins: bool,
}

impl<W: Write> Shown<W> {
    /// Stands before a stream.
    pub fn new(inner: W, notation: Notation) -> Self {
        Self { inner, notation, pending: Vec::new(), begins: true }
    }

    /// The stream itself, for the program's own commands to whoever reads the log.
    pub fn itself(&mut self) -> io::Result<&mut W> {
        self.pass_on()?;
        Ok(&mut self.inner)
    }

    fn pass_on(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        let text = String::from_utf8_lossy(&pending);
        let mut begins = self.begins;
        self.begins = text.ends_with('\n');
        if text.split_inclusive('\n').enumerate().all(|(i, line)| is_plain(line, begins || i > 0)) {
            return self.inner.write_all(text.as_bytes());
        }
        let mut safe = String::with_capacity(text.len() + 32);
        for line in text.split_inclusive('\n') {
            self.notation.write(line, begins, &mut safe);
            begins = true;
        }
        self.inner.write_all(safe.as_bytes())
    }
}

impl<W: Write> Write for Shown<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let complete = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        let (lines, rest) = bytes.split_at(complete);
        if !lines.is_empty() {
            self.pending.extend_from_slice(lines);
            self.pass_on()?;
        }
        self.pending.extend_from_slice(rest);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass_on()?;
        self.inner.flush()
    }
}

impl<W: Write> Drop for Shown<W> {
    fn drop(&mut self) {
        // Whoever wants to know of an error flushes.
        let _ = self.flush();
    }
}

/// Beginnings of commands that a CI system takes from anywhere in a line.
const ANYWHERE: [&str; 3] = ["##[", "##vso[", "##teamcity["];

/// Nothing in the line needs an escape.
fn is_plain(line: &str, begins: bool) -> bool {
    line.bytes().all(|byte| matches!(byte, b'\t' | b'\n' | b' '..=b'~'))
        && !(begins && is_command(line.trim_start()))
        && !ANYWHERE.iter().any(|command| line.contains(command))
}

/// `::error::…` at the beginning of a line is a command for GitHub Actions.
fn is_command(line: &str) -> bool {
    line.strip_prefix("::").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic()))
}

impl Notation {
    /// Adds a line, or a piece of one, in a form that is safe to show.
    fn write(self, line: &str, begins: bool, safe: &mut String) {
        let command = begins.then(|| line.len() - line.trim_start().len());
        let command = command.filter(|at| is_command(&line[*at..]));
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            let color = self.color_sequence(rest);
            if color > 0 {
                safe.push_str(&rest[..color]);
                rest = &rest[color..];
                continue;
            }
            let at = line.len() - rest.len();
            let starts_command =
                command == Some(at) || ANYWHERE.iter().any(|command| rest.starts_with(command));
            match c {
                '\n' | '\t' => safe.push(c),
                _ if starts_command || is_unprintable(c) => self.escape(c, safe),
                _ => safe.push(c),
            }
            rest = &rest[c.len_utf8()..];
        }
    }

    fn escape(self, c: char, safe: &mut String) {
        match self {
            Self::Text { .. } if c.is_ascii_graphic() => safe.extend(c.escape_unicode()),
            Self::Text { .. } => safe.extend(c.escape_default()),
            Self::Json => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing into a string cannot fail.
                    let _ = write!(safe, "\\u{unit:04x}");
                }
            }
        }
    }

    /// Bytes of the sequence that sets a colour at the beginning of the text, if it may stay.
    fn color_sequence(self, text: &str) -> usize {
        if self != (Self::Text { color: true }) {
            return 0;
        }
        let Some(body) = text.strip_prefix("\x1b[") else { return 0 };
        let numbers = body.bytes().take_while(|b| b.is_ascii_digit() || *b == b';').count();
        if body.as_bytes().get(numbers) == Some(&b'm') { 2 + numbers + 1 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_have_no_sign() {
        for (text, shown) in [
            ("SQNR -0.00 dB (-0.00 in the sample)", "SQNR 0.00 dB (0.00 in the sample)"),
            ("-0.0000 and -0", "0.0000 and 0"),
            ("an error of -0.000e0", "an error of 0.000e0"),
            ("-0.01, -0.001 and -0.000e-7", "-0.01, -0.001 and -0.000e-7"),
            ("a.-0.w, x-0, 1-0.0 and -0x", "a.-0.w, x-0, 1-0.0 and -0x"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(unsigned_zeros(text.to_owned()), shown);
        }
    }

    const PLAIN: Notation = Notation::Text { color: false };
    const COLORED: Notation = Notation::Text { color: true };

    fn shown(notation: Notation, pieces: &[&str]) -> String {
        let mut stream = Shown::new(Vec::new(), notation);
        for piece in pieces {
            stream.write_all(piece.as_bytes()).unwrap();
        }
        stream.flush().unwrap();
        String::from_utf8(stream.itself().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_part_of_a_uri_is_a_segment_or_several() {
        assert_eq!(percent_encoded("refs/pr/1", ""), "refs%2Fpr%2F1");
        assert_eq!(percent_encoded("a b/ü", "/"), "a%20b/%C3%BC");
    }

    #[test]
    fn nothing_but_text_reaches_a_stream() {
        // notation, text, what is printed, why
        for (notation, text, expected, why) in [
            (PLAIN, "plain\tß 漢 \u{301}\n", "plain\tß 漢 \u{301}\n", "text is text"),
            (PLAIN, "a\x1b[2Jb\x07\r\n", "a\\u{1b}[2Jb\\u{7}\\r\n", "terminals"),
            (PLAIN, "\x1b[31mred\x1b[0m", "\\u{1b}[31mred\\u{1b}[0m", "no colour is asked for"),
            (COLORED, "\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m", "the program's own colour"),
            (COLORED, "\x1b[2J\x1b]0;t\x07", "\\u{1b}[2J\\u{1b}]0;t\\u{7}", "no colours"),
            (PLAIN, "p\u{202e}x\u{2066}\u{85}", "p\\u{202e}x\\u{2066}\\u{85}", "directions, C1"),
            (PLAIN, "::error::x\n", "\\u{3a}:error::x\n", "a command of GitHub"),
            (PLAIN, "ok\n \t::add-mask::x", "ok\n \t\\u{3a}:add-mask::x", "after blanks"),
            (PLAIN, "s::p::t ... ok\n", "s::p::t ... ok\n", "the id of a test"),
            (PLAIN, "  ::: specs/a.toml:1:1\n", "  ::: specs/a.toml:1:1\n", "a second place"),
            (PLAIN, "x ##[error]y", "x \\u{23}#[error]y", "a command anywhere in the line"),
            (PLAIN, "##vso[task.x]", "\\u{23}#vso[task.x]", "Azure Pipelines"),
            (PLAIN, "## heading", "## heading", "Markdown"),
            (
                Notation::Json,
                "{\"a\":\"\u{202e}\u{7f}\"}\n",
                "{\"a\":\"\\u202e\\u007f\"}\n",
                "JSON",
            ),
        ] {
            assert_eq!(shown(notation, &[text]), expected, "{why}");
        }
    }

    #[test]
    fn lines_may_come_in_pieces() {
        assert_eq!(shown(PLAIN, &["a\n:", ":error::", "x\nb"]), "a\n\\u{3a}:error::x\nb");
        assert_eq!(shown(PLAIN, &["é".split_at(0).1, "\u{202e}"]), "é\\u{202e}");
        let json = shown(Notation::Json, &["{\"a\":\"##[x]\u{2028}\"}"]);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["a"], "##[x]\u{2028}", "it means the same");
    }
}
