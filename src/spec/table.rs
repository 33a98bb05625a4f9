/*!
Reading values out of a TOML document by the table of keys, with a finding for everything that does
not fit. No finding ends the reading: the caller gets `None` and goes on.
*/

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::keys::{Key, Kind, SPEC, Shape};
use super::pattern::glob_to_regex;
use super::{Bound, Date, Diagnostic, Globs, Located, Location, Pattern, Source};
use crate::metrics::Metric;

/// A value in the document.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// A table whose keys are known to be those of its shape, save for those already reported.
#[derive(Clone, Copy)]
pub(super) struct Table<'t> {
    pub shape: &'static Shape,
    table: &'t DeTable<'t>,
    /// The header, the braces, or the first dotted key.
    start: usize,
    end: usize,
}

impl<'t> Table<'t> {
    pub fn span(&self) -> Range<usize> {
        self.start..self.end
    }

    /// The row of a key and its value, if the table has it.
    fn get(&self, name: &'static str) -> Option<(&'static Key, &'t Value<'t>)> {
        let value = self.table.get(name)?;
        let key = self.shape.key(name);
        debug_assert!(key.is_some(), "{name} is not in the table of keys");
        Some((key?, value))
    }

    pub fn has(&self, name: &'static str) -> bool {
        self.get(name).is_some()
    }

    /// Where a key is written, or else the table.
    pub fn key_span(&self, name: &str) -> Range<usize> {
        self.table.get_key_value(name).map_or(self.span(), |(key, _)| key.span())
    }

    /// The entries in the order of the file.
    pub fn entries(&self) -> Vec<(&'t str, Range<usize>, &'t Value<'t>)> {
        let mut entries: Vec<_> = self
            .table
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
    pub list: Vec<Diagnostic>,
}

impl Findings {
    pub fn new(source: Arc<Source>) -> Self {
        Self { source, list: Vec::new() }
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

    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
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
                let message = match shape.heading {
                    "" => format!("`{}` is missing", key.name),
                    heading => format!("`{}` is missing from `{heading}`", key.name),
                };
                let finding = self.error(span.clone(), message);
                let expected = key.kind.expected();
                let help = format!("`{}` is {expected}: {}", key.name, as_clause(key.doc));
                self.push(finding.help(help));
            }
        }
        Table { shape, table, start: span.start, end: span.end }
    }

    /// Reports a value of the wrong type.
    fn wrong_type(&mut self, key: &Key, value: &Value) {
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
    }

    pub fn text<'t>(&mut self, table: &Table<'t>, name: &'static str) -> Option<Text<'t>> {
        let (key, value) = table.get(name)?;
        match value.get_ref() {
            DeValue::String(text) => Some(Text { text, span: value.span() }),
            _ => {
                self.wrong_type(key, value);
                None
            }
        }
    }

    /// A string that says something.
    pub fn statement<'t>(&mut self, table: &Table<'t>, name: &'static str) -> Option<Text<'t>> {
        let text = self.text(table, name)?;
        if text.text.trim().is_empty() {
            let finding = self.error(text.span, format!("`{name}` is empty"));
            self.push(finding);
            return None;
        }
        Some(text)
    }

    /// A list of strings, or a single one where the table of keys allows it; none is empty.
    pub fn texts<'t>(&mut self, table: &Table<'t>, name: &'static str) -> Vec<Text<'t>> {
        let Some((key, value)) = table.get(name) else { return Vec::new() };
        let mut texts = Vec::new();
        match (value.get_ref(), &key.kind) {
            (DeValue::String(text), Kind::Globs | Kind::OneOrMoreTexts) => {
                texts.push(Text { text, span: value.span() });
            }
            (DeValue::Array(items), _) => {
                for item in items {
                    match item.get_ref() {
                        DeValue::String(text) => texts.push(Text { text, span: item.span() }),
                        other => {
                            let message =
                                format!("`{name}` must hold strings, not {}", in_words(other));
                            let finding = self.error(item.span(), message);
                            self.push(finding);
                        }
                    }
                }
            }
            _ => self.wrong_type(key, value),
        }
        for text in texts.iter().filter(|text| text.text.is_empty()) {
            let finding = self.error(text.span.clone(), format!("`{name}` holds an empty string"));
            self.push(finding);
        }
        texts.retain(|text| !text.text.is_empty());
        texts
    }

    /// Globs; broken ones are reported and left out.
    pub fn globs(&mut self, table: &Table, name: &'static str, shared: bool) -> Globs {
        let texts = self.texts(table, name);
        let mut globs = Globs::with_capacity(texts.len());
        for Text { text, span } in texts {
            match glob_to_regex(text) {
                Ok(_) => {
                    let at = self.at(span);
                    globs.push(Pattern { text: text.to_owned(), at, shared });
                }
                Err(error) => {
                    let finding = self.error(span, format!("bad glob: {error}")).help(error.help);
                    self.push(finding);
                }
            }
        }
        globs
    }

    /// The globs of `tensors`, of which there must be one.
    pub fn tensors(&mut self, table: &Table, shared: bool) -> Globs {
        let before = self.list.len();
        let globs = self.globs(table, "tensors", shared);
        if globs.is_empty() && table.has("tensors") && self.list.len() == before {
            let finding = self.error(table.key_span("tensors"), "`tensors` is an empty list");
            self.push(finding.help("an empty list selects nothing; name a tensor or write `*`"));
        }
        globs
    }

    pub fn flag(&mut self, table: &Table, name: &'static str) -> Option<bool> {
        let (key, value) = table.get(name)?;
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            _ => {
                self.wrong_type(key, value);
                None
            }
        }
    }

    pub fn whole(&mut self, table: &Table, name: &'static str) -> Option<Located<u64>> {
        let (key, value) = table.get(name)?;
        let least = match key.kind {
            Kind::Whole { least } => least,
            _ => 0,
        };
        let whole = match value.get_ref() {
            DeValue::Integer(integer) => {
                integer_value(integer).and_then(|it| u64::try_from(it).ok())
            }
            _ => None,
        };
        match whole.filter(|&whole| whole >= least) {
            Some(whole) => Some(Located { value: whole, at: self.at(value.span()) }),
            None => {
                self.wrong_type(key, value);
                None
            }
        }
    }

    pub fn number(&mut self, table: &Table, name: &'static str) -> Option<Located<f64>> {
        let (key, value) = table.get(name)?;
        let Some(number) = number_of(value.get_ref()) else {
            self.wrong_type(key, value);
            return None;
        };
        let (least, most) = match key.kind {
            Kind::Number { least, most } => (least, most),
            _ => (f64::MIN, f64::MAX),
        };
        let number = self.in_range(name, number, value.span(), least, most)?;
        Some(Located { value: number, at: self.at(value.span()) })
    }

    /// Reports a number that is not finite or outside of its range.
    fn in_range(
        &mut self,
        what: &str,
        number: f64,
        span: Range<usize>,
        least: f64,
        most: f64,
    ) -> Option<f64> {
        if (least..=most).contains(&number) {
            return Some(number);
        }
        let message = if number.is_nan() {
            format!("`{what}` is NaN, which every comparison passes over")
        } else if number.is_infinite() {
            format!("`{what}` is infinite")
        } else {
            format!("`{what}` is out of range")
        };
        let help = match (least > f64::MIN, most < f64::MAX) {
            (true, true) => format!("it must lie in [{least}, {most}]"),
            (true, false) => format!("it must be a finite number of at least {least}"),
            _ => "it must be a finite number".to_owned(),
        };
        let finding = self.error(span, message).help(help);
        self.push(finding);
        None
    }

    /// A metric's bound.
    pub fn bound(&mut self, table: &Table, metric: Metric) -> Option<Bound> {
        let (key, value) = table.get(metric.name())?;
        let (least, most) = metric.bound_range();
        self.bound_of(key, value, least, most, |a, b| metric.at_least_as_strict(a, b))
    }

    /// A number, the failing bound, or `{ fail, warn }`.
    pub fn bound_of(
        &mut self,
        key: &'static Key,
        value: &Value,
        least: f64,
        most: f64,
        at_least_as_strict: impl Fn(f64, f64) -> bool,
    ) -> Option<Bound> {
        let at = self.at(value.span());
        if let Some(number) = number_of(value.get_ref()) {
            let fail = self.in_range(key.name, number, value.span(), least, most)?;
            return Some(Bound { fail: Some(fail), warn: None, at });
        }
        let [fail, warn] = self.two_numbers(key, value, ["fail", "warn"], least, most)?;
        match (fail, warn) {
            (Some(fail), Some(warn)) if !at_least_as_strict(warn, fail) => {
                let message =
                    format!("the warning bound of `{}` is laxer than the failing one", key.name);
                let finding = self.error(value.span(), message).help(format!(
                    "a value that fails would not even warn: swap them, or write `{} = {fail}`",
                    key.name
                ));
                self.push(finding);
                None
            }
            _ => Some(Bound { fail, warn, at }),
        }
    }

    /// A table of two numbers of which at least one is given.
    fn two_numbers(
        &mut self,
        key: &'static Key,
        value: &Value,
        names: [&'static str; 2],
        least: f64,
        most: f64,
    ) -> Option<[Option<f64>; 2]> {
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(key, value);
            return None;
        };
        let before = self.list.len();
        for (name, _) in table.iter().filter(|(name, _)| !names.contains(&name.get_ref().as_ref()))
        {
            let message =
                format!("unknown key {} in the bound `{}`", quoted(name.get_ref()), key.name);
            let finding = self.error(name.span(), message);
            self.push(finding.help(format!("it has `{}` and `{}`", names[0], names[1])));
        }
        let numbers = names.map(|name| {
            let value = table.get(name)?;
            let Some(number) = number_of(value.get_ref()) else {
                let message =
                    format!("`{name}` must be a number, not {}", in_words(value.get_ref()));
                let finding = self.error(value.span(), message);
                self.push(finding);
                return None;
            };
            self.in_range(key.name, number, value.span(), least, most)
        });
        if self.list.len() > before {
            return None;
        }
        if numbers == [None, None] {
            let finding = self.error(value.span(), format!("`{}` bounds nothing", key.name));
            self.push(finding.help(format!("give `{}`, `{}` or both", names[0], names[1])));
            return None;
        }
        Some(numbers)
    }

    /// A number, the largest, or `{ min, max }`: min, max and the place.
    pub fn range(
        &mut self,
        table: &Table,
        name: &'static str,
    ) -> Option<(Option<f64>, Option<f64>, Location)> {
        let (key, value) = table.get(name)?;
        let least = match key.kind {
            Kind::Range { least } => least,
            _ => f64::MIN,
        };
        let at = self.at(value.span());
        if let Some(number) = number_of(value.get_ref()) {
            let most = self.in_range(name, number, value.span(), least, f64::MAX)?;
            return Some((None, Some(most), at));
        }
        let [min, max] = self.two_numbers(key, value, ["min", "max"], least, f64::MAX)?;
        if let (Some(min), Some(max)) = (min, max)
            && min > max
        {
            let finding =
                self.error(value.span(), format!("no value of `{name}` can hold both bounds"));
            self.push(finding.help("min must not be above max"));
            return None;
        }
        Some((min, max, at))
    }

    /// One of the strings that the table of keys lists.
    pub fn choice(&mut self, table: &Table, name: &'static str) -> Option<&'static str> {
        let (key, value) = table.get(name)?;
        let Kind::Choice(choices) = key.kind else { return None };
        let DeValue::String(text) = value.get_ref() else {
            self.wrong_type(key, value);
            return None;
        };
        let chosen = choices.iter().copied().find(|choice| choice == text);
        if chosen.is_none() {
            let message = format!("`{name}` must be {}, not {text:?}", key.kind.expected());
            let mut finding = self.error(value.span(), message);
            finding.help = nearest(text, choices.iter().copied())
                .map(|choice| format!("did you mean {choice:?}?"));
            self.push(finding);
        }
        chosen
    }

    pub fn date(&mut self, table: &Table, name: &'static str) -> Option<Located<Date>> {
        let (key, value) = table.get(name)?;
        let DeValue::Datetime(datetime) = value.get_ref() else {
            self.wrong_type(key, value);
            return None;
        };
        let (Some(date), None) = (datetime.date, datetime.time) else {
            let message = format!("`{name}` must be a date alone, without a time");
            let finding = self.error(value.span(), message);
            self.push(finding.help("write it like 2027-01-31"));
            return None;
        };
        let date = Date { year: date.year, month: date.month, day: date.day };
        Some(Located { value: date, at: self.at(value.span()) })
    }

    /// A value of several possible types, as it is.
    pub fn raw<'t>(
        &self,
        table: &Table<'t>,
        name: &'static str,
    ) -> Option<(&'static Key, &'t Value<'t>)> {
        table.get(name)
    }

    pub fn wrong(&mut self, key: &'static Key, value: &Value) {
        self.wrong_type(key, value);
    }

    pub fn table<'t>(&mut self, table: &Table<'t>, name: &'static str) -> Option<Table<'t>> {
        let (key, value) = table.get(name)?;
        match (value.get_ref(), key.kind.shape()) {
            (DeValue::Table(inner), Some(shape)) => Some(self.open(shape, inner, value.span())),
            _ => {
                self.wrong_type(key, value);
                None
            }
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
            _ => self.wrong_type(key, value),
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
            self.wrong_type(key, value);
            return Vec::new();
        };
        let span = value.span();
        Table { shape: table.shape, table: inner, start: span.start, end: span.end }.entries()
    }
}

/// A string and its span.
#[derive(Clone)]
pub(super) struct Text<'t> {
    pub text: &'t str,
    pub span: Range<usize>,
}

/// A float, or an integer as a float.
pub(super) fn number_of(value: &DeValue) -> Option<f64> {
    match value {
        // An overflowing literal parses as infinite, which the range check reports.
        DeValue::Float(float) => float.as_str().parse().ok(),
        DeValue::Integer(integer) => integer_value(integer).map(|it| it as f64),
        _ => None,
    }
}

/// The value of an integer literal; `None` if it is too large.
pub(super) fn integer_value(integer: &DeInteger) -> Option<i128> {
    i128::from_str_radix(integer.as_str(), integer.radix()).ok()
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
