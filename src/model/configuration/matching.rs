/*!
How entries of lists match module names.

Every engine has rules of its own. An entry counts as a match if any engine that serves the method
takes it as one: what only some of them take is no contradiction that the planes show.
*/

use regex::{Regex, RegexBuilder};

/// Largest compiled pattern, in bytes.
const LARGEST: usize = 1 << 20;

/// Prefixes that loaders rewrite into each other.
const PREFIXES: &[&str] = &[
    "model.language_model.",
    "language_model.model.",
    "language_model.",
    "thinker.model.",
    "model.",
];

/// A name without the prefix under which loaders know it.
pub fn bare(name: &str) -> &str {
    PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name)
}

/// A pattern that must match from the start of a name; none if it cannot be compiled here (look-around).
pub fn regex(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(&format!("^(?:{pattern})")).size_limit(LARGEST).build().ok()
}

/// What an entry is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Whole names, `re:` patterns, and names that end in the entry at a dot.
    Exact,
    /// The same, and runs of whole components anywhere.
    Components,
    /// The same, and any part of a name.
    Substring,
    /// As `Components`, and shell patterns over the name or one component.
    Glob,
}

/// An entry, ready to be matched.
#[derive(Debug)]
pub struct Entry {
    /// As it is written.
    pub text: String,
    rule: Rule,
    pattern: Pattern,
}

#[derive(Debug)]
enum Pattern {
    Text,
    Regex(Regex),
    /// A pattern that cannot be compiled here: nothing is known of what it matches.
    Unknown,
}

impl Entry {
    /// An entry of a list with the given rule.
    pub fn new(text: &str, rule: Rule) -> Self {
        let pattern = if let Some(pattern) = text.strip_prefix("re:") {
            regex(pattern).map_or(Pattern::Unknown, Pattern::Regex)
        } else if rule == Rule::Glob && text.contains(['*', '?', '[']) {
            regex(&format!("{}$", glob(text))).map_or(Pattern::Unknown, Pattern::Regex)
        } else {
            Pattern::Text
        };
        Self { text: text.to_owned(), rule, pattern }
    }

    /// Whether nothing can be said about what it matches.
    pub fn is_unknown(&self) -> bool {
        matches!(self.pattern, Pattern::Unknown)
    }

    /// Whether it means this module, or the fused module that this one becomes a part of.
    pub fn matches(&self, module: &str) -> bool {
        let fused = super::coverage::fused_name(module);
        self.means(module) || fused.is_some_and(|fused| self.means(&fused))
    }

    fn means(&self, module: &str) -> bool {
        match &self.pattern {
            Pattern::Unknown => false,
            Pattern::Regex(regex) => {
                regex.is_match(module)
                    || regex.is_match(bare(module))
                    || self.rule == Rule::Glob && module.split('.').any(|part| regex.is_match(part))
            }
            Pattern::Text => {
                let (entry, module) = (bare(&self.text), bare(module));
                let at_dots = || format!(".{module}.").contains(&format!(".{entry}."));
                match self.rule {
                    _ if entry == module => true,
                    Rule::Exact => module.ends_with(&format!(".{entry}")),
                    Rule::Components | Rule::Glob => at_dots(),
                    Rule::Substring => module.contains(entry),
                }
            }
        }
    }
}

/// A shell pattern as a regular expression.
fn glob(text: &str) -> String {
    let mut pattern = String::new();
    for c in text.chars() {
        match c {
            '*' => pattern.push_str(".*"),
            '?' => pattern.push('.'),
            '[' | ']' => pattern.push(c),
            _ => pattern.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_match_as_engines_do() {
        use Rule::{Components, Exact, Glob, Substring};
        let module = "model.layers.0.mlp.gate_up_proj";
        for (entry, rule, module, expected, why) in [
            ("lm_head", Exact, "lm_head", true, "the whole name"),
            ("lm_head", Exact, "model.lm_head", true, "at a dot"),
            ("head", Exact, "lm_head", false, "not at a dot"),
            ("re:.*lm_head", Exact, "model.lm_head", true, "a pattern from the start"),
            ("re:visual.*", Exact, "model.visual.blocks", true, "without the usual prefix"),
            ("mlp.gate", Components, module, false, "gate is a component, not a part of one"),
            ("mlp.gate", Components, "model.layers.0.mlp.gate", true, "whole components"),
            ("layers.0", Components, "model.layers.0.mlp.up_proj", true, "a run in the middle"),
            ("k_proj", Substring, "model.layers.0.self_attn.k_proj", true, "a part"),
            ("lm_head*", Glob, "lm_head", true, "a shell pattern"),
            ("*router*", Glob, "model.layers.3.mlp.router", true, "anywhere"),
            ("model.layers.*.self_attn", Glob, "model.layers.7.self_attn.q_proj", false, "whole"),
            (
                "model.language_model.layers.0.q_proj",
                Exact,
                "language_model.model.layers.0.q_proj",
                true,
                "prefixes that loaders rewrite",
            ),
            (
                "model.layers.0.self_attn.qkv_proj",
                Exact,
                "model.layers.0.self_attn.q_proj",
                true,
                "the fused name",
            ),
            ("re:(?!x)", Exact, "x", false, "look-around is not known here"),
        ] {
            assert_eq!(
                Entry::new(entry, rule).matches(module),
                expected,
                "{entry} {module}: {why}"
            );
        }
    }
}
