/*!
A spec: one validated TOML file.
*/

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Date, Diagnostic, Location, Pair, Source};
use crate::codec::TensorType;

/// One valid spec file.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Path below the suite's root, without `.toml`, with `/`.
    pub name: String,
    /// The file, as it was given to [`super::load()`].
    pub path: PathBuf,
    /// SHA-256 of the file's bytes, in lower-case hex.
    pub sha256: String,
    /// The file's text, for diagnostics.
    pub source: Arc<Source>,
    /// For people.
    pub description: Option<String>,
    /// Tags of every pair.
    pub tags: Vec<String>,
    /// The environment variables that names and tags took, with their values.
    pub variables: BTreeMap<String, String>,
    /// The file's baseline tolerances, the profile's included; a pair may have its own.
    pub baseline: Tolerance,
    /// One test per tensor or one per pair, where a runner asks.
    pub granularity: Option<Granularity>,
    /// Names of the profiles that the file defines.
    pub profiles: Vec<String>,
    /// The day on which waivers are judged.
    pub today: Date,
    /// The pairs, in the order of the file, the matrix expanded.
    pub pairs: Vec<Pair>,
    /// What is suspicious but valid.
    pub warnings: Vec<Diagnostic>,
}

/// How far a metric may move from its baseline: by `abs + rel * |old|`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tolerance {
    /// Absolute part, in units of the metric.
    pub abs: f64,
    /// Relative part.
    pub rel: f64,
    /// Baselines may only improve.
    pub ratchet: bool,
    /// There is no baseline.
    pub off: bool,
    /// Where it is written, if it is.
    pub at: Option<Location>,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { abs: 1e-9, rel: 1e-6, ratchet: false, off: false, at: None }
    }
}

/// What one test is, where a runner starts a process per test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// A pair with all its gates.
    Pair,
    /// A single gate.
    Tensor,
}

/// What a spec means depends on these.
pub struct LoadOptions<'a> {
    /// The profile to apply where a spec defines it.
    pub profile: Option<String>,
    /// The day on which waivers are judged.
    pub today: Date,
    /// Looks up an environment variable.
    pub env: &'a (dyn Fn(&str) -> Option<String> + Sync),
    /// Can this type be encoded, without (`false`) or with (`true`) an importance matrix?
    pub encodes: fn(ty: TensorType, weighted: bool) -> bool,
    /// Is this the name of a type or scheme that a tensor can be stored in?
    pub knows_qtype: fn(name: &str) -> bool,
}

impl LoadOptions<'_> {
    /// The value of an environment variable; an empty one would turn a relative path into an absolute one, and
    /// counts as not set.
    pub fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }
}

impl Default for LoadOptions<'_> {
    fn default() -> Self {
        Self {
            profile: None,
            today: Date::today(),
            env: &|name| std::env::var(name).ok(),
            encodes: |ty, weighted| {
                let info = ty.info();
                if weighted {
                    info.encode.is_some() || info.encode_weighted.is_some()
                } else {
                    ty.has_reference_quantizer()
                }
            },
            knows_qtype: |name| TensorType::from_name(name).is_some(),
        }
    }
}
