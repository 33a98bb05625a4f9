/*!
Values of a table, each read by the type that the table of keys gives its key.
*/

use std::ops::Range;

use toml::de::{DeInteger, DeValue};

use super::keys::{Key, Kind};
use super::pattern::glob_to_regex;
use super::table::{Findings, Table, Value, in_words, nearest, quoted};
use super::{Bound, Date, Globs, Located, Location, Pattern};
use crate::metrics::Metric;

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

impl Findings {
    pub fn text<'t>(&mut self, table: &Table<'t>, name: &'static str) -> Option<Text<'t>> {
        let (key, value) = table.get(name)?;
        if let DeValue::String(text) = value.get_ref() {
            Some(Text { text, span: value.span() })
        } else {
            self.wrong_type(key, value)
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
            (
                DeValue::String(text),
                Kind::Globs | Kind::OneOrMoreTexts | Kind::OneOrMoreChoices(_),
            ) => {
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
            _ => self.wrong_type(key, value).unwrap_or_default(),
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
            if !self.takes_pattern(&span) {
                break;
            }
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
        let before = self.count;
        let globs = self.globs(table, "tensors", shared);
        if globs.is_empty() && table.has("tensors") && self.count == before {
            let finding = self.error(table.key_span("tensors"), "`tensors` is an empty list");
            self.push(finding.help("an empty list selects nothing; name a tensor or write `*`"));
        }
        globs
    }

    pub fn flag(&mut self, table: &Table, name: &'static str) -> Option<bool> {
        let (key, value) = table.get(name)?;
        if let DeValue::Boolean(flag) = value.get_ref() {
            Some(*flag)
        } else {
            self.wrong_type(key, value)
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
        if let Some(number) = whole.filter(|&whole| whole >= least) {
            Some(Located { value: number, at: self.at(value.span()) })
        } else {
            self.wrong_type(key, value)
        }
    }

    pub fn number(&mut self, table: &Table, name: &'static str) -> Option<Located<f64>> {
        let (key, value) = table.get(name)?;
        let Some(number) = number_of(value.get_ref()) else {
            return self.wrong_type(key, value);
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
            return self.wrong_type(key, value);
        };
        let before = self.count;
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
        if self.count > before {
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
            return self.wrong_type(key, value);
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
            return self.wrong_type(key, value);
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
}
