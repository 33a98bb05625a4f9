/*!
Globs over tensor names and metadata keys.

`*` matches any run of characters, `.` and `/` included; `?` one character; `[ab]`, `[a-z]`, `[!a]`
one of a set; `{a,b}` alternatives; `\` takes the next character literally. A glob must match the
whole name. This is not a path matcher: no character is special in a name.
*/

use super::Location;

/// A glob, or the regular expression of a rename, and the place where it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Pattern {
    /// As the spec writes it.
    pub text: String,
    /// Where it is written.
    pub at: Location,
    /// True if other pairs carry it too: a default of the file, or a pair of a matrix.
    pub shared: bool,
}

/// One or more globs; a name matches if any of them does.
pub type Globs = Vec<Pattern>;

/// Why a text is no glob.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct GlobError {
    /// What is wrong.
    pub message: String,
    /// The byte of the glob where it goes wrong.
    pub offset: usize,
}
