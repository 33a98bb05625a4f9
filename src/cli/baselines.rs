/*! `qualm pending | review | accept | reject | prune`: what becomes of new and changed baselines. */

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use super::args::{AcceptArgs, PendingArgs, PlaceArgs, PruneArgs, RejectArgs, ReviewArgs};
use super::run::{SpecArgs, load_specs};
use super::{Failure, streams};
use crate::baseline::{
    self, Accept, BaselineError, Environment, Pending, Places, Pruned, References, Store,
};
use crate::disk;
use crate::suite::exit::Exit;

impl From<BaselineError> for Failure {
    fn from(error: BaselineError) -> Self {
        let exit = match error {
            BaselineError::Usage(_) | BaselineError::Variable { .. } => Exit::Usage,
            // A model or a snapshot that is missing or corrupt is another thing than a full disk.
            BaselineError::Io { action: "write" | "remove", .. } => Exit::Internal,
            _ => Exit::InputError,
        };
        Self::new(exit, error)
    }
}

/// Where this checkout's snapshots and pending files are.
fn places(args: &PlaceArgs) -> Result<Places, Failure> {
    let environment = Environment::from_process()?;
    let mut pending = vec![args.out_dir.join("pending")];
    pending.extend(environment.pending_dir);
    disk::sweep(&args.snapshots);
    for directory in &pending {
        disk::sweep(&directory.join(&args.snapshots));
    }
    Ok(Places {
        workspace: environment.workspace_root.unwrap_or_else(|| Path::new(".").to_owned()),
        snapshots: vec![args.snapshots.clone()],
        pending,
    })
}

/// Lists what is pending; exit code 8 if anything is.
pub fn pending(args: &PendingArgs) -> Result<Exit, Failure> {
    let found = places(&args.places)?.pending()?;
    let mut out = streams::text_or_json(args.json);
    if args.json {
        writeln!(out, "{:#}", baseline::list_json(&found))?;
    } else {
        write!(out, "{}", baseline::list_text(&found))?;
    }
    Ok(if found.is_empty() { Exit::Ok } else { Exit::BaselinesPending })
}

/// Shows each pending snapshot and asks; without a terminal it says how to act.
pub fn review(args: &ReviewArgs) -> Result<Exit, Failure> {
    let found = baseline::select(places(&args.places)?.pending()?, &args.filters)?;
    let mut output = streams::text();
    if found.is_empty() {
        writeln!(output, "nothing is pending")?;
        return Ok(Exit::Ok);
    }
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        for reviewed in found.iter().flat_map(baseline::Reviewed::open) {
            writeln!(output, "{}", reviewed.describe())?;
        }
        write!(output, "{}", baseline::how_to_act(&found))?;
        return Ok(Exit::BaselinesPending);
    }
    let mut input = io::stdin().lock();
    baseline::review(&found, &Accept::default(), &mut input, &mut output)?;
    let left = places(&args.places)?.pending()?;
    Ok(if left.is_empty() { Exit::Ok } else { Exit::BaselinesPending })
}

/// Accepts pending snapshots, of this checkout or of the artefacts of a CI run.
pub fn accept(args: &AcceptArgs) -> Result<Exit, Failure> {
    let places = places(&args.places)?;
    let found = if args.from.is_empty() {
        places.pending()?
    } else {
        let mut found: Vec<Pending> = Vec::new();
        for path in &args.from {
            found.extend(places.from_artefact(path)?);
        }
        found
    };
    let found = baseline::select(found, &args.filters)?;
    let (reason, allow_worse, dry_run) = (args.reason.clone(), args.allow_worse, args.dry_run);
    let accepted = baseline::accept(&found, &Accept { reason, allow_worse, dry_run })?;
    report(if dry_run { "would accept" } else { "accepted" }, &accepted)
}

/// Rejects pending snapshots.
pub fn reject(args: &RejectArgs) -> Result<Exit, Failure> {
    let found = baseline::select(places(&args.places)?.pending()?, &args.filters)?;
    let words = if args.dry_run { "would reject" } else { "rejected" };
    report(words, &baseline::reject(&found, args.dry_run)?)
}

fn report(what: &str, names: &[String]) -> Result<Exit, Failure> {
    let mut out = streams::text();
    if names.is_empty() {
        writeln!(out, "nothing is pending")?;
    }
    for name in names {
        writeln!(out, "{what} {name}")?;
    }
    Ok(Exit::Ok)
}

/// Removes the snapshots that no pair of the suite, or of the selected part of it, refers to.
pub fn prune(args: &PruneArgs) -> Result<Exit, Failure> {
    let specs = load_specs(&SpecArgs { spec: &args.spec, profile: None })?;
    let environment = Environment::from_process()?;
    let store =
        Store::new(Path::new("."), &args.places.snapshots, &args.places.out_dir, environment);
    let selected = (!args.spec.is_empty()).then_some(args.spec.as_slice());
    let mut references = References::new(selected);
    for spec in &specs {
        references.spec(&spec.path);
        for pair in spec.pairs.iter().filter(|pair| !pair.is_alone()) {
            references.pair(&spec.path, &store.path(&spec.name, &pair.name));
        }
    }
    let mut out = streams::text();
    for pruned in baseline::prune(&args.places.snapshots, &references, args.dry_run)? {
        match pruned {
            Pruned::Removed(path) if args.dry_run => {
                writeln!(out, "would remove {}", path.display())?;
            }
            Pruned::Removed(path) => writeln!(out, "removed {}", path.display())?,
            Pruned::Kept(path, why) => writeln!(out, "kept {}: {why}", path.display())?,
        }
    }
    Ok(Exit::Ok)
}
