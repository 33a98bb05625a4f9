/*!
`qualm falsify`: proof that a suite can fail. Loads the specs as a run does, and prints what became
of the mutants.
*/

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::args::FalsifyArgs;
use super::progress::{Bar, Watching};
use super::run::{SpecArgs, load_specs};
use super::threads::thread_count;
use super::{Failure, streams};
use crate::fault::{FAULTS, Fault};
use crate::report;
use crate::shown::one_line;
use crate::spec::Granularity;
use crate::suite::baseline::Baselines;
use crate::suite::exit::Exit;
use crate::suite::falsify::record::{
    Counts, FILE_NAME, Falsification, FalsifiedPair, MutantOutcome,
};
use crate::suite::falsify::{self, Options};
use crate::suite::plan::{self, Choice};
use crate::suite::select::Selection;

/// Puts faults into every pair, and fails if one goes unnoticed.
pub fn run(args: &FalsifyArgs) -> Result<Exit, Failure> {
    let mut out = streams::text_or_json(args.json);
    if args.list {
        list(&mut out)?;
        return Ok(Exit::Ok);
    }
    let specs = load_specs(&SpecArgs { spec: &args.spec, profile: args.profile.as_deref() })?;
    let choice = Choice {
        selection: Selection { filters: args.filter.clone(), ..Selection::default() },
        tags: args.tag.clone(),
        shard: None,
        no_baseline: args.no_baseline,
        granularity: Some(Granularity::Pair),
        benchmarks: false,
    };
    let mut plan = plan::plan(&specs, &choice).map_err(|e| Failure::new(Exit::SpecInvalid, e))?;
    // A fault is one against a reference.
    plan.pairs.retain(|planned| !planned.pair.is_alone());
    if plan.pairs.is_empty() {
        let message = "no pairs selected: no filter, tag or spec matches one of two models";
        return Err(Failure::new(Exit::NoTests, message));
    }
    // What does not run cannot notice a fault.
    plan.pairs.retain(|pair| pair.ignored.is_none());
    plan::expand(&mut plan, args.no_baseline);
    let baselines = if args.no_baseline {
        None
    } else {
        let baselines = Baselines::new(&args.snapshots, &args.out_dir, false, None)
            .map_err(|error| Failure::new(Exit::Usage, error))?;
        Some(baselines.read_only())
    };
    let options = Options { threads: thread_count(args.test_threads), baselines };
    if !args.json {
        let (pairs, faults) = (plan.pairs.len(), FAULTS.len());
        writeln!(out, "\nfalsifying {pairs} pairs with {faults} kinds of faults\n")?;
        out.flush()?;
    }
    let mut broken = None;
    let bar = Bar::of_plan(&plan);
    let mut watching = Watching(bar.as_ref());
    let (found, warnings) = falsify::falsify(&plan, &options, &mut watching, &mut |pair| {
        if let Some(bar) = &bar {
            bar.end();
        }
        if !args.json && broken.is_none() {
            broken = pair_line(&mut out, pair).err();
        }
    });
    drop(bar);
    for warning in warnings {
        streams::tell_rendered(|color| warning.render(color));
    }
    let bytes = found.to_json().map_err(|error| Failure::new(Exit::Internal, error))?;
    report::write_files(&args.out_dir, &[(FILE_NAME, &bytes)])
        .map_err(|error| Failure::new(Exit::Internal, error))?;
    if let Some(error) = broken {
        return Err(error.into());
    }
    if args.json {
        out.write_all(&bytes)?;
    } else {
        print(&mut out, &found)?;
    }
    out.flush()?;
    Ok(Exit::from_code(found.exit_code))
}

/// The table of faults.
fn list(out: &mut impl Write) -> io::Result<()> {
    let width = FAULTS.iter().map(|row| row.name.len()).max().unwrap_or(0);
    for row in FAULTS {
        let needs = row.needs.map_or_else(String::new, |key| format!("; needs `{key}`"));
        writeln!(out, "{:width$}  {} ({}){needs}", row.name, row.does, row.on)?;
    }
    out.flush()
}

fn pair_line(out: &mut impl Write, pair: &FalsifiedPair) -> io::Result<()> {
    let word = match (&pair.unsound, pair.counts.survived) {
        (Some(_), _) => "UNSOUND",
        (None, 0) => "ok",
        (None, _) => "SURVIVORS",
    };
    writeln!(out, "pair {} ... {word}: {}", pair.id, words(&pair.counts))?;
    if let Some(reason) = &pair.unsound {
        writeln!(out, "    it does not pass as it is: {}", one_line(reason))?;
    }
    out.flush()
}

fn words(counts: &Counts) -> String {
    let Counts { mutants, killed, by_baseline_alone, survived, allowed, no_effect } = counts;
    format!(
        "{mutants} mutants, {killed} killed ({by_baseline_alone} by the baseline alone), \
         {survived} survived, {allowed} allowed, {no_effect} without effect"
    )
}

fn print(out: &mut impl Write, found: &Falsification) -> io::Result<()> {
    if found.counts.mutants > 0 {
        faults(out, found)?;
        gates(out, found)?;
        survivors(out, found)?;
    }
    let result = if found.exit_code == 0 { "ok" } else { "FAILED" };
    writeln!(out, "\nfalsify result: {result}. {}\n", words(&found.counts))
}

/// Per fault: what became of its mutants over all pairs.
fn faults(out: &mut impl Write, found: &Falsification) -> io::Result<()> {
    let mut rows: BTreeMap<&str, Counts> = BTreeMap::new();
    for mutant in found.pairs.iter().flat_map(|pair| &pair.mutants) {
        rows.entry(&mutant.fault).or_default().count(mutant);
    }
    let width = FAULTS.iter().map(|row| row.name.len()).max().unwrap_or(0);
    writeln!(
        out,
        "\n{:width$}  mutants  killed  baseline alone  survived  allowed  no effect",
        "fault"
    )?;
    for row in FAULTS {
        let name = row.name;
        match rows.get(name) {
            Some(c) => writeln!(
                out,
                "{name:width$}  {:>7}  {:>6}  {:>14}  {:>8}  {:>7}  {:>9}",
                c.mutants, c.killed, c.by_baseline_alone, c.survived, c.allowed, c.no_effect
            )?,
            None => writeln!(out, "{name:width$}  not applicable: {}", row.on)?,
        }
    }
    Ok(())
}

/// Per gate: how many mutants it killed, and how many of them it alone.
fn gates(out: &mut impl Write, found: &Falsification) -> io::Result<()> {
    let mut rows: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (gate, counts) in found.pairs.iter().flat_map(|pair| &pair.gates) {
        let row = rows.entry(gate).or_default();
        *row = (row.0 + counts.killed, row.1 + counts.alone);
    }
    let width = rows.keys().map(|gate| gate.len()).max().unwrap_or(0).max(4);
    writeln!(out, "\n{:width$}  killed  alone", "gate")?;
    for (gate, (killed, alone)) in rows {
        writeln!(out, "{gate:width$}  {killed:>6}  {alone:>5}")?;
    }
    Ok(())
}

fn survivors(out: &mut impl Write, found: &Falsification) -> io::Result<()> {
    let mutants = found.pairs.iter().flat_map(|pair| pair.mutants.iter().map(move |it| (pair, it)));
    let survived: Vec<_> =
        mutants.filter(|(_, mutant)| mutant.outcome == MutantOutcome::Survived).collect();
    if survived.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nsurvivors:\n")?;
    for (pair, mutant) in survived {
        let fault = Fault::from_name(&mutant.fault);
        let qtype = mutant.qtype.as_ref().map_or_else(String::new, |qtype| format!(" ({qtype})"));
        writeln!(out, "  {}: {}{qtype}", pair.id, mutant.name())?;
        if let Some(info) = fault.map(Fault::info) {
            let advice = match info.needs {
                Some(key) => format!("state it with `{key}`"),
                None => "tighten a bound, record a baseline".to_owned(),
            };
            writeln!(out, "    {}; {advice}, or allow it: `allow_survivor`", info.does)?;
        }
    }
    Ok(())
}
