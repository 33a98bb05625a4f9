/*!
From stored tensors to logical weights: groups planes by base name, tries the table's schemes, and
says what is missing, left over or unknown.

What no scheme claims stays the tensor that it was.
*/

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use super::arrange::arrange;
use super::config::Config;
use super::fp8;
use super::group::{BARE, Context, Found, Group, Trouble, pattern};
use super::loose::{self, Loose};
use super::planes::Role;
use super::table::SCHEMES;
use crate::codec::Class;
use crate::model::configuration::{self, ConfigFinding};
use crate::model::{Model, ModelFinding, Plane, PlaneFault, Storage, Tensor};

/// Largest extent of a plane that takes part; beyond it, products of extents could overflow.
const LARGEST_EXTENT: u64 = 1 << 40;

/// gpt-oss has no tensor under the weight's own name.
const BLOCKS: [&str; 2] = ["_blocks", "_scales"];

/// Suffixes that nothing but a quantized weight has: left over, they are a fault.
const TELLING: &[&str] = &[
    ".weight_packed",
    ".weight_scale",
    ".weight_scale_inv",
    ".weight_scale_2",
    ".weight_zero_point",
    ".weight_global_scale",
    ".weight_g_idx",
    ".qweight",
    ".qzeros",
    ".g_idx",
    ".weight.absmax",
    ".weight.quant_map",
    ".weight.nested_absmax",
    ".weight.nested_quant_map",
    ".SCB",
    ".W_q",
    ".weight._data",
    ".weight._data._data",
    ".weight._scale",
    ".weight._shift",
    "._weight_qdata",
    "._weight_scale",
    ".trellis",
    ".suh",
    ".svh",
    ".q_weight",
    ".q_groups",
    ".q_scale_max",
    ".q_invperm",
    ".codebooks",
    ".centroids.weight",
    ".compressed",
    ".bitmask",
    ".scale_packed",
    ".B_24",
];

/// Joins the planes of every quantized weight of a model of safetensors files; `directory` is where
/// configuration files may lie.
pub fn join(model: &mut Model, directory: Option<&Path>) {
    let config = Config::read(directory, &model.metadata);
    model.configuration = judge_configuration(model, &config);
    let mut groups = group(&model.tensors);
    let notes = arrange(&mut groups, &model.tensors);
    let mut outcome = Outcome { notes, ..Outcome::default() };
    let context = Context { files: &model.files, config: &config };
    for group in groups.values() {
        outcome.try_group(group, &context);
    }
    lonely_fp8(model, &config, &groups, &mut outcome);
    compare_siblings(&groups, &mut outcome);
    if !outcome.joined.is_empty() || !config.method().is_empty() || !config.quant_algo().is_empty()
    {
        set_aside_loose(&model.tensors, &context, &mut outcome);
    }
    refuse_twins(&model.tensors, &mut outcome);
    outcome.say_guesses();
    let loose = |tensor: &&Tensor| outcome.loose.contains(&tensor.name);
    model.loose = model.tensors.iter().filter(loose).cloned().collect();
    model.tensors.retain(|tensor| !outcome.consumed.contains(&tensor.name));
    model.tensors.append(&mut outcome.joined);
    model.tensors.sort_by(|a, b| a.name.cmp(&b.name));
    model.findings.append(&mut outcome.findings);
    model.findings.sort_by(|a, b| (&a.tensor, &a.plane).cmp(&(&b.tensor, &b.plane)));
    model.notes.append(&mut outcome.notes);
    model.notes.extend(config.notes);
}

/// What the configuration says about the quantization, against the stored planes.
fn judge_configuration(model: &Model, config: &Config) -> Option<Vec<ConfigFinding>> {
    let planes: Vec<Plane> = model.tensors.iter().filter_map(plane).collect();
    let bytes = |plane: &Plane| {
        model.files[plane.at.file].read_range(plane.at.offset, plane.at.len, &plane.name).ok()
    };
    configuration::judge(&config.places, &planes, &bytes)
}

/// A weight that is there twice, as planes and as a tensor or as other planes, cannot be read: which
/// of them the reader of the checkpoint would take, nobody can say.
fn refuse_twins(tensors: &[Tensor], outcome: &mut Outcome) {
    outcome.joined.sort_by(|a, b| a.name.cmp(&b.name));
    let stored: HashSet<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    for weight in std::mem::take(&mut outcome.joined) {
        let name = weight.name.clone();
        let joined_twin = outcome.joined.pop_if(|other| other.name == name).is_some();
        // A stored tensor that its own group has used up is a plane, and no twin.
        let stored_twin = stored.contains(name.as_str()) && !outcome.consumed.contains(&name);
        if !joined_twin && !stored_twin {
            outcome.joined.push(weight);
            continue;
        }
        let message = "is there beside planes that make up the same weight".to_owned();
        outcome.finding(&name, &name, PlaneFault::Extra, message);
        let what = weight.qtype().to_owned();
        let reason = format!("the checkpoint holds it twice, as {what} and in another form");
        let storage = Storage::Undecodable { what, reason, at: weight.extent() };
        outcome.joined.push(Tensor { storage, ..weight });
        outcome.consumed.insert(name);
    }
}

/// Groups planes by base name; most groups hold one plain weight.
fn group(tensors: &[Tensor]) -> BTreeMap<String, Group> {
    let mut endings: Vec<&'static str> = SCHEMES
        .iter()
        .flat_map(|scheme| scheme.suffixes)
        .copied()
        .chain(loose::suffixes())
        .filter(|suffix| suffix.starts_with('.'))
        .collect();
    endings.sort_by_key(|suffix| (std::cmp::Reverse(suffix.len()), *suffix));
    endings.dedup();
    let names: HashSet<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    let mut bare = Vec::new();
    for tensor in tensors {
        let Some(plane) = plane(tensor) else { continue };
        let name = tensor.name.as_str();
        if let Some((base, suffix)) = split_bare(name, &names, &endings) {
            bare.push(base.to_owned());
            add(&mut groups, base, suffix, plane);
        } else if let Some(suffix) = endings.iter().find(|suffix| name.ends_with(**suffix)) {
            add(&mut groups, &name[..name.len() - suffix.len()], suffix, plane);
        }
    }
    let by_name: HashMap<&str, &Tensor> =
        tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    for base in bare {
        let Some(group) = groups.get_mut(&base) else { continue };
        if !group.bare {
            group.bare = true;
            let main = by_name.get(base.as_str()).and_then(|tensor| plane(tensor));
            group.planes.extend(main.map(|plane| (".weight", plane)));
        }
    }
    groups.retain(|_, group| group.planes.iter().any(|(suffix, _)| *suffix != ".weight"));
    groups
}

fn add(groups: &mut BTreeMap<String, Group>, base: &str, suffix: &'static str, plane: Plane) {
    let group = groups
        .entry(base.to_owned())
        .or_insert_with(|| Group { base: base.to_owned(), ..Group::default() });
    group.planes.push((suffix, plane));
}

/// A stored tensor as a plane, if its extents are sane.
fn plane(tensor: &Tensor) -> Option<Plane> {
    let Storage::Plain { ty, at } = tensor.storage else { return None };
    let sane = tensor.shape.iter().all(|&extent| extent <= LARGEST_EXTENT);
    sane.then(|| Plane { name: tensor.name.clone(), ty, shape: tensor.shape.clone(), at })
}

/// Base and suffix of a plane whose suffix hangs on the weight's own name.
fn split_bare<'a>(
    name: &'a str,
    names: &HashSet<&str>,
    endings: &[&str],
) -> Option<(&'a str, &'static str)> {
    for (i, blocks) in BLOCKS.into_iter().enumerate() {
        if let Some(base) = name.strip_suffix(blocks) {
            let twin = format!("{base}{}", BLOCKS[1 - i]);
            if i == 0 || names.contains(twin.as_str()) {
                return Some((base, blocks));
            }
        }
    }
    let (ending, suffix) = BARE.iter().find(|(ending, _)| name.ends_with(ending))?;
    let base = name.strip_suffix(ending)?;
    // `X.weight` has its own, dotted suffixes, and so has whatever is a plane itself: no plane may
    // belong to two weights.
    let is_plane = endings.iter().any(|ending| base.ends_with(ending));
    let packed =
        || ["_packed", "_weight_packed"].iter().any(|it| names.contains(&*format!("{base}{it}")));
    (!is_plane && (names.contains(base) || packed())).then_some((base, suffix))
}

/// What became of the groups.
#[derive(Default)]
struct Outcome {
    /// Stored tensors that are part of a weight now, or dropped.
    consumed: HashSet<String>,
    /// Logical weights.
    joined: Vec<Tensor>,
    /// Scheme of each group that was joined.
    schemes: HashMap<String, String>,
    findings: Vec<ModelFinding>,
    notes: Vec<String>,
    /// What planes leave open and how it was taken, and of which weight.
    guesses: Vec<(String, String)>,
    /// Stored tensors that were set aside: they belong to no weight's values.
    loose: BTreeSet<String>,
}

/// Name of the weight of a group.
fn weight_name(group: &Group) -> String {
    if group.bare { group.base.clone() } else { format!("{}.weight", group.base) }
}

impl Outcome {
    /// Tries the table's rows in order.
    fn try_group(&mut self, group: &Group, context: &Context) {
        for scheme in SCHEMES {
            match (scheme.build)(group, context) {
                Ok(None) => {}
                Ok(Some(found)) => return self.joined(group, found),
                Err(trouble) => return self.refused(group, trouble),
            }
        }
        self.unclaimed(group);
    }

    fn joined(&mut self, group: &Group, mut found: Found) {
        let tensor = weight_name(group);
        for (suffix, plane) in &group.planes {
            if found.weight.parts().stored.iter().any(|used| used.name == plane.name) {
                continue;
            }
            match loose::row_of(suffix).map(|(row, _)| row.kind) {
                Some(Loose::Scale) => found.weight.parts().add(plane, Role::Activation),
                Some(Loose::Zero) => found.weight.parts().add(plane, Role::ActivationZero),
                Some(Loose::Mark) | None => {}
            }
        }
        let weight = found.weight.finish();
        let used = weight.planes().iter().chain(weight.activation_planes());
        self.consumed.extend(used.map(|plane| plane.name.clone()));
        for (suffix, plane) in &group.planes {
            if !self.consumed.contains(&plane.name) && TELLING.contains(suffix) {
                let message =
                    format!("is left over: {} weights have no use for it", weight.scheme());
                self.finding(&tensor, &plane.name, PlaneFault::Extra, message);
                self.consumed.insert(plane.name.clone());
            }
        }
        for finding in found.findings {
            self.finding(&tensor, &finding.plane, finding.fault, finding.message);
        }
        self.notes.append(&mut found.notes);
        self.guesses.extend(found.guesses.drain(..).map(|guess| (guess, tensor.clone())));
        self.schemes.insert(group.base.clone(), weight.scheme().to_owned());
        let storage = Storage::Joined(weight);
        self.joined.push(Tensor { name: tensor, shape: found.shape, storage });
    }

    /// One line for each guess, however many weights it was made for.
    fn say_guesses(&mut self) {
        let mut weights: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (guess, weight) in self.guesses.drain(..) {
            weights.entry(guess).or_default().push(weight);
        }
        self.notes.extend(weights.iter().map(|(guess, weights)| {
            let (first, more) = (&weights[0], if weights.len() > 1 { ", …" } else { "" });
            format!(
                "the planes of {} weights leave their width open, and no configuration says it; a guess: \
                 {guess} ({first}{more})",
                weights.len()
            )
        }));
    }

    fn finding(&mut self, tensor: &str, plane: &str, fault: PlaneFault, message: String) {
        let (tensor, plane) = (tensor.to_owned(), plane.to_owned());
        self.findings.push(ModelFinding { tensor, plane, fault, message });
    }

    /// The planes stand for a weight that cannot be decoded.
    fn refused(&mut self, group: &Group, trouble: Trouble) {
        let tensor = weight_name(group);
        let (what, reason) = match trouble {
            Trouble::Refused { scheme, reason } => (scheme, reason),
            Trouble::Read(error) => ("unreadable".to_owned(), error.to_string()),
            Trouble::Fault { scheme, plane, fault, message } => {
                let reason = format!("{plane} {message}");
                self.finding(&tensor, &plane, fault, message);
                (scheme, reason)
            }
        };
        self.undecodable(group, tensor, what, reason);
    }

    fn undecodable(&mut self, group: &Group, tensor: String, what: String, reason: String) {
        let codes = group.planes.iter().max_by_key(|(_, plane)| plane.at.len);
        let (shape, at) =
            codes.map_or((Vec::new(), None), |(_, plane)| (plane.shape.clone(), Some(plane.at)));
        self.consumed.extend(group.planes.iter().map(|(_, plane)| plane.name.clone()));
        self.schemes.insert(group.base.clone(), what.clone());
        let storage = Storage::Undecodable { what, reason, at };
        self.joined.push(Tensor { name: tensor, shape, storage });
    }

    /// No scheme wants the group: fine for ordinary tensors, not for planes of a quantization.
    fn unclaimed(&mut self, group: &Group) {
        let telling = |suffix: &str| TELLING.contains(&suffix) || BLOCKS.contains(&suffix);
        let mut planes = group.planes.iter().filter(|(suffix, _)| telling(suffix)).peekable();
        if planes.peek().is_none() {
            return;
        }
        let tensor = weight_name(group);
        let main = group.get(".weight");
        if main.is_some_and(|plane| plane.ty.info().class == Class::Float) {
            for (_, plane) in planes {
                let message = "is left over: the weight is stored as plain numbers".to_owned();
                self.finding(&tensor, &plane.name, PlaneFault::Extra, message);
                self.consumed.insert(plane.name.clone());
            }
            return;
        }
        let is_scale = |suffix: &str| suffix.contains("scale") || suffix.contains("zero");
        if group.planes.iter().all(|(suffix, _)| is_scale(suffix)) {
            for (_, plane) in planes {
                let message = "belongs to a weight that is not there".to_owned();
                self.finding(&tensor, &plane.name, PlaneFault::Extra, message);
                self.consumed.insert(plane.name.clone());
            }
            return;
        }
        let list: Vec<String> = group
            .planes
            .iter()
            .map(|(suffix, plane)| format!("{suffix} {} {:?}", plane.ty, plane.shape))
            .collect();
        let reason = format!("no known quantization scheme has these planes: {}", list.join(", "));
        self.undecodable(group, tensor, "unknown".to_owned(), reason);
    }
}

/// F8 weights without a scale: a plain cast is complete, but not where the configuration or the other
/// planes say that there was a scale.
fn lonely_fp8(
    model: &Model,
    config: &Config,
    groups: &BTreeMap<String, Group>,
    outcome: &mut Outcome,
) {
    let scaled =
        outcome.schemes.iter().filter(|(_, scheme)| *scheme == "FP8" || *scheme == "MXFP8");
    // What the model's other weights call it.
    let scale = groups
        .values()
        .filter(|group| outcome.schemes.get(&group.base).is_some_and(|scheme| scheme == "FP8"))
        .find_map(|group| fp8::SCALES.iter().find(|suffix| group.has(suffix)))
        .unwrap_or(&".weight_scale");
    let is_scale = |(row, _): (&loose::Row, &str)| row.kind == Loose::Scale;
    let siblings: HashSet<String> = scaled.map(|(base, _)| pattern(base)).collect();
    for tensor in &model.tensors {
        let Storage::Plain { ty, .. } = tensor.storage else { continue };
        let matrix = tensor.shape.len() >= 2 && fp8::values(ty).is_some();
        if !matrix || outcome.consumed.contains(&tensor.name) {
            continue;
        }
        let base = tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name);
        let activated = groups.get(base).is_some_and(|group| {
            group.planes.iter().any(|(suffix, _)| loose::row_of(suffix).is_some_and(is_scale))
        });
        let why = if activated {
            "the scale of its activations is there"
        } else if config.wants_fp8_scales() {
            "the configuration names a method that has one"
        } else if siblings.contains(&pattern(base)) {
            "the modules like it have one"
        } else {
            continue;
        };
        let plane = format!("{base}{scale}");
        let message = format!("is missing: the weight is FP8 without a scale, although {why}");
        outcome.finding(&tensor.name, &plane, PlaneFault::Missing, message);
    }
}

/// Scales of activations that most of a module's siblings have (the other experts, the other
/// layers) and it has not.
fn compare_siblings(groups: &BTreeMap<String, Group>, outcome: &mut Outcome) {
    let mut families: BTreeMap<(String, &str), Vec<&Group>> = BTreeMap::new();
    for group in groups.values() {
        if let Some(scheme) = outcome.schemes.get(&group.base) {
            families.entry((pattern(&group.base), scheme)).or_default().push(group);
        }
    }
    let mut findings = Vec::new();
    for family in families.values() {
        let rows = loose::LOOSE.iter().filter(|row| !row.everywhere && row.kind != Loose::Mark);
        for suffix in rows.flat_map(|row| row.suffixes) {
            let having = family.iter().filter(|group| group.has(suffix)).count();
            if having * 2 <= family.len() || having == family.len() {
                continue;
            }
            for group in family.iter().filter(|group| !group.has(suffix)) {
                let message = format!(
                    "is missing, although {having} of the {} modules like it have one",
                    family.len()
                );
                findings.push((weight_name(group), format!("{}{suffix}", group.base), message));
            }
        }
    }
    findings.extend(lost_zero_points(groups, outcome));
    for (tensor, plane, message) in findings {
        outcome.finding(&tensor, &plane, PlaneFault::Missing, message);
    }
}

/// Zero points that a symmetric GPTQ module could do without, but that the model's others have: no
/// tool leaves them out of some modules only.
fn lost_zero_points(
    groups: &BTreeMap<String, Group>,
    outcome: &Outcome,
) -> Vec<(String, String, String)> {
    const ZEROS: &str = ".qzeros";
    let is_gptq = |group: &&Group| {
        outcome.schemes.get(&group.base).is_some_and(|scheme| scheme.starts_with("GPTQ"))
    };
    let (having, lacking): (Vec<&Group>, Vec<&Group>) =
        groups.values().filter(is_gptq).partition(|group| group.has(ZEROS));
    let lost = |group: &Group| {
        let message = format!("is missing, although {} other modules have one", having.len());
        (weight_name(group), format!("{}{ZEROS}", group.base), message)
    };
    if having.is_empty() { Vec::new() } else { lacking.into_iter().map(lost).collect() }
}

/// Takes planes that belong to no weight's values out of the model, and judges them.
fn set_aside_loose(tensors: &[Tensor], context: &Context, outcome: &mut Outcome) {
    let mut found = loose::find(tensors, context, &|name| outcome.consumed.contains(name));
    outcome.consumed.extend(found.names.iter().cloned());
    outcome.loose = found.names;
    outcome.findings.append(&mut found.findings);
    outcome.notes.append(&mut found.notes);
}
