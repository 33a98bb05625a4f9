/*!
Reading values out of a TOML document by the table of keys, with a finding for everything that does
not fit. No finding ends the reading: the caller gets `None` and goes on.
*/

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{Key, Kind, SPEC, Shape};
use super::{Diagnostic, LoadOptions, Location, Severity, Source, SpecErrors};

/// A value in the document.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// A table whose keys are known to be those of its shape, save for those already reported.
#[derive(Clone, Copy)]
pub(super) struct Table<'t> {
    pub shape: &'static Shape,
    entries: &'t DeTable<'t>,
    /// The header, the braces, or the first dotted key.
    start: usize,
    end: usize,
}

impl<'t> Table<'t> {
    pub fn span(&self) -> Range<usize> {
        self.start..self.end
    }

    /// The row of a key and its value, if the table has it.
    pub fn get(&self, name: &'static str) -> Option<(&'static Key, &'t Value<'t>)> {
        let value = self.entries.get(name)?;
        let key = self.shape.key(name);
        debug_assert!(key.is_some(), "{name} is not in the table of keys");
        Some((key?, value))
    }

    pub fn has(&self, name: &'static str) -> bool {
        self.get(name).is_some()
    }

    /// Where a key is written, or else the table.
    pub fn key_span(&self, name: &str) -> Range<usize> {
        self.entries.get_key_value(name).map_or(self.span(), |(key, _)| key.span())
    }

    /// The entries in the order of the file.
    pub fn entries(&self) -> Vec<(&'t str, Range<usize>, &'t Value<'t>)> {
        let mut entries: Vec<_> = self
            .entries
            .iter()
            .map(|(key, value)| (key.get_ref().as_ref(), key.span(), value))
            .collect();
        entries.sort_by_key(|(_, span, _)| span.start);
        entries
    }
}

/// The findings about one file, as they are gathered.
pub(super) struct Findings {
    pub source: Arc<Source>,
    /// At most [`Findings::MOST`].
    pub list: Vec<Diagnostic>,
    /// Those that are not in the list, too.
    pub count: usize,
    /// The environment variables that names and tags took, with their values.
    pub variables: BTreeMap<String, String>,
    errors: usize,
    patterns: usize,
}

impl Findings {
    pub fn new(source: Arc<Source>) -> Self {
        let variables = BTreeMap::new();
        Self { source, list: Vec::new(), count: 0, variables, errors: 0, patterns: 0 }
    }

    /// True if the spec is invalid.
    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// All that was found.
    pub fn into_errors(self) -> SpecErrors {
        let more = self.count - self.list.len();
        SpecErrors { more, ..SpecErrors::new(self.list) }
    }

    pub fn at(&self, span: Range<usize>) -> Location {
        self.source.locate(span)
    }

    /// A new error, to be completed and handed to [`Findings::push`].
    pub fn error(&self, span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(&self.source, self.at(span), message)
    }

    /// A new warning, to be completed and handed to [`Findings::push`].
    pub fn warning(&self, span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic::warning(&self.source, self.at(span), message)
    }

    /// So many findings are kept, the rest are counted: nobody reads more, and a file may be wrong at
    /// every byte.
    const MOST: usize = 100;

    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.count += 1;
        self.errors += usize::from(diagnostic.severity == Severity::Error);
        if self.list.len() < Self::MOST {
            self.list.push(diagnostic);
        }
    }

    /// Most globs and regular expressions of a file.
    const MOST_PATTERNS: usize = 10_000;
    /// With so many errors, no further pattern is looked at: to compile one takes its time.
    const HOPELESS: usize = 20;

    /// Whether another glob or regular expression is to be read.
    pub fn takes_pattern(&mut self, span: &Range<usize>) -> bool {
        self.patterns += 1;
        if self.patterns == Self::MOST_PATTERNS + 1 {
            let message =
                format!("more than {} globs and regular expressions", Self::MOST_PATTERNS);
            let finding = self.error(span.clone(), message);
            self.push(finding.help("write globs that match more, or split the file"));
        }
        self.patterns <= Self::MOST_PATTERNS && self.errors < Self::HOPELESS
    }

    /// Takes a table as one of a shape: reports unknown and missing keys.
    pub fn open<'t>(
        &mut self,
        shape: &'static Shape,
        table: &'t DeTable<'t>,
        span: Range<usize>,
    ) -> Table<'t> {
        for (key, _) in table {
            if shape.key(key.get_ref()).is_none() {
                let message = format!("unknown {} {}", shape.noun, quoted(key.get_ref()));
                let mut finding = self.error(key.span(), message);
                finding.help = Some(suggestion(shape, key.get_ref()));
                self.push(finding);
            }
        }
        for key in shape.all().filter(|key| key.required) {
            if !table.contains_key(key.name) {
                self.missing(shape, key, span.clone());
            }
        }
        Table { shape, entries: table, start: span.start, end: span.end }
    }

    /// Reports a key that a table needs and does not have.
    pub fn missing(&mut self, shape: &Shape, key: &Key, span: Range<usize>) {
        let message = match shape.heading {
            "" => format!("`{}` is missing", key.name),
            heading => format!("`{}` is missing from `{heading}`", key.name),
        };
        let expected = key.kind.expected();
        let help = format!("`{}` is {expected}: {}", key.name, as_clause(key.doc));
        let finding = self.error(span, message).help(help);
        self.push(finding);
    }

    /// The value of an environment variable for a name or a tag, which is noted; none if it is not set.
    pub fn take(&mut self, name: &str, options: &LoadOptions) -> Option<String> {
        let value = options.variable(name)?;
        self.variables.insert(name.to_owned(), value.clone());
        Some(value)
    }

    /// Reports an environment variable that is not set.
    pub fn unset(&mut self, span: Range<usize>, name: &str) {
        let message = format!("the environment variable {} is not set", quoted(name));
        let finding = self.error(span, message).help(format!("set it: {name}=… qualm"));
        self.push(finding);
    }

    /// Reports a value of the wrong type; always `None`.
    pub fn wrong_type<T>(&mut self, key: &Key, value: &Value) -> Option<T> {
        let message = format!(
            "`{}` must be {}, not {}",
            key.name,
            key.kind.expected(),
            in_words(value.get_ref())
        );
        let mut finding = self.error(value.span(), message);
        if let Kind::Tables(shape) = key.kind {
            finding.help = Some(format!("write [[{}]]", shape.heading));
        }
        self.push(finding);
        None
    }

    pub fn table<'t>(&mut self, table: &Table<'t>, name: &'static str) -> Option<Table<'t>> {
        let (key, value) = table.get(name)?;
        if let (DeValue::Table(inner), Some(shape)) = (value.get_ref(), key.kind.shape()) {
            Some(self.open(shape, inner, value.span()))
        } else {
            self.wrong_type(key, value)
        }
    }

    /// An array of tables; a single table where the table of keys allows it.
    pub fn tables<'t>(&mut self, table: &Table<'t>, name: &'static str) -> Vec<Table<'t>> {
        let Some((key, value)) = table.get(name) else { return Vec::new() };
        let mut tables = Vec::new();
        match (value.get_ref(), &key.kind) {
            (DeValue::Table(inner), Kind::OneOrMoreTables(shape)) => {
                tables.push(self.open(shape, inner, value.span()));
            }
            (DeValue::Array(items), Kind::OneOrMoreTables(shape) | Kind::Tables(shape)) => {
                for item in items {
                    match item.get_ref() {
                        DeValue::Table(inner) => {
                            tables.push(self.open(shape, inner, item.span()));
                        }
                        other => {
                            let message =
                                format!("`{name}` must hold tables, not {}", in_words(other));
                            let finding = self.error(item.span(), message);
                            self.push(finding);
                        }
                    }
                }
            }
            _ => self.wrong_type(key, value).unwrap_or_default(),
        }
        tables
    }

    /// A table whose keys are the user's.
    pub fn named<'t>(
        &mut self,
        table: &Table<'t>,
        name: &'static str,
    ) -> Vec<(&'t str, Range<usize>, &'t Value<'t>)> {
        let Some((key, value)) = table.get(name) else { return Vec::new() };
        let DeValue::Table(inner) = value.get_ref() else {
            return self.wrong_type(key, value).unwrap_or_default();
        };
        let span = value.span();
        Table { shape: table.shape, entries: inner, start: span.start, end: span.end }.entries()
    }
}

/// What a value is, for messages: short values as they are, others by their type.
pub(super) fn in_words(value: &DeValue) -> String {
    match value {
        DeValue::String(text) if text.len() <= 32 => format!("the string {text:?}"),
        DeValue::String(_) => "a string".to_owned(),
        DeValue::Integer(integer) => format!("the integer {integer}"),
        DeValue::Float(float) => format!("the float {float}"),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// What may have been meant by an unknown key.
fn suggestion(shape: &'static Shape, unknown: &str) -> String {
    let names = || shape.all().map(|key| key.name);
    if let Some(name) = nearest(unknown, names()) {
        return format!("did you mean `{name}`?");
    }
    if let Some(heading) = home_of(unknown) {
        return format!("`{unknown}` belongs in `{heading}`");
    }
    let names: Vec<_> = names().collect();
    format!("known here: {}", names.join(", "))
}

/// The heading of a table elsewhere that has the key.
fn home_of(unknown: &str) -> Option<&'static str> {
    fn search(shape: &'static Shape, unknown: &str, depth: usize) -> Option<&'static str> {
        if depth > 0 && shape.key(unknown).is_some() {
            return Some(shape.heading);
        }
        let inner = shape.all().filter_map(|key| key.kind.shape());
        // The shapes form a tree of this depth.
        inner.filter(|_| depth < 4).find_map(|shape| search(shape, unknown, depth + 1))
    }
    search(&SPEC, unknown, 0)
}

/// The candidate that is most like a misspelled name, if any is much like it.
pub(super) fn nearest<'n>(
    name: &str,
    candidates: impl IntoIterator<Item = &'n str>,
) -> Option<&'n str> {
    if name.len() > 64 {
        return None;
    }
    let plain = name.to_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|candidate| {
            let other = candidate.to_lowercase().replace('-', "_");
            (strsim::damerau_levenshtein(&plain, &other), candidate)
        })
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.len().min(plain.len()) / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A text of the user's in backticks, or, if that would not be readable, escaped.
pub(super) fn quoted(text: &str) -> String {
    if text.is_empty() || text.chars().any(|c| c == '`' || c.is_control()) {
        format!("{text:?}")
    } else {
        format!("`{text}`")
    }
}

/// The first sentence of a key's doc, to stand after a colon.
fn as_clause(doc: &str) -> String {
    let sentence = doc.split_once(". ").map_or(doc.trim_end_matches('.'), |(first, _)| first);
    let mut chars = sentence.chars();
    chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
}
