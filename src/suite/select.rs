/*!
Which tests run: libtest's filters.

As in libtest, several filters are alternatives, `--skip` takes tests away again, and both mean
substrings unless `--exact` is given.
*/

/// How tests that the spec skips are treated, as libtest treats `#[ignore]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ignored {
    /// They are listed and reported, not run.
    #[default]
    Reported,
    /// They alone run (`--ignored`).
    Only,
    /// They run like the others (`--include-ignored`).
    Included,
}

/// libtest's selection.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Alternatives; none selects every test.
    pub filters: Vec<String>,
    /// Whole ids instead of substrings.
    pub exact: bool,
    /// Tests to leave out.
    pub skip: Vec<String>,
    /// What happens to skipped tests.
    pub ignored: Ignored,
}

impl Selection {
    /// Does a test of this id run? `ignored` says that the spec skips it.
    pub fn selects(&self, id: &str, ignored: bool) -> bool {
        let matches = |pattern: &String| {
            if self.exact { pattern == id } else { id.contains(pattern.as_str()) }
        };
        (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self.skip.iter().any(matches)
            && (self.ignored != Ignored::Only || ignored)
    }

    /// Could the test `id`, or one below it (`id::…`), be selected? Spares reading the specs and
    /// models of tests that `--exact` rules out.
    pub fn may_select_below(&self, id: &str) -> bool {
        let at_or_below = |filter: &String| {
            filter.strip_prefix(id).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        !self.exact || self.filters.is_empty() || self.filters.iter().any(at_or_below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_libtests() {
        let selection = |filters: &[&str], exact, skip: &[&str]| Selection {
            filters: filters.iter().map(ToString::to_string).collect(),
            exact,
            skip: skip.iter().map(ToString::to_string).collect(),
            ignored: Ignored::Reported,
        };
        for (case, id, expected, why) in [
            (selection(&[], false, &[]), "s::p::t", true, "no filter selects all"),
            (selection(&["p::t"], false, &[]), "s::p::t", true, "substring"),
            (selection(&["x", "t"], false, &[]), "s::p::t", true, "several are alternatives"),
            (selection(&["t"], true, &[]), "s::p::t", false, "exact wants the whole id"),
            (selection(&["s::p::t"], true, &[]), "s::p::t", true, "exact"),
            (selection(&["t"], false, &["p"]), "s::p::t", false, "skip takes away"),
            (selection(&[], true, &["p"]), "s::p::t", true, "exact holds for skip, too"),
        ] {
            assert_eq!(case.selects(id, false), expected, "{why}");
        }
    }
}
