/*!
What `qualm falsify` found: the types of `falsify.json`.

It holds no times and no paths of this machine: the same suite gives the same bytes.
*/

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::disk;
use crate::suite::record::{FileRecord, Harness, PairRecord, Source, SpecRecord};

/// Version of the format of `falsify.json`.
pub const SCHEMA: u32 = 1;

/// Name of the file in the output directory.
pub const FILE_NAME: &str = "falsify.json";

/// One falsification of a suite.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Falsification {
    /// Version of this format.
    pub schema: u32,
    /// Who wrote it.
    pub harness: Harness,
    /// The process's exit code.
    pub exit_code: u8,
    /// Over all pairs.
    pub counts: Counts,
    /// The pairs, in the order of the suite.
    pub pairs: Vec<FalsifiedPair>,
}

/// Numbers of mutants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// All that were made.
    pub mutants: u64,
    /// Some gate failed.
    pub killed: u64,
    /// Of those, the ones that only the baseline noticed.
    pub by_baseline_alone: u64,
    /// No gate failed, and the spec does not allow it.
    pub survived: u64,
    /// No gate failed, and the spec allows it with a reason.
    pub allowed: u64,
    /// The fault changed nothing: neither killed nor survived.
    pub no_effect: u64,
}

/// One pair and its mutants.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FalsifiedPair {
    /// `SPEC::PAIR`.
    pub id: String,
    /// Where the pair stands in its spec.
    pub source: Source,
    /// SHA-256 of the spec file.
    pub spec_sha256: String,
    /// The baseline was one of the gates.
    pub with_baseline: bool,
    /// Files of the reference.
    pub reference: Vec<FileRecord>,
    /// Files of the quantized model.
    pub quantized: Vec<FileRecord>,
    /// Why nothing was injected: the pair does not even pass as it is.
    pub unsound: Option<String>,
    /// Over its mutants.
    pub counts: Counts,
    /// Per gate, what it killed.
    pub gates: BTreeMap<String, GateCounts>,
    /// Its mutants, by fault, then by tensor.
    pub mutants: Vec<MutantRecord>,
    /// Faults that cannot be put into any tensor of this pair.
    pub not_applicable: Vec<String>,
}

/// What a gate did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateCounts {
    /// Mutants that it failed.
    pub killed: u64,
    /// Mutants that no other gate failed.
    pub alone: u64,
}

/// What has become of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MutantOutcome {
    /// Some gate failed.
    Killed,
    /// No gate failed.
    Survived,
    /// No gate failed, and the spec says why that is no defect.
    Allowed,
    /// The fault changed nothing.
    NoEffect,
}

/// One mutant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MutantRecord {
    /// The fault.
    pub fault: String,
    /// The tensor, by its reference name; none for faults of the whole model.
    pub tensor: Option<String>,
    /// Its type or scheme.
    pub qtype: Option<String>,
    /// So many tensors are stored and judged like this one, itself included.
    pub alike: u64,
    /// What has become of it.
    pub outcome: MutantOutcome,
    /// The gates that failed.
    pub gates: Vec<String>,
    /// What the first of them said, or why the survivor is allowed.
    pub reason: Option<String>,
    /// Where the spec allows the survivor.
    pub allowed_at: Option<Source>,
}

/// A pair's falsification, as the contract report has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Falsified {
    /// The pair passed before anything was injected.
    pub sound: bool,
    /// The baseline was one of the gates.
    pub with_baseline: bool,
    /// Kinds of faults that were injected.
    pub faults: u64,
    /// Over its mutants.
    pub counts: Counts,
    /// Survivors that the spec does not allow: fault, and tensor if it has one.
    pub survivors: Vec<String>,
}

impl Counts {
    /// Counts one more mutant.
    pub fn count(&mut self, mutant: &MutantRecord) {
        self.mutants += 1;
        match mutant.outcome {
            MutantOutcome::Killed => self.killed += 1,
            MutantOutcome::Survived => self.survived += 1,
            MutantOutcome::Allowed => self.allowed += 1,
            MutantOutcome::NoEffect => self.no_effect += 1,
        }
        self.by_baseline_alone += u64::from(mutant.gates == ["baseline"]);
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.mutants += other.mutants;
        self.killed += other.killed;
        self.by_baseline_alone += other.by_baseline_alone;
        self.survived += other.survived;
        self.allowed += other.allowed;
        self.no_effect += other.no_effect;
    }
}

impl Falsification {
    /// The file's bytes.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// What an earlier `falsify` left in the output directory; none if it left nothing.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is of another version.
    pub fn read(directory: &Path) -> Result<Option<Self>, String> {
        let path = directory.join(FILE_NAME);
        let bytes = match disk::read(&path, disk::FALSIFICATION) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        let again = "run `qualm falsify` again";
        let read: Self = serde_json::from_slice(&bytes)
            .map_err(|error| format!("{}: {error}; {again}", path.display()))?;
        if read.schema != SCHEMA {
            let version = read.schema;
            return Err(format!("{}: has schema version {version}; {again}", path.display()));
        }
        Ok(Some(read))
    }

    /// What it says of a pair, if the spec, the models and the program are still the same.
    pub fn of(&self, spec: &SpecRecord, pair: &PairRecord) -> Option<Falsified> {
        let same = |model: &Option<crate::suite::record::ModelRecord>, files: &[FileRecord]| {
            model.as_ref().is_some_and(|model| model.files == files)
        };
        let found = self.pairs.iter().find(|it| it.id == pair.id)?;
        let current = self.harness.version == env!("CARGO_PKG_VERSION")
            && found.spec_sha256 == spec.sha256
            && same(&pair.reference, &found.reference)
            && same(&pair.quantized, &found.quantized);
        current.then(|| found.summary())
    }
}

impl FalsifiedPair {
    fn summary(&self) -> Falsified {
        let mut faults: Vec<&str> = self.mutants.iter().map(|it| it.fault.as_str()).collect();
        faults.dedup();
        let survivors = self.mutants.iter().filter(|it| it.outcome == MutantOutcome::Survived);
        Falsified {
            sound: self.unsound.is_none(),
            with_baseline: self.with_baseline,
            faults: faults.len() as u64,
            counts: self.counts,
            survivors: survivors.map(MutantRecord::name).collect(),
        }
    }
}

impl MutantRecord {
    /// Fault and tensor.
    pub fn name(&self) -> String {
        match &self.tensor {
            Some(tensor) => format!("{} in {tensor}", self.fault),
            None => self.fault.clone(),
        }
    }
}
