/*!
The pieces that the page is put together from: escaped text, tables, and the policy that lets nothing
run but the page's own script.
*/

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::report::located::is_violated;
use crate::report::text;
use crate::suite::record::{CheckOutcome, TestOutcome, TestRecord};

/// Foreign text on one line, for elements and quoted attributes.
pub fn esc(foreign: &str) -> String {
    text::html(&text::one_line(foreign))
}

/// Foreign text as code.
pub fn code(foreign: &str) -> String {
    format!("<code>{}</code>", esc(foreign))
}

/// Characters from which a word is cut where there is no room, and those of its end that stay.
const LONG_WORD: usize = 36;
const END: usize = 18;

/// Foreign text of which long words, as paths are, lose their middle where there is no room for them.
pub fn cut(foreign: &str) -> String {
    let line = text::one_line(foreign);
    let word = |word: &str| {
        let length = word.chars().count();
        let Some((at, _)) = word.char_indices().nth(length.saturating_sub(END)) else {
            return text::html(word);
        };
        if length < LONG_WORD {
            return text::html(word);
        }
        let (head, end) = word.split_at(at);
        let (whole, head, end) = (text::html(word), text::html(head), text::html(end));
        format!(
            "<span class=\"cut\" title=\"{whole}\"><span>{head}</span><span>{end}</span></span>"
        )
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// A row of a table: the cells are markup.
pub struct Row {
    /// What the row can be filtered by: empty, or a state's class.
    pub class: &'static str,
    /// As many as the table has columns; the first is the row's heading.
    pub cells: Vec<String>,
}

impl Row {
    /// About what the row adds to the page.
    pub fn bytes(&self) -> usize {
        self.cells.iter().map(|cell| cell.len() + "<td></td>".len()).sum::<usize>() + 32
    }

    /// A row that no filter knows.
    pub fn plain(cells: Vec<String>) -> Self {
        Self { class: "", cells }
    }
}

/// Rows from which a table gets a search box.
const SEARCHABLE: usize = 8;

/// A table that the script makes sortable, and searchable if it is long. `columns` are headings,
/// those of numbers with a leading `>`.
pub fn table(page: &mut String, caption: &str, columns: &[&str], rows: &[Row]) {
    let numeric = columns.iter().enumerate().filter(|(_, name)| name.starts_with('>'));
    // One class a numeric column, on the table: a class on each cell would double the page.
    let classes = numeric.fold(String::new(), |all, (at, _)| format!("{all} n{}", at + 1));
    let search = if rows.len() >= SEARCHABLE { " search" } else { "" };
    let filter =
        if rows.iter().any(|row| !matches!(row.class, "" | "passed")) { " filter" } else { "" };
    let _ = write!(
        page,
        "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{caption}\">\
         <table class=\"data{classes}{search}{filter}\"><caption>{caption}</caption><thead><tr>"
    );
    for name in columns {
        let _ = write!(page, "<th scope=\"col\">{}</th>", name.trim_start_matches('>'));
    }
    page.push_str("</tr></thead><tbody>\n");
    for row in rows {
        if row.class.is_empty() {
            page.push_str("<tr>");
        } else {
            let _ = write!(page, "<tr class=\"{}\">", row.class);
        }
        for (at, cell) in row.cells.iter().enumerate() {
            let _ = match at {
                0 => write!(page, "<th scope=\"row\">{cell}</th>"),
                _ => write!(page, "<td>{cell}</td>"),
            };
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div>\n");
}

/// Says that something was left out; says nothing if nothing is missing.
pub fn left_out(page: &mut String, count: usize, noun: &str, place: &str) {
    if count > 0 {
        let more = crate::report::numbers::counted(count as u64, noun);
        let _ = writeln!(page, "<p class=\"more\">{more} more: see <code>{place}</code>.</p>");
    }
}

/// What a test came to, the way the page shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Not run.
    Ignored,
    /// Everything holds.
    Passed,
    /// It does not, and a waiver covers it.
    Waived,
    /// A warning does not hold.
    Warned,
    /// Judged and bad.
    Failed,
    /// Could not be judged.
    Error,
}

impl State {
    /// The state of a test.
    pub fn of(test: &TestRecord) -> Self {
        match test.outcome {
            TestOutcome::Ignored => Self::Ignored,
            TestOutcome::Failed => Self::Failed,
            TestOutcome::Error => Self::Error,
            TestOutcome::Passed if test.checks.iter().any(is_violated) => Self::Warned,
            TestOutcome::Passed
                if test.checks.iter().any(|it| it.outcome == CheckOutcome::Waived) =>
            {
                Self::Waived
            }
            TestOutcome::Passed => Self::Passed,
        }
    }

    /// The class of elements in this state, and the word for it.
    pub fn class(self) -> &'static str {
        match self {
            Self::Ignored => "ignored",
            Self::Passed => "passed",
            Self::Waived => "waived",
            Self::Warned => "warned",
            Self::Failed => "failed",
            Self::Error => "error",
        }
    }

    /// A mark and the word: colour alone says nothing to some readers.
    pub fn badge(self) -> String {
        let mark = match self {
            Self::Ignored => "–",
            Self::Passed => "✓",
            Self::Waived => "≈",
            Self::Warned => "▲",
            Self::Failed => "✕",
            Self::Error => "!",
        };
        let class = self.class();
        format!("<span class=\"badge {class}\"><i aria-hidden=\"true\">{mark}</i> {class}</span>")
    }
}

/// A source expression of a content security policy: text with this digest, and no other.
pub fn digest_source(text: &str) -> String {
    format!("'sha256-{}'", base64(&Sha256::digest(text.as_bytes())))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, at| {
            bits << 8 | u32::from(group.get(at).copied().unwrap_or_default())
        });
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_have_a_middle_to_lose() {
        let path = "../a-directory/of-models/with-a-name-that-does-not-end.Q8_0.gguf";
        let (head, end) = path.split_at(path.len() - END);
        let long = format!(
            "Name: <span class=\"cut\" title=\"{path}\"><span>{head}</span><span>{end}</span></span> &amp;"
        );
        for (text, expected) in [
            ("short words <b> stay", "short words &lt;b&gt; stay"),
            (&format!("Name: {path} &"), &long),
            ("", ""),
        ] {
            assert_eq!(cut(text), expected);
        }
        let umlauts = "ü".repeat(40);
        assert!(cut(&umlauts).contains(&format!("<span>{}</span></span>", "ü".repeat(END))));
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), expected);
        }
    }

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        let expected = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='";
        assert_eq!(digest_source(""), expected);
    }
}
