/*! `qualm stats MODEL`: what `llama-quantize-stats` prints, for any float model. */

use std::io::{self, Write};

use regex::Regex;
use serde_json::{Value, json};

use super::args::StatsArgs;
use super::progress::Bar;
use super::threads::thread_count;
use super::{Failure, streams};
use crate::codec::{TYPES, TensorType};
use crate::measure::stats::{BUCKETS, ErrorStats, RANGE, Through, TypeStats};
use crate::measure::stats::{float_tensors, quantize_stats};
use crate::model::{self, Tensor};
use crate::shown::one_line;
use crate::suite::exit::Exit;

/// Quantizes every float tensor in memory and prints the errors.
pub fn run(args: &StatsArgs) -> Result<Exit, Failure> {
    let types = types(&args.types)?;
    let model = model::open(&args.model)?;
    let tensors: Vec<&Tensor> =
        float_tensors(&model).filter(|tensor| selects(args, &tensor.name)).collect();
    if tensors.is_empty() {
        let problem =
            "no float tensor to quantize: stats needs a float model, and filters that match";
        return Err(Failure::new(Exit::NoTests, problem));
    }
    let stats = Bar::single(&args.model, |progress| {
        quantize_stats(&model, &tensors, &types, thread_count(args.threads), progress)
    });
    let mut out = streams::text_or_json(args.json);
    if args.json {
        let types: Vec<Value> = stats.iter().map(type_json).collect();
        serde_json::to_writer_pretty(&mut out, &json!({ "types": types }))
            .map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        for stats in &stats {
            write_type(&mut out, stats, args.histogram)?;
        }
    }
    out.flush()?;
    let unreadable = |(_, through): &(String, Through)| matches!(through, Through::Unreadable(_));
    let failed = stats.iter().any(|stats| stats.tensors.iter().any(unreadable));
    Ok(if failed { Exit::InputError } else { Exit::Ok })
}

/// The types to go through: those named, or all that have a reference quantizer.
fn types(names: &[String]) -> Result<Vec<TensorType>, Failure> {
    let all = || TYPES.iter().map(|row| row.ty).filter(|ty| ty.has_reference_quantizer());
    if names.iter().any(|name| name.eq_ignore_ascii_case("all")) {
        return Ok(all().collect());
    }
    let find = |name: &String| {
        let why = match TensorType::from_name(name) {
            Some(ty) if ty.has_reference_quantizer() => return Ok(ty),
            Some(ty) => format!("{name:?} has no reference quantizer: {}", ty.why_no_reference()),
            None => format!("{name:?} is no type with a reference quantizer"),
        };
        let known: Vec<&str> = all().map(TensorType::name).collect();
        let problem = format!("{why}; there are {}", known.join(", "));
        Err(Failure::new(Exit::Usage, problem))
    };
    names.iter().map(find).collect()
}

fn selects(args: &StatsArgs, name: &str) -> bool {
    let any = |regexes: &[Regex]| regexes.iter().any(|regex| regex.is_match(name));
    (args.include.is_empty() || any(&args.include)) && !any(&args.exclude)
}

/// ggml's spelling of the name, as `llama-quantize-stats` prints it.
fn label(ty: TensorType) -> &'static str {
    ty.info().ggml_name.unwrap_or(ty.name())
}

fn write_type(out: &mut impl Write, stats: &TypeStats, histogram: bool) -> io::Result<()> {
    let label = label(stats.ty);
    for (name, through) in &stats.tensors {
        let name = format!("{label}::{}", one_line(name));
        match through {
            Through::Done { errors, .. } => write_errors(out, &name, errors, histogram)?,
            Through::NotQuantizable { reason } => {
                writeln!(out, "{name:<50}: not quantizable: {reason}")?;
            }
            Through::Unreadable(error) => writeln!(out, "{name:<50}: error: {error}")?,
        }
    }
    let total = stats.total();
    if total.count > 0 { write_errors(out, label, &total, histogram) } else { Ok(()) }
}

fn write_errors(
    out: &mut impl Write,
    name: &str,
    errors: &ErrorStats,
    histogram: bool,
) -> io::Result<()> {
    writeln!(
        out,
        "{name:<50}: rmse {:.8}, maxerr {:.8}, 95pct<{:.4}, median<{:.4}",
        errors.rmse(),
        errors.max_abs,
        errors.quantile(0.95),
        errors.quantile(0.5)
    )?;
    if histogram {
        writeln!(out, "Error distribution:")?;
        for (bucket, count) in errors.histogram.iter().enumerate() {
            let lower = bucket as f64 * RANGE / BUCKETS as f64;
            let last = bucket == BUCKETS - 1;
            let upper =
                if last { f64::INFINITY } else { (bucket + 1) as f64 * RANGE / BUCKETS as f64 };
            writeln!(out, "[{lower:.4}, {upper:.4}): {count:11}")?;
        }
    }
    Ok(())
}

fn type_json(stats: &TypeStats) -> Value {
    let mut tensors = Vec::new();
    let mut left_out = Vec::new();
    for (name, through) in &stats.tensors {
        match through {
            Through::Done { errors, encoded_sha256 } => {
                let mut row = errors_json(errors);
                row["tensor"] = json!(name);
                row["encoded_sha256"] = json!(encoded_sha256);
                tensors.push(row);
            }
            Through::NotQuantizable { reason } => {
                left_out.push(json!({ "tensor": name, "reason": reason }));
            }
            Through::Unreadable(error) => {
                left_out.push(json!({ "tensor": name, "error": error.to_string() }));
            }
        }
    }
    let mut json = errors_json(&stats.total());
    json["qtype"] = json!(label(stats.ty));
    json["tensors"] = Value::Array(tensors);
    json["not_quantizable"] = Value::Array(left_out);
    json
}

fn errors_json(errors: &ErrorStats) -> Value {
    json!({
        "rmse": errors.rmse(),
        "max_abs": errors.max_abs,
        "p95": errors.quantile(0.95),
        "median": errors.quantile(0.5),
    })
}
