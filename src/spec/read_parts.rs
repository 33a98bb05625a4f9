/*!
The parts that several levels of a spec share: bounds, tolerances, integrity settings, lists.
*/

use regex::{Regex, RegexBuilder};
use toml::de::DeValue;

use super::read::PartialTolerance;
use super::table::{Findings, Table, nearest, quoted};
use super::template::fill_variables;
use super::values::Text;
use super::{
    Bounds, Diagnostic, Gate, Globs, Integrity, LoadOptions, Pattern, Rename, Setting, Skip,
    Survivor, Thresholds,
};
use crate::fault::{Fault, NAMES};
use crate::metrics::Metric;

/// What a file sets for all its pairs, or a pair for itself.
#[derive(Default)]
pub(super) struct Shared {
    pub description: Option<String>,
    pub tags: Vec<String>,
    pub thresholds: Thresholds,
    pub baseline: PartialTolerance,
    pub integrity: Integrity,
    pub allow_missing: Globs,
    pub allow_extra: Globs,
    pub rename: Vec<Rename>,
    pub skip: Vec<Skip>,
    pub metadata_equal: Globs,
    pub nonzero: Globs,
    pub allow_survivor: Vec<Survivor>,
}

/// Reads them; `shared` says whether several pairs have them.
pub(super) fn read_shared(
    findings: &mut Findings,
    table: &Table,
    options: &LoadOptions,
    shared: bool,
) -> Shared {
    Shared {
        description: findings.text(table, "description").map(|it| it.text.to_owned()),
        tags: tags(findings, table, options),
        thresholds: thresholds(findings, table),
        baseline: tolerance(findings, table),
        integrity: integrity(findings, table, None),
        allow_missing: findings.globs(table, "allow_missing", shared),
        allow_extra: findings.globs(table, "allow_extra", shared),
        rename: renames(findings, table, shared),
        skip: skips(findings, table, shared),
        metadata_equal: findings.globs(table, "metadata_equal", shared),
        nonzero: findings.globs(table, "nonzero", shared),
        allow_survivor: survivors(findings, table, shared),
    }
}

/// Tags, their environment variables filled in; other braces are the matrix's.
fn tags(findings: &mut Findings, table: &Table, options: &LoadOptions) -> Vec<String> {
    let texts = findings.texts(table, "tags");
    let tag = |text: Text| match fill_variables(text.text, |name| findings.take(name, options)) {
        Ok(tag) => Some(tag),
        Err(name) => {
            let name = name.to_owned();
            findings.unset(text.span, &name);
            None
        }
    };
    texts.into_iter().filter_map(tag).collect()
}

/// The bounds that stand in a table.
pub(super) fn bounds(findings: &mut Findings, table: &Table) -> Bounds {
    let mut bounds = Bounds::default();
    for metric in Metric::ALL {
        if let Some(bound) = findings.bound(table, metric) {
            bounds.set(metric, bound);
        }
    }
    bounds
}

pub(super) fn thresholds(findings: &mut Findings, table: &Table) -> Thresholds {
    let Some(table) = findings.table(table, "thresholds") else { return Thresholds::default() };
    let mut level = |name| {
        let table = findings.table(&table, name)?;
        Some(bounds(findings, &table))
    };
    Thresholds {
        tensor: level("tensor").unwrap_or_default(),
        global: level("global").unwrap_or_default(),
    }
}

pub(super) fn tolerance(findings: &mut Findings, table: &Table) -> PartialTolerance {
    if let Some((_, value)) = table.get("baseline")
        && matches!(value.get_ref(), DeValue::String(text) if text == "off")
    {
        let at = Some(findings.at(value.span()));
        return PartialTolerance { off: Some(true), at, ..PartialTolerance::default() };
    }
    let Some(table) = findings.table(table, "baseline") else {
        return PartialTolerance::default();
    };
    PartialTolerance {
        // Who states a tolerance wants a baseline, whatever stands further out.
        off: Some(false),
        abs: findings.number(&table, "abs").map(|it| it.value),
        rel: findings.number(&table, "rel").map(|it| it.value),
        ratchet: findings.flag(&table, "ratchet"),
        at: Some(findings.at(table.span())),
    }
}

/// Most bytes that a regular expression may need once it is compiled.
const LARGEST_REGEX: usize = 256 << 10;

/// Integrity settings; `outer_reason` is that of the rule around them.
pub(super) fn integrity(
    findings: &mut Findings,
    table: &Table,
    outer_reason: Option<&str>,
) -> Integrity {
    let mut integrity = Integrity::default();
    let Some(table) = findings.table(table, "integrity") else { return integrity };
    let reason = findings.statement(&table, "reason").map(|it| it.text).or(outer_reason);
    for gate in Gate::ALL {
        if let Some(setting) = setting(findings, &table, gate, reason) {
            integrity.set(gate, setting);
        }
    }
    integrity
}

fn setting(
    findings: &mut Findings,
    table: &Table,
    gate: Gate,
    reason: Option<&str>,
) -> Option<Setting> {
    let (key, value) = table.get(gate.name())?;
    let at = findings.at(value.span());
    match value.get_ref() {
        DeValue::String(text) if text == "on" => Some(Setting::On { at }),
        DeValue::String(text) if text == "off" => {
            let Some(reason) = reason else {
                let message = format!("`{gate}` is off without a reason");
                let finding = findings.error(value.span(), message);
                findings.push(finding.help("say why, in the same table: reason = \"…\""));
                return None;
            };
            Some(Setting::Off { reason: reason.to_owned(), at })
        }
        DeValue::String(_) | DeValue::Boolean(_) => findings.wrong_type(key, value),
        _ => match gate.least_bound() {
            None => findings.wrong_type(key, value),
            Some(least) => {
                let bound = findings.bound_of(key, value, least, f64::MAX, |a, b| a <= b)?;
                if bound.fail.or(bound.warn).is_some_and(|it| it >= gate.no_bound()) {
                    let message = format!("nothing can break this bound of `{gate}`: it is off");
                    let help = format!("write {gate} = \"off\" and, in the same table, a reason");
                    let finding = findings.error(value.span(), message).help(help);
                    findings.push(finding);
                    return None;
                }
                Some(Setting::Bound(bound))
            }
        },
    }
}

fn renames(findings: &mut Findings, table: &Table, shared: bool) -> Vec<Rename> {
    let mut renames = Vec::new();
    for table in findings.tables(table, "rename") {
        let (from, to) = (findings.statement(&table, "from"), findings.text(&table, "to"));
        let (Some(from), Some(to)) = (from, to) else { continue };
        if !findings.takes_pattern(&from.span) {
            break;
        }
        match RegexBuilder::new(from.text).size_limit(LARGEST_REGEX).build() {
            Err(error) => {
                let finding = bad_regex(findings, &from, &error);
                findings.push(finding);
            }
            Ok(regex) => {
                if let Some(finding) = bad_replacement(findings, &to, &regex) {
                    findings.push(finding);
                    continue;
                }
                let at = findings.at(from.span);
                let from = Pattern { text: from.text.to_owned(), at, shared };
                renames.push(Rename { from, regex, to: to.text.to_owned() });
            }
        }
    }
    renames
}

fn bad_regex(findings: &Findings, from: &Text, error: &regex::Error) -> Diagnostic {
    let message = match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("the regular expression needs more than {limit} bytes")
        }
        // The last line of the parser's report is the reason; those before show the place.
        error => {
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default();
            format!("bad regular expression: {}", reason.trim_start_matches("error: "))
        }
    };
    findings.error(from.span.clone(), message)
}

/// A replacement that names a group which the expression does not have would silently drop text.
fn bad_replacement(findings: &Findings, to: &Text, regex: &Regex) -> Option<Diagnostic> {
    let mut rest = to.text;
    while let Some((_, after)) = rest.split_once('$') {
        if let Some(escaped) = after.strip_prefix('$') {
            rest = escaped;
            continue;
        }
        let braced = after.strip_prefix('{').and_then(|it| it.split_once('}'));
        let name = braced.map_or_else(
            || {
                let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
                &after[..after.find(|c| !word(c)).unwrap_or(after.len())]
            },
            |(name, _)| name,
        );
        let braced = braced.is_some();
        rest = after;
        if name.is_empty() && !braced {
            continue; // A dollar that begins no group stands for itself.
        }
        let known = match name.parse::<usize>() {
            Ok(number) => number < regex.captures_len(),
            Err(_) => regex.capture_names().flatten().any(|group| group == name),
        };
        if known {
            continue;
        }
        let message = format!("the regular expression has no group {}", quoted(name));
        let mut finding = findings.error(to.span.clone(), message);
        let digits = name.find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len());
        finding.help = if digits > 0 && digits < name.len() && !braced {
            Some(format!("write ${{{}}} before a letter, digit or _", &name[..digits]))
        } else {
            nearest(name, regex.capture_names().flatten()).map(|it| format!("did you mean `{it}`?"))
        };
        return Some(finding);
    }
    None
}

fn skips(findings: &mut Findings, table: &Table, shared: bool) -> Vec<Skip> {
    let mut skips = Vec::new();
    for table in findings.tables(table, "skip") {
        let globs = findings.tensors(&table, shared);
        let reason = findings.statement(&table, "reason");
        let at = findings.at(table.span());
        if let Some(reason) = reason {
            skips.push(Skip { globs, reason: reason.text.to_owned(), at });
        }
    }
    skips
}

fn survivors(findings: &mut Findings, table: &Table, shared: bool) -> Vec<Survivor> {
    let mut survivors = Vec::new();
    for table in findings.tables(table, "allow_survivor") {
        let names = findings.texts(&table, "fault");
        if names.is_empty() && table.has("fault") {
            let finding = findings.error(table.key_span("fault"), "`fault` names no fault");
            findings.push(finding);
        }
        let mut faults = Vec::with_capacity(names.len());
        for name in names {
            if let Some(fault) = Fault::from_name(name.text) {
                faults.push(fault);
                continue;
            }
            let message = format!("no fault is called {}", quoted(name.text));
            let mut finding = findings.error(name.span, message);
            finding.help = Some(match nearest(name.text, NAMES.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`qualm falsify --list` lists them".to_owned(),
            });
            findings.push(finding);
        }
        let globs = findings.tensors(&table, shared);
        let reason = findings.statement(&table, "reason");
        let at = findings.at(table.span());
        if let Some(reason) = reason {
            survivors.push(Survivor { faults, globs, reason: reason.text.to_owned(), at });
        }
    }
    survivors
}
