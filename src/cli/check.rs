/*! `qualm check REF QUANT…`: the verdict on pairs with no spec and no baseline. */

use std::io::{self, Write};

use serde::Serialize;

use super::args::CheckArgs;
use super::progress::watched;
use super::{Failure, streams};
use crate::pairs::{self, Finding, Judged, Object, Request};
use crate::report::note_lines;
use crate::report::numbers;
use crate::shown::one_line;
use crate::suite::exit::Exit;

/// What `--json` prints of several models.
#[derive(Serialize)]
struct Report<'a> {
    models: Vec<Object<'a>>,
}

/// Judges pairs: 0 healthy, 5 damaged, 6 unreadable; of several, 6 before 5 before 0.
pub fn run(args: &CheckArgs) -> Result<Exit, Failure> {
    let judged = pairs::judge(
        &Request {
            qtype: &args.qtype,
            sample: args.sample,
            ..args.reading.request(&args.reference, &args.quantized)
        },
        &watched,
    )?;
    let exit = pairs::exit(&judged);
    Ok(streams::printed(print(args.json, &judged), exit))
}

fn print(json: bool, judged: &[Judged]) -> io::Result<()> {
    let mut out = streams::text_or_json(json);
    match judged {
        [one] if json => serde_json::to_writer_pretty(&mut out, &one.object())?,
        several if json => {
            let models = several.iter().map(Judged::object).collect();
            serde_json::to_writer_pretty(&mut out, &Report { models })?;
        }
        [one] => print_text(&mut out, one)?,
        several => print_several(&mut out, several)?,
    }
    if json {
        writeln!(out)?;
    }
    out.flush()
}

/// Each model below its path, and how many there are of each verdict.
fn print_several(out: &mut impl Write, judged: &[Judged]) -> io::Result<()> {
    for one in judged {
        write!(out, "{}: ", one_line(&one.quantized.to_string_lossy()))?;
        print_text(out, one)?;
    }
    let counts: Vec<String> = ["healthy", "sampled", "damaged", "unreadable"]
        .iter()
        .map(|verdict| (verdict, judged.iter().filter(|it| it.verdict() == *verdict).count()))
        .filter(|(_, count)| *count > 0)
        .map(|(verdict, count)| format!("{count} {verdict}"))
        .collect();
    writeln!(out, "{}: {}", numbers::counted(judged.len() as u64, "model"), counts.join(", "))
}

fn print_text(out: &mut impl Write, judged: &Judged) -> io::Result<()> {
    let pair = &judged.pair;
    write!(out, "{}", judged.verdict())?;
    if let Some(global) = &pair.global {
        write!(
            out,
            ": {} tensors, {} bits per weight, cosine {}, SQNR {}",
            global.tensors,
            numbers::bits(global.bits_per_weight.0),
            numbers::cosine(global.cosine.0),
            numbers::db(global.metrics().map_or(global.sqnr_db.0, |metrics| metrics.sqnr_db)),
        )?;
        if global.wasted_bits.0.is_finite() {
            let wasted = numbers::bits(global.wasted_bits.0);
            write!(out, ", {wasted} bits above the rate-distortion limit")?;
        }
        write!(out, ", {}", numbers::gates(&judged.gates()))?;
    }
    writeln!(out)?;
    for note in &note_lines(pair) {
        writeln!(out, "  note: {}", one_line(note))?;
    }
    print_warnings(out, &judged.warnings)?;
    print_findings(out, &judged.findings)
}

/// Warnings of a model that are printed one by one; `--json` has all.
const WARNINGS: usize = 5;

fn print_warnings(out: &mut impl Write, warnings: &[Finding]) -> io::Result<()> {
    for Finding { gate, message, .. } in warnings.iter().take(WARNINGS) {
        writeln!(out, "  warning: {gate}: {}", one_line(message))?;
    }
    match warnings.len().saturating_sub(WARNINGS) {
        0 => Ok(()),
        more => writeln!(out, "  {more} more warnings: --json lists them"),
    }
}

fn print_findings(out: &mut impl Write, findings: &[Finding]) -> io::Result<()> {
    for (at, finding) in findings.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| &findings[before]);
        if finding.tensor.is_some() && before.is_none_or(|it| it.tensor != finding.tensor) {
            writeln!(out, "  {}", one_line(finding.tensor.as_deref().unwrap_or_default()))?;
        }
        writeln!(out, "    {}: {}", finding.gate, one_line(&finding.message))?;
        let next = findings.get(at + 1).filter(|next| next.tensor == finding.tensor);
        let last = next.is_none_or(|next| next.diagnosis != finding.diagnosis);
        if let Some(diagnosis) = finding.diagnosis.as_ref().filter(|_| last)
            && diagnosis.evidence != finding.message
        {
            writeln!(out, "    cause: {}", one_line(&diagnosis.to_string()))?;
        }
    }
    Ok(())
}
