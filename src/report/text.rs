/*!
Foreign text, made safe to show: names of tensors, paths and messages may hold anything.

What is read by people as lines (terminals, TSV, Markdown) gets escapes for what would break the
line or mislead the eye; XML gets what XML can hold.
*/

pub use crate::shown::one_line;

/// Text that XML 1.0 can hold: terminal sequences are gone, line ends are LF, and characters that
/// are no `Char` of the standard are U+FFFD.
pub fn xml(text: &str) -> String {
    let text = without_ansi(text).replace("\r\n", "\n");
    text.chars()
        .map(|c| match c {
            '\r' => '\n',
            c if is_xml_char(c) => c,
            _ => char::REPLACEMENT_CHARACTER,
        })
        .collect()
}

/// The production `Char` of XML 1.0, section 2.2.
fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// Text without complete control sequences (`ESC [ … final`) and operating system commands
/// (`ESC ] … BEL` or `ESC ] … ESC \`); an ESC that begins neither stays.
fn without_ansi(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\x1b') {
        let (before, sequence) = rest.split_at(at);
        clean.push_str(before);
        let skip = sequence_length(sequence.as_bytes()).unwrap_or(0);
        if skip == 0 {
            clean.push('\x1b');
        }
        rest = sequence.get(skip.max(1)..).unwrap_or_default();
    }
    clean.push_str(rest);
    clean
}

/// Bytes of the sequence that `bytes` begins with; `None` if there is no complete one.
fn sequence_length(bytes: &[u8]) -> Option<usize> {
    let body = bytes.get(2..)?;
    match bytes.get(1)? {
        b'[' => {
            let parameters = body.iter().take_while(|byte| (0x20..0x40).contains(*byte)).count();
            let last = body.get(parameters)?;
            (0x40..0x7f).contains(last).then_some(2 + parameters + 1)
        }
        b']' => {
            let end = body.iter().position(|&byte| byte == 0x07 || byte == 0x1b)?;
            if body.get(end) == Some(&0x07) {
                Some(2 + end + 1)
            } else {
                (body.get(end + 1) == Some(&b'\\')).then_some(2 + end + 2)
            }
        }
        _ => None,
    }
}

/// Text for an HTML or XML document, in elements and in quoted attributes.
pub fn html(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(c),
        }
    }
    safe
}

/// A Markdown code span on one line.
pub fn code(text: &str) -> String {
    let line = one_line(text);
    let longest = line.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    // An inner blank keeps a leading or trailing backtick apart from the fence; a span of blanks
    // alone would not be one.
    if line.starts_with('`') || line.ends_with('`') || line.trim().is_empty() {
        format!("{fence} {line} {fence}")
    } else {
        format!("{fence}{line}{fence}")
    }
}

/// Words in Markdown, on one line, without markup, mentions or HTML.
pub fn prose(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 8);
    for c in one_line(text).chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '!' => safe.extend(['\\', c]),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '@' => safe.push_str("&#64;"),
            _ => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        for (text, expected) in [
            ("blk.0.attn_q.weight", "blk.0.attn_q.weight"),
            ("a\tb\nc\rd", r"a\tb\nc\rd"),
            ("\0\x1b[31m\u{7f}\u{85}", r"\u{0}\u{1b}[31m\u{7f}\u{85}"),
            ("\u{2028}\u{202e}\u{fffe}", r"\u{2028}\u{202e}\u{fffe}"),
            (r#"a\b "c" <d> ]]> 🦀"#, r#"a\b "c" <d> ]]> 🦀"#),
        ] {
            assert_eq!(one_line(text), expected);
            assert_eq!(one_line(&one_line(text)), expected, "twice is once");
        }
    }

    #[test]
    fn what_xml_holds() {
        for (text, expected) in [
            ("a\tb\nc", "a\tb\nc"),
            ("a\r\nb\rc", "a\nb\nc"),
            ("\x1b[1;31mred\x1b[0m", "red"),
            ("\x1b]0;title\x07x\x1b]8;;u\x1b\\y", "xy"),
            ("\x1b[31", "\u{fffd}[31"),
            ("\x1b", "\u{fffd}"),
            ("a\x1bb", "a\u{fffd}b"),
            ("\x1b[é", "\u{fffd}[é"),
            ("\0\u{1}\u{fffe}\u{ffff}", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            ("]]> & < \u{85} \u{10ffff} 🦀", "]]> & < \u{85} \u{10ffff} 🦀"),
        ] {
            assert_eq!(xml(text), expected, "{text:?}");
        }
    }

    #[test]
    fn markdown_spans_and_prose() {
        for (text, expected) in [
            ("a.b", "`a.b`"),
            ("a`b", "``a`b``"),
            ("`a``", "``` `a`` ```"),
            ("", "`  `"),
            ("a\nb", "`a\\nb`"),
        ] {
            assert_eq!(code(text), expected);
        }
        assert_eq!(prose("<b>*x* @me | y\n"), "&lt;b&gt;\\*x\\* &#64;me \\| y\\\\n");
    }
}
