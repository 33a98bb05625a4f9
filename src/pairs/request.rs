/*! A run over pairs that are named one by one, with no spec file and no baseline. */

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::Error;
use crate::report::draft::{quoted, template};
use crate::spec::{self, LoadOptions, Quantized};
use crate::suite::exit::Exit;
use crate::suite::plan::{self, Choice, Plan};
use crate::suite::record::PairRecord;
use crate::suite::{self, Listener, Options};

/// Types that some tensors must be stored in.
#[derive(Clone, Debug)]
pub struct QtypeRule {
    /// Tensors.
    pub glob: String,
    /// Types or schemes, one of which each must have.
    pub types: Vec<String>,
}

/// Hands a listener to a run of a plan.
pub type Watch<'w> = &'w dyn Fn(&Plan, &mut dyn FnMut(&mut dyn Listener));

/// What is to be judged, and how.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The reference of all pairs.
    pub reference: &'a Path,
    /// The quantized model of each pair.
    pub quantized: &'a [PathBuf],
    /// A file of rules for converted tensors, or `none`.
    pub map: Option<&'a Path>,
    /// The types that tensors must have.
    pub qtype: &'a [QtypeRule],
    /// Threads to work with.
    pub threads: usize,
    /// The share of the values that is looked at.
    pub sample: Option<f64>,
    /// Checks that hold are only counted.
    pub settle: bool,
}

impl<'a> Request<'a> {
    /// Judges all values by what the models themselves say.
    pub fn of(reference: &'a Path, quantized: &'a [PathBuf], threads: usize) -> Self {
        let (map, qtype, sample) = (None, &[][..], None);
        Self { reference, quantized, map, qtype, threads, sample, settle: true }
    }
}

/// Runs a spec with a pair for each quantized model; their records come in that order. The reference is
/// opened once for all of them, and its values are read once for each. The models are those of the request,
/// whatever their paths are made of: a text may not be able to say them.
pub fn measure(request: &Request, watch: Watch) -> Result<Vec<PairRecord>, Error> {
    // Paths are taken as they are: the shell has replaced variables.
    let options =
        LoadOptions { env: &|name| Some(format!("${{{name}}}")), ..LoadOptions::default() };
    let text = spec_text(request);
    let mut spec = spec::parse(text.as_bytes(), Path::new("pair.toml"), Path::new(""), &options)
        .map_err(|errors| Error::new(Exit::Usage, errors))?;
    for (pair, quantized) in spec.pairs.iter_mut().zip(request.quantized) {
        request.reference.clone_into(&mut pair.reference.path);
        if let Quantized::File(model) = &mut pair.quantized {
            quantized.clone_into(&mut model.path);
        }
    }
    let specs = [spec];
    let choice = Choice::of_tensors();
    let plan = plan::plan(&specs, &choice).map_err(|e| Error::new(Exit::Internal, e))?;
    let options = Options { settle: request.settle, ..Options::of(request.threads) };
    let mut pairs: Vec<PairRecord> = Vec::new();
    watch(&plan, &mut |listener| {
        let contract = suite::run(&plan, &options, None, listener);
        pairs.extend(contract.specs.into_iter().flat_map(|spec| spec.pairs));
    });
    if pairs.len() != request.quantized.len() {
        return Err(Error::new(Exit::Internal, "not every pair ran"));
    }
    let mut tests = pairs.iter().flat_map(|pair| &pair.tests);
    match tests.find(|test| suite::is_internal(test)) {
        Some(test) => Err(Error::new(Exit::Internal, test.reason.as_deref().unwrap_or_default())),
        None => Ok(pairs),
    }
}

/// The spec: a pair for each model, and the types that the command line asks for.
fn spec_text(request: &Request) -> String {
    let path = |path: &Path| literal(&path.to_string_lossy());
    let reference = path(request.reference);
    let mut text = String::from("schema = 1\n");
    for (at, quantized) in request.quantized.iter().enumerate() {
        let quantized = path(quantized);
        let _ = write!(
            text,
            "[[pair]]\nname = \"pair-{at}\"\nreference = {reference}\nquantized = {quantized}\n"
        );
        if let Some(share) = request.sample {
            let _ = writeln!(text, "sample = {share:?}");
        }
        if let Some(map) = request.map {
            let _ = writeln!(text, "map = {}", path(map));
        }
        for rule in request.qtype {
            let types: Vec<String> = rule.types.iter().map(|ty| literal(ty)).collect();
            let (glob, types) = (quoted(&rule.glob), types.join(", "));
            let _ = write!(text, "[[pair.qtype]]\ntensors = {glob}\nis = [{types}]\n");
        }
    }
    text
}

/// A string of a spec, in which braces are braces.
fn literal(text: &str) -> String {
    quoted(&template(text))
}
