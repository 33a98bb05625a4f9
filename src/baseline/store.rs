/*!
Where baselines live, and the state machine that decides what is written.

| state | `always`, `force` | `new`, `auto` | `unseen` | `no` |
|---|---|---|---|---|
| new: no snapshot yet | snapshot | pending | snapshot | nothing |
| held: same or within the tolerance | nothing | nothing | nothing | nothing |
| better | snapshot | nothing, pending under `ratchet` | as `new` | nothing |
| changed | snapshot, pending if `ratchet` forbids it | pending | pending | nothing |

- A pending file lies beside its snapshot as `.snap.new`; with `INSTA_PENDING_DIR` below that
  directory, at the snapshot's path within the workspace.
- In CI nothing is written into the source tree, whatever `INSTA_UPDATE` says: what the table calls
  snapshot becomes pending, and pending files lie below `OUT/pending`.
- A measurement that holds, or is better without being written, removes the pending file of an
  earlier run, and so does writing the snapshot: a pending file never contradicts what was last seen.
  What CI left below `OUT/pending` goes as well once a run outside CI has its own say.
- A snapshot that holds is never rewritten, so that tolerances do not add up over many runs.
- Held and better pass, and so does a snapshot that was written; the rest fails unless
  `INSTA_FORCE_PASS=1`.
*/

use std::path::{Component, Path, PathBuf};

use super::{
    BaselineError, Comparison, Environment, Header, Measurement, SCHEMA, Snapshot, Tolerances,
    Trend, Update, compare, file, file_stem,
};
use crate::disk;

/// State of a pair's snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// There is none yet.
    New,
    /// Every number is the same or within its tolerance.
    Held,
    /// Some numbers are better than the tolerance allows for, none is worse.
    Better,
    /// A number is worse, or tensors came, went, or changed their type or shape.
    Changed,
}

/// What a spec and the command line say about a baseline.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// By how much numbers may move.
    pub tolerances: Tolerances,
    /// The baseline may only improve.
    pub ratchet: bool,
    /// Why it may get worse all the same (`--allow-worse --reason TEXT`).
    pub allow_worse: Option<String>,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Nothing.
    Nothing,
    /// The pending file.
    Pending,
    /// The snapshot itself.
    Snapshot,
}

/// What is done about a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// What is written.
    pub write: Write,
    /// Whether the pending file of an earlier run is removed.
    pub clear: bool,
    /// Whether the baseline's test passes.
    pub pass: bool,
}

/// The table of the module's documentation.
///
/// `forbidden` says that `ratchet` forbids to write this change into the snapshot.
pub fn act(status: Status, environment: &Environment, ratchet: bool, forbidden: bool) -> Action {
    let update = environment.update;
    let in_place = matches!(update, Update::Always | Update::Force);
    let wanted = match status {
        Status::Held => Write::Nothing,
        _ if update == Update::No => Write::Nothing,
        Status::New if in_place || update == Update::Unseen => Write::Snapshot,
        Status::Better if in_place => Write::Snapshot,
        Status::Better if !ratchet => Write::Nothing,
        Status::Changed if in_place && !forbidden => Write::Snapshot,
        _ => Write::Pending,
    };
    let write = match wanted {
        Write::Snapshot if environment.ci => Write::Pending,
        other => other,
    };
    let passes = matches!(status, Status::Held | Status::Better);
    Action {
        write,
        clear: write == Write::Snapshot || (passes && write == Write::Nothing),
        pass: passes || write == Write::Snapshot || environment.force_pass,
    }
}

/// The directories of a suite's baselines.
#[derive(Clone, Debug)]
pub struct Store {
    workspace: PathBuf,
    snapshots: PathBuf,
    out: PathBuf,
    environment: Environment,
}

/// One measured pair.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The spec's path below the suite root without `.toml`.
    pub spec: &'a str,
    /// The pair's name.
    pub pair: &'a str,
    /// `source` relative to the workspace, description, line and provenance; `schema` and what the
    /// policy has to say are added to `info`.
    pub header: Header,
    /// What was measured.
    pub measurement: Measurement,
    /// What the spec says about it.
    pub policy: &'a Policy,
}

/// What was found and done.
#[derive(Clone, Debug)]
pub struct Decision {
    /// State of the snapshot before anything was written.
    pub status: Status,
    /// What was done.
    pub action: Action,
    /// The snapshot's path.
    pub path: PathBuf,
    /// Path of the pending file, if one was written.
    pub pending: Option<PathBuf>,
    /// Against the snapshot, if there was one.
    pub comparison: Option<Comparison>,
}

impl Store {
    /// Baselines in `snapshots`, a directory inside `workspace`; `out` is the run's output
    /// directory. `INSTA_WORKSPACE_ROOT` takes the place of `workspace`.
    pub fn new(workspace: &Path, snapshots: &Path, out: &Path, environment: Environment) -> Self {
        let workspace = environment.workspace_root.as_deref().unwrap_or(workspace).to_path_buf();
        Self { workspace, snapshots: snapshots.into(), out: out.into(), environment }
    }

    /// Path of a pair's snapshot.
    pub fn path(&self, spec: &str, pair: &str) -> PathBuf {
        self.snapshots.join(format!("{}.snap", file_stem(spec, pair)))
    }

    /// Path of the pending file of a snapshot, as the environment has it.
    pub fn pending_path(&self, snapshot: &Path) -> Result<PathBuf, BaselineError> {
        let below = match &self.environment.pending_dir {
            Some(directory) => directory.clone(),
            None if self.environment.ci => self.out.join("pending"),
            None => return Ok(snapshot.with_extension("snap.new")),
        };
        let within = relative_to(snapshot, &self.workspace).ok_or_else(|| {
            BaselineError::Outside { path: snapshot.into(), workspace: self.workspace.clone() }
        })?;
        Ok(below.join(within).with_extension("snap.new"))
    }

    /// Compares a measurement with its snapshot, and writes nothing: what does not hold fails,
    /// whatever the environment says.
    pub fn look(&self, request: &Request<'_>) -> Result<Decision, BaselineError> {
        let path = self.path(request.spec, request.pair);
        let (status, comparison) = status(&path, request)?;
        let pass = matches!(status, Status::Held | Status::Better);
        let action = Action { write: Write::Nothing, clear: false, pass };
        Ok(Decision { status, action, path, pending: None, comparison })
    }

    /// Compares a measurement with its snapshot, and writes what the state machine says.
    ///
    /// A snapshot that cannot be read is an error: nothing is written then.
    pub fn check(&self, request: Request<'_>) -> Result<Decision, BaselineError> {
        let path = self.path(request.spec, request.pair);
        self.reference(&path)?;
        let policy = request.policy;
        let (status, comparison) = status(&path, &request)?;
        let forbidden = policy.ratchet
            && policy.allow_worse.is_none()
            && comparison.as_ref().is_some_and(|c| !c.regressions().is_empty());
        let action = act(status, &self.environment, policy.ratchet, forbidden);
        let pending = self.pending_path(&path)?;
        let mut decision = Decision { status, action, path, pending: None, comparison };
        let mut snapshot = Snapshot { header: header(&request), measurement: request.measurement };
        match action.write {
            Write::Nothing => {}
            Write::Pending => {
                snapshot.write(&pending)?;
                decision.pending = Some(pending.clone());
            }
            Write::Snapshot => {
                // As insta: a line number is for reviewers and would go stale.
                snapshot.header.assertion_line = None;
                snapshot.write(&decision.path)?;
            }
        }
        if action.clear {
            file::remove_if_present(&pending)?;
        }
        if action.clear || action.write != Write::Nothing {
            self.clear_output(&decision.path, &pending)?;
        }
        Ok(decision)
    }

    /// Removes what an earlier run in CI left below the output directory, if pending files go
    /// elsewhere now.
    fn clear_output(&self, snapshot: &Path, pending: &Path) -> Result<(), BaselineError> {
        let Some(within) = relative_to(snapshot, &self.workspace) else { return Ok(()) };
        let path = self.out.join("pending").join(within).with_extension("snap.new");
        if path != pending {
            file::remove_if_present(&path)?;
        }
        Ok(())
    }

    /// Tells cargo-insta that a snapshot is in use.
    fn reference(&self, snapshot: &Path) -> Result<(), BaselineError> {
        let Some(path) = &self.environment.references_file else { return Ok(()) };
        // cargo-insta looks the lines up by the absolute paths that its walk gives.
        let absolute = std::path::absolute(snapshot).unwrap_or_else(|_| snapshot.to_path_buf());
        // One write of one short line: processes that share the file do not mix their lines.
        let line = format!("{}\n", absolute.display());
        disk::append(path, line.as_bytes()).map_err(BaselineError::io("write", path))
    }
}

/// Compares a measurement with the snapshot at a path.
fn status(
    path: &Path,
    request: &Request<'_>,
) -> Result<(Status, Option<Comparison>), BaselineError> {
    let tolerances = &request.policy.tolerances;
    let comparison = Snapshot::read(path)?
        .map(|old| compare(&old.measurement, &request.measurement, tolerances));
    let status = match comparison.as_ref().map(Comparison::trend) {
        None => Status::New,
        Some(Trend::Held) => Status::Held,
        Some(Trend::Better) => Status::Better,
        Some(Trend::Changed) => Status::Changed,
    };
    Ok((status, comparison))
}

/// The header as it is written: the request's, the format, and what the policy has to say.
fn header(request: &Request<'_>) -> Header {
    let mut header = request.header.clone();
    let mut info = vec![("schema".to_owned(), SCHEMA.to_owned())];
    info.append(&mut header.info);
    header.info = info;
    // `accept` and `review` see only files: this tells them what to call worse, and whether to
    // refuse it.
    header.set_info("tolerance", request.policy.tolerances.record());
    if request.policy.ratchet {
        header.set_info("ratchet", "true");
    }
    if let Some(reason) = &request.policy.allow_worse {
        header.set_info("accepted_reason", reason);
    }
    header
}

/// The path of a file below a directory, `None` if it does not lie below it.
pub(super) fn relative_to(path: &Path, directory: &Path) -> Option<PathBuf> {
    let plain = |p: &Path| p.components().all(|c| matches!(c, Component::Normal(_)));
    if let Ok(within) = path.strip_prefix(directory)
        && plain(within)
    {
        return Some(within.to_path_buf());
    }
    // Not literally below it, but perhaps by another way: symbolic links, `.` and `..`.
    let directory = directory.canonicalize().ok()?;
    let mut missing = PathBuf::new();
    let mut known = std::path::absolute(path).ok()?;
    // The file, and the directories that will hold it, need not exist yet.
    loop {
        if let Ok(found) = known.canonicalize() {
            let full = if missing.as_os_str().is_empty() { found } else { found.join(&missing) };
            return full.strip_prefix(&directory).ok().filter(|p| plain(p)).map(Path::to_path_buf);
        }
        let name = PathBuf::from(known.file_name()?);
        missing = if missing.as_os_str().is_empty() { name } else { name.join(&missing) };
        if !known.pop() {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::baseline::sample::Checkout;
    use crate::baseline::{Entry, Tolerance, Values};
    use crate::metrics::Metric;

    /// One row a state and mode: what is written outside CI, what in CI.
    #[test]
    fn the_table() {
        use Status::{Better, Changed, Held, New};
        use Update::{Always, Auto, Force, No, Unseen};
        use Write::{Nothing as N, Pending as P, Snapshot as S};
        let new_mode = Update::New;
        // status, ratchet, forbidden, then outside CI / in CI for
        // always, force, auto, new, unseen, no
        let table = [
            (New, false, false, [(S, P), (S, P), (P, P), (P, P), (S, P), (N, N)]),
            (New, true, false, [(S, P), (S, P), (P, P), (P, P), (S, P), (N, N)]),
            (Held, false, false, [(N, N), (N, N), (N, N), (N, N), (N, N), (N, N)]),
            (Held, true, false, [(N, N), (N, N), (N, N), (N, N), (N, N), (N, N)]),
            (Better, false, false, [(S, P), (S, P), (N, N), (N, N), (N, N), (N, N)]),
            (Better, true, false, [(S, P), (S, P), (P, P), (P, P), (P, P), (N, N)]),
            (Changed, false, false, [(S, P), (S, P), (P, P), (P, P), (P, P), (N, N)]),
            (Changed, true, false, [(S, P), (S, P), (P, P), (P, P), (P, P), (N, N)]),
            (Changed, true, true, [(P, P), (P, P), (P, P), (P, P), (P, P), (N, N)]),
        ];
        for (status, ratchet, forbidden, row) in table {
            for (update, (outside, inside)) in
                [Always, Force, Auto, new_mode, Unseen, No].into_iter().zip(row)
            {
                for (ci, write) in [(false, outside), (true, inside)] {
                    for force_pass in [false, true] {
                        let environment =
                            Environment { update, ci, force_pass, ..Environment::default() };
                        let found = act(status, &environment, ratchet, forbidden);
                        let case = format!("{status:?} {update:?} ci={ci} ratchet={ratchet}");
                        assert_eq!(found.write, write, "{case}");
                        let passes = matches!(status, Held | Better) || write == S || force_pass;
                        assert_eq!(found.pass, passes, "{case}");
                        let clear = write == S || (write == N && matches!(status, Held | Better));
                        assert_eq!(found.clear, clear, "{case}");
                        assert!(!(ci && found.write == S), "nothing in the source tree: {case}");
                    }
                }
            }
        }
    }

    struct Place {
        checkout: Checkout,
        environment: Environment,
        policy: Policy,
    }

    impl Place {
        fn new(update: Update, ci: bool) -> Self {
            let tolerances = Tolerances::all(Tolerance { abs: 1e-3, rel: 0.0 });
            Self {
                checkout: Checkout::new(),
                environment: Environment { update, ci, ..Environment::default() },
                policy: Policy { tolerances, ..Policy::default() },
            }
        }

        fn file(&self, name: &str) -> PathBuf {
            self.checkout.path(name)
        }

        fn check(&self, cosine: f64) -> Result<Decision, BaselineError> {
            let root = &self.file("");
            let environment = self.environment.clone();
            let store = Store::new(root, &root.join("snapshots"), &root.join("out"), environment);
            let values = Values::default().with(Metric::Cosine, Some(cosine));
            let entry = Entry { qtype: "q8_0".into(), values, ..Entry::default() };
            let measurement =
                Measurement { global: None, tensors: [("t".to_owned(), entry)].into() };
            store.check(Request {
                spec: "tiny",
                pair: "q8",
                header: Header {
                    source: "specs/tiny.toml".into(),
                    assertion_line: Some(3),
                    info: vec![("harness".into(), "0.1.0".into())],
                    ..Header::default()
                },
                measurement,
                policy: &self.policy,
            })
        }

        fn files(&self) -> Vec<String> {
            self.checkout.files()
        }
    }

    const SNAP: &str = "snapshots/tiny__q8.snap";
    const NEW: &str = "snapshots/tiny__q8.snap.new";

    #[test]
    fn a_life_of_a_baseline() {
        let mut place = Place::new(Update::Auto, false);
        let first = place.check(0.9).unwrap();
        assert_eq!((first.status, first.action.pass), (Status::New, false));
        assert_eq!(first.pending.as_deref(), Some(place.file(NEW).as_path()));
        assert_eq!(place.files(), [NEW]);
        let text = fs::read_to_string(place.file(NEW)).unwrap();
        assert!(text.starts_with("---\nsource: specs/tiny.toml\nassertion_line: 3\n"), "{text}");

        place.environment.update = Update::Always;
        let written = place.check(0.9).unwrap();
        assert!(written.action.pass && written.pending.is_none());
        assert_eq!(place.files(), [SNAP], "no stale pending file");
        let bytes = fs::read(place.file(SNAP)).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("assertion_line"));

        for update in
            [Update::Auto, Update::Always, Update::New, Update::Unseen, Update::No, Update::Force]
        {
            place.environment.update = update;
            fs::write(place.file(NEW), "stale").unwrap();
            let held = place.check(0.9005).unwrap();
            assert_eq!((held.status, held.action.pass), (Status::Held, true));
            assert_eq!(fs::read(place.file(SNAP)).unwrap(), bytes, "within never changes bytes");
            assert_eq!(place.files(), [SNAP], "a stale pending file goes");
        }

        place.environment.update = Update::Auto;
        let better = place.check(0.95).unwrap();
        assert_eq!((better.status, better.action.pass), (Status::Better, true));
        assert_eq!(place.files(), [SNAP]);
        let worse = place.check(0.85).unwrap();
        assert_eq!((worse.status, worse.action.pass), (Status::Changed, false));
        assert_eq!(worse.comparison.unwrap().changes(), ["t: cosine 0.9 -> 0.85 (worse)"]);
        assert_eq!(place.files(), [SNAP, NEW]);
        assert_eq!(fs::read(place.file(SNAP)).unwrap(), bytes);
        place.check(0.9).unwrap();
        assert_eq!(place.files(), [SNAP], "held again: nothing pending");
    }

    #[test]
    fn ci_leaves_the_source_tree_alone() {
        for update in [Update::Auto, Update::Always, Update::New, Update::Unseen, Update::Force] {
            let mut place = Place::new(Update::Always, false);
            place.check(0.9).unwrap();
            fs::write(place.file(NEW), "somebody's").unwrap();
            let before = fs::read(place.file(SNAP)).unwrap();
            place.environment = Environment { update, ci: true, ..Environment::default() };
            let out = "out/pending/snapshots/tiny__q8.snap.new";
            let decision = place.check(0.8).unwrap();
            assert_eq!(decision.pending, Some(place.file(out)), "{update:?}");
            assert!(!decision.action.pass);
            assert_eq!(place.files(), [out, SNAP, NEW]);
            place.check(0.9).unwrap();
            assert_eq!(place.files(), [SNAP, NEW], "its own pending file goes, no other");
            assert_eq!(fs::read(place.file(SNAP)).unwrap(), before);
            assert_eq!(fs::read(place.file(NEW)).unwrap(), b"somebody's");
            // Outside CI again: what it left is out of date, whatever comes now.
            place.check(0.8).unwrap();
            place.environment = Environment::default();
            place.check(0.8).unwrap();
            assert_eq!(place.files(), [SNAP, NEW]);
        }
    }

    #[test]
    fn a_directory_for_pending_files() {
        let mut place = Place::new(Update::New, false);
        place.environment.pending_dir = Some(place.file("shard-1"));
        for ci in [false, true] {
            place.environment.ci = ci;
            place.check(0.9).unwrap();
            assert_eq!(place.files(), ["shard-1/snapshots/tiny__q8.snap.new"]);
        }
        place.environment.workspace_root = Some(place.file("elsewhere"));
        let error = place.check(0.9).expect_err("not below the workspace").to_string();
        assert!(error.contains("INSTA_WORKSPACE_ROOT"), "{error}");
    }

    #[test]
    fn references_are_appended() {
        let mut place = Place::new(Update::No, false);
        place.environment.references_file = Some(place.file("refs"));
        place.check(0.9).unwrap();
        place.check(0.9).unwrap();
        let line = format!("{}\n", place.file(SNAP).display());
        assert_eq!(fs::read_to_string(place.file("refs")).unwrap(), line.repeat(2));
    }

    #[test]
    fn a_ratchet_only_tightens() {
        let mut place = Place::new(Update::Always, false);
        place.policy.ratchet = true;
        place.check(0.9).unwrap();
        let worse = place.check(0.8).unwrap();
        assert!(!worse.action.pass && worse.pending.is_some(), "not even with INSTA_UPDATE=always");
        place.policy.allow_worse = Some("smaller blocks: issue 7".into());
        assert!(place.check(0.8).unwrap().action.pass);
        let text = fs::read_to_string(place.file(SNAP)).unwrap();
        assert!(text.contains("  accepted_reason: \"smaller blocks: issue 7\"\n"), "{text}");
        assert!(text.contains("  ratchet: \"true\"\n"), "{text}");
        place.policy.allow_worse = None;
        place.environment.update = Update::Auto;
        let better = place.check(0.95).unwrap();
        assert!(better.action.pass && better.pending.is_some(), "offered for acceptance");
    }

    #[test]
    fn a_broken_snapshot_is_no_missing_one() {
        for update in [Update::Auto, Update::Always, Update::Unseen, Update::Force] {
            let place = Place::new(update, false);
            fs::create_dir_all(place.file("snapshots")).unwrap();
            fs::write(place.file(SNAP), "<<<<<<< HEAD\n").unwrap();
            place.check(0.9).expect_err("a conflict");
            assert_eq!(place.files(), [SNAP], "nothing is written over it");
        }
    }
}
