/*! The functions that `lib.rs` offers: what the command line does, for programs. */

use std::path::{Path, PathBuf};

use crate::measure::{Progress, cores};
use crate::model::{self, Model, ModelError};
use crate::pairs::{self, Comparison, Error, Judged, Policy, Request};
use crate::spec::{self, LoadOptions};
use crate::suite::exit::Exit;
use crate::suite::plan::{self, Choice};
use crate::suite::record::Contract;
use crate::suite::{self, Options, Silent};

/// Opens whatever the command line takes: a file, a directory, an index of shards; with the feature `remote` also
/// `hf://` and `https://`, with `cloud` buckets. Values are read when they are asked for.
///
/// # Errors
///
/// If it is no model, or its header promises what the file does not hold.
///
/// ```
/// let model = qualm::open("specs/models/minilm-block0-q8_0.gguf")?;
/// let first = &model.tensors[0];
/// println!("{}: {} {:?}", first.name, first.qtype(), first.shape);
/// # assert!(model.tensors.iter().any(|tensor| tensor.qtype() == "Q8_0"));
/// # Ok::<(), qualm::ModelError>(())
/// ```
pub fn open(path: impl AsRef<Path>) -> Result<Model, ModelError> {
    model::open(path.as_ref())
}

/// Measures two models against each other, as `qualm diff` does: a row for each tensor, worst first.
///
/// # Errors
///
/// If a model cannot be opened. A tensor that cannot be read is a row with an `error`.
///
/// ```
/// let compared = qualm::compare(
///     "specs/models/minilm-block0-f16.gguf",
///     "specs/models/minilm-block0-q8_0.gguf",
/// )?;
/// assert!(compared.findings.is_empty(), "a tensor is missing, superfluous or of another shape");
/// for row in &compared.rows {
///     println!("{}: cosine {:.6}, {:.1} dB", row.tensor, row.cosine.0, row.sqnr_db.0);
/// }
/// assert!(compared.global().is_some_and(|global| global.cosine.0 > 0.9999));
/// # Ok::<(), qualm::Error>(())
/// ```
pub fn compare(
    reference: impl AsRef<Path>,
    quantized: impl AsRef<Path>,
) -> Result<Comparison, Error> {
    let (policy, progress) = (Policy::default(), Progress::default());
    pairs::compare(reference.as_ref(), quantized.as_ref(), &policy, cores(), &progress)
}

/// Judges a quantized model by its reference, as `qualm check` does, with no spec and no baseline.
///
/// # Errors
///
/// If there can be no verdict for a mistake of the program's own. A model that cannot be read is a verdict:
/// `unreadable`.
///
/// ```
/// let judged = qualm::check(
///     "specs/models/minilm-block0-f16.gguf",
///     "specs/models/minilm-block0-q4_k_m.gguf",
/// )?;
/// for finding in &judged.findings {
///     println!("{}: {}", finding.gate, finding.message);
///     if let Some(diagnosis) = &finding.diagnosis {
///         println!("  {diagnosis}");
///     }
/// }
/// assert_eq!(judged.verdict(), "healthy");
/// # Ok::<(), qualm::Error>(())
/// ```
pub fn check(reference: impl AsRef<Path>, quantized: impl AsRef<Path>) -> Result<Judged, Error> {
    let quantized = [quantized.as_ref().to_owned()];
    let request = Request::of(reference.as_ref(), &quantized, cores());
    let mut judged = pairs::judge(&request, &pairs::unwatched)?;
    judged.pop().ok_or_else(|| Error::new(Exit::Internal, "the pair did not run"))
}

/// Runs the specs below a directory, or one spec, as `qualm run --no-baseline` does, and returns what
/// `contract.json` holds. Nothing is written. Baselines and reports are the command line's, and [`harness!`]'s.
///
/// [`harness!`]: crate::harness!
///
/// # Errors
///
/// If a spec cannot be read or is not valid, or two pairs have the same name.
///
/// ```
/// let contract = qualm::run("specs/minilm-roundtrip.toml")?;
/// let pairs = contract.specs.iter().flat_map(|spec| &spec.pairs);
/// for test in pairs.flat_map(|pair| &pair.tests) {
///     println!("{}: {:?}", test.id, test.outcome);
/// }
/// assert_eq!(contract.exit_code, 0);
/// # Ok::<(), qualm::Error>(())
/// ```
pub fn run(specs: impl AsRef<Path>) -> Result<Contract, Error> {
    let root = specs.as_ref();
    let found = spec::discover(root).map_err(|error| Error::new(Exit::SpecInvalid, error))?;
    let files: Vec<(PathBuf, &Path)> =
        found.into_iter().map(|path| (path, spec::below(root))).collect();
    let knows_qtype = model::scheme::knows_qtype;
    let options = LoadOptions { knows_qtype, ..LoadOptions::default() };
    let invalid = |errors: spec::SpecErrors| Error::new(Exit::SpecInvalid, errors.render(false));
    let loaded: Result<Vec<_>, _> = spec::load_all(&files, &options).into_iter().collect();
    let specs = loaded.map_err(invalid)?;
    let choice = Choice::of_tensors();
    let planned = plan::plan(&specs, &choice);
    let mut planned = planned.map_err(|error| Error::new(Exit::SpecInvalid, error))?;
    plan::expand(&mut planned, true);
    Ok(suite::run(&planned, &Options::of(cores()), None, &mut Silent))
}
