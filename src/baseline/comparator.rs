/*!
Numeric tolerance for users' own insta tests.

insta compares text. [`ToleranceComparator`] compares the numbers in it as numbers and the rest as
text, so that a snapshot of metrics survives another platform's last digits, and nothing is rounded
in the file.
*/

use insta::{Comparator, DefaultComparator, Snapshot};

use super::Tolerance;

/// Compares text snapshots with numbers inside a tolerance: `|new - old| <= abs + rel * |old|`.
///
/// A number is a word of its own that reads as one and has a fraction or an exponent: `0.5`, `-1e-3`,
/// `2.0`. A whole number may stand on one side (`1` for `1.0`), but two whole numbers have to be the
/// same, and so does everything else: names with digits (`blk.0.attn_q`), versions (`1.2.3`), dates,
/// numbers with a unit attached (`3.2ms`), `NaN`, infinities, punctuation and space.
/// [`ToleranceComparator::ignore_padding`] lets runs of spaces differ in length, for tables whose
/// columns follow their numbers. Binary snapshots are compared as insta does.
///
/// ```
/// use qualm::ToleranceComparator;
///
/// let close = ToleranceComparator::new(1e-9, 1e-3);
/// assert!(close.texts_match("cosine = 0.9905", "cosine = 0.9904"));
/// assert!(!close.texts_match("cosine = 0.9905", "cosine = 0.9705"));
/// assert!(!close.texts_match("numel = 4096", "numel = 4097"), "counts are exact");
///
/// let mut settings = insta::Settings::clone_current();
/// settings.set_comparator(Box::new(close));
/// settings.bind(|| insta::assert_snapshot!("cosine 0.9905", @"cosine 0.9904"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ToleranceComparator {
    tolerance: Tolerance,
    ignore_padding: bool,
}

impl ToleranceComparator {
    /// Numbers may differ by `abs + rel * |old|`. A part that is negative or NaN lets nothing
    /// differ.
    pub fn new(abs: f64, rel: f64) -> Self {
        Self { tolerance: Tolerance { abs, rel }, ignore_padding: false }
    }

    /// Lets runs of spaces differ in length, but not in being there.
    #[must_use]
    pub fn ignore_padding(mut self, yes: bool) -> Self {
        self.ignore_padding = yes;
        self
    }

    /// Do two texts match?
    pub fn texts_match(&self, old: &str, new: &str) -> bool {
        let mut old = tokens(old);
        let mut new = tokens(new);
        loop {
            match (old.next(), new.next()) {
                (None, None) => return true,
                (Some(old), Some(new)) if self.tokens_match(old, new) => {}
                _ => return false,
            }
        }
    }

    fn tokens_match(&self, old: &str, new: &str) -> bool {
        if old == new {
            return true;
        }
        let blank = |text: &str| text.starts_with(' ');
        if self.ignore_padding && blank(old) && blank(new) {
            return true;
        }
        match (number(old), number(new)) {
            (Some((_, true)), Some((_, true))) | (None, _) | (_, None) => false,
            (Some((old, _)), Some((new, _))) => {
                (new - old).abs() <= self.tolerance.abs + self.tolerance.rel * old.abs()
            }
        }
    }
}

impl Comparator for ToleranceComparator {
    fn matches(&self, reference: &Snapshot, test: &Snapshot) -> bool {
        match (reference.as_text(), test.as_text()) {
            (Some(old), Some(new)) => {
                DefaultComparator.matches(reference, test)
                    || self.texts_match(&old.to_string(), &new.to_string())
            }
            _ => DefaultComparator.matches(reference, test),
        }
    }

    fn matches_fully(&self, reference: &Snapshot, test: &Snapshot) -> bool {
        if DefaultComparator.matches_fully(reference, test) {
            return true;
        }
        let (old, new) = (reference.metadata(), test.metadata());
        self.matches(reference, test)
            && reference.as_text().is_some()
            && old.source() == new.source()
            && old.description() == new.description()
            && old.expression() == new.expression()
            && old.input_file() == new.input_file()
            && old.private_info() == new.private_info()
    }

    fn dyn_clone(&self) -> Box<dyn Comparator> {
        Box::new(*self)
    }
}

/// Cuts a text into words, runs of spaces, and single other characters.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let length = if word(first) {
            rest.find(|c| !word(c)).unwrap_or(rest.len())
        } else if first == ' ' {
            rest.find(|c| c != ' ').unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(token)
    })
}

/// What holds a word together: whatever can be part of a number or of a name.
fn word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '+' | '-')
}

/// The value of a finite number, and whether it is written as a whole one.
fn number(token: &str) -> Option<(f64, bool)> {
    let digits = token.strip_prefix(['+', '-']).unwrap_or(token);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        // `inf`, `NaN` and `infinity` read as numbers, too.
        return None;
    }
    let value: f64 = token.parse().ok()?;
    let whole = digits.bytes().all(|b| b.is_ascii_digit());
    value.is_finite().then_some((value, whole))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts() {
        let close = ToleranceComparator::new(0.0, 1e-3);
        // old, new, match, why
        for (old, new, expected, why) in [
            ("", "", true, "nothing"),
            ("a 1.0 b", "a 1.0005 b", true, "inside"),
            ("a 1.0 b", "a 1.002 b", false, "outside"),
            ("a 1.0 b", "a 1.0005 c", false, "other text"),
            ("a 1.0 b", "a 1.0005", false, "less text"),
            ("a 1.0", "a 1.0005 b", false, "more text"),
            ("1.0", "1", true, "how Rust prints a whole float"),
            ("1", "0.9999", true, "a whole float that moved"),
            ("4096", "4097", false, "two whole numbers are counts"),
            ("-1.0", "1.0", false, "the sign"),
            ("1e-7", "1.0004e-7", true, "exponents"),
            ("1e-7", "1E-7", true, "another way to write it"),
            ("[1.0,2.0]", "[1.0001,2.0001]", true, "between punctuation"),
            ("x=1.0;", "x=1.0001;", true, "next to punctuation"),
            ("3.25%", "3.2501%", true, "a sign after it"),
            ("3.25ms", "3.2501ms", false, "a unit makes it a word"),
            ("blk.0.w", "blk.1.w", false, "digits of a name"),
            ("v1.2.3", "v1.2.4", false, "a version"),
            ("1.2.3", "1.2.4", false, "a version alone"),
            ("2026-11-23", "2026-11-24", false, "a date"),
            ("q4_0", "q4_1", false, "a type"),
            ("nan", "nan", true, "as text"),
            ("nan", "1.0", false, "not a number"),
            ("inf", "1.0", false, "not finite"),
            ("inf", "-inf", false, "text that differs"),
            ("1e999", "1e998", false, "overflow is no number"),
            ("0.0", "1e-300", false, "a part of nothing"),
            ("a  1.0", "a 1.0", false, "space counts"),
            ("1.0\n2.0", "1.0\n2.001", true, "lines"),
            ("1.0\n2.0", "1.0 2.0", false, "a line break is no space"),
            ("é1.0", "é1.0001", false, "letters of any script make a word"),
            (".5", "0.5", true, "no digit before the point"),
        ] {
            assert_eq!(close.texts_match(old, new), expected, "{old:?} {new:?}: {why}");
        }
        let padded = close.ignore_padding(true);
        assert!(padded.texts_match("a   1.0  b", "a 1.00001 b"));
        assert!(!padded.texts_match("a b", "ab"));
        for (abs, rel) in [(f64::NAN, 0.0), (0.0, f64::NAN), (-1.0, 0.0)] {
            assert!(!ToleranceComparator::new(abs, rel).texts_match("1.0", "1.1"));
            assert!(ToleranceComparator::new(abs, rel).texts_match("1.0", "1.0"));
        }
    }

    #[test]
    fn under_insta() {
        let mut settings = insta::Settings::clone_current();
        settings.set_comparator(Box::new(ToleranceComparator::new(1e-6, 0.0)));
        settings.bind(|| insta::assert_snapshot!("rmse 0.0120001", @"rmse 0.012"));
    }

    #[test]
    fn metadata_counts_where_insta_asks_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let snapshot = |name: &str, header: &str, body: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, format!("---\nsource: a\n{header}---\n{body}\n")).unwrap();
            Snapshot::from_file(&path).unwrap()
        };
        let close = ToleranceComparator::new(0.0, 1e-3);
        let old = snapshot("a.snap", "description: d\ninfo:\n  k: v\n", "x 1.0");
        // header, body, match, full match, why
        for (header, body, matches, fully, why) in [
            ("description: d\ninfo:\n  k: v\n", "x 1.0001", true, true, "a number moved"),
            ("assertion_line: 3\ndescription: d\ninfo:\n  k: v\n", "x 1.0001", true, true, "line"),
            ("description: e\ninfo:\n  k: v\n", "x 1.0001", true, false, "description"),
            ("description: d\ninfo:\n  k: w\n", "x 1.0001", true, false, "info"),
            ("description: d\ninfo:\n  k: v\n", "x 1.1", false, false, "outside"),
        ] {
            let new = snapshot("b.snap", header, body);
            assert_eq!(close.matches(&old, &new), matches, "{why}");
            assert_eq!(close.matches_fully(&old, &new), fully, "{why}");
            assert_eq!(close.dyn_clone().matches_fully(&old, &new), fully, "{why}");
        }
    }

    proptest! {
        #[test]
        fn tokens_lose_nothing(text: String) {
            prop_assert_eq!(tokens(&text).collect::<String>(), text.clone());
            prop_assert!(ToleranceComparator::default().texts_match(&text, &text));
        }

        #[test]
        fn numbers_as_the_definition_has_it(
            old in -1e6..1e6f64, shift in -2.0..2.0f64, abs in 0.0..1.0f64, rel in 0.0..0.1f64,
        ) {
            let new = old + shift * (abs + rel * old.abs());
            let close = ToleranceComparator::new(abs, rel);
            let texts = close.texts_match(&format!("a {old:?}, b"), &format!("a {new:?}, b"));
            prop_assert_eq!(texts, (new - old).abs() <= abs + rel * old.abs());
        }

        #[test]
        fn without_a_tolerance_only_other_spellings_match(a in "[0-9.e ax-]{0,8}", b in "[0-9.e ax-]{0,8}") {
            let exact = ToleranceComparator::default();
            if exact.texts_match(&a, &b) && a != b {
                let values = |t: &str| tokens(t).map(|t| number(t).map(|n| n.0)).collect::<Vec<_>>();
                prop_assert_eq!(values(&a), values(&b));
            }
        }
    }
}
