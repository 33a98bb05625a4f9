/*!
A pair against its snapshot: asks the baseline room, and puts its answer into the record.
*/

use std::path::Path;

use super::id;
use super::judge::{conclude, error, fact};
use super::plan::{PlannedPair, PlannedTest};
use super::record::{
    BaselineRecord, BaselineStatus, GlobalRow, Movement, MovementKind, Number, PairRecord,
    TensorRow, TestKind, TestRecord,
};
use crate::baseline::{
    BaselineError, Comparison, Decision, Entry, Environment, Global, Header, Measurement,
    MetricMove, Move, Policy, Request, Status, Store, Tolerance, Tolerances, Update, Values,
};
use crate::gate;
use crate::metrics::{Metric, Metrics};

/// Where the snapshots are and what may be done to them.
#[derive(Debug)]
pub struct Baselines {
    store: Store,
    /// Why `ratchet` may be overruled, if it may.
    allow_worse: Option<String>,
    /// Nothing is written, and the environment lets nothing pass.
    read_only: bool,
}

impl Baselines {
    /// Snapshots in `snapshots`, below the working directory unless insta's environment says
    /// otherwise; in CI, pending files go below `out`. A shard leaves the snapshots themselves to
    /// `qualm merge`, whatever `INSTA_UPDATE` says.
    pub fn new(
        snapshots: &Path,
        out: &Path,
        in_shard: bool,
        allow_worse: Option<String>,
    ) -> Result<Self, BaselineError> {
        let mut environment = Environment::from_process()?;
        if in_shard && environment.update != Update::No {
            environment.update = Update::New;
        }
        let store = Store::new(Path::new("."), snapshots, out, environment);
        Ok(Self { store, allow_worse, read_only: false })
    }

    /// The same, only to be compared with.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }
}

/// Judges the `(baseline)` test of a pair, and marks the checks of `tests` with how their values
/// moved.
pub fn judge(
    baselines: &Baselines,
    planned: &PlannedPair,
    test: &PlannedTest,
    record: &mut PairRecord,
    tests: &mut [TestRecord],
) -> TestRecord {
    if let Some(row) = record.tensors.iter().find(|row| row.error.is_some()) {
        let reason = format!("{} could not be read; the baseline was left alone", row.tensor);
        return error(test, &reason, None);
    }
    let tolerance = &planned.pair.baseline;
    let policy = Policy {
        tolerances: Tolerances::all(Tolerance { abs: tolerance.abs, rel: tolerance.rel }),
        ratchet: tolerance.ratchet,
        allow_worse: baselines.allow_worse.clone(),
    };
    let request = Request {
        spec: &planned.spec.name,
        pair: &planned.pair.name,
        header: header(planned, record),
        measurement: measurement(record),
        policy: &policy,
    };
    let store = &baselines.store;
    let decision = if baselines.read_only { store.look(&request) } else { store.check(request) };
    match decision {
        Ok(decision) => {
            record.baseline = baseline_record(&decision);
            if let Some(comparison) = &decision.comparison {
                mark(comparison, planned, tests);
            }
            conclude(test, vec![fact("baseline", decision.action.pass, message(&decision))])
        }
        Err(problem) => error(test, &problem.to_string(), None),
    }
}

fn header(planned: &PlannedPair, record: &PairRecord) -> Header {
    let source = planned.spec.path.strip_prefix(".").unwrap_or(&planned.spec.path);
    let mut info = vec![("spec_sha256".to_owned(), planned.spec.sha256.clone())];
    for (role, model) in [("reference", &record.reference), ("quantized", &record.quantized)] {
        let headers = model.iter().flat_map(|model| &model.files);
        let digests: Vec<&str> = headers.map(|file| file.header_sha256.as_str()).collect();
        info.push((format!("{role}_header_sha256"), digests.join(" ")));
    }
    Header {
        source: source.to_string_lossy().replace('\\', "/"),
        assertion_line: Some(planned.pair.at.line),
        description: Some(match &record.description {
            Some(description) => format!("{}: {description}", planned.id),
            None => planned.id.clone(),
        }),
        info,
        ..Header::default()
    }
}

fn measurement(record: &PairRecord) -> Measurement {
    let tensors = record.tensors.iter().map(|row| (row.tensor.clone(), entry(row))).collect();
    Measurement { global: record.global.as_ref().map(global), tensors }
}

fn entry(row: &TensorRow) -> Entry {
    Entry {
        qtype: row.qtype.clone(),
        shape: row.shape.clone(),
        numel: row.numel,
        values: row.metrics().map(values).unwrap_or_default(),
        bits_per_weight: row.bits_per_weight.0,
        nonfinite: row.nonfinite,
    }
}

fn global(row: &GlobalRow) -> Global {
    Global {
        tensors: row.tensors,
        numel: row.numel,
        values: row.metrics().map(values).unwrap_or_default(),
        nonfinite: row.nonfinite,
    }
}

fn values(metrics: Metrics) -> Values {
    Metric::ALL.into_iter().fold(Values::default(), |values, metric| {
        values.with(metric, Some(gate::value_of(&metrics, metric)))
    })
}

fn baseline_record(decision: &Decision) -> BaselineRecord {
    BaselineRecord {
        status: match decision.status {
            Status::New => BaselineStatus::New,
            Status::Held => BaselineStatus::Held,
            Status::Better => BaselineStatus::Better,
            Status::Changed => BaselineStatus::Changed,
        },
        path: Some(decision.path.to_string_lossy().into_owned()),
        pending: decision.pending.as_ref().map(|path| path.to_string_lossy().into_owned()),
        sqnr_db: decision
            .comparison
            .as_ref()
            .and_then(|it| movement(it.global.as_ref()?.movement(Metric::SqnrDb)?)),
        changes: decision.comparison.as_ref().map(Comparison::changes).unwrap_or_default(),
    }
}

/// One line: the state, the first change, and what to do.
fn message(decision: &Decision) -> String {
    let path = decision.path.display();
    let changes = decision.comparison.as_ref().map(Comparison::changes).unwrap_or_default();
    let first = match changes.as_slice() {
        [] => String::new(),
        [only] => format!(": {only}"),
        [first, rest @ ..] => format!(": {first} (and {} more)", rest.len()),
    };
    let next = match &decision.pending {
        Some(pending) => format!("; {} is to be reviewed (`qualm review`)", pending.display()),
        None => String::new(),
    };
    match decision.status {
        Status::New => format!("no baseline yet: {path} does not exist{next}"),
        Status::Held => format!("{path} holds"),
        Status::Better => format!("better than {path}{first}"),
        Status::Changed => format!("worse than, or other than {path}{first}{next}"),
    }
}

/// Marks each metric's checks with how the metric moved.
fn mark(comparison: &Comparison, planned: &PlannedPair, tests: &mut [TestRecord]) {
    for test in tests {
        let moves = match test.kind {
            TestKind::Tensor => {
                let tensor = id::tensor(&planned.id, test.kind, &test.id);
                tensor.and_then(|name| comparison.tensor(name))
            }
            TestKind::Global => comparison.global.as_ref(),
            TestKind::Structure | TestKind::Baseline => None,
        };
        let Some(moves) = moves else { continue };
        for check in &mut test.checks {
            let metric = Metric::from_name(&check.check);
            check.movement = metric.and_then(|metric| movement(moves.movement(metric)?));
        }
    }
}

fn movement(moved: &MetricMove) -> Option<Movement> {
    Some(Movement {
        old: Number(moved.old?),
        new: Number(moved.new?),
        kind: match moved.kind {
            Move::Same => MovementKind::Same,
            Move::Within => MovementKind::Within,
            Move::Better => MovementKind::Better,
            Move::Worse => MovementKind::Worse,
        },
    })
}
