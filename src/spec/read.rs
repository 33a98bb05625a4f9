/*!
The file level of a spec: version, defaults for all pairs, matrix, profiles; then the pairs.
*/

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use semver::{Version, VersionReq};
use toml::de::{DeTable, DeValue};

use super::keys::SPEC;
use super::read_pair::read_pair;
use super::read_parts::{Shared, read_shared, thresholds, tolerance};
use super::table::{Findings, Table, Value, in_words, nearest, quoted};
use super::template::{Axis, MAX_ASSIGNMENTS};
use super::values::{Text, integer_value};
use super::{Granularity, LoadOptions, Location, Pair, Spec, Thresholds, Tolerance};

/// A tolerance of which a part may be left to an outer level.
#[derive(Clone, Default)]
pub(super) struct PartialTolerance {
    pub abs: Option<f64>,
    pub rel: Option<f64>,
    pub ratchet: Option<bool>,
    pub off: Option<bool>,
    pub at: Option<Location>,
}

impl PartialTolerance {
    /// The tolerance with what is given here in place of its own.
    pub fn over(&self, outer: &Tolerance) -> Tolerance {
        Tolerance {
            abs: self.abs.unwrap_or(outer.abs),
            rel: self.rel.unwrap_or(outer.rel),
            ratchet: self.ratchet.unwrap_or(outer.ratchet),
            off: self.off.unwrap_or(outer.off),
            at: self.at.clone().or_else(|| outer.at.clone()),
        }
    }
}

/// The overrides of the selected profile, in the order in which they apply.
pub(super) type Overrides = Vec<(Thresholds, PartialTolerance)>;

/// Pairs for which room is made before they are known to be valid.
const MOST_AT_ONCE: usize = 1024;

/// What the pairs of a file have from it.
pub(super) struct File<'a> {
    pub shared: Shared,
    pub axes: Vec<Axis>,
    pub overrides: Overrides,
    pub options: &'a LoadOptions<'a>,
    /// Relative paths start here.
    pub directory: PathBuf,
}

/// Reads a document; the caller judges the findings. `None` if it cannot be read on.
pub(super) fn read_spec(
    document: &DeTable,
    findings: &mut Findings,
    name: String,
    options: &LoadOptions,
) -> Option<Spec> {
    // A file of another version may have other keys: nothing more is to be said about it.
    check_version(document, findings)?;
    let table = findings.open(&SPEC, document, 0..0);
    let granularity = findings.choice(&table, "granularity").map(|choice| match choice {
        "tensor" => Granularity::Tensor,
        _ => Granularity::Pair,
    });
    let shared = read_shared(findings, &table, options, true);
    let axes = read_axes(findings, &table);
    let (profiles, overrides) = read_profiles(findings, &table, options);
    let directory = findings.source.path.parent().unwrap_or(Path::new("")).to_path_buf();
    let file = File { shared, axes, overrides, options, directory };
    let tables = findings.tables(&table, "pair");
    let mut pairs = Vec::with_capacity(tables.len().min(MOST_AT_ONCE));
    let mut axes_used = vec![false; file.axes.len()];
    for table in tables {
        read_pair(findings, &table, &file, &mut axes_used, &mut pairs);
    }
    if pairs.is_empty() && table.has("pair") && !findings.has_errors() {
        let finding = findings.error(table.key_span("pair"), "a spec without pairs tests nothing");
        findings.push(finding.help("write [[pair]]"));
    }
    for (axis, _) in file.axes.iter().zip(&axes_used).filter(|(_, used)| !**used) {
        let message = format!("no pair uses the axis {}", quoted(&axis.name));
        let finding = findings.warning(axis.span.clone(), message);
        findings.push(finding.help(format!("write {{{}}} in a pair's name and path", axis.name)));
    }
    check_unique(findings, &pairs);
    let mut baseline = file.shared.baseline.over(&Tolerance::default());
    for (_, over) in &file.overrides {
        baseline = over.over(&baseline);
    }
    Some(Spec {
        name,
        path: findings.source.path.to_path_buf(),
        sha256: String::new(),
        source: Arc::clone(&findings.source),
        description: file.shared.description,
        tags: file.shared.tags,
        variables: std::mem::take(&mut findings.variables),
        baseline,
        granularity,
        profiles,
        today: options.today,
        pairs,
        warnings: Vec::new(),
    })
}

/// Checks the format's version and the harness version that the file requires.
fn check_version(document: &DeTable, findings: &mut Findings) -> Option<()> {
    if let Some(value) = document.get("schema") {
        let version = match value.get_ref() {
            DeValue::Integer(version) => integer_value(version),
            _ => None,
        };
        if version != Some(1) {
            let message = format!("`schema` must be 1, not {}", in_words(value.get_ref()));
            let finding = findings.error(value.span(), message);
            let help = match version {
                Some(2..) => "this file is written for a later qualm; update qualm",
                _ => "this qualm reads version 1 of the format: schema = 1",
            };
            findings.push(finding.help(help));
            return None;
        }
    }
    let Some(value) = document.get("requires") else { return Some(()) };
    let DeValue::String(text) = value.get_ref() else {
        let message = format!("`requires` must be a string, not {}", in_words(value.get_ref()));
        let finding = findings.error(value.span(), message);
        findings.push(finding);
        return Some(());
    };
    let own = env!("CARGO_PKG_VERSION");
    match VersionReq::parse(text) {
        Err(error) => {
            let message = format!("{} requires no version: {error}", quoted(text));
            let finding = findings.error(value.span(), message);
            findings.push(finding.help("write it like \">=0.1, <2\""));
            Some(())
        }
        Ok(required) => {
            if Version::parse(own).is_ok_and(|own| required.matches(&own)) {
                return Some(());
            }
            let message = format!("this spec requires qualm {required}, and this is {own}");
            let finding = findings.error(value.span(), message);
            findings.push(finding.help("install such a version of qualm"));
            None
        }
    }
}

fn read_axes(findings: &mut Findings, table: &Table) -> Vec<Axis> {
    let mut axes = Vec::new();
    for (name, span, value) in findings.named(table, "matrix") {
        if name.is_empty() || name.contains(['{', '}']) || name.contains(char::is_control) {
            let message = "the name of an axis must not be empty or hold braces";
            let finding = findings.error(span.clone(), message);
            findings.push(finding);
        }
        let values = axis_values(findings, name, value);
        axes.push(Axis { name: name.to_owned(), values, span });
    }
    axes
}

fn axis_values(findings: &mut Findings, name: &str, value: &Value) -> Vec<String> {
    let name = quoted(name);
    let DeValue::Array(items) = value.get_ref() else {
        let message = format!(
            "the axis {name} must be a list of strings or integers, not {}",
            in_words(value.get_ref())
        );
        let finding = findings.error(value.span(), message);
        findings.push(finding);
        return Vec::new();
    };
    if items.len() > MAX_ASSIGNMENTS {
        let message = format!("the axis {name} has more than {MAX_ASSIGNMENTS} values");
        let finding = findings.error(value.span(), message);
        findings.push(finding);
        return Vec::new();
    }
    if items.is_empty() {
        let finding = findings.error(value.span(), format!("the axis {name} has no values"));
        findings.push(finding.help("pairs that use it would vanish"));
    }
    let mut values: Vec<String> = Vec::with_capacity(items.len());
    for item in items {
        let value = match item.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(integer) if integer_value(integer).is_some() => {
                integer_value(integer).unwrap_or_default().to_string()
            }
            other => {
                let message = format!(
                    "the axis {name} must hold strings or integers, not {}",
                    in_words(other)
                );
                let finding = findings.error(item.span(), message);
                findings.push(finding);
                continue;
            }
        };
        if values.contains(&value) {
            let message = format!("the axis {name} holds {} twice", quoted(&value));
            let finding = findings.error(item.span(), message);
            findings.push(finding);
        } else {
            values.push(value);
        }
    }
    values
}

/// Longest line of ancestors of a profile.
const MAX_ANCESTORS: usize = 32;

/// One profile, not yet joined with what it inherits.
struct Profile<'t> {
    inherits: Option<Text<'t>>,
    thresholds: Thresholds,
    baseline: PartialTolerance,
}

/// The names of all profiles, and the overrides of the selected one.
fn read_profiles(
    findings: &mut Findings,
    table: &Table,
    options: &LoadOptions,
) -> (Vec<String>, Overrides) {
    let mut names = Vec::new();
    let mut profiles = HashMap::new();
    for (name, span, value) in findings.named(table, "profile") {
        let (DeValue::Table(inner), Some(shape)) =
            (value.get_ref(), SPEC.key("profile").and_then(|key| key.kind.shape()))
        else {
            let message = format!(
                "the profile {} must be a table, not {}",
                quoted(name),
                in_words(value.get_ref())
            );
            let finding = findings.error(span, message);
            findings.push(finding.help("write [profile.NAME]"));
            continue;
        };
        let table = findings.open(shape, inner, value.span());
        findings.text(&table, "description");
        let profile = Profile {
            inherits: findings.text(&table, "inherits"),
            thresholds: thresholds(findings, &table),
            baseline: tolerance(findings, &table),
        };
        names.push(name.to_owned());
        profiles.insert(name, profile);
    }
    for name in &names {
        check_inheritance(findings, name, &profiles);
    }
    let mut overrides = Vec::new();
    let mut next = options.profile.as_deref();
    // A cycle is an error already; the count only ends it.
    while let Some(profile) = next.and_then(|name| profiles.get(name))
        && overrides.len() <= profiles.len()
    {
        overrides.push((profile.thresholds.clone(), profile.baseline.clone()));
        next = profile.inherits.as_ref().map(|text| text.text);
    }
    overrides.reverse();
    (names, overrides)
}

fn check_inheritance(findings: &mut Findings, name: &str, profiles: &HashMap<&str, Profile>) {
    let Some(parent) = profiles.get(name).and_then(|profile| profile.inherits.clone()) else {
        return;
    };
    if !profiles.contains_key(parent.text) {
        let message = format!("no profile is called {}", quoted(parent.text));
        let mut finding = findings.error(parent.span, message);
        finding.help = nearest(parent.text, profiles.keys().copied())
            .map(|near| format!("did you mean `{near}`?"));
        findings.push(finding);
        return;
    }
    let mut ancestor = Some(parent.text);
    for _ in 0..MAX_ANCESTORS {
        let Some(of) = ancestor else { return };
        if of == name {
            let message = format!("the profile {} inherits from itself", quoted(name));
            let finding = findings.error(parent.span, message);
            findings.push(finding);
            return;
        }
        ancestor = profiles.get(of).and_then(|it| it.inherits.as_ref()).map(|text| text.text);
    }
    let message = format!("the profile {} inherits without end", quoted(name));
    let finding = findings.error(parent.span, message);
    findings.push(finding.help(format!("at most {MAX_ANCESTORS} profiles may follow each other")));
}

/// Reports pairs of one name, with both places.
fn check_unique(findings: &mut Findings, pairs: &[Pair]) {
    let mut first: HashMap<&str, &Location> = HashMap::with_capacity(pairs.len());
    for pair in pairs {
        let Some(earlier) = first.get(pair.name.as_str()) else {
            first.insert(&pair.name, &pair.at);
            continue;
        };
        let message = format!("two pairs are called {}", quoted(&pair.name));
        let mut finding = findings.error(pair.at.span(), message);
        finding.help = Some("names are parts of test ids and must be unique in a file".to_owned());
        if **earlier != pair.at {
            finding = finding.label("again here").related((*earlier).clone(), "first here");
        }
        findings.push(finding);
    }
}
