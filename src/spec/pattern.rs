/*!
Globs over tensor names and metadata keys.

`*` matches any run of characters, `.` and `/` included; `?` one character; `[ab]`, `[a-z]`, `[!a]`
one of a set; `{a,b}` alternatives; `\` takes the next character literally. A glob must match the
whole name. This is not a path matcher: no character of a name is special.

A glob is translated to a regular expression, which matches in linear time whatever the glob.
*/

use std::iter::Peekable;
use std::str::CharIndices;

use super::Location;

/// A glob, or the regular expression of a rename, and the place where it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    /// As the spec writes it.
    pub text: String,
    /// Where it is written.
    pub at: Location,
    /// True if other pairs may carry it too: a default of the file, or a pair of a matrix.
    pub shared: bool,
}

/// One or more globs; a name matches if any of them does.
pub type Globs = Vec<Pattern>;

/// Why a text is no glob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct GlobError {
    /// What is wrong.
    pub message: &'static str,
    /// What to do.
    pub help: &'static str,
}

const UNCLOSED_SET: GlobError = GlobError {
    message: "`[` without `]`",
    help: "close the set, or write `\\[` for a literal bracket",
};
const UNCLOSED_BRACE: GlobError = GlobError {
    message: "`{` without `}`",
    help: "close the alternatives, or write `\\{` for a literal brace",
};

/// Deepest nesting of `{…}`.
const MAX_DEPTH: usize = 16;

/// Translates a glob to a regular expression that matches whole names.
pub fn glob_to_regex(glob: &str) -> Result<String, GlobError> {
    if glob.is_empty() {
        return Err(GlobError { message: "empty glob", help: "write `*` to match everything" });
    }
    let mut regex = String::with_capacity(glob.len() + 16);
    regex.push_str(r"(?s)\A(?:");
    let mut depth = 0;
    let mut chars = glob.char_indices().peekable();
    while let Some((_, c)) = chars.next() {
        match c {
            '*' => {
                while chars.next_if(|&(_, next)| next == '*').is_some() {}
                regex.push_str(".*");
            }
            '?' => regex.push('.'),
            '[' => set(&mut chars, &mut regex)?,
            '{' if depth == MAX_DEPTH => {
                return Err(GlobError {
                    message: "alternatives are nested too deeply",
                    help: "write several globs",
                });
            }
            '{' => {
                depth += 1;
                regex.push_str("(?:");
            }
            ',' if depth > 0 => regex.push('|'),
            '}' if depth > 0 => {
                depth -= 1;
                regex.push(')');
            }
            '}' => {
                return Err(GlobError {
                    message: "`}` without `{`",
                    help: "write `\\}` for a literal brace",
                });
            }
            '\\' => match chars.next() {
                Some((_, literal)) => push_literal(&mut regex, literal),
                None => {
                    return Err(GlobError {
                        message: "nothing follows the last `\\`",
                        help: "write `\\\\` for a literal backslash",
                    });
                }
            },
            literal => push_literal(&mut regex, literal),
        }
    }
    if depth > 0 {
        return Err(UNCLOSED_BRACE);
    }
    regex.push_str(r")\z");
    Ok(regex)
}

/// Translates a set, the `[` being read: `]` first in it is literal, as is `-` first or last.
fn set(chars: &mut Peekable<CharIndices>, regex: &mut String) -> Result<(), GlobError> {
    regex.push('[');
    if chars.next_if(|&(_, c)| c == '!' || c == '^').is_some() {
        regex.push('^');
    }
    let mut first = true;
    loop {
        let (_, mut low) = chars.next().ok_or(UNCLOSED_SET)?;
        if low == ']' && !first {
            break;
        }
        first = false;
        if low == '\\' {
            low = chars.next().ok_or(UNCLOSED_SET)?.1;
        }
        push_set_literal(regex, low);
        if chars.next_if(|&(_, c)| c == '-').is_none() {
            continue;
        }
        // A `-` before the closing bracket stands for itself.
        if chars.peek().is_some_and(|&(_, c)| c == ']') {
            push_set_literal(regex, '-');
            continue;
        }
        let (_, mut high) = chars.next().ok_or(UNCLOSED_SET)?;
        if high == '\\' {
            high = chars.next().ok_or(UNCLOSED_SET)?.1;
        }
        if high < low {
            return Err(GlobError {
                message: "a range in `[…]` runs backwards",
                help: "write the lower end first",
            });
        }
        regex.push('-');
        push_set_literal(regex, high);
    }
    regex.push(']');
    Ok(())
}

fn push_literal(regex: &mut String, literal: char) {
    if regex_syntax_char(literal) {
        regex.push('\\');
    }
    regex.push(literal);
}

fn push_set_literal(regex: &mut String, literal: char) {
    if regex_syntax_char(literal) || matches!(literal, '-' | '&' | '~') {
        regex.push('\\');
    }
    regex.push(literal);
}

fn regex_syntax_char(c: char) -> bool {
    matches!(
        c,
        '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' | '#'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    fn matches(glob: &str, name: &str) -> bool {
        Regex::new(&glob_to_regex(glob).unwrap()).unwrap().is_match(name)
    }

    #[test]
    fn globs_match_whole_names() {
        for (glob, name, expected, why) in [
            ("blk.*.weight", "blk.0.attn_k.weight", true, "`*` matches dots"),
            ("blk.*.weight", "blk.0/a.weight", true, "`/` is not special"),
            ("blk.*.weight", "xblk.0.weight", false, "the whole name must match"),
            ("blk.*", "blkx0", false, "`.` is literal"),
            ("*.attn_{k,v}.weight", "blk.0.attn_v.weight", true, "alternatives"),
            ("*.attn_{k,v}.weight", "blk.0.attn_q.weight", false, "alternatives"),
            ("{a,{b,c}d}", "cd", true, "alternatives nest"),
            ("a,b", "a,b", true, "a comma outside of braces is literal"),
            ("a{,x}", "a", true, "an alternative may be empty"),
            ("blk.[0-3].*", "blk.2.w", true, "ranges"),
            ("blk.[!0-3].*", "blk.2.w", false, "negated sets"),
            ("a[]]", "a]", true, "`]` first in a set is literal"),
            ("a[x-]", "a-", true, "`-` last in a set is literal"),
            ("a[&&b]", "a&", true, "no set arithmetic of regular expressions"),
            (r"w\[0\]", "w[0]", true, "escaped brackets"),
            ("w[[]0]", "w[0]", true, "a bracket in a set"),
            ("w[0]", "w[0]", false, "a set, not a literal bracket"),
            ("?", "é", true, "`?` is a character, not a byte"),
            ("*", "", true, "`*` matches nothing too"),
            ("**.x", "x", false, "`**` is `*`"),
            ("a*c", "a\nc", true, "newlines are characters"),
            ("a$", "a", false, "no anchors"),
        ] {
            assert_eq!(matches(glob, name), expected, "{glob} on {name:?}: {why}");
        }
    }

    #[test]
    fn broken_globs_say_what_to_do() {
        for (glob, message) in [
            ("", "empty glob"),
            ("a[b", "`[` without `]`"),
            ("a[]", "`[` without `]`"),
            ("[a-", "`[` without `]`"),
            ("[\\", "`[` without `]`"),
            ("[b-a]", "a range in `[…]` runs backwards"),
            ("{a,b", "`{` without `}`"),
            ("a}", "`}` without `{`"),
            ("a\\", "nothing follows the last `\\`"),
            ("{{{{{{{{{{{{{{{{{", "alternatives are nested too deeply"),
        ] {
            assert_eq!(glob_to_regex(glob).unwrap_err().message, message, "{glob}");
        }
    }

    proptest! {
        #[test]
        fn what_is_a_glob_compiles(glob in r"[\[\]{}*?,!^\\a-c&~#$ \-\PC]{0,24}") {
            if let Ok(regex) = glob_to_regex(&glob) {
                prop_assert!(Regex::new(&regex).is_ok(), "{regex}");
            }
        }

        #[test]
        fn an_escaped_name_matches_itself_alone(name in "\\PC{1,12}", other in "\\PC{1,12}") {
            let glob: String = name.chars().flat_map(|c| ['\\', c]).collect();
            prop_assert!(matches(&glob, &name));
            prop_assert_eq!(matches(&glob, &other), name == other);
        }
    }
}
