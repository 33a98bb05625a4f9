/*!
The table of architectures: for each class of a checkpoint the rules of its tensors, in groups that classes
share. The built-in table stands in `architectures/`, one file a family; a user's own file has the same form
and comes before it. `docs/architectures.md` describes the form.
*/

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::OnceLock;

use serde::{Deserialize, Deserializer, de};

use super::facts::{Facts, Variables};
use super::names::Pattern;
use super::number::Number;
use super::rule::{Name, Rule};
use crate::disk;

/// The built-in files.
const FILES: &[(&str, &str)] = &[
    ("classes", include_str!("architectures/classes.toml")),
    ("variables", include_str!("architectures/variables.toml")),
    ("decoder", include_str!("architectures/decoder.toml")),
    ("experts", include_str!("architectures/experts.toml")),
    ("encoder", include_str!("architectures/encoder.toml")),
    ("fused", include_str!("architectures/fused.toml")),
    ("gemma", include_str!("architectures/gemma.toml")),
    ("recurrent", include_str!("architectures/recurrent.toml")),
    ("vision", include_str!("architectures/vision.toml")),
];

/// `general.architecture` of a file of a projector and its towers.
const PROJECTOR: &str = "clip";

/// A file of the table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Names that several spellings of a setting have.
    #[serde(default)]
    variables: BTreeMap<String, Vec<Parsed<Number>>>,
    #[serde(default)]
    groups: BTreeMap<String, Group>,
    #[serde(default)]
    classes: BTreeMap<String, Class>,
}

/// Rules that classes share.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Groups whose rules come after this one's.
    #[serde(default)]
    include: Vec<String>,
    /// By pattern of the converted tensor's name, what it is made of.
    #[serde(default, deserialize_with = "patterns")]
    pub tensors: Vec<(Pattern, Choice)>,
    /// By reason, tensors of the checkpoint that are left out.
    #[serde(default)]
    left_out: BTreeMap<String, Vec<Parsed<OneSided>>>,
    /// Tensors of the checkpoint that may be left out where they repeat another.
    #[serde(default)]
    copies: BTreeMap<String, Vec<String>>,
    /// Other names that a checkpoint's tensors go by.
    #[serde(default)]
    other_names: BTreeMap<Parsed<Pattern>, Parsed<Name>>,
}

/// Rules of which the first that applies is taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// In their order.
    pub rules: Vec<Rule>,
    /// Where several apply, the values decide.
    pub by_values: bool,
}

/// Tensors that only one side has.
#[derive(Clone, Debug, PartialEq)]
pub struct OneSided {
    /// Their names.
    pub pattern: Pattern,
    /// Only where this is not zero.
    pub when: Option<Number>,
}

/// A class of checkpoints.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Class {
    /// `general.architecture` of what is made of it.
    gguf: String,
    /// Groups of the text model, the first deciding.
    #[serde(default)]
    text: Vec<String>,
    /// Groups of the file of its projector and towers.
    #[serde(default)]
    mmproj: Vec<String>,
}

/// The rules of one class, the first deciding.
#[derive(Clone, Debug, Default)]
pub struct Rules<'a> {
    /// The class.
    pub class: String,
    /// Its groups in order.
    groups: Vec<&'a Group>,
}

impl<'a> Rules<'a> {
    /// What a converted tensor may be made of, with what its name says.
    pub fn choices(&self) -> impl Iterator<Item = &'a (Pattern, Choice)> {
        self.groups.iter().flat_map(|group| &group.tensors)
    }

    /// Why tensors of the checkpoint may be left out.
    pub fn left_out(&self) -> impl Iterator<Item = (&'a str, &'a OneSided)> {
        self.groups.iter().flat_map(|group| one_sided(&group.left_out))
    }

    /// Tensors of the checkpoint that may be left out where they repeat another, and that other.
    pub fn copies(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let copies = self.groups.iter().flat_map(|group| &group.copies);
        copies.flat_map(|(copy, of)| of.iter().map(move |of| (copy.as_str(), of.as_str())))
    }

    /// Patterns of names, and what such a name is called as well.
    pub fn other_names(&self) -> impl Iterator<Item = (&'a Pattern, &'a Name)> {
        let names = self.groups.iter().flat_map(|group| &group.other_names);
        names.map(|(pattern, name)| (&pattern.0, &name.0))
    }
}

/// Reasons and patterns in their order.
fn one_sided(
    by_reason: &BTreeMap<String, Vec<Parsed<OneSided>>>,
) -> impl Iterator<Item = (&str, &OneSided)> {
    by_reason.iter().flat_map(|(why, all)| all.iter().map(|one| (why.as_str(), &one.0)))
}

/// The table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Spellings of settings.
    pub variables: Variables,
    groups: BTreeMap<String, Group>,
    classes: BTreeMap<String, Class>,
    /// Classes of the user's own file.
    own: Vec<String>,
}

impl Table {
    /// The table that comes with qualm.
    pub fn built_in() -> &'static Self {
        static TABLE: OnceLock<Table> = OnceLock::new();
        TABLE.get_or_init(|| {
            let mut table = Self::default();
            for (name, text) in FILES {
                // A test reads every file.
                let problem = table.add(text).err();
                debug_assert!(problem.is_none(), "{name}: {}", problem.unwrap_or_default());
            }
            table
        })
    }

    /// The built-in table with a user's file before it.
    pub fn with_file(path: &Path) -> Result<Self, String> {
        let text = disk::read_text(path, disk::SPEC).map_err(|error| error.to_string())?;
        let mut table = Self::built_in().clone();
        table.own = table.add(&text)?;
        table.check()?;
        Ok(table)
    }

    /// Adds a file; what it names again, it replaces. Returns its classes.
    fn add(&mut self, text: &str) -> Result<Vec<String>, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        for (name, numbers) in file.variables {
            self.variables.retain(|(known, _)| *known != name);
            self.variables.push((name, numbers.into_iter().map(|number| number.0).collect()));
        }
        let classes = file.classes.keys().cloned().collect();
        self.groups.extend(file.groups);
        self.classes.extend(file.classes);
        Ok(classes)
    }

    /// Every group that is named is there.
    fn check(&self) -> Result<(), String> {
        let of_classes = self.classes.iter().flat_map(|(name, class)| {
            class.text.iter().chain(&class.mmproj).map(move |group| (name, group))
        });
        let of_groups = self
            .groups
            .iter()
            .flat_map(|(name, group)| group.include.iter().map(move |other| (name, other)));
        for (name, group) in of_classes.chain(of_groups) {
            if !self.groups.contains_key(group) {
                return Err(format!("{name} names the group {group}, which is not there"));
            }
        }
        Ok(())
    }

    /// Every class, and whether it has rules for a text model and for a projector's file.
    pub fn classes(&self) -> impl Iterator<Item = (&str, bool, bool)> {
        self.classes
            .iter()
            .map(|(name, class)| (name.as_str(), !class.text.is_empty(), !class.mmproj.is_empty()))
    }

    /// Whether a class is known of which converters make files of this architecture.
    pub fn makes(&self, architecture: &str) -> bool {
        architecture == PROJECTOR || self.classes.values().any(|class| class.gguf == architecture)
    }

    /// Buffers that a model computes when it is built.
    pub fn buffers(&self) -> impl Iterator<Item = (&str, &OneSided)> {
        self.groups.get("buffers").into_iter().flat_map(|group| one_sided(&group.left_out))
    }

    /// Tensors that may be left out where they repeat another, and that other.
    pub fn copies(&self) -> impl Iterator<Item = (&str, &str)> {
        let group = self.groups.get("one-sided");
        let copies = group.into_iter().flat_map(|group| &group.copies);
        copies.flat_map(|(copy, of)| of.iter().map(move |of| (copy.as_str(), of.as_str())))
    }

    /// The rules for a pair: those of the first class that its configuration names and the table knows;
    /// of a user's file with one class, that one; else those of the only class of the file's
    /// architecture.
    pub fn rules(&self, facts: &Facts) -> Option<Rules<'_>> {
        let is_projector = facts.architecture() == PROJECTOR;
        let groups =
            |class: &Class| if is_projector { class.mmproj.clone() } else { class.text.clone() };
        let named = facts.classes().into_iter().find(|class| self.classes.contains_key(*class));
        let only = match self.own.as_slice() {
            [one] => Some(one.as_str()),
            _ => None,
        };
        let mut of_architecture =
            self.classes.iter().filter(|(_, class)| class.gguf == facts.architecture());
        let class = only.or(named).or_else(|| {
            let (name, first) = of_architecture.next()?;
            of_architecture.all(|(_, other)| groups(other) == groups(first)).then_some(name)
        })?;
        let groups = groups(self.classes.get(class)?);
        if groups.is_empty() {
            return None;
        }
        let mut all = Vec::new();
        for name in &groups {
            self.collect(name, &mut all);
        }
        let groups = all.iter().filter_map(|name| self.groups.get(*name)).collect();
        Some(Rules { class: class.to_owned(), groups })
    }

    /// A group and those that it includes, each once.
    fn collect<'a>(&'a self, name: &'a str, all: &mut Vec<&'a str>) {
        if all.contains(&name) {
            return;
        }
        all.push(name);
        for other in self.groups.get(name).into_iter().flat_map(|group| &group.include) {
            self.collect(other, all);
        }
    }
}

/// A value that is written as a string.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Parsed<T>(T);

impl<'de, T: FromStr<Err = String>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(de::Error::custom)
    }
}

impl FromStr for OneSided {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (pattern, when) = match text.split_once(" if ") {
            Some((pattern, when)) => (pattern, Some(when.parse()?)),
            None => (text, None),
        };
        Ok(Self { pattern: pattern.trim().parse()?, when })
    }
}

/// How a file writes the rules of a tensor.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a rule, a list of rules, or { by_values = [rules] }")]
enum Written {
    One(String),
    Many(Vec<String>),
    ByValues(ByValues),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ByValues {
    by_values: Vec<String>,
}

fn patterns<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(Pattern, Choice)>, D::Error> {
    let written = BTreeMap::<String, Written>::deserialize(deserializer)?;
    let read = |(pattern, written): (String, Written)| {
        let (rules, by_values) = match written {
            Written::One(rule) => (vec![rule], false),
            Written::Many(rules) => (rules, false),
            Written::ByValues(ByValues { by_values }) => (by_values, true),
        };
        let rules: Result<Vec<Rule>, String> = rules.iter().map(|rule| rule.parse()).collect();
        let rules = rules.map_err(|error| format!("{pattern:?}: {error}"))?;
        Ok((pattern.parse()?, Choice { rules, by_values }))
    };
    written.into_iter().map(read).collect::<Result<_, String>>().map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_table_is_whole() {
        let table = Table::built_in();
        assert_eq!(table.check(), Ok(()));
        for (name, text, mmproj) in table.classes() {
            assert!(text || mmproj, "{name} has no rules");
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_says_why() {
        for (text, expected) in [
            ("[groups.a.tensors]\n\"b.*\" = \"c | turn()\"", "turn is no operation"),
            ("[groups.a]\nincludes = []", "unknown field `includes`"),
            ("[classes]\nA = { gguf = \"a\", text = 1 }", "invalid type"),
        ] {
            let error = Table::default().add(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
