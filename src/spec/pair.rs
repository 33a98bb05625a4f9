/*!
A pair of models and everything that a spec demands of it.

All globs match a tensor's reference name: a quantized tensor is renamed first.
*/

use std::path::PathBuf;

use regex::Regex;

use super::{Bounds, Date, Globs, Integrity, Located, Location, Pattern, Thresholds, Tolerance};
use crate::codec::TensorType;
use crate::fault::Fault;

/// One reference and one quantized model, with what must hold between them.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Name, unique in the file; placeholders of the matrix are filled in.
    pub name: String,
    /// Where the name is written.
    pub at: Location,
    /// For people.
    pub description: Option<String>,
    /// The file's tags, then the pair's own.
    pub tags: Vec<String>,
    /// Why the pair runs only if it is asked for, as libtest's `#[ignore = "…"]`.
    pub ignore: Option<String>,
    /// The float model; of a pair that is one model, that model.
    pub reference: ModelPath,
    /// The quantized model.
    pub quantized: Quantized,
    /// Bounds: the file's, overridden by the pair's, overridden by the profile's.
    pub thresholds: Thresholds,
    /// Baseline tolerances: the file's, overridden by the pair's, overridden by the profile's.
    pub baseline: Tolerance,
    /// Ordered; per metric, the first rule that matches a tensor decides.
    pub rules: Vec<Rule>,
    /// Dated exceptions.
    pub waivers: Vec<Waiver>,
    /// Groups of which a fraction must pass.
    pub groups: Vec<Group>,
    /// Tensors that the quantized model may lack.
    pub allow_missing: Vec<Pattern>,
    /// Tensors that only the quantized model may have.
    pub allow_extra: Vec<Pattern>,
    /// From quantized to reference names; applied one after the other.
    pub rename: Vec<Rename>,
    /// Which map of converted tensors is used between a checkpoint and a GGUF file.
    pub map: MapChoice,
    /// Tensors that are not compared.
    pub skip: Vec<Skip>,
    /// Types that tensors must or must not be stored in.
    pub qtype: Vec<QtypeRule>,
    /// So many tensors must really be quantized.
    pub min_quantized: Option<Located<u64>>,
    /// Bound on the stored bits per weight of the whole quantized model.
    pub bits_per_weight: Option<BitsPerWeight>,
    /// Globs of metadata keys that must be equal on both sides.
    pub metadata_equal: Vec<Pattern>,
    /// Tensors that must not be all zero, even if the reference is.
    pub nonzero: Vec<Pattern>,
    /// What the converter did to tensors on purpose.
    pub transform: Vec<Transform>,
    /// What `llama-quantize-stats` printed for the reference: a round trip must agree with it.
    pub quantize_stats: Option<ModelPath>,
    /// Undo scales that were folded into the rows of other weights, as those in norms always are.
    pub unfold: bool,
    /// The share of the values that is looked at, if not all of them are.
    pub sample: Option<Located<f64>>,
    /// Storage schemes of tensors where the file cannot tell.
    pub scheme: Vec<Scheme>,
    /// Planes that must exist beside tensors, and not be all zero.
    pub companions: Vec<Companions>,
    /// Integrity gates: the file's settings, overridden by the pair's.
    pub integrity: Integrity,
    /// Injected faults that no gate has to notice.
    pub allow_survivor: Vec<Survivor>,
}

/// The path of a model: a file, a directory, or a sharded checkpoint's index.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelPath {
    /// Relative to the current directory, like the spec's own path, or absolute.
    pub path: PathBuf,
    /// As the spec writes it, with `${VARIABLES}`, the same on every machine.
    pub written: String,
    /// Where it is written.
    pub at: Location,
}

/// Which map of converted tensors a pair uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum MapChoice {
    /// The built-in table's, where one is needed and nothing is renamed.
    #[default]
    Automatic,
    /// None.
    Off,
    /// The built-in table's with this file before it.
    File(ModelPath),
}

/// Where the quantized model comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Quantized {
    /// A file, a directory, or an index.
    File(ModelPath),
    /// The reference, quantized and dequantized in memory.
    Roundtrip {
        /// The type to quantize to.
        ty: TensorType,
        /// Importance matrix.
        imatrix: Option<ModelPath>,
        /// Where the type is written.
        at: Location,
    },
    /// Nowhere: the reference is judged alone.
    Alone,
}

impl Pair {
    /// Whether the pair is one model without a reference.
    pub fn is_alone(&self) -> bool {
        self.quantized == Quantized::Alone
    }
}

/// Bounds for some tensors, in place of the thresholds.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Tensors.
    pub globs: Globs,
    /// Bounds.
    pub bounds: Bounds,
    /// Integrity gates, in place of the pair's.
    pub integrity: Integrity,
    /// Why.
    pub reason: Option<String>,
    /// The rule's place.
    pub at: Location,
}

/// A dated exception: until then, values beyond the bound pass down to the floor.
#[derive(Clone, Debug)]
pub struct Waiver {
    /// Tensors.
    pub globs: Globs,
    /// Floors: the `fail` of each bound.
    pub bounds: Bounds,
    /// Why.
    pub reason: String,
    /// The last day, UTC, on which it holds.
    pub until: Located<Date>,
    /// The waiver's place.
    pub at: Location,
}

/// A group of tensors of which a fraction must hold the bounds.
#[derive(Clone, Debug)]
pub struct Group {
    /// Tensors.
    pub globs: Globs,
    /// Bounds that a tensor of the group holds or not.
    pub bounds: Bounds,
    /// Least fraction, in (0, 1], of the group's tensors that must hold all bounds.
    pub min_pass_fraction: Located<f64>,
    /// Why.
    pub reason: Option<String>,
    /// The group's place.
    pub at: Location,
}

/// Rewrites names of the quantized model.
#[derive(Clone, Debug)]
pub struct Rename {
    /// Matched anywhere in the name, as [`regex::Regex::replace_all`] does.
    pub from: Pattern,
    /// The same, compiled.
    pub regex: Regex,
    /// Replacement, with `$1` or `${name}` for groups.
    pub to: String,
}

/// Tensors that are not compared.
#[derive(Clone, Debug)]
pub struct Skip {
    /// Tensors.
    pub globs: Globs,
    /// Why.
    pub reason: String,
    /// The place.
    pub at: Location,
}

/// Injected faults that no gate has to notice.
#[derive(Clone, Debug)]
pub struct Survivor {
    /// The faults.
    pub faults: Vec<Fault>,
    /// Tensors; none stands for all of them, and for faults of the whole model.
    pub globs: Globs,
    /// Why.
    pub reason: String,
    /// The place.
    pub at: Location,
}

/// The types that tensors must or must not be stored in.
#[derive(Clone, Debug)]
pub struct QtypeRule {
    /// Tensors.
    pub globs: Globs,
    /// One of these, if any are given: names of types (`Q4_K`) or schemes (`NVFP4`); without regard
    /// to case.
    pub is: Vec<String>,
    /// None of these.
    pub not: Vec<String>,
    /// The place.
    pub at: Location,
}

/// Bound on the stored bits per weight of a model; at least one is given.
#[derive(Clone, Debug, PartialEq)]
pub struct BitsPerWeight {
    /// Least.
    pub min: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
    /// The place.
    pub at: Location,
}

/// What the converter did to tensors on purpose, to be undone before comparing.
#[derive(Clone, Debug)]
pub struct Transform {
    /// Tensors.
    pub globs: Globs,
    /// What it did.
    pub apply: Apply,
    /// The place.
    pub at: Location,
}

/// A transformation from reference to quantized values.
#[derive(Clone, Debug, PartialEq)]
pub enum Apply {
    /// 1 is added to every value (Gemma's norms).
    PlusOne,
    /// The rows of a query or key projection are permuted to the other rotary order.
    RopePermute {
        /// Number of heads.
        heads: u64,
    },
    /// Column scales are folded into a norm.
    Fold {
        /// The norm's reference name.
        norm: String,
    },
}

/// The storage scheme of tensors.
#[derive(Clone, Debug)]
pub struct Scheme {
    /// Tensors.
    pub globs: Globs,
    /// The scheme's name.
    pub is: String,
    /// The place.
    pub at: Location,
}

/// Planes that must exist beside tensors, and not be all zero.
#[derive(Clone, Debug)]
pub struct Companions {
    /// Tensors.
    pub globs: Globs,
    /// Suffixes of the planes (`weight_scale`, `input_scale`).
    pub suffixes: Vec<String>,
    /// The place.
    pub at: Location,
}
