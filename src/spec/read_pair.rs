/*!
One `[[pair]]` table: read once, then filled in for every combination of the matrix that it uses.
*/

use std::path::PathBuf;

use super::keys::ALONE;
use super::read::File;
use super::read_parts::{Shared, read_shared};
use super::read_rules::{Demands, read_demands};
use super::table::{Findings, Table, nearest, quoted};
use super::template::{Assignment, Axis, MAX_ASSIGNMENTS, Part};
use super::template::{assignments, fill, fill_loosely, parse, used_axes};
use super::values::Text;
use super::{MapChoice, ModelPath, Pair, QtypeRule, Quantized, Thresholds, Tolerance};
use crate::codec::{TYPES, TensorType};
use crate::remote;

/// What `map` says where there is to be none.
const NO_MAP: &str = "none";

/// A string of the pair with its placeholders.
struct Template<'t> {
    text: Text<'t>,
    parts: Vec<Part<'t>>,
}

/// The strings of a pair that may hold placeholders.
struct Templates<'t> {
    name: Option<Template<'t>>,
    reference: Option<Template<'t>>,
    quantized: Option<Template<'t>>,
    roundtrip: Option<Template<'t>>,
    verify: Option<Template<'t>>,
    imatrix: Option<Template<'t>>,
    quantize_stats: Option<Template<'t>>,
    map: Option<Template<'t>>,
}

/// Reads a pair and adds what it stands for to `pairs`.
pub(super) fn read_pair(
    findings: &mut Findings,
    table: &Table,
    file: &File,
    axes_used: &mut [bool],
    pairs: &mut Vec<Pair>,
) {
    let templates = read_templates(findings, table, &file.axes);
    let used = templates.used_axes();
    for &axis in &used {
        if let Some(used) = axes_used.get_mut(axis) {
            *used = true;
        }
    }
    check_names_differ(findings, &templates, &used, &file.axes);
    let own = read_shared(findings, table, file.options, !used.is_empty());
    if table.has("verify") {
        check_compares_nothing(findings, table, &own);
    }
    let demands = read_demands(findings, table, file.options, !used.is_empty());
    let Some(assignments) = assignments(&file.axes, &used) else {
        let message = format!("the matrix makes more than {MAX_ASSIGNMENTS} pairs of this one");
        let finding = findings.error(table.span(), message);
        findings.push(finding);
        return;
    };
    let merged = merge(own, &file.shared);
    let merged = if table.has("verify") { alone(&merged) } else { merged };
    check_waivers(findings, &merged, &demands, file);
    pairs.reserve(assignments.len());
    for assignment in &assignments {
        let filling = Filling { file, templates: &templates, assignment };
        if let Some(pair) = filling.pair(findings, table, &merged, &demands) {
            pairs.push(pair);
        }
    }
}

fn read_templates<'t>(findings: &mut Findings, table: &Table<'t>, axes: &[Axis]) -> Templates<'t> {
    let mut template = |name| {
        let text = findings.statement(table, name)?;
        match parse(text.text, axes) {
            Ok(parts) => Some(Template { text, parts }),
            Err(error) => {
                let finding = findings.error(text.span.clone(), error.message).help(error.help);
                findings.push(finding);
                None
            }
        }
    };
    let templates = Templates {
        name: template("name"),
        reference: template("reference"),
        quantized: template("quantized"),
        roundtrip: template("roundtrip"),
        verify: template("verify"),
        imatrix: template("imatrix"),
        quantize_stats: template("quantize_stats"),
        map: template("map"),
    };
    match (table.has("quantized"), table.has("roundtrip")) {
        // What may stand beside it is checked elsewhere.
        _ if table.has("verify") => {}
        (true, true) => {
            let quantized = findings.at(table.key_span("quantized"));
            let finding = findings
                .error(
                    table.key_span("roundtrip"),
                    "a pair has `quantized` or `roundtrip`, not both",
                )
                .related(quantized, "the other one")
                .help("write two pairs");
            findings.push(finding);
        }
        (false, false) => {
            let message = "a pair needs `quantized`, `roundtrip` or `verify`";
            let finding = findings.error(table.span(), message);
            findings.push(finding.help(
                "name the quantized model, the type to quantize the reference to in memory, or a \
                 model to judge alone",
            ));
        }
        _ => {}
    }
    if let Some(key) = table.shape.key("reference")
        && !table.has("reference")
        && !table.has("verify")
    {
        findings.missing(table.shape, key, table.span());
    }
    if table.has("imatrix") && !table.has("roundtrip") {
        let message = "`imatrix` without `roundtrip`";
        let finding = findings.error(table.key_span("imatrix"), message);
        findings.push(finding.help("an importance matrix only serves to quantize in memory"));
    }
    if table.has("quantize_stats") && (!table.has("roundtrip") || table.has("imatrix")) {
        let message = "`quantize_stats` belongs to a `roundtrip` without `imatrix`";
        let finding = findings.error(table.key_span("quantize_stats"), message);
        findings.push(finding.help("llama-quantize-stats reads no quantized file and no imatrix"));
    }
    if table.has("map") && table.has("roundtrip") {
        let finding = findings.error(table.key_span("map"), "`map` with `roundtrip`");
        findings.push(finding.help("a round trip compares a model with itself: nothing is mapped"));
    }
    templates
}

impl Templates<'_> {
    fn all(&self) -> impl Iterator<Item = &Template<'_>> {
        let Self { reference, quantized, verify, imatrix, quantize_stats, map, .. } = self;
        let models = [reference, quantized, verify, imatrix, quantize_stats, map];
        [&self.name, &self.roundtrip].into_iter().chain(models).flatten()
    }

    fn used_axes(&self) -> Vec<usize> {
        used_axes(self.all().flat_map(|template| &template.parts))
    }
}

/// A pair without a reference demands nothing that is about two models.
fn check_compares_nothing(findings: &mut Findings, table: &Table, own: &Shared) {
    for (key, span, _) in table.entries() {
        // An unknown key is reported already.
        if table.shape.key(key).is_some() && !ALONE.contains(&key) {
            let finding = findings.error(span, format!("`{key}` in a pair with `verify`"));
            let help = format!("`verify` judges one model; beside it go {}", ALONE.join(", "));
            findings.push(finding.help(help));
        }
    }
    for (gate, setting) in own.integrity.iter().filter(|(gate, _)| gate.compares()) {
        let message = format!("`{gate}` compares with a reference, and `verify` has none");
        let finding = findings.error(setting.at().span(), message);
        findings.push(finding.help("remove it"));
    }
}

/// An axis that is not in the name would give several pairs one name.
fn check_names_differ(
    findings: &mut Findings,
    templates: &Templates,
    used: &[usize],
    axes: &[Axis],
) {
    let Some(name) = &templates.name else { return };
    let in_name = used_axes(name.parts.iter());
    for axis in used.iter().filter(|axis| !in_name.contains(axis)) {
        let Some(axis) = axes.get(*axis) else { continue };
        let message = format!("the name lacks the axis {}", quoted(&axis.name));
        let finding = findings.error(name.text.span.clone(), message);
        findings.push(
            finding.help(format!("its pairs would share a name: write {{{}}} in it", axis.name)),
        );
    }
}

/// Everything that a pair has, its own before or after the file's as each list demands.
fn merge(mut own: Shared, file: &Shared) -> Shared {
    let mut thresholds = file.thresholds.clone();
    thresholds.override_with(&own.thresholds);
    let mut integrity = file.integrity.clone();
    integrity.override_with(&own.integrity);
    let mut tags = file.tags.clone();
    for tag in own.tags {
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    let mut rename = file.rename.clone();
    rename.append(&mut own.rename);
    own.allow_missing.extend_from_slice(&file.allow_missing);
    own.allow_extra.extend_from_slice(&file.allow_extra);
    own.skip.extend_from_slice(&file.skip);
    own.metadata_equal.extend_from_slice(&file.metadata_equal);
    own.nonzero.extend_from_slice(&file.nonzero);
    own.allow_survivor.extend_from_slice(&file.allow_survivor);
    Shared { tags, thresholds, integrity, rename, ..own }
}

/// What of it a pair without a reference has.
fn alone(shared: &Shared) -> Shared {
    Shared {
        description: shared.description.clone(),
        tags: shared.tags.clone(),
        integrity: shared.integrity.clone(),
        skip: shared.skip.clone(),
        ..Shared::default()
    }
}

/// Warns of waivers for metrics that nothing bounds.
fn check_waivers(findings: &mut Findings, shared: &Shared, demands: &Demands, file: &File) {
    for (metric, floor) in demands.waivers.iter().flat_map(|waiver| waiver.bounds.iter()) {
        let bounded = shared.thresholds.tensor.get(metric).is_some()
            || file.overrides.iter().any(|(over, _)| over.tensor.get(metric).is_some())
            || demands.rules.iter().any(|rule| rule.bounds.get(metric).is_some());
        if !bounded {
            let message = format!("nothing bounds `{metric}`, so there is nothing to waive");
            let finding = findings.warning(floor.at.span(), message);
            findings.push(finding.help("bound it in thresholds.tensor or a rule"));
        }
    }
}

/// A pair being made of its table for one combination of the matrix.
struct Filling<'a> {
    file: &'a File<'a>,
    templates: &'a Templates<'a>,
    assignment: &'a Assignment,
}

impl Filling<'_> {
    fn pair(
        &self,
        findings: &mut Findings,
        table: &Table,
        shared: &Shared,
        demands: &Demands,
    ) -> Option<Pair> {
        let name = self.name(findings);
        let verify = self.templates.verify.as_ref();
        let reference = self.path(findings, verify.or(self.templates.reference.as_ref()));
        let quantized = match verify {
            Some(_) => Some(Quantized::Alone),
            None => self.quantized(findings),
        };
        let quantize_stats = self.path(findings, self.templates.quantize_stats.as_ref());
        let map = self.map(findings, table, !shared.rename.is_empty());
        let name_template = self.templates.name.as_ref()?;
        let (name, reference, quantized) = (name?, reference?, quantized?);
        if matches!(&quantized, Quantized::File(model) if model.path == reference.path) {
            let message = format!("the pair {} compares a model with itself", quoted(&name));
            let finding = findings.warning(table.key_span("quantized"), message);
            findings.push(finding);
        }
        let mut thresholds = shared.thresholds.clone();
        let tolerance = Tolerance::default();
        let mut baseline = shared.baseline.over(&self.file.shared.baseline.over(&tolerance));
        for (over, tolerance) in &self.file.overrides {
            thresholds.override_with(over);
            baseline = tolerance.over(&baseline);
        }
        if verify.is_some() {
            // There are no metrics that could be bounded, or move.
            thresholds = Thresholds::default();
            baseline = Tolerance { off: true, ..tolerance };
        }
        let loosely = |text: &String| fill_loosely(text, &self.file.axes, self.assignment);
        Some(Pair {
            name,
            at: findings.at(name_template.text.span.clone()),
            description: shared.description.as_ref().map(loosely),
            tags: shared.tags.iter().map(loosely).collect(),
            ignore: demands.ignore.clone(),
            reference,
            quantized,
            thresholds,
            baseline,
            rules: demands.rules.clone(),
            waivers: demands.waivers.clone(),
            groups: demands.groups.clone(),
            allow_missing: shared.allow_missing.clone(),
            allow_extra: shared.allow_extra.clone(),
            rename: shared.rename.clone(),
            map: map?,
            skip: shared.skip.clone(),
            qtype: demands.qtype.iter().map(|rule| self.qtype(rule)).collect(),
            min_quantized: demands.min_quantized.clone(),
            bits_per_weight: demands.bits_per_weight.clone(),
            metadata_equal: shared.metadata_equal.clone(),
            nonzero: shared.nonzero.clone(),
            transform: demands.transform.clone(),
            quantize_stats,
            unfold: demands.unfold,
            sample: demands.sample.clone(),
            scheme: demands.scheme.clone(),
            companions: demands.companions.clone(),
            integrity: shared.integrity.clone(),
            allow_survivor: shared.allow_survivor.clone(),
        })
    }

    fn qtype(&self, rule: &QtypeRule) -> QtypeRule {
        let loosely = |text: &String| fill_loosely(text, &self.file.axes, self.assignment);
        QtypeRule {
            is: rule.is.iter().map(loosely).collect(),
            not: rule.not.iter().map(loosely).collect(),
            ..rule.clone()
        }
    }

    /// Fills in a type, which takes no environment variables.
    fn type_name(&self, findings: &mut Findings, template: &Template) -> Option<String> {
        match fill(&template.parts, &self.file.axes, self.assignment, |_| None) {
            Ok(text) => Some(text),
            Err(variable) => {
                let message = format!("${{{variable}}} stands where no variable is filled in");
                let finding = findings.error(template.text.span.clone(), message);
                findings
                    .push(finding.help("environment variables belong in paths, names and tags"));
                None
            }
        }
    }

    fn name(&self, findings: &mut Findings) -> Option<String> {
        let template = self.templates.name.as_ref()?;
        let (axes, options) = (&self.file.axes, self.file.options);
        let take = |name: &str| findings.take(name, options);
        let name = match fill(&template.parts, axes, self.assignment, take) {
            Ok(name) => name,
            Err(variable) => {
                findings.unset(template.text.span.clone(), variable);
                return None;
            }
        };
        let problem = if name.contains("::") {
            "must not hold `::`, which separates the parts of a test id"
        } else if name.starts_with(':') || name.ends_with(':') {
            "must not begin or end with `:`, which test ids put around it"
        } else if name.contains(char::is_control) {
            "must not hold control characters"
        } else if name.trim() != name {
            "must not begin or end with a space"
        } else {
            return Some(name);
        };
        let finding = findings.error(template.text.span.clone(), format!("a name {problem}"));
        findings.push(finding);
        None
    }

    fn path(&self, findings: &mut Findings, template: Option<&Template>) -> Option<ModelPath> {
        let Template { text, parts } = template?;
        let axes = &self.file.axes;
        let filled = fill(parts, axes, self.assignment, |name| self.file.options.variable(name));
        let written = fill(parts, axes, self.assignment, |name| Some(format!("${{{name}}}")));
        let (filled, written) = match (filled, written) {
            (Ok(filled), Ok(written)) => (filled, written),
            (Err(name), _) | (_, Err(name)) => {
                findings.unset(text.span.clone(), name);
                return None;
            }
        };
        if filled.contains('\0') {
            let finding = findings.error(text.span.clone(), "a path must not hold NUL");
            findings.push(finding);
            return None;
        }
        let at = findings.at(text.span.clone());
        Some(ModelPath { path: self.at(filled), written, at })
    }

    /// A path is relative to the spec's directory; an address is what it is.
    fn at(&self, written: String) -> PathBuf {
        let path = PathBuf::from(written);
        if remote::is_address(&path) { path } else { self.file.directory.join(path) }
    }

    /// The map: the word `none`, or a file.
    fn map(&self, findings: &mut Findings, table: &Table, renamed: bool) -> Option<MapChoice> {
        let Some(template) = &self.templates.map else { return Some(MapChoice::Automatic) };
        if template.text.text == NO_MAP {
            return Some(MapChoice::Off);
        }
        if renamed {
            let message = "`map` in a pair with `rename`";
            let finding = findings.error(table.key_span("map"), message);
            findings.push(
                finding.help(
                    "a pair that renames keeps the reference's names; leave out one of the two",
                ),
            );
        }
        self.path(findings, Some(template)).map(MapChoice::File)
    }

    fn quantized(&self, findings: &mut Findings) -> Option<Quantized> {
        let Some(template) = &self.templates.roundtrip else {
            return self.path(findings, self.templates.quantized.as_ref()).map(Quantized::File);
        };
        let name = self.type_name(findings, template)?;
        let has_imatrix = self.templates.imatrix.is_some();
        let imatrix = self.path(findings, self.templates.imatrix.as_ref());
        let span = template.text.span.clone();
        let Some(ty) = TensorType::from_name(&name) else {
            let finding = findings.error(span, format!("no type is called {}", quoted(&name)));
            let help = match nearest(&name, TYPES.iter().map(|row| row.name)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => self.encodable(has_imatrix),
            };
            findings.push(finding.help(help));
            return None;
        };
        let encodes = self.file.options.encodes;
        if !encodes(ty, has_imatrix) {
            let finding = findings.error(span, format!("{ty} cannot be quantized to"));
            let help = if encodes(ty, true) {
                format!("{ty} needs an importance matrix: imatrix = \"…\"")
            } else {
                self.encodable(has_imatrix)
            };
            findings.push(finding.help(help));
            return None;
        }
        if has_imatrix && imatrix.is_none() {
            return None;
        }
        Some(Quantized::Roundtrip { ty, imatrix, at: findings.at(span) })
    }

    /// The types that can be quantized to, for a help text.
    fn encodable(&self, weighted: bool) -> String {
        let encodes = self.file.options.encodes;
        let types: Vec<_> =
            TYPES.iter().filter(|row| encodes(row.ty, weighted)).map(|row| row.name).collect();
        if types.is_empty() {
            "no type can, yet".to_owned()
        } else {
            format!("these can: {}", types.join(", "))
        }
    }
}
