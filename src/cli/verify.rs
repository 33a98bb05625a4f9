/*! `qualm verify MODEL…`: what is wrong with a model, whatever it was made from. */

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::VerifyArgs;
use super::progress::Bar;
use super::streams;
use super::threads::thread_count;
use crate::codec::Class;
use crate::diagnose::{self, Diagnosis};
use crate::gate::{self, Alone, CheckOutcome, GateCounts, Level, gate_counts};
use crate::measure::{self, Depth, Progress, Scan};
use crate::model::{self, Model, ModelError, ReadError, Tensor};
use crate::pairs::Finding;
use crate::report::numbers;
use crate::shown::one_line;
use crate::suite::exit::Exit;
use crate::suite::model_record;
use crate::suite::record::{ModelRecord, Number, TypeRecord};

/// What `--json` prints of a model.
#[derive(Serialize)]
struct Object {
    model: String,
    /// `healthy`, `damaged` or `unreadable`.
    verdict: &'static str,
    healthy: bool,
    exit_code: u8,
    /// Every tensor that a finding is about, sorted.
    tensors_at_fault: Vec<String>,
    findings: Vec<Finding>,
    /// What is odd and may be meant.
    warnings: Vec<Finding>,
    bits_per_weight: Option<Number>,
    types: Vec<TypeRecord>,
    tensors: Vec<TensorEntry>,
    gates: GateCounts,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct TensorEntry {
    tensor: String,
    qtype: String,
    shape: Vec<u64>,
    stored_bytes: u64,
    /// None if the values cannot be read.
    nonfinite: Option<u64>,
    zero_rows: Option<u64>,
}

/// What `--json` prints of several models.
#[derive(Serialize)]
struct Report<'a> {
    models: &'a [Object],
}

/// Judges models without a reference: 0 healthy, 5 damaged, 6 unreadable; of several, 6 before 5 before 0.
pub fn run(args: &VerifyArgs) -> Exit {
    let threads = thread_count(args.threads);
    let bar = Bar::new(args.models.len(), args.models.len() as u64);
    let verify =
        |path: &PathBuf| Bar::over(bar.as_ref(), path, |progress| verify(path, threads, progress));
    let objects: Vec<Object> = args.models.iter().map(verify).collect();
    drop(bar);
    let has = |exit: &Exit| objects.iter().any(|object| object.exit_code == exit.code());
    let worst = [Exit::InputError, Exit::ValidationFailed].into_iter().find(has);
    streams::printed(print(args.json, &objects), worst.unwrap_or(Exit::Ok))
}

fn verify(path: &Path, threads: usize, progress: &Progress) -> Object {
    match model::open(path) {
        Ok(model) => {
            let tensors: Vec<&Tensor> = model.tensors.iter().collect();
            let scans = measure::scan(&model, &tensors, Depth::Values, threads, progress);
            judged(path, &model, &scans)
        }
        Err(error) => unreadable(path, &error),
    }
}

/// A finding about something that cannot be read.
fn not_readable(tensor: Option<&str>, message: &str, diagnosis: Option<Diagnosis>) -> Finding {
    Finding {
        tensor: tensor.map(str::to_owned),
        gate: "readable".to_owned(),
        value: None,
        bound: None,
        message: message.to_owned(),
        diagnosis,
    }
}

fn unreadable(path: &Path, error: &ModelError) -> Object {
    let message = error.to_string();
    let diagnosis = diagnose::of_error(error);
    let mut tensors: Vec<&str> =
        error.tensor.as_deref().into_iter().chain(error.other.as_deref()).collect();
    tensors.dedup();
    let mut findings: Vec<Finding> =
        tensors.iter().map(|name| not_readable(Some(name), &message, diagnosis.clone())).collect();
    if findings.is_empty() {
        findings.push(not_readable(None, &message, diagnosis));
    }
    object(path, None, Verdicts { findings, unreadable: true, ..Verdicts::default() })
}

/// What was found.
#[derive(Default)]
struct Verdicts {
    findings: Vec<Finding>,
    warnings: Vec<Finding>,
    gates: GateCounts,
    unreadable: bool,
}

impl Verdicts {
    fn add(&mut self, alone: Alone) {
        self.gates.add(&gate_counts(std::slice::from_ref(&alone.check)));
        if alone.check.outcome != CheckOutcome::Violated {
            return;
        }
        let finding = Finding {
            tensor: alone.tensor,
            gate: alone.check.check.clone(),
            value: alone.check.value,
            bound: alone.check.bound,
            diagnosis: diagnose::of_check(&alone.check),
            message: alone.check.message,
        };
        match alone.check.level {
            Level::Fail => self.findings.push(finding),
            Level::Warn => self.warnings.push(finding),
        }
    }
}

fn judged(path: &Path, model: &Model, scans: &[Result<Scan, ReadError>]) -> Object {
    let mut verdicts = Verdicts::default();
    for alone in gate::check_whole(model) {
        verdicts.add(alone);
    }
    for (tensor, scan) in model.tensors.iter().zip(scans) {
        match scan {
            Ok(_) if tensor.class() == Class::Exact => {}
            Ok(scan) => {
                for alone in gate::check_values(model, tensor, scan) {
                    verdicts.add(alone);
                }
            }
            Err(error) => {
                verdicts.unreadable = true;
                let finding = not_readable(Some(&tensor.name), &error.to_string(), None);
                verdicts.findings.push(finding);
            }
        }
    }
    verdicts.findings.sort_by_key(|finding| finding.tensor.is_none());
    let mut object = object(path, Some(model_record(model, "")), verdicts);
    for (tensor, scan) in model.tensors.iter().zip(scans) {
        let scan = scan.as_ref().ok();
        object.tensors.push(TensorEntry {
            tensor: tensor.name.clone(),
            qtype: tensor.qtype().to_owned(),
            shape: tensor.shape.clone(),
            stored_bytes: tensor.stored_bytes(),
            nonfinite: scan.and_then(|scan| scan.nonfinite),
            zero_rows: scan.map(|scan| scan.zero_rows.0),
        });
    }
    object.notes.clone_from(&model.notes);
    object
}

fn object(path: &Path, model: Option<ModelRecord>, verdicts: Verdicts) -> Object {
    let Verdicts { findings, warnings, gates, unreadable } = verdicts;
    let (verdict, exit) = match (unreadable, findings.is_empty()) {
        (true, _) => ("unreadable", Exit::InputError),
        (false, false) => ("damaged", Exit::ValidationFailed),
        (false, true) => ("healthy", Exit::Ok),
    };
    let (bits_per_weight, types) = match model {
        Some(model) => (Some(model.bits_per_weight), model.types),
        None => (None, Vec::new()),
    };
    let mut at_fault: Vec<String> = findings.iter().filter_map(|it| it.tensor.clone()).collect();
    at_fault.sort();
    at_fault.dedup();
    Object {
        model: path.to_string_lossy().into_owned(),
        verdict,
        healthy: exit == Exit::Ok,
        exit_code: exit.code(),
        tensors_at_fault: at_fault,
        findings,
        warnings,
        bits_per_weight,
        types,
        tensors: Vec::new(),
        gates,
        notes: Vec::new(),
    }
}

fn print(json: bool, objects: &[Object]) -> io::Result<()> {
    let mut out = streams::text_or_json(json);
    match objects {
        [one] if json => serde_json::to_writer_pretty(&mut out, one)?,
        models if json => serde_json::to_writer_pretty(&mut out, &Report { models })?,
        several => {
            for object in several {
                if several.len() > 1 {
                    write!(out, "{}: ", one_line(&object.model))?;
                }
                text(&mut out, object)?;
            }
        }
    }
    if json {
        writeln!(out)?;
    }
    out.flush()
}

fn text(out: &mut impl Write, object: &Object) -> io::Result<()> {
    write!(out, "{}", object.verdict)?;
    if let Some(bits) = &object.bits_per_weight {
        let types: Vec<String> =
            object.types.iter().map(|it| format!("{} {}", it.tensors, it.qtype)).collect();
        write!(
            out,
            ": {}, {} bits per weight ({}), {}",
            numbers::counted(object.tensors.len() as u64, "tensor"),
            numbers::bits(bits.0),
            one_line(&types.join(", ")),
            numbers::gates(&object.gates)
        )?;
    }
    writeln!(out)?;
    for note in &object.notes {
        writeln!(out, "  note: {}", one_line(note))?;
    }
    for (word, findings) in [("", &object.findings), ("warning: ", &object.warnings)] {
        for finding in findings {
            let tensor =
                finding.tensor.as_deref().map_or(String::new(), |name| format!("{name}: "));
            let (gate, message) = (&finding.gate, &finding.message);
            writeln!(out, "  {word}{}{gate}: {}", one_line(&tensor), one_line(message))?;
            if let Some(diagnosis) = finding.diagnosis.as_ref().filter(|it| it.evidence != *message)
            {
                writeln!(out, "    cause: {}", one_line(&diagnosis.to_string()))?;
            }
        }
    }
    Ok(())
}
