/*!
From measurements to the rows of the record.
*/

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::record::{
    ExpertRow, FileRecord, FindingRecord, GlobalRow, ModelRecord, Number, Sums, TensorRow,
    TypeRecord,
};
use crate::codec::Class;
use crate::gate;
use crate::gate::PLAIN_CAST;
use crate::measure::twin::Twin;
use crate::measure::{Finding, FindingKind, Measured, experts};
use crate::metrics::{DB_PER_BIT, Locals, Metrics, Moments, rate_distortion_gap, verdict};
use crate::model::{Model, ModelFinding, PlaneFault, Tensor};
use crate::spec::{Gate, Resolver, Setting};

/// The row of one matched tensor; `twin` is what is to be expected of it, if that is known.
pub fn tensor_row(
    reference: &Tensor,
    quantized: &Tensor,
    measured: &Measured,
    twin: Option<&Twin>,
) -> TensorRow {
    let mut row = TensorRow {
        tensor: reference.name.clone(),
        qtype: quantized.qtype().to_owned(),
        numel: reference.numel(),
        rmse: Number(f64::NAN),
        cosine: Number(f64::NAN),
        max_abs: Number(f64::NAN),
        verdict: verdict(f64::NAN).to_owned(),
        reference_qtype: reference.qtype().to_owned(),
        shape: reference.shape.clone(),
        sqnr_db: Number(f64::NAN),
        expected_sqnr_db: Number(twin.map_or(f64::NAN, |twin| twin.sample.twin.sqnr_db())),
        least_cosine: Number(gate::least_cosine(twin)),
        recovered: twin.and_then(|twin| Some(twin.recovered.as_ref()?.what.clone())),
        worst_expert: None,
        rel_rmse: Number(f64::NAN),
        gain: Number(f64::NAN),
        mean_error: Number(f64::NAN),
        bits_per_weight: Number(quantized.bits_per_weight().unwrap_or(f64::NAN)),
        rd_gap_db: Number(f64::NAN),
        wasted_bits: Number(f64::NAN),
        stored_bytes: quantized.stored_bytes(),
        nonfinite: 0,
        made_of: None,
        first_difference: None,
        error: None,
        sums: None,
    };
    match measured {
        Measured::Values { sums: moments, locals } => {
            row.nonfinite = moments.nonfinite();
            row.worst_expert = worst_expert(quantized, locals);
            row.sums = Some(Sums::from(moments));
            row.set_metrics(Metrics::from_moments(moments).unwrap_or(Metrics::PERFECT));
        }
        Measured::Exact { first_difference: None } => row.set_metrics(Metrics::PERFECT),
        Measured::Exact { first_difference } => row.first_difference = *first_difference,
        Measured::Unreadable { reason } => row.error = Some(reason.clone()),
    }
    row
}

/// The matrix of a stack that fares worst.
fn worst_expert(quantized: &Tensor, locals: &Locals) -> Option<ExpertRow> {
    let &[_, height, width] = &quantized.shape[..] else { return None };
    let worst = locals.slices.worst.filter(|it| it.ee > 0.0 && locals.row_len == width)?;
    let elements = worst.index * height * width..(worst.index + 1) * height * width;
    let units = quantized.units().into_iter().filter(|unit| elements.contains(&unit.start));
    let (mut names, mut qtypes) = (Vec::new(), Vec::new());
    for unit in units {
        names.push(experts::name(&unit));
        qtypes.push(unit.source.qtype().to_owned());
    }
    if qtypes.iter().all(|ty| ty == quantized.qtype()) {
        qtypes.clear();
    }
    names.dedup();
    let (cosine, sqnr_db) = (Number(worst.cosine()), Number(worst.sqnr_db()));
    Some(ExpertRow { index: worst.index, names, qtypes, cosine, sqnr_db })
}

impl TensorRow {
    fn set_metrics(&mut self, metrics: Metrics) {
        self.rmse = Number(metrics.rmse);
        self.cosine = Number(metrics.cosine);
        self.max_abs = Number(metrics.max_abs);
        self.sqnr_db = Number(metrics.sqnr_db);
        self.rel_rmse = Number(metrics.rel_rmse);
        self.gain = Number(metrics.gain);
        self.mean_error = Number(metrics.mean_error);
        let gap = rate_distortion_gap(self.bits_per_weight.0, metrics.sqnr_db);
        self.rd_gap_db = Number(gap);
        self.wasted_bits = Number(gap / DB_PER_BIT);
        verdict(metrics.cosine).clone_into(&mut self.verdict);
    }
}

/// Computes a row's metrics again, from its sums.
pub fn from_sums(row: &mut TensorRow) {
    if row.sums.is_some() {
        let metrics = row.metrics().unwrap_or(Metrics::PERFECT);
        row.set_metrics(metrics);
    }
}

/// Sorts rows as the contract asks: by RMSE, descending; a row without one is the worst of all.
pub fn sort_rows(rows: &mut [TensorRow]) {
    // No two have one name: the order is the same as that of a stable sort, which takes memory.
    rows.sort_unstable_by(|a, b| {
        b.rmse.0.abs().total_cmp(&a.rmse.0.abs()).then_with(|| a.tensor.cmp(&b.tensor))
    });
}

/// All float rows as one vector, folded in the order of their names; `None` if there is none.
pub fn global_row(rows: &[TensorRow]) -> Option<GlobalRow> {
    let mut parts: Vec<(&str, Moments)> = rows
        .iter()
        .filter_map(|row| Some((row.tensor.as_str(), Moments::from(row.sums.as_ref()?))))
        .collect();
    parts.sort_by(|a, b| a.0.cmp(b.0));
    let mut total = Moments::default();
    for (_, part) in &parts {
        total.add(part);
    }
    let metrics = Metrics::from_moments(&total)?;
    let bytes: u64 = rows.iter().filter(|it| it.sums.is_some()).map(|it| it.stored_bytes).sum();
    let bits = bytes as f64 * 8.0 / total.n as f64;
    let gap = rate_distortion_gap(bits, metrics.sqnr_db);
    Some(GlobalRow {
        tensors: parts.len() as u64,
        numel: total.n,
        rmse: Number(metrics.rmse),
        cosine: Number(metrics.cosine),
        max_abs: Number(metrics.max_abs),
        sqnr_db: Number(metrics.sqnr_db),
        rel_rmse: Number(metrics.rel_rmse),
        gain: Number(metrics.gain),
        mean_error: Number(metrics.mean_error),
        bits_per_weight: Number(bits),
        rd_gap_db: Number(gap),
        wasted_bits: Number(gap / DB_PER_BIT),
        nonfinite: total.nonfinite(),
        sums: Sums::from(&total),
    })
}

/// The facts of a model.
pub fn model_record(model: &Model, path: &str) -> ModelRecord {
    let weights = model.tensors.iter().filter(|tensor| tensor.class() != Class::Exact);
    let (elements, bytes) = weights.fold((0u64, 0u64), |(elements, bytes), tensor| {
        (elements.saturating_add(tensor.numel()), bytes.saturating_add(tensor.stored_bytes()))
    });
    let name = model.metadata.iter().find(|(key, _)| key == "general.name");
    let name = name.and_then(|(_, name)| name.as_str()).filter(|name| !name.trim().is_empty());
    ModelRecord {
        path: path.to_owned(),
        name: name.map(str::to_owned),
        format: model.format.name().to_owned(),
        files: model
            .files
            .iter()
            .map(|file| FileRecord {
                name: file
                    .path
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default(),
                size: file.len,
                header_sha256: file.header_sha256.clone(),
                revision: file.revision.clone(),
            })
            .collect(),
        tensors: model.tensors.len() as u64,
        parameters: model.tensors.iter().fold(0u64, |n, tensor| n.saturating_add(tensor.numel())),
        bytes: model.tensors.iter().fold(0u64, |n, tensor| n.saturating_add(tensor.stored_bytes())),
        bits_per_weight: Number(bytes as f64 * 8.0 / elements as f64),
        types: type_records(model),
    }
}

/// What a model holds of each type, the most bytes first.
fn type_records(model: &Model) -> Vec<TypeRecord> {
    let mut types: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for tensor in &model.tensors {
        let entry = types.entry(tensor.qtype()).or_default();
        *entry = (entry.0 + 1, entry.1.saturating_add(tensor.stored_bytes()));
    }
    let record = |(qtype, (tensors, bytes)): (&str, _)| {
        let qtype = qtype.to_owned();
        TypeRecord { qtype, tensors, bytes }
    };
    let mut types: Vec<TypeRecord> = types.into_iter().map(record).collect();
    types.sort_by_key(|entry| Reverse(entry.bytes));
    types
}

/// Planes of quantized weights that are missing, superfluous or misshapen; allowed if the spec
/// switched their gate off, or says that the weight has none.
pub fn plane_findings(quantized: &Model, resolver: &Resolver) -> Vec<FindingRecord> {
    let record = |finding: &ModelFinding| {
        let tensor = resolver.rename(&finding.tensor);
        let off = resolver.tensor(&tensor).integrity(Gate::Companion);
        let plain = resolver.tensor(&tensor).scheme().is_some_and(|it| it.is == PLAIN_CAST);
        let needless = plain && finding.fault == PlaneFault::Missing;
        FindingRecord {
            kind: FindingKind::Companion.name().to_owned(),
            message: format!("{} {}", finding.plane, finding.message),
            allowed: needless || matches!(off, Some(Setting::Off { .. })),
            tensor,
        }
    };
    quantized.findings.iter().map(record).collect()
}

/// A structure finding as the record holds it.
pub fn finding_record(finding: &Finding) -> FindingRecord {
    FindingRecord {
        kind: finding.kind.name().to_owned(),
        tensor: finding.tensor.clone(),
        message: finding.message.clone(),
        allowed: finding.allowed,
    }
}
