/*! `qualm inspect MODEL`: the tensors of one model. */

use std::io::{self, Write};

use serde_json::{Value, json};

use super::args::InspectArgs;
use super::progress::Bar;
use super::threads::thread_count;
use super::{Failure, streams};
use crate::measure::{self, Depth, Scan};
use crate::model::{self, Model, ReadError, Storage, Tensor};
use crate::shown::{one_line, width};
use crate::suite::exit::Exit;

/// Lists the tensors; an unreadable one is listed with its reason and makes the exit code 6.
pub fn run(args: &InspectArgs) -> Result<Exit, Failure> {
    let model = model::open(&args.model)?;
    let depth = match (args.headers, args.digest) {
        (true, _) => Depth::Headers,
        (false, true) => Depth::Digests,
        (false, false) => Depth::Values,
    };
    let tensors: Vec<&Tensor> = model.tensors.iter().collect();
    let scans = Bar::single(&args.model, |progress| {
        measure::scan(&model, &tensors, depth, thread_count(args.threads), progress)
    });
    let mut out = streams::text_or_json(args.json);
    if args.json {
        serde_json::to_writer_pretty(&mut out, &to_json(&model, &scans))
            .map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        write_text(&mut out, &model, &scans, args.digest)?;
    }
    let readable = scans.iter().all(Result::is_ok);
    let exit = if readable { Exit::Ok } else { Exit::InputError };
    Ok(streams::printed(out.flush(), exit))
}

fn to_json(model: &Model, scans: &[Result<Scan, ReadError>]) -> Value {
    let rows = model.tensors.iter().zip(scans);
    let tensors: Vec<Value> = rows.map(|(tensor, scan)| tensor_json(model, tensor, scan)).collect();
    let files: Vec<Value> = model
        .files
        .iter()
        .map(|file| {
            json!({
                "path": file.path.to_string_lossy(),
                "size": file.len,
                "header_sha256": file.header_sha256,
            })
        })
        .collect();
    json!({
        "path": model.path.to_string_lossy(),
        "format": model.format.name(),
        "files": files,
        "metadata": model.metadata.iter().cloned().collect::<serde_json::Map<_, _>>(),
        "notes": model.notes,
        "tensors": tensors,
    })
}

fn tensor_json(model: &Model, tensor: &Tensor, scan: &Result<Scan, ReadError>) -> Value {
    let mut row = json!({
        "name": tensor.name,
        "type": tensor.qtype(),
        "shape": tensor.shape,
        "numel": tensor.numel(),
        "stored_bytes": tensor.stored_bytes(),
        "bits_per_weight": tensor.bits_per_weight(),
    });
    match scan {
        Ok(scan) => {
            row["nonfinite"] = json!(scan.nonfinite);
            if let Some(digest) = &scan.decoded_sha256 {
                row["decoded_sha256"] = json!(digest);
            }
        }
        Err(error) => row["error"] = json!(error.to_string()),
    }
    if let Storage::Joined(weight) = &tensor.storage {
        let planes = weight.planes().iter().map(|plane| {
            json!({
                "name": plane.name,
                "type": plane.ty.name(),
                "shape": plane.shape,
                "stored_bytes": plane.at.len,
                "file": model.files[plane.at.file].path.to_string_lossy(),
            })
        });
        row["planes"] = planes.collect();
    }
    row
}

fn write_text(
    out: &mut impl Write,
    model: &Model,
    scans: &[Result<Scan, ReadError>],
    digest: bool,
) -> io::Result<()> {
    let total: u64 = model.tensors.iter().map(Tensor::stored_bytes).sum();
    writeln!(
        out,
        "{}: {}, {} tensors, {total} bytes of data",
        model.path.display(),
        model.format.name(),
        model.tensors.len()
    )?;
    for note in &model.notes {
        writeln!(out, "note: {}", one_line(note))?;
    }
    let heads = ["tensor", "type", "shape", "bytes", "bits/weight", "non-finite"];
    let rows: Vec<[String; 6]> =
        model.tensors.iter().zip(scans).map(|(tensor, scan)| text_row(tensor, scan)).collect();
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| width(rows.iter().map(|row| row[column].as_str()).chain([heads[column]])))
        .collect();
    let mut line = |cells: [&str; 6], tail: &str| {
        writeln!(
            out,
            "{:<w0$}  {:<w1$}  {:<w2$}  {:>w3$}  {:>w4$}  {:>w5$}{tail}",
            cells[0],
            cells[1],
            cells[2],
            cells[3],
            cells[4],
            cells[5],
            w0 = widths[0],
            w1 = widths[1],
            w2 = widths[2],
            w3 = widths[3],
            w4 = widths[4],
            w5 = widths[5],
        )
    };
    line(heads, if digest { "  sha256 of the decoded values" } else { "" })?;
    for (row, scan) in rows.iter().zip(scans) {
        let tail = match scan {
            Ok(Scan { decoded_sha256: Some(digest), .. }) => format!("  {digest}"),
            Ok(_) => String::new(),
            Err(error) => format!("  error: {error}"),
        };
        line(row.each_ref().map(String::as_str), &tail)?;
    }
    Ok(())
}

fn text_row(tensor: &Tensor, scan: &Result<Scan, ReadError>) -> [String; 6] {
    let nonfinite = scan.as_ref().ok().and_then(|scan| scan.nonfinite);
    let extents: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
    [
        one_line(&tensor.name).into_owned(),
        one_line(tensor.qtype()).into_owned(),
        format!("[{}]", extents.join(", ")),
        tensor.stored_bytes().to_string(),
        tensor.bits_per_weight().map_or_else(|| "-".to_owned(), |bits| format!("{bits:.4}")),
        nonfinite.map_or_else(|| "-".to_owned(), |count| count.to_string()),
    ]
}
