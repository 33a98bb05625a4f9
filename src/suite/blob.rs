/*!
What a shard leaves for `qualm merge`: the whole plan, and the record of the shard's part of it.

Two blobs belong together if their fingerprints are equal: SHA-256 over the plan, that is, over the
specs' bytes, the ids of all selected tests and the shard that each was dealt to, the sizes and
header digests of all models, the mode, and the number of shards.
*/

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::plan::{Plan, PlannedPair};
use super::record::{Contract, Examined, FileRecord, PairRecord, Partition, Sums, TestKind};
use crate::disk;
use crate::metrics::Moments;
use crate::model::{self, hex};
use crate::spec::{Granularity, MapChoice, Quantized, Spec};

/// Version of the format; another version is not read.
pub const FORMAT: u32 = 3;

/// The record of one shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// Version of this format.
    pub format: u32,
    /// SHA-256 of the file's bytes with zeros in this place, lower-case hex.
    pub digest: String,
    /// Of the plan, lower-case hex.
    pub fingerprint: String,
    /// This shard, from 1.
    pub index: u64,
    /// What all shards have in common.
    pub plan: PlanRecord,
    /// Where each spec was: machines may differ in that.
    pub places: Vec<PathBuf>,
    /// The day on which waivers were judged.
    pub today: String,
    /// Sums of tensors that hold NaN or infinity, which the record does not keep.
    pub nonfinite: Vec<Nonfinite>,
    /// Failures of which a cause was looked for.
    pub examined: Vec<Examined>,
    /// The record of this shard's tests.
    pub contract: Contract,
}

/// The one key that every version of the format has.
#[derive(Deserialize)]
struct Versioned {
    format: u32,
}

/// The plan of all shards together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRecord {
    /// Version of qualm.
    pub harness: String,
    /// `slice`, `hash` or `size`.
    pub mode: String,
    /// Number of shards.
    pub total: u64,
    /// `--profile`.
    pub profile: Option<String>,
    /// `--fail-level warn`.
    pub warnings_fail: bool,
    /// Tests that filters left out.
    pub filtered_out: u64,
    /// The specs that selected tests stand in.
    pub specs: Vec<SpecText>,
    /// The models that they name.
    pub models: Vec<ModelStamp>,
    /// The pairs with selected tests, in the order in which they are reported.
    pub pairs: Vec<PairPlan>,
}

/// A spec as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpecText {
    /// Path below the suite's root without `.toml`.
    pub name: String,
    /// The whole file.
    pub text: String,
    /// The environment variables that its names and tags took, with their values.
    pub variables: BTreeMap<String, String>,
}

/// What tells one model from another without reading its weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelStamp {
    /// As the spec names it.
    pub path: String,
    /// Its files.
    pub files: Vec<FileRecord>,
    /// Why it could not be opened.
    pub error: Option<String>,
}

/// A pair with its selected tests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairPlan {
    /// `SPEC::PAIR`.
    pub id: String,
    /// Whether all of it counts as one test.
    pub one_test: bool,
    /// The tests of all shards, in the order in which they are reported.
    pub tests: Vec<TestPlan>,
}

/// A selected test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestPlan {
    /// The tensor's name, or `(structure)` and its like.
    pub part: String,
    /// What it is about.
    pub kind: TestKind,
    /// The shard that runs it, from 1.
    pub shard: u64,
    /// Why it is not run, if it is not.
    pub ignored: Option<String>,
}

/// The sums of a tensor, bit for bit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nonfinite {
    /// `SPEC::PAIR`.
    pub pair: String,
    /// Name in the reference.
    pub tensor: String,
    /// The bits of Σr², Σq², Σe², Σrq, Σe and max |e|.
    pub bits: [u64; 6],
}

impl PlanRecord {
    /// Records a plan that is dealt out; opens the header of every model that it names.
    pub fn of(plan: &Plan, profile: Option<&str>, warnings_fail: bool) -> Self {
        let (mode, total) = plan.shard.map_or(("", 1), |shard| (shard.deal.name(), shard.total));
        Self {
            harness: env!("CARGO_PKG_VERSION").to_owned(),
            mode: mode.to_owned(),
            total,
            profile: profile.map(str::to_owned),
            warnings_fail,
            filtered_out: plan.filtered_out,
            specs: specs(plan)
                .map(|spec| SpecText {
                    name: spec.name.clone(),
                    text: spec.source.text.to_string(),
                    variables: spec.variables.clone(),
                })
                .collect(),
            models: models(plan),
            pairs: plan.pairs.iter().map(pair_plan).collect(),
        }
    }

    /// SHA-256 in lower-case hex.
    pub fn fingerprint(&self) -> String {
        // Field by field in a fixed order; strings are quoted, so that nothing runs into its
        // neighbour.
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        hex(&Sha256::digest(bytes))
    }

    /// Number of selected tests.
    pub fn tests(&self) -> u64 {
        self.pairs.iter().map(|pair| pair.tests.len() as u64).sum()
    }

    /// The first thing in which another plan differs, for people; `None` if they are equal.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self == other {
            return None;
        }
        let settings =
            [("qualm", &self.harness, &other.harness), ("mode", &self.mode, &other.mode)];
        for (what, mine, others) in settings {
            if mine != others {
                return Some(format!("{what} {mine} against {others}"));
            }
        }
        if self.total != other.total {
            return Some(format!("{} shards against {}", self.total, other.total));
        }
        if self.profile != other.profile || self.warnings_fail != other.warnings_fail {
            return Some("another --profile or --fail-level".to_owned());
        }
        if let Some(spec) = self.specs.iter().find(|spec| !other.specs.contains(spec)) {
            return Some(format!("spec {} is another there", spec.name));
        }
        if let Some(model) = self.models.iter().find(|model| !other.models.contains(model)) {
            let theirs = other.models.iter().find(|theirs| theirs.path == model.path);
            let error =
                [Some(model), theirs].into_iter().flatten().find_map(|it| it.error.as_ref());
            return Some(match error {
                Some(error) => format!("model {} could not be opened: {error}", model.path),
                None => format!("model {} is another there", model.path),
            });
        }
        Some("other tests were selected or dealt out".to_owned())
    }
}

/// The specs of a plan, each once.
fn specs<'p>(plan: &'p Plan<'p>) -> impl Iterator<Item = &'p Spec> {
    let mut seen = HashSet::new();
    plan.pairs.iter().map(|pair| pair.spec).filter(move |spec| seen.insert(spec.name.as_str()))
}

fn pair_plan(planned: &PlannedPair) -> PairPlan {
    PairPlan {
        id: planned.id.clone(),
        one_test: planned.granularity == Granularity::Pair,
        tests: planned
            .tests
            .iter()
            .map(|test| TestPlan {
                part: test.part.clone().into_owned(),
                kind: test.kind,
                shard: test.shard,
                ignored: test.ignored.clone(),
            })
            .collect(),
    }
}

fn models(plan: &Plan) -> Vec<ModelStamp> {
    let mut seen = HashSet::new();
    let mut stamps = Vec::new();
    for PlannedPair { pair, .. } in &plan.pairs {
        let second = match &pair.quantized {
            Quantized::File(path) => Some(path),
            Quantized::Roundtrip { imatrix, .. } => imatrix.as_ref(),
            Quantized::Alone => None,
        };
        for model in [Some(&pair.reference), second].into_iter().flatten() {
            if seen.insert(&model.path) {
                stamps.push(stamp(&model.path, &model.written));
            }
        }
        if let MapChoice::File(file) = &pair.map
            && seen.insert(&file.path)
        {
            stamps.push(stamp_text(&file.path, &file.written));
        }
        if let Some(file) = pair.quantize_stats.as_ref().filter(|file| seen.insert(&file.path)) {
            stamps.push(stamp_text(&file.path, &file.written));
        }
    }
    stamps
}

fn stamp(path: &Path, written: &str) -> ModelStamp {
    let path_as_written = written.to_owned();
    match model::open(path) {
        Ok(model) => {
            let files = super::model_record(&model, written).files;
            ModelStamp { path: path_as_written, files, error: None }
        }
        Err(error) => {
            ModelStamp { path: path_as_written, files: Vec::new(), error: Some(error.to_string()) }
        }
    }
}

fn stamp_text(path: &Path, written: &str) -> ModelStamp {
    let (files, error) = match disk::read(path, disk::STATISTICS) {
        Ok(bytes) => {
            let header_sha256 = hex(&Sha256::digest(&bytes));
            (
                vec![FileRecord {
                    name: String::new(),
                    size: bytes.len() as u64,
                    header_sha256,
                    revision: None,
                }],
                None,
            )
        }
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    ModelStamp { path: written.to_owned(), files, error }
}

impl Blob {
    /// The blob of a shard that has run.
    pub fn new(plan: &Plan, record: PlanRecord, index: u64, contract: Contract) -> Self {
        let pairs = || contract.specs.iter().flat_map(|spec| &spec.pairs);
        Self {
            format: FORMAT,
            digest: NO_DIGEST.to_owned(),
            fingerprint: record.fingerprint(),
            index,
            plan: record,
            places: specs(plan).map(|spec| spec.path.clone()).collect(),
            today: plan.pairs.first().map(|it| it.spec.today.to_string()).unwrap_or_default(),
            nonfinite: pairs().flat_map(nonfinite).collect(),
            examined: pairs().flat_map(|pair| pair.examined.iter().cloned()).collect(),
            contract,
        }
    }

    /// The file's name: shards that share a directory do not overwrite each other's.
    pub fn file_name(index: u64, total: u64) -> String {
        format!("blob-{index}-of-{total}.json")
    }

    /// What the contract report of a shard says about the whole.
    pub fn partition(record: &PlanRecord, index: u64) -> Partition {
        Partition {
            mode: record.mode.clone(),
            index,
            total: record.total,
            fingerprint: record.fingerprint(),
            tests: record.tests(),
        }
    }

    /// Reads a blob, and the sums that are not finite back into its record.
    pub fn read(path: &Path) -> Result<Self, String> {
        let bytes =
            disk::read(path, disk::BLOB).map_err(|error| format!("cannot be read: {error}"))?;
        let broken = |error: serde_json::Error| format!("is no whole blob of a shard: {error}");
        let Versioned { format } = serde_json::from_slice(&bytes).map_err(broken)?;
        if format != FORMAT {
            return Err(format!("has format {format}, this qualm reads format {FORMAT}"));
        }
        let mut blob: Self = serde_json::from_slice(&bytes).map_err(broken)?;
        let signed = digest_place(&bytes).map(|place| {
            let mut unsigned = bytes.clone();
            unsigned[place].copy_from_slice(NO_DIGEST.as_bytes());
            hex(&Sha256::digest(unsigned))
        });
        if signed.as_ref() != Some(&blob.digest) {
            return Err("was changed since its shard wrote it: its digest is another".to_owned());
        }
        if blob.plan.fingerprint() != blob.fingerprint {
            return Err("does not have the fingerprint that its plan gives".to_owned());
        }
        blob.restore();
        blob.check_sums()?;
        Ok(blob)
    }

    /// The bytes of the file, with their digest.
    pub fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(&Self { digest: NO_DIGEST.to_owned(), ..self.clone() })?;
        let digest = hex(&Sha256::digest(&bytes));
        if let Some(place) = digest_place(&bytes) {
            bytes[place].copy_from_slice(digest.as_bytes());
        }
        Ok(bytes)
    }

    /// Refuses sums that no tensor can have.
    fn check_sums(&self) -> Result<(), String> {
        for pair in self.contract.specs.iter().flat_map(|spec| &spec.pairs) {
            for row in &pair.tensors {
                let Some(sums) = &row.sums else { continue };
                if let Some(problem) = impossible(&Moments::from(sums), &row.shape, row.numel) {
                    let (pair, tensor) = (&pair.id, &row.tensor);
                    return Err(format!("has impossible sums of {pair}::{tensor}: {problem}"));
                }
            }
        }
        Ok(())
    }

    fn restore(&mut self) {
        for pair in self.contract.specs.iter_mut().flat_map(|spec| &mut spec.pairs) {
            for sums in self.nonfinite.iter().filter(|it| it.pair == pair.id) {
                for row in pair.tensors.iter_mut().filter(|row| row.tensor == sums.tensor) {
                    if let Some(old) = &row.sums {
                        let [rr, qq, ee, rq, e, max_abs] = sums.bits.map(f64::from_bits);
                        let moments = Moments { rr, qq, ee, rq, e, max_abs, ..old.into() };
                        row.sums = Some(Sums::from(&moments));
                    }
                }
            }
            pair.tensors.iter_mut().for_each(super::rows::from_sums);
        }
    }
}

/// What stands in the place of the digest while it is computed.
const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Where the digest stands in the bytes of a blob: near their beginning, and nowhere else.
fn digest_place(bytes: &[u8]) -> Option<Range<usize>> {
    const KEY: &[u8] = b"\"digest\":\"";
    let start = bytes.get(..64)?.windows(KEY.len()).position(|it| it == KEY)? + KEY.len();
    let place = start..start + NO_DIGEST.len();
    (bytes.get(place.end) == Some(&b'"')).then_some(place)
}

/// Why sums cannot be those of a tensor of this shape.
fn impossible(sums: &Moments, shape: &[u64], numel: u64) -> Option<String> {
    let extents = shape.iter().try_fold(1u64, |product, extent| product.checked_mul(*extent));
    if extents != Some(numel) {
        return Some(format!("the shape {shape:?} does not have {numel} elements"));
    }
    let Moments { n, rr, qq, ee, rq, max_abs, .. } = *sums;
    if n > numel {
        return Some(format!("{n} values of {numel}"));
    }
    if [rr, qq, ee, max_abs].iter().any(|sum| *sum < 0.0) {
        return Some("a sum of squares is negative".to_owned());
    }
    // Cauchy and Schwarz, but for what rounding adds.
    let most = libm::sqrt(rr) * libm::sqrt(qq);
    (rq.abs() > most * (1.0 + 1e-6) + f64::MIN_POSITIVE)
        .then(|| format!("products of {rq:e} where at most {most:e} can be"))
}

fn nonfinite(pair: &PairRecord) -> impl Iterator<Item = Nonfinite> {
    pair.tensors.iter().filter_map(|row| {
        let m = Moments::from(row.sums.as_ref()?);
        let numbers = [m.rr, m.qq, m.ee, m.rq, m.e, m.max_abs];
        let all_finite = numbers.iter().all(|number| number.is_finite());
        (!all_finite).then(|| Nonfinite {
            pair: pair.id.clone(),
            tensor: row.tensor.clone(),
            bits: numbers.map(f64::to_bits),
        })
    })
}

/// The blobs at these paths: files as they are, and every `blob-M-of-N.json` below directories, in
/// the order of their paths.
pub fn find(paths: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        if fs::metadata(path)?.is_dir() {
            walk(path, &mut found)?;
        } else {
            found.push(path.clone());
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Links to directories are not followed: they may lead back.
        if kind.is_dir() {
            walk(&entry.path(), found)?;
        } else if name.starts_with("blob-") && name.ends_with(".json") {
            found.push(entry.path());
        }
    }
    Ok(())
}
