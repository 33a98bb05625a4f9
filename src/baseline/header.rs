/*!
The header of a snapshot file: the part of insta's YAML that baselines use, strictly.

insta ignores keys that it does not know, and drops them when a person accepts a snapshot. Here a
header that holds anything else than what [`Header`] has is an error with its line. Whatever is
written comes back from `cargo insta accept` byte for byte, `assertion_line` aside.
*/

use std::fmt::Write as _;

/// What stands above the body of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The spec, relative to the workspace. It comes first, or cargo-insta overlooks the file.
    pub source: String,
    /// Line of the pair in the spec; only in pending files.
    pub assertion_line: Option<u32>,
    /// One line for reviewers.
    pub description: Option<String>,
    /// What was evaluated.
    pub expression: Option<String>,
    /// Provenance: names and values in the order in which they are written.
    pub info: Vec<(String, String)>,
    /// insta's key for the file that a test reads; kept if somebody put it there.
    pub input_file: Option<String>,
}

/// A line of the header that cannot stand, 1-based from the opening `---`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeaderError {
    pub(super) line: usize,
    pub(super) message: String,
}

impl Header {
    /// The value under a name in `info`.
    pub fn info(&self, name: &str) -> Option<&str> {
        self.info.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Sets a value in `info`, in its place if the name is there, at the end if not.
    pub fn set_info(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        match self.info.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = value,
            None => self.info.push((name.to_owned(), value)),
        }
    }

    /// The header's text from the opening to the closing `---`.
    pub(super) fn render(&self) -> String {
        let mut out = String::from("---\n");
        let mut line = |key: &str, value: &str| {
            // Writing into a string cannot fail.
            let _ = writeln!(out, "{key}: {value}");
        };
        line("source", &scalar(&self.source));
        if let Some(number) = self.assertion_line {
            line("assertion_line", &number.to_string());
        }
        for (key, value) in [("description", &self.description), ("expression", &self.expression)] {
            if let Some(value) = value {
                line(key, &scalar(value));
            }
        }
        if !self.info.is_empty() {
            out.push_str("info:\n");
            for (key, value) in &self.info {
                let _ = writeln!(out, "  {}: {}", scalar(key), scalar(value));
            }
        }
        if let Some(value) = &self.input_file {
            let _ = writeln!(out, "input_file: {}", scalar(value));
        }
        out.push_str("---\n");
        out
    }

    /// Reads the lines from the opening to the closing `---`, both excluded.
    pub(super) fn parse(lines: &[&str]) -> Result<Self, HeaderError> {
        let mut header = Self::default();
        let mut seen: Vec<String> = Vec::new();
        let mut in_info = false;
        for (i, raw) in lines.iter().enumerate() {
            // The opening `---` is line 1.
            let fail = |message: String| HeaderError { line: i + 2, message };
            let text = raw.trim_end_matches([' ', '\r', '\n']);
            if text.is_empty() || text.trim_start_matches(' ').starts_with('#') {
                continue;
            }
            let entry = text.trim_start_matches(' ');
            let indented = entry.len() < text.len();
            if indented && !in_info {
                return Err(fail("only `info` has lines below it in a snapshot's header".into()));
            }
            let (key, value) = split(entry).map_err(fail)?;
            if indented {
                if header.info(&key).is_some() {
                    return Err(fail(format!("`{key}` stands twice below `info`")));
                }
                header.info.push((key, plain_or_quoted(value).map_err(fail)?));
                continue;
            }
            if seen.contains(&key) {
                return Err(fail(format!("`{key}` stands twice in the header")));
            }
            in_info = key == "info";
            header.set(&key, value).map_err(fail)?;
            seen.push(key);
        }
        if !seen.iter().any(|key| key == "source") {
            return Err(HeaderError { line: 1, message: "the header has no `source:`".into() });
        }
        Ok(header)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "source" => self.source = plain_or_quoted(value)?,
            "assertion_line" => {
                let number = value.parse();
                self.assertion_line =
                    Some(number.map_err(|_| "`assertion_line` is no line number".to_owned())?);
            }
            "description" => self.description = Some(plain_or_quoted(value)?),
            "expression" => self.expression = Some(plain_or_quoted(value)?),
            "input_file" => self.input_file = Some(plain_or_quoted(value)?),
            "info" if value.is_empty() => {}
            "info" => return Err("write `info` as one `name: value` a line below it".into()),
            _ => return Err(format!("unknown key `{key}` in a snapshot's header")),
        }
        Ok(())
    }
}

/// Splits `key: value`; the key may be quoted.
fn split(entry: &str) -> Result<(String, &str), String> {
    let no_colon = || format!("expected `key: value`, found {entry:?}");
    if entry.starts_with('"') {
        let (key, rest) = quoted(entry)?;
        let value = rest.strip_prefix(':').ok_or_else(no_colon)?;
        return Ok((key, value.trim_matches(' ')));
    }
    let (key, value) = entry.split_once(':').ok_or_else(no_colon)?;
    if !value.is_empty() && !value.starts_with(' ') {
        return Err(no_colon());
    }
    Ok((plain_or_quoted(key)?, value.trim_matches(' ')))
}

/// A scalar as insta's writer puts it: plain where it can be taken for nothing else, quoted
/// otherwise. Numbers may stand plain.
fn plain_or_quoted(text: &str) -> Result<String, String> {
    if text.starts_with('"') {
        let (value, rest) = quoted(text)?;
        return if rest.trim_matches(' ').is_empty() {
            Ok(value)
        } else {
            Err(format!("nothing may follow a quoted value, found {rest:?}"))
        };
    }
    // `.inf` and `.nan` are numbers to YAML that insta 1.49 cannot read without a panic.
    let number = text.starts_with(|c: char| c.is_ascii_digit() || c == '-')
        && text.parse::<f64>().is_ok_and(f64::is_finite);
    if number || !ambiguous(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("write the value {text:?} in double quotes"))
    }
}

/// Reads a double-quoted scalar at the start of a text; gives it and what follows.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let unfinished = || "a quoted value does not end on its line".to_owned();
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((out, text.get(at + 1..).unwrap_or_default())),
            '\\' => {
                let (_, escape) = chars.next().ok_or_else(unfinished)?;
                out.push(match escape {
                    '"' | '\\' | '/' => escape,
                    'b' => '\u{8}',
                    't' => '\t',
                    'n' => '\n',
                    'f' => '\u{c}',
                    'r' => '\r',
                    'u' => {
                        let digits: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                        u32::from_str_radix(&digits, 16)
                            .ok()
                            .filter(|_| digits.len() == 4)
                            .and_then(char::from_u32)
                            .ok_or_else(|| format!("no character is written \\u{digits}"))?
                    }
                    _ => return Err(format!("unknown escape \\{escape}")),
                });
            }
            _ => out.push(c),
        }
    }
    Err(unfinished())
}

/// Writes a scalar.
fn scalar(value: &str) -> String {
    if !needs_quotes(value) {
        return value.to_owned();
    }
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if c.is_ascii_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Would a reader of YAML take this text, written plain, for something else than itself? insta's
/// own answer: what it writes plain has to be read plain.
fn ambiguous(text: &str) -> bool {
    const WORDS: [&str; 22] = [
        "yes", "Yes", "YES", "no", "No", "NO", "true", "True", "TRUE", "false", "False", "FALSE",
        "on", "On", "ON", "off", "Off", "OFF", "null", "Null", "NULL", "~",
    ];
    text.is_empty()
        || text.starts_with([' ', '&', '*', '?', '|', '-', '<', '>', '=', '!', '%', '@', '.'])
        || text.ends_with(' ')
        || text.contains([':', '{', '}', '[', ']', ',', '#', '`', '"', '\'', '\\', '\0', '\t'])
        || text.starts_with("0x")
        || WORDS.contains(&text)
        || text.parse::<f64>().is_ok()
}

/// What is better quoted: what is ambiguous, and what a reviewer or an editor could overlook.
fn needs_quotes(text: &str) -> bool {
    ambiguous(text)
        || text.trim() != text
        || text.starts_with(['+', '~'])
        || text.starts_with("0o")
        || text.contains(|c: char| c.is_control() || c == '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(text: &str) -> Vec<&str> {
        text.lines().filter(|line| *line != "---").collect()
    }

    #[test]
    fn renders_as_insta_does() {
        let header = Header {
            source: "specs/tiny.toml".into(),
            assertion_line: Some(12),
            description: Some("tiny / q8_0 (f32 -> q8_0)".into()),
            expression: None,
            info: vec![("schema".into(), "1".into()), ("reason".into(), "rounding, #42".into())],
            input_file: None,
        };
        assert_eq!(
            header.render(),
            "---\nsource: specs/tiny.toml\nassertion_line: 12\n\
             description: tiny / q8_0 (f32 -> q8_0)\ninfo:\n  schema: \"1\"\n  \
             reason: \"rounding, #42\"\n---\n"
        );
        assert_eq!(Header::parse(&lines(&header.render())), Ok(header));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        // header lines, line of the error, part of its message, why
        for (text, line, message, why) in [
            ("description: x", 1, "no `source:`", "no source"),
            ("source: a\nsource: b", 3, "twice", "a bad merge"),
            ("source: a\nauthor: b", 3, "unknown key `author`", "cargo-insta would drop it"),
            ("source: a\nsnapshot_kind: binary", 3, "unknown key", "no text snapshot"),
            ("source: a\n  b: c", 3, "only `info`", "stray indentation"),
            ("source: a\ninfo:\n  b: c\n  b: d", 5, "twice", "doubled in info"),
            ("source: a\ninfo:\n  b: .inf", 4, "double quotes", "would make insta panic"),
            ("source: a\ninfo:\n  b: -.inf", 4, "double quotes", "would make insta panic"),
            ("source: a\ninfo:\n  b: [1, 2]", 4, "double quotes", "a list"),
            ("source: a\ninfo: {b: 1}", 3, "one `name: value` a line", "flow style"),
            ("source: a\ndescription: |", 3, "double quotes", "a block"),
            ("source: \"a", 2, "does not end", "an open quote"),
            ("source: \"a\" b", 2, "may follow", "text after the quote"),
            ("source: \"\\ud800\"", 2, "no character", "half a surrogate"),
            ("source: \"\\q\"", 2, "unknown escape", "an escape of nobody's"),
            ("source: a\nassertion_line: x", 3, "no line number", "not a number"),
            ("nonsense", 2, "expected `key: value`", "no colon"),
        ] {
            let error = Header::parse(&lines(text)).expect_err(why);
            assert_eq!(error.line, line, "{why}: {}", error.message);
            assert!(error.message.contains(message), "{why}: {}", error.message);
        }
    }

    #[test]
    fn takes_what_a_person_may_have_written() {
        let text = "# by hand\nsource: specs/a.toml\n\ninfo:\n  schema: 1\n  ratio: 2.5\n";
        let header = Header::parse(&lines(text)).unwrap();
        assert_eq!(header.info("schema"), Some("1"));
        assert_eq!(header.info("ratio"), Some("2.5"));
    }

    proptest! {
        #[test]
        fn round_trip(source: String, description: Option<String>, value: String, key: String) {
            let header = Header {
                source,
                description,
                info: vec![(key, value)],
                ..Header::default()
            };
            let text = header.render();
            let inner = text.strip_prefix("---\n").unwrap().strip_suffix("---\n").unwrap();
            let inner: Vec<&str> = inner.lines().collect();
            prop_assert_eq!(Header::parse(&inner), Ok(header));
        }
    }
}
