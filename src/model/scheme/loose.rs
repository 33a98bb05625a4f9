/*!
Planes that belong to no weight's values: scales and zero points of activations, of the KV cache, of
queries, softmax and outputs. They are known by their suffixes, judged, and never compared.

One table ([`LOOSE`]) lists every spelling that serving engines read; the table of docs/formats.md is made
from it.
*/

use std::collections::{BTreeMap, BTreeSet};

use super::grid::{is_number, numbers};
use super::group::{Context, pattern};
use crate::model::{ModelFinding, Plane, PlaneFault, ReadError, Scratch, Storage, Tensor};

/// Most values of such a plane; what is longer is a tensor of its own.
const MOST_VALUES: u64 = 1 << 16;

/// What the values of a plane must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loose {
    /// Finite and positive.
    Scale,
    /// Finite.
    Zero,
    /// Anything: a marker or a text.
    Mark,
}

/// Suffixes of one meaning.
pub struct Row {
    /// What they belong to, for people.
    pub what: &'static str,
    /// What their values must be.
    pub kind: Loose,
    /// Whether all layers have it or none has.
    pub everywhere: bool,
    /// Suffixes, with the dot.
    pub suffixes: &'static [&'static str],
}

/// Every spelling.
pub static LOOSE: &[Row] = &[
    Row {
        what: "inputs of a module",
        kind: Loose::Scale,
        everywhere: false,
        suffixes: &[
            ".input_scale",
            ".input_scale_inv",
            ".input_global_scale",
            ".activation_scale",
            ".activation_scale_inv",
            ".activation_scaling_factor",
            ".act_scale",
            ".qscale_act",
            ".scale_input",
        ],
    },
    Row {
        what: "inputs of a module",
        kind: Loose::Zero,
        everywhere: false,
        suffixes: &[".input_zero_point", ".activation_zero_point"],
    },
    Row {
        what: "outputs of a module",
        kind: Loose::Scale,
        everywhere: true,
        suffixes: &[".output_scale", ".output_global_scale", ".scale_output"],
    },
    Row {
        what: "outputs of a module",
        kind: Loose::Zero,
        everywhere: true,
        suffixes: &[".output_zero_point"],
    },
    Row {
        what: "keys",
        kind: Loose::Scale,
        everywhere: true,
        suffixes: &[".k_scale", ".k_global_scale", ".k_cache_scale", ".k_cache_scaling_factor"],
    },
    Row {
        what: "values",
        kind: Loose::Scale,
        everywhere: true,
        suffixes: &[".v_scale", ".v_global_scale", ".v_cache_scale", ".v_cache_scaling_factor"],
    },
    Row {
        what: "keys and values",
        kind: Loose::Scale,
        everywhere: true,
        suffixes: &[
            ".kv_scale",
            ".kv_global_scale",
            ".kv_cache_scale",
            ".kv_cache_scaling_factor",
            ".kv_cache_rcp_scaling_factor",
        ],
    },
    Row {
        what: "keys and values",
        kind: Loose::Zero,
        everywhere: true,
        suffixes: &[".k_zero_point", ".v_zero_point", ".kv_zero_point"],
    },
    Row {
        what: "queries",
        kind: Loose::Scale,
        everywhere: true,
        suffixes: &[".q_scale", ".q_global_scale"],
    },
    Row { what: "queries", kind: Loose::Zero, everywhere: true, suffixes: &[".q_zero_point"] },
    Row {
        what: "softmax",
        kind: Loose::Scale,
        everywhere: true,
        suffixes: &[
            ".prob_scale",
            ".prob_output_scale",
            ".prob_global_scale",
            ".softmax_scale",
            ".softmax_output_scale",
        ],
    },
    Row {
        what: "softmax",
        kind: Loose::Zero,
        everywhere: true,
        suffixes: &[".prob_zero_point", ".prob_output_zero_point", ".softmax_zero_point"],
    },
    Row {
        what: "the layout's name, as JSON (ComfyUI)",
        kind: Loose::Mark,
        everywhere: false,
        suffixes: &[".comfy_quant"],
    },
];

/// Last parts of the names of tensors without values that only say what a file is (`ComfyUI`, which puts the
/// prefix of the diffusion model before it).
const MARKERS: &[&str] = &["scaled_fp8"];

/// Row and suffix of a plane's name.
pub fn row_of(name: &str) -> Option<(&'static Row, &'static str)> {
    let all = LOOSE.iter().flat_map(|row| row.suffixes.iter().map(move |suffix| (row, *suffix)));
    all.filter(|(_, suffix)| name.ends_with(suffix)).max_by_key(|(_, suffix)| suffix.len())
}

/// All suffixes.
pub fn suffixes() -> impl Iterator<Item = &'static str> {
    LOOSE.iter().flat_map(|row| row.suffixes).copied()
}

/// The table as Markdown, for the documentation.
pub fn markdown_table() -> String {
    let mut text =
        String::from("| what it belongs to | values | suffixes |\n| --- | --- | --- |\n");
    for Row { what, kind, suffixes, .. } in LOOSE {
        let values = match kind {
            Loose::Scale => "finite and positive",
            Loose::Zero => "finite",
            Loose::Mark => "not judged",
        };
        let suffixes: Vec<String> =
            suffixes.iter().map(|suffix| format!("`{}`", suffix.trim_start_matches('.'))).collect();
        text.extend(["| ", what, " | ", values, " | ", &suffixes.join(", "), " |\n"]);
    }
    text
}

/// The planes of a model that belong to no weight's values.
#[derive(Default)]
pub struct Found {
    /// Names of the tensors that they are.
    pub names: BTreeSet<String>,
    /// What is wrong with them.
    pub findings: Vec<ModelFinding>,
    /// What is odd, and what there is.
    pub notes: Vec<String>,
}

/// Finds and judges the planes; the values of those that are `attached` to a weight are judged with
/// it.
pub fn find(tensors: &[Tensor], context: &Context, attached: &dyn Fn(&str) -> bool) -> Found {
    let mut found = Found::default();
    let mut planes = Vec::new();
    for tensor in tensors {
        let Storage::Plain { ty, at } = tensor.storage else { continue };
        let empty = tensor.numel() == 0 || tensor.numel() == 2 && tensor.shape.len() == 1;
        let last = tensor.name.rsplit('.').next().unwrap_or_default();
        if MARKERS.contains(&last) && empty {
            found.names.insert(tensor.name.clone());
            continue;
        }
        let Some((row, suffix)) = row_of(&tensor.name) else { continue };
        if tensor.numel() <= MOST_VALUES {
            let Tensor { name, shape, .. } = tensor;
            let plane = Plane { name: name.clone(), ty, shape: shape.clone(), at };
            planes.push((plane, row, suffix));
        }
    }
    let mut negative: BTreeMap<&str, Vec<(&Plane, bool)>> = BTreeMap::new();
    let mut scratch = Scratch::default();
    for (plane, row, suffix) in &planes {
        found.names.insert(plane.name.clone());
        // Scales of inputs, of which there may be one for each expert, are read with their weight.
        if row.kind == Loose::Mark || !row.everywhere && attached(&plane.name) {
            continue;
        }
        let judged = Judged::of(plane, context, &mut scratch);
        if row.kind == Loose::Scale {
            // The value from which serving engines start.
            let start =
                matches!(judged, Ok(Judged { least, most, .. }) if least == -1.0 && most == -1.0);
            negative.entry(suffix).or_default().push((plane, start));
        }
        if let Some((fault, message)) = fault(&judged, row.kind).filter(|_| !attached(&plane.name))
        {
            found.finding(&plane.name, fault, message);
        }
    }
    for (suffix, planes) in negative {
        let starting: Vec<&Plane> =
            planes.iter().filter(|(_, it)| *it).map(|(it, _)| *it).collect();
        if let (Some(first), true) = (starting.first(), starting.len() == planes.len()) {
            found.notes.push(format!(
                "all {} planes *{suffix} are -1, which is not positive: nothing was calibrated, and \
                 serving engines take 1 ({}, …)",
                planes.len(),
                first.name
            ));
        } else {
            for plane in starting.into_iter().filter(|plane| !attached(&plane.name)) {
                let message = "is -1, as if nothing was calibrated, although others are";
                found.finding(&plane.name, PlaneFault::Zero, message.to_owned());
            }
        }
    }
    found.lost(tensors, &planes);
    found.count(&planes);
    found
}

/// Extremes of the values of a plane.
struct Judged {
    nonfinite: usize,
    least: f32,
    most: f32,
}

impl Judged {
    fn of(plane: &Plane, context: &Context, scratch: &mut Scratch) -> Result<Self, ReadError> {
        let mut values = vec![0.0; plane.numel() as usize];
        if is_number(plane.ty) {
            numbers(context.files, plane.at, plane.ty, 0, &mut values, scratch)?;
        }
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        Ok(Self {
            nonfinite: values.len() - finite().count(),
            least: finite().fold(f32::INFINITY, f32::min),
            most: finite().fold(f32::NEG_INFINITY, f32::max),
        })
    }
}

fn fault(judged: &Result<Judged, ReadError>, kind: Loose) -> Option<(PlaneFault, String)> {
    let Judged { nonfinite, least, most } = match judged {
        Ok(judged) => judged,
        Err(error) => return Some((PlaneFault::NonFinite, format!("cannot be read: {error}"))),
    };
    if *nonfinite > 0 {
        let message = format!("has {nonfinite} values that are not finite");
        return Some((PlaneFault::NonFinite, message));
    }
    let starting = *least == -1.0 && *most == -1.0;
    if kind != Loose::Scale || *least > 0.0 || starting {
        return None;
    }
    let what = if *least == 0.0 { "is zero".to_owned() } else { format!("is {least}: negative") };
    Some((PlaneFault::Zero, format!("{what}, and a scale is positive")))
}

impl Found {
    fn finding(&mut self, plane: &str, fault: PlaneFault, message: String) {
        let (tensor, plane) = (plane.to_owned(), plane.to_owned());
        self.findings.push(ModelFinding { tensor, plane, fault, message });
    }

    /// Planes that other layers have and one has not.
    fn lost(&mut self, tensors: &[Tensor], planes: &[(Plane, &Row, &str)]) {
        let is_loose = |name: &str| row_of(name).is_some();
        let modules =
            Modules::of(tensors.iter().map(|it| it.name.as_str()).filter(|it| !is_loose(it)));
        // Which modules have a plane of one relative name, by their pattern.
        let mut families: BTreeMap<(String, &str), BTreeSet<&str>> = BTreeMap::new();
        for (plane, ..) in planes.iter().filter(|(_, row, _)| row.everywhere) {
            let Some(module) = modules.above(&plane.name) else { continue };
            let relative = &plane.name[module.len() + 1..];
            families.entry((pattern(module), relative)).or_default().insert(module);
        }
        let by_pattern = modules.by_pattern();
        for ((pattern, relative), having) in families {
            let alike = modules.like(&by_pattern[&pattern], &having);
            for module in alike.iter().filter(|module| !having.contains(**module)) {
                let message = format!(
                    "is missing, although {} of the {} modules like it have one",
                    having.len(),
                    alike.len()
                );
                self.finding(&format!("{module}.{relative}"), PlaneFault::Missing, message);
            }
        }
    }

    /// Says how many there are of each suffix.
    fn count(&mut self, planes: &[(Plane, &Row, &str)]) {
        let mut counts: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
        for (plane, _, suffix) in planes.iter().filter(|(_, row, _)| row.kind != Loose::Mark) {
            counts.entry(suffix).or_insert((0, plane.name.as_str())).0 += 1;
        }
        if !counts.is_empty() {
            let list = counts.values().map(|(count, first)| match count {
                1 => (*first).to_owned(),
                count => format!("{count} like {first}"),
            });
            let list: Vec<String> = list.collect();
            self.notes.push(format!("judged, but not compared: {}", list.join(", ")));
        }
    }
}

/// Every module of a model, and what lies directly below it.
struct Modules<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> Modules<'a> {
    fn of(names: impl Iterator<Item = &'a str>) -> Self {
        let mut modules: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for name in names {
            // The last part is a parameter, or a plane of one; a module's own parts are modules.
            let mut rest = name.rfind('.');
            let mut below = None;
            while let Some(end) = rest {
                modules.entry(&name[..end]).or_default().extend(below);
                rest = name[..end].rfind('.');
                below = Some(rest.map_or(&name[..end], |dot| &name[dot + 1..end]));
            }
        }
        Self(modules)
    }

    /// The innermost module above a name that holds something else.
    fn above(&self, name: &str) -> Option<&'a str> {
        let mut end = name.rfind('.');
        while let Some(dot) = end {
            if let Some((module, _)) = self.0.get_key_value(&name[..dot]) {
                return Some(module);
            }
            end = name[..dot].rfind('.');
        }
        None
    }

    /// The modules of each pattern.
    fn by_pattern(&self) -> BTreeMap<String, Vec<&'a str>> {
        let mut by_pattern: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for module in self.0.keys() {
            by_pattern.entry(pattern(module)).or_default().push(module);
        }
        by_pattern
    }

    /// Those of some modules that have the same parts as one of `these`.
    fn like(&self, modules: &[&'a str], these: &BTreeSet<&str>) -> Vec<&'a str> {
        let parts: BTreeSet<_> = these.iter().filter_map(|module| self.0.get(*module)).collect();
        let alike = |module: &&str| self.0.get(*module).is_some_and(|own| parts.contains(own));
        modules.iter().copied().filter(alike).collect()
    }
}
