/*!
The record of a run: everything that reports, baselines and merges need, and the types of
`contract.json`.

The run loop fills it; every report is a rendering of it. Numbers that are not finite are `null` in
JSON; a tensor's `sums` are always finite unless the tensor holds NaN or infinity, so that every
metric can be had again from them.
*/

use std::collections::HashMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::falsify::record::Falsified;
pub use crate::diagnose::{Cause, Certainty, Diagnosis};
pub use crate::gate::{
    CheckOutcome, CheckRecord, GateCounts, JUDGED, Level, Movement, MovementKind, Number, Source,
    gate_counts,
};
use crate::metrics::{Metrics, Moments};

/// Version of the format of `contract.json`; it grows when a key changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// One run of a suite.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// Version of this format.
    pub schema: u32,
    /// Who wrote the report.
    pub harness: Harness,
    /// When the run began and how long it took: with the seconds of each pair, the only fields that differ between
    /// two runs over the same files.
    pub time: Option<Time>,
    /// Which part of the suite this run covered, if it was sharded.
    pub partition: Option<Partition>,
    /// The one-word answer.
    pub verdict: Verdict,
    /// The process's exit code.
    pub exit_code: u8,
    /// Counts of tests.
    pub summary: Summary,
    /// The obligations of the contract CRUX-B-20, each with its evidence.
    pub obligations: Vec<Obligation>,
    /// Spec files, in order of their names.
    pub specs: Vec<SpecRecord>,
}

/// Name and version of the program.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Harness {
    /// `qualm`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The time fields.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// RFC 3339, UTC.
    pub started: String,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// A shard of a suite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// `slice`, `hash` or `size`.
    pub mode: String,
    /// 1-based.
    pub index: u64,
    /// Number of shards.
    pub total: u64,
    /// SHA-256 over what makes shards belong together: specs, test ids, model headers, mode, total.
    pub fingerprint: String,
    /// Number of tests in all shards together.
    pub tests: u64,
}

/// The one-word answer to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every selected test passed.
    Passed,
    /// A bound, a structure or a baseline does not hold.
    Failed,
    /// A model could not be judged.
    Error,
    /// All bounds hold, but a baseline is new or changed.
    Pending,
    /// Every selected test passed, but not all values were looked at.
    Sampled,
}

/// Counts of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Selected tests.
    pub tests: u64,
    /// Passed, with or without warnings.
    pub passed: u64,
    /// Judged and bad.
    pub failed: u64,
    /// Could not be judged.
    pub errors: u64,
    /// Not run, each with a reason.
    pub ignored: u64,
    /// Left out by filters.
    pub filtered_out: u64,
    /// Checks beyond a `warn` bound, notes that deserve attention.
    pub warnings: u64,
    /// Baselines that are new or changed.
    pub pending: u64,
    /// What has become of the integrity gates, over all tensors.
    #[serde(default)]
    pub gates: GateCounts,
}

/// What has become of an obligation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ObligationStatus {
    /// Exercised in this run, and true.
    Held,
    /// Exercised in this run, and false.
    Violated,
    /// Nothing in this run could show it.
    NotExercised,
}

/// An obligation of the contract.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Obligation {
    /// As in the contract: `FALSIFY-CRUX-B-20-001`, `CB2-INV-003`, `monotone`, …
    pub id: String,
    /// The rule in words.
    pub rule: String,
    /// What has become of it.
    pub status: ObligationStatus,
    /// What shows it: pairs, tensors, numbers.
    pub evidence: Vec<String>,
}

/// One spec file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpecRecord {
    /// Path below the suite root without `.toml`.
    pub name: String,
    /// Path as it was opened.
    pub path: String,
    /// SHA-256 of the file, lower-case hex.
    pub sha256: String,
    /// The spec's own words.
    pub description: Option<String>,
    /// The spec's tags.
    pub tags: Vec<String>,
    /// Its pairs, in file order.
    pub pairs: Vec<PairRecord>,
}

/// One reference and one quantized model.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PairRecord {
    /// `SPEC::PAIR`.
    pub id: String,
    /// Name in the spec.
    pub name: String,
    /// The pair's own words.
    pub description: Option<String>,
    /// Tags of the spec and the pair.
    pub tags: Vec<String>,
    /// Where the pair stands in its spec.
    pub source: Source,
    /// The reference; none if it could not be opened.
    pub reference: Option<ModelRecord>,
    /// The quantized model, or the one that is judged alone; the reference again for a round trip; none if it
    /// could not be opened.
    pub quantized: Option<ModelRecord>,
    /// Whether it is judged alone: there is no reference.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
    /// Wall time in seconds, of all shards together; 0 where `SOURCE_DATE_EPOCH` stands in for the clock.
    #[serde(default)]
    pub seconds: f64,
    /// Type of an in-memory round trip.
    pub roundtrip: Option<String>,
    /// Why the pair could not be judged.
    pub error: Option<String>,
    /// The tensors that the error is about, as their file names them.
    pub error_tensors: Vec<String>,
    /// The likely cause of the error.
    pub diagnosis: Option<Diagnosis>,
    /// All measured float tensors as one vector; none if there is none.
    pub global: Option<GlobalRow>,
    /// What does not fit, allowed or not.
    pub findings: Vec<FindingRecord>,
    /// Measured tensors, by RMSE, descending; those without one first.
    pub tensors: Vec<TensorRow>,
    /// Tests of this pair that were selected.
    pub tests: Vec<TestRecord>,
    /// The snapshot baseline.
    pub baseline: BaselineRecord,
    /// How much of the values was read, if not all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<SampleRecord>,
    /// What `qualm falsify` found, if it saw this spec and these models.
    pub falsified: Option<Falsified>,
    /// What is odd but no failure.
    pub notes: Vec<String>,
    /// Failures of which a cause was looked for, in the order of the tests; for shards alone.
    #[serde(skip)]
    pub examined: Vec<Examined>,
}

/// A failure whose tensor was searched for a cause, which is done for the first of a pair alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Examined {
    /// The test.
    pub test: String,
    /// What is said without looking at values.
    pub otherwise: Option<Diagnosis>,
}

/// A model as it was found.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelRecord {
    /// As the spec names it, made relative to the working directory.
    pub path: String,
    /// What the model calls itself, where its metadata say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `safetensors` or `gguf`.
    pub format: String,
    /// Its files.
    pub files: Vec<FileRecord>,
    /// Number of tensors.
    pub tensors: u64,
    /// Number of elements of all tensors.
    pub parameters: u64,
    /// Stored bytes of all tensors.
    pub bytes: u64,
    /// Stored bits per element over all float and quantized tensors, scales included.
    pub bits_per_weight: Number,
    /// What it holds of each type or scheme, the most bytes first.
    #[serde(default)]
    pub types: Vec<TypeRecord>,
}

/// What a model holds of a type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TypeRecord {
    /// The type or scheme.
    pub qtype: String,
    /// Number of tensors.
    pub tensors: u64,
    /// Their stored bytes, scales included.
    pub bytes: u64,
}

/// A spot check: how much of the values was read, and what it can see.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SampleRecord {
    /// The share that was asked for.
    pub share: Number,
    /// What the random places were drawn with.
    pub seed: u64,
    /// Stored bytes of values that were read once, both sides.
    pub bytes: u64,
    /// Stored bytes of all values, both sides.
    pub of: u64,
    /// Requests that this took of files at addresses.
    pub requests: u64,
    /// The share of a matrix's rows of which damage is found with 99 % probability, in every matrix.
    pub finds: Number,
    /// The matrix of which the least is seen.
    pub weakest: String,
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// File name.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of its header, lower-case hex.
    pub header_sha256: String,
    /// Of a file at an address: the hub's commit, or what the server calls this version of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// The sums of DESIGN.md section 3, from which every metric can be computed again.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sums {
    /// Number of elements.
    pub n: u64,
    /// Σ r².
    pub rr: Number,
    /// Σ q².
    pub qq: Number,
    /// Σ e².
    pub ee: Number,
    /// Σ r·q.
    pub rq: Number,
    /// Σ e.
    pub e: Number,
    /// max |e|.
    pub max_abs: Number,
    /// NaN or infinite elements of the reference.
    pub reference_nonfinite: u64,
    /// NaN or infinite elements of the quantized tensor.
    pub quantized_nonfinite: u64,
}

/// One measured tensor; the contract's keys come first.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TensorRow {
    /// Name in the reference.
    pub tensor: String,
    /// Type or scheme in the quantized model.
    pub qtype: String,
    /// Number of elements.
    pub numel: u64,
    /// `sqrt(Σe²/n)`.
    pub rmse: Number,
    /// Cosine of the angle between reference and quantized tensor.
    pub cosine: Number,
    /// Largest absolute error.
    pub max_abs: Number,
    /// The contract's traffic light: `green`, `yellow` or `red`.
    pub verdict: String,
    /// Type or scheme in the reference.
    pub reference_qtype: String,
    /// Outermost dimension first.
    pub shape: Vec<u64>,
    /// Tensors of the reference that this one is made of, and the operations, where a map says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_of: Option<serde_json::Value>,
    /// `10 log10(Σr²/Σe²)`; `null` if the error is zero.
    pub sqnr_db: Number,
    /// SQNR that an undamaged tensor of this type has on a sample of these weights; `null` if that is
    /// not known, or without an error.
    pub expected_sqnr_db: Number,
    /// The contract's cosine gate, 0.95; lower where the type justifies no more.
    pub least_cosine: Number,
    /// The grid that the values lie on although they are stored as floats, as `4-bit integers, groups of
    /// 32`; none if they lie on none, or were not looked at.
    #[serde(default)]
    pub recovered: Option<String>,
    /// Of a stack of matrices, as the experts of a layer are: the one with the lowest cosine; none if there is
    /// no error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_expert: Option<ExpertRow>,
    /// `sqrt(Σe²/Σr²)`.
    pub rel_rmse: Number,
    /// `sqrt(Σq²/Σr²)`.
    pub gain: Number,
    /// `Σe/n`.
    pub mean_error: Number,
    /// Stored bits per element of the quantized tensor, scales included.
    pub bits_per_weight: Number,
    /// Distance from the rate-distortion limit of a Gaussian source, in dB:
    /// `20 log10(2) · bits_per_weight − sqnr_db`; `null` if the error is zero.
    pub rd_gap_db: Number,
    /// The same distance in bits per weight: those that buy no accuracy.
    pub wasted_bits: Number,
    /// Stored bytes of the quantized tensor, scales included.
    pub stored_bytes: u64,
    /// NaN or infinite elements.
    pub nonfinite: u64,
    /// For integers and booleans: index of the first element that differs, if any.
    pub first_difference: Option<u64>,
    /// Why the values could not be read.
    pub error: Option<String>,
    /// Sums over the elements; none for integers, booleans and unreadable tensors.
    pub sums: Option<Sums>,
}

/// One matrix of a stack.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpertRow {
    /// Its index in the stack.
    pub index: u64,
    /// The stored tensors that it is, one or several; of a stored stack, its name and the index in brackets.
    pub names: Vec<String>,
    /// Types or schemes of these, where they are not the stack's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub qtypes: Vec<String>,
    /// Cosine of the angle between reference and quantized matrix.
    pub cosine: Number,
    /// `10 log10(Σr²/Σe²)`.
    pub sqnr_db: Number,
}

/// All measured float tensors of a pair as one vector.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GlobalRow {
    /// Number of tensors that take part.
    pub tensors: u64,
    /// Number of elements.
    pub numel: u64,
    /// `sqrt(Σe²/n)`.
    pub rmse: Number,
    /// Cosine of the angle between reference and quantized vector.
    pub cosine: Number,
    /// Largest absolute error.
    pub max_abs: Number,
    /// `10 log10(Σr²/Σe²)`; `null` if the error is zero.
    pub sqnr_db: Number,
    /// `sqrt(Σe²/Σr²)`.
    pub rel_rmse: Number,
    /// `sqrt(Σq²/Σr²)`.
    pub gain: Number,
    /// `Σe/n`.
    pub mean_error: Number,
    /// Stored bits per element of these tensors in the quantized model, scales included.
    pub bits_per_weight: Number,
    /// Distance from the rate-distortion limit of a Gaussian source, in dB:
    /// `20 log10(2) · bits_per_weight − sqnr_db`; `null` if the error is zero.
    pub rd_gap_db: Number,
    /// The same distance in bits per weight: those that buy no accuracy.
    pub wasted_bits: Number,
    /// NaN or infinite elements.
    pub nonfinite: u64,
    /// Sums over the elements, tensors folded in the order of their names.
    pub sums: Sums,
}

/// Something that does not fit between two models.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FindingRecord {
    /// `missing`, `extra`, `shape`, `type`, `doubled`, `companion`, …
    pub kind: String,
    /// Name in the reference; empty for the whole model.
    pub tensor: String,
    /// For people.
    pub message: String,
    /// True if the spec allows it.
    pub allowed: bool,
}

/// What a test is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TestKind {
    /// One tensor.
    Tensor,
    /// The tensor sets and shapes of a pair.
    Structure,
    /// All tensors as one vector.
    Global,
    /// The pair against its snapshot.
    Baseline,
}

/// What has become of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TestOutcome {
    /// Everything holds.
    Passed,
    /// Judged and bad.
    Failed,
    /// Could not be judged.
    Error,
    /// Not run; the reason says why.
    Ignored,
}

/// One test.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestRecord {
    /// `SPEC::PAIR::TENSOR`, or `…::(structure)`, `…::(global)`, `…::(baseline)`.
    pub id: String,
    /// What it is about.
    pub kind: TestKind,
    /// What has become of it.
    pub outcome: TestOutcome,
    /// Why it failed, could not be judged, or was not run: one line.
    pub reason: Option<String>,
    /// Every bound that was applied, and what else was looked at.
    pub checks: Vec<CheckRecord>,
    /// How the integrity gates fared, where the checks that hold were counted and dropped.
    #[serde(skip)]
    pub settled: Option<GateCounts>,
    /// The likely cause of the failure; none if nothing speaks for one.
    pub diagnosis: Option<Diagnosis>,
}

/// State of a pair's snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BaselineStatus {
    /// Not looked at: `--no-baseline`, not selected, or nothing was measured.
    #[default]
    Off,
    /// No snapshot yet.
    New,
    /// Every number is the same, or within the tolerance.
    Held,
    /// Some numbers are better than the tolerance allows for, none is worse.
    Better,
    /// A number is worse, or tensors came, went, or changed their type or shape.
    Changed,
}

/// A pair against its snapshot.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BaselineRecord {
    /// State of the snapshot.
    pub status: BaselineStatus,
    /// Path of the snapshot file.
    pub path: Option<String>,
    /// Path of the pending file, if one was written.
    pub pending: Option<String>,
    /// How the SQNR of all tensors as one vector moved, where both sides have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqnr_db: Option<Movement>,
    /// What changed, one line each.
    pub changes: Vec<String>,
}

/// Which it is, for people: its index and what it is stored as.
impl fmt::Display for ExpertRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expert {} ({})", self.index, self.names.join(", "))
    }
}

impl From<&Moments> for Sums {
    fn from(m: &Moments) -> Self {
        Self {
            n: m.n,
            rr: Number(m.rr),
            qq: Number(m.qq),
            ee: Number(m.ee),
            rq: Number(m.rq),
            e: Number(m.e),
            max_abs: Number(m.max_abs),
            reference_nonfinite: m.reference_nonfinite,
            quantized_nonfinite: m.quantized_nonfinite,
        }
    }
}

impl From<&Sums> for Moments {
    fn from(s: &Sums) -> Self {
        Self {
            n: s.n,
            rr: s.rr.0,
            qq: s.qq.0,
            ee: s.ee.0,
            rq: s.rq.0,
            e: s.e.0,
            max_abs: s.max_abs.0,
            reference_nonfinite: s.reference_nonfinite,
            quantized_nonfinite: s.quantized_nonfinite,
        }
    }
}

impl PairRecord {
    /// The measured tensors, to be found by name.
    pub fn rows(&self) -> HashMap<&str, &TensorRow> {
        self.tensors.iter().map(|row| (row.tensor.as_str(), row)).collect()
    }
}

impl TestRecord {
    /// What has become of its integrity gates.
    pub fn gates(&self) -> GateCounts {
        self.settled.unwrap_or_else(|| gate_counts(&self.checks))
    }

    /// Counts the checks and drops those that say nothing to who only wants to know what is wrong, and how
    /// much could not be judged.
    pub fn settle(&mut self) {
        self.settled = Some(self.gates());
        self.checks.retain(|it| it.outcome == CheckOutcome::Violated || it.check == JUDGED);
        self.trim();
    }

    /// Gives back what its texts were given more than they need: there are many of them.
    pub fn trim(&mut self) {
        self.checks.iter_mut().for_each(|check| check.message.shrink_to_fit());
        self.checks.shrink_to_fit();
    }
}

impl TensorRow {
    /// The metrics, infinities included, from the sums; `None` without sums or elements.
    pub fn metrics(&self) -> Option<Metrics> {
        self.sums.as_ref().and_then(|sums| Metrics::from_moments(&sums.into()))
    }

    /// Whether it misses the contract's cosine gate, as far as its type can hold it.
    pub fn is_below_contract(&self) -> bool {
        self.sums.is_some() && self.nonfinite == 0 && !(self.cosine.0 >= self.least_cosine.0)
    }
}

impl GlobalRow {
    /// The metrics, infinities included, from the sums.
    pub fn metrics(&self) -> Option<Metrics> {
        Metrics::from_moments(&(&self.sums).into())
    }
}
