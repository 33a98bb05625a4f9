/*!
What only a pair can demand: rules, waivers, groups, types, transformations, schemes, companions.
*/

use super::read_parts::{bounds, integrity};
use super::table::{Findings, Table, nearest, quoted};
use super::values::Text;
use super::{
    Apply, BitsPerWeight, Bounds, Companions, Group, LoadOptions, Located, QtypeRule, Rule, Scheme,
    Transform, Waiver,
};
use crate::codec::TYPES;
use crate::metrics::Metric;

/// What a pair demands beyond what files can set for all of theirs.
pub(super) struct Demands {
    pub ignore: Option<String>,
    pub rules: Vec<Rule>,
    pub waivers: Vec<Waiver>,
    pub groups: Vec<Group>,
    pub qtype: Vec<QtypeRule>,
    pub min_quantized: Option<Located<u64>>,
    pub bits_per_weight: Option<BitsPerWeight>,
    pub transform: Vec<Transform>,
    pub unfold: bool,
    pub sample: Option<Located<f64>>,
    pub scheme: Vec<Scheme>,
    pub companions: Vec<Companions>,
}

/// Reads them; `shared` says whether the table stands for several pairs.
pub(super) fn read_demands(
    findings: &mut Findings,
    table: &Table,
    options: &LoadOptions,
    shared: bool,
) -> Demands {
    Demands {
        ignore: findings.statement(table, "ignore").map(|it| it.text.to_owned()),
        rules: rules(findings, table, shared),
        waivers: waivers(findings, table, options, shared),
        groups: groups(findings, table, shared),
        qtype: qtypes(findings, table, options, shared),
        min_quantized: findings.whole(table, "min_quantized"),
        bits_per_weight: findings
            .range(table, "bits_per_weight")
            .map(|(min, max, at)| BitsPerWeight { min, max, at }),
        transform: transforms(findings, table, shared),
        unfold: findings.flag(table, "unfold").unwrap_or(true),
        sample: findings.number(table, "sample"),
        scheme: schemes(findings, table, shared),
        companions: companions(findings, table, shared),
    }
}

/// Reports a table that says nothing, unless what it says was wrong.
fn check_says_something(findings: &mut Findings, table: &Table, empty: bool, message: &str) {
    if empty && !Metric::ALL.iter().any(|metric| table.has(metric.name())) {
        let names: Vec<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        let finding = findings.error(table.span(), message);
        findings.push(finding.help(format!("bound a metric: {}", names.join(", "))));
    }
}

/// Reports bounds with levels where a value only holds or not.
fn check_plain(findings: &mut Findings, bounds: &Bounds, what: &str) {
    for (metric, bound) in bounds.iter().filter(|(_, bound)| bound.warn.is_some()) {
        let finding = findings.error(bound.at.span(), format!("{what} does not warn"));
        findings.push(finding.help(format!("write a number: {metric} = …")));
    }
}

fn rules(findings: &mut Findings, table: &Table, shared: bool) -> Vec<Rule> {
    let mut rules = Vec::new();
    for table in findings.tables(table, "rule") {
        let globs = findings.tensors(&table, shared);
        let bounds = bounds(findings, &table);
        let reason = findings.statement(&table, "reason").map(|it| it.text);
        let integrity = integrity(findings, &table, reason);
        let empty = bounds.is_empty() && !table.has("integrity");
        check_says_something(findings, &table, empty, "the rule bounds nothing");
        let at = findings.at(table.span());
        rules.push(Rule { globs, bounds, integrity, reason: reason.map(str::to_owned), at });
    }
    rules
}

fn waivers(
    findings: &mut Findings,
    table: &Table,
    options: &LoadOptions,
    shared: bool,
) -> Vec<Waiver> {
    let mut waivers = Vec::new();
    for table in findings.tables(table, "waive") {
        let globs = findings.tensors(&table, shared);
        let bounds = bounds(findings, &table);
        check_says_something(findings, &table, bounds.is_empty(), "the waiver waives nothing");
        check_plain(findings, &bounds, "a waiver's floor");
        let reason = findings.statement(&table, "reason");
        let until = findings.date(&table, "until");
        let at = findings.at(table.span());
        let (Some(reason), Some(until)) = (reason, until) else { continue };
        if until.value < options.today {
            let message = format!("the waiver expired on {}", until.value);
            let finding = findings.warning(until.at.span(), message);
            findings
                .push(finding.help("it no longer applies: renew it with a reason, or remove it"));
        }
        waivers.push(Waiver { globs, bounds, reason: reason.text.to_owned(), until, at });
    }
    waivers
}

fn groups(findings: &mut Findings, table: &Table, shared: bool) -> Vec<Group> {
    let mut groups = Vec::new();
    for table in findings.tables(table, "group") {
        let globs = findings.tensors(&table, shared);
        let bounds = bounds(findings, &table);
        check_says_something(findings, &table, bounds.is_empty(), "the group bounds nothing");
        check_plain(findings, &bounds, "a group's bound");
        let fraction = findings.number(&table, "min_pass_fraction");
        let reason = findings.statement(&table, "reason").map(|it| it.text.to_owned());
        let at = findings.at(table.span());
        let Some(min_pass_fraction) = fraction else { continue };
        if min_pass_fraction.value <= 0.0 {
            let span = min_pass_fraction.at.span();
            let finding = findings.error(span, "a fraction of 0 holds whatever the values");
            findings.push(finding.help("it must be above 0, and at most 1"));
        }
        groups.push(Group { globs, bounds, min_pass_fraction, reason, at });
    }
    groups
}

fn qtypes(
    findings: &mut Findings,
    table: &Table,
    options: &LoadOptions,
    shared: bool,
) -> Vec<QtypeRule> {
    let mut rules = Vec::new();
    for table in findings.tables(table, "qtype") {
        let globs = findings.tensors(&table, shared);
        let is = findings.texts(&table, "is");
        let not = findings.texts(&table, "not");
        for name in is.iter().chain(&not) {
            check_qtype(findings, name, options);
        }
        if !table.has("is") && !table.has("not") {
            let finding = findings.error(table.span(), "neither `is` nor `not` names a type");
            findings.push(finding.help("write is = \"Q4_K\", or a list"));
        }
        let owned = |texts: Vec<Text>| texts.iter().map(|it| it.text.to_owned()).collect();
        let at = findings.at(table.span());
        rules.push(QtypeRule { globs, is: owned(is), not: owned(not), at });
    }
    rules
}

/// A misspelled type in `not` would never be found: say so.
fn check_qtype(findings: &mut Findings, name: &Text, options: &LoadOptions) {
    if (options.knows_qtype)(name.text) || name.text.contains('{') {
        return;
    }
    let message = format!("no type or scheme is known as {}", quoted(name.text));
    let mut finding = findings.warning(name.span.clone(), message);
    finding.help = nearest(name.text, TYPES.iter().map(|row| row.name))
        .map(|near| format!("did you mean `{near}`?"));
    findings.push(finding);
}

fn transforms(findings: &mut Findings, table: &Table, shared: bool) -> Vec<Transform> {
    let mut transforms = Vec::new();
    for table in findings.tables(table, "transform") {
        let globs = findings.tensors(&table, shared);
        let heads = findings.whole(&table, "heads");
        let norm = findings.statement(&table, "norm");
        let Some(apply) = findings.choice(&table, "apply") else { continue };
        for (key, of) in [("heads", "rope-permute"), ("norm", "fold")] {
            if apply == of && !table.has(key) {
                let finding = findings.error(table.span(), format!("`{of}` needs `{key}`"));
                findings.push(finding);
            } else if apply != of && table.has(key) {
                let message = format!("`{key}` says nothing about `{apply}`");
                let finding = findings.error(table.key_span(key), message);
                findings.push(finding.help(format!("it belongs to `{of}`")));
            }
        }
        let apply = match (apply, heads, norm) {
            ("plus-one", _, _) => Apply::PlusOne,
            ("rope-permute", Some(heads), _) => Apply::RopePermute { heads: heads.value },
            ("fold", _, Some(norm)) => Apply::Fold { norm: norm.text.to_owned() },
            _ => continue,
        };
        let at = findings.at(table.span());
        transforms.push(Transform { globs, apply, at });
    }
    transforms
}

fn schemes(findings: &mut Findings, table: &Table, shared: bool) -> Vec<Scheme> {
    let mut schemes = Vec::new();
    for table in findings.tables(table, "scheme") {
        let globs = findings.tensors(&table, shared);
        let is = findings.statement(&table, "is");
        let at = findings.at(table.span());
        if let Some(is) = is {
            schemes.push(Scheme { globs, is: is.text.to_owned(), at });
        }
    }
    schemes
}

fn companions(findings: &mut Findings, table: &Table, shared: bool) -> Vec<Companions> {
    let mut companions = Vec::new();
    for table in findings.tables(table, "companions") {
        let globs = findings.tensors(&table, shared);
        let before = findings.count;
        let suffixes: Vec<String> =
            findings.texts(&table, "suffixes").iter().map(|it| it.text.to_owned()).collect();
        if suffixes.is_empty() && table.has("suffixes") && findings.count == before {
            let span = table.key_span("suffixes");
            let finding = findings.error(span, "`suffixes` is an empty list");
            findings.push(finding.help("name a plane, such as \"weight_scale\""));
        }
        let at = findings.at(table.span());
        companions.push(Companions { globs, suffixes, at });
    }
    companions
}
