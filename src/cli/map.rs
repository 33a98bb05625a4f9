/*! `qualm map REF QUANT`: which tensors of a checkpoint each converted tensor is made of, and how. */

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use super::args::MapArgs;
use super::{Failure, streams};
use crate::counterpart::{self, Choice, Mapped};
use crate::model::view::Recipe;
use crate::model::{self, Model};
use crate::report::text::one_line;
use crate::suite::exit::Exit;

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    reference: String,
    quantized: String,
    /// The class whose rules are used; none if tensors answer to each other by name.
    class: Option<&'a str>,
    tensors: Vec<Row<'a>>,
    /// Tensors that only the reference has, by its names.
    only_reference: Vec<&'a str>,
    /// Tensors that only the quantized model has.
    only_quantized: Vec<&'a str>,
    notes: &'a [String],
}

/// A tensor that both models have.
#[derive(Serialize)]
struct Row<'a> {
    /// The name in the quantized model.
    tensor: &'a str,
    shape: &'a [u64],
    /// Sources and operations; of a tensor without a rule, the tensor of the same name.
    made_of: Option<Value>,
    /// For people.
    words: String,
    /// Why the rule cannot be carried out, or does not give the tensor's shape.
    problem: Option<String>,
}

/// Prints the map of a pair.
pub fn run(args: &MapArgs) -> Result<Exit, Failure> {
    let reference = model::open(&args.reference)?;
    let mut quantized = model::open(&args.quantized)?;
    let choice = Choice::named(args.map.as_deref());
    let mut mapped = counterpart::pair_up(reference, &mut quantized, &choice)?;
    let mut laid_out = model::scheme::align(&mapped.reference, &mut quantized);
    mapped.notes.append(&mut laid_out);
    let report = report(args, &mapped, &quantized);
    let mut out = streams::text_or_json(args.json);
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        print(&mut out, &report)?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}

fn report<'a>(args: &MapArgs, mapped: &'a Mapped, quantized: &'a Model) -> Report<'a> {
    let reference = mapped.reference.by_name();
    let mut report = Report {
        reference: args.reference.to_string_lossy().into_owned(),
        quantized: args.quantized.to_string_lossy().into_owned(),
        class: mapped.class.as_deref(),
        tensors: Vec::new(),
        only_reference: Vec::new(),
        only_quantized: Vec::new(),
        notes: &mapped.notes,
    };
    for tensor in &quantized.tensors {
        let name = tensor.name.as_str();
        let Some(at) = reference.get(name) else {
            report.only_quantized.push(name);
            continue;
        };
        let recipe = mapped.recipes.get(name);
        let shape = &mapped.reference.tensors[*at].shape;
        let misfit = (*shape != tensor.shape)
            .then(|| format!("gives the shape {shape:?}, the tensor has {:?}", tensor.shape));
        report.tensors.push(Row {
            tensor: name,
            shape: &tensor.shape,
            made_of: recipe.map(Recipe::json),
            words: recipe.map_or_else(|| name.to_owned(), ToString::to_string),
            problem: mapped.problems.get(name).cloned().or(misfit),
        });
    }
    let own = quantized.by_name();
    let only = mapped.reference.tensors.iter().map(|tensor| tensor.name.as_str());
    report.only_reference = only.filter(|name| !own.contains_key(name)).collect();
    report
}

fn print(out: &mut impl Write, report: &Report) -> io::Result<()> {
    for row in &report.tensors {
        match &row.problem {
            None => writeln!(out, "{} = {}", one_line(row.tensor), one_line(&row.words))?,
            Some(problem) => {
                let (words, problem) = (one_line(&row.words), one_line(problem));
                writeln!(out, "{} = {words}  ({problem})", one_line(row.tensor))?;
            }
        }
    }
    for (side, names) in
        [("reference", &report.only_reference), ("quantized model", &report.only_quantized)]
    {
        for name in names {
            writeln!(out, "{}: in the {side} alone", one_line(name))?;
        }
    }
    for note in report.notes {
        writeln!(out, "note: {}", one_line(note))?;
    }
    Ok(())
}
