/*!
From facts to the outcome of each test of a pair.
*/

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::experts::{Experts, cause_in, checks_of_each, worst_of};
use super::obligations::PARITY_CHECK;
use super::plan::PlannedTest;
use super::record::{Examined, GlobalRow, Number, TensorRow, TestKind, TestOutcome, TestRecord};
use super::rows::plane_findings;
use crate::codec::Class;
use crate::diagnose::{self, Cause, Diagnosis};
use crate::gate::{self, CheckOutcome, CheckRecord, Coverage, JUDGED, Level, Source};
use crate::measure::printed_stats::PrintedStats;
use crate::measure::twin::Expectation;
use crate::measure::{Finding, FindingKind, Matched, Measured, Pairing};
use crate::metrics::{Locals, Metric, Metrics, Moments};
use crate::model::{Format, Model, Storage, Tensor};
use crate::shown::unsigned_zeros;
use crate::spec::{Diagnostic, Effective, Gate, Judgement, Resolver, Setting, Severity};

/// Check name of what is wrong with the spec itself, as the models show.
pub const SPEC_CHECK: &str = "spec";

/// Check name of what the program itself broke down over.
pub const INTERNAL_CHECK: &str = "internal";

/// Tensors of a pair whose values are searched for a cause: where so many fail, one cause is behind
/// most of them.
pub const MOST_EXAMINED: usize = 256;

/// Says of how many failing tensors the values were not searched for a cause, if of any.
pub fn unexamined(failing: usize) -> Option<String> {
    let left = failing.checked_sub(MOST_EXAMINED).filter(|left| *left > 0)?;
    Some(format!(
        "{failing} tensors are damaged; causes were looked for in the values of the first \
         {MOST_EXAMINED}, not of the other {left}"
    ))
}

/// How closely a round trip must agree with `llama-quantize-stats`, which prints eight digits.
const PARITY: f64 = 1e-5;

/// What is known of a pair when its tests are judged.
pub struct Facts<'a> {
    pub resolver: &'a Resolver<'a>,
    /// Globs of the spec that match nothing.
    pub unmatched: &'a [Diagnostic],
    pub reference: &'a Model,
    pub quantized: &'a Model,
    /// Every tensor that is compared, here or in another shard, and what does not fit.
    pub pairing: &'a Pairing,
    /// The tensors whose values were read here.
    pub matched: &'a [Matched],
    /// In the order of `matched`, as are `twins` and `rows`; none where only the whole is judged.
    pub measured: &'a [Measured],
    pub twins: &'a [Expectation],
    /// Matrices of unlike stacks, each judged on its own.
    pub experts: Option<&'a Experts>,
    /// What the spec asks to be done to one of the models and could not be done, by check name.
    pub undone: &'a [(&'static str, String)],
    /// What is to be said of tensors that folded scales concern which do not cancel.
    pub broken_folds: &'a HashMap<String, String>,
    /// What `llama-quantize-stats` printed for the reference, if the spec names that.
    pub printed: Option<&'a PrintedStats>,
    pub rows: &'a [TensorRow],
    /// Index into `rows` by tensor.
    pub row_of: &'a HashMap<&'a str, usize>,
    /// Whether the values of failing tensors are searched for a cause.
    pub seek_causes: bool,
    /// Whether other shards hold a part of the pair.
    pub split: bool,
    /// Tensors whose values were searched for a cause, here and in other parts of the pair.
    pub examined: &'a RefCell<Vec<Examined>>,
}

impl Facts<'_> {
    /// One tensor: readable, finite, equal where that is asked, and within its bounds.
    pub fn tensor(&self, test: &PlannedTest) -> TestRecord {
        let Some(&at) = self.row_of.get(&*test.part) else {
            return self.unmatched(test);
        };
        let row = &self.rows[at];
        if let Some(reason) = &row.error {
            return error(test, reason, self.unknown_type(at, reason));
        }
        let worst = row.worst_expert.as_ref().map(|it| format!(", worst in {it}"));
        let subject = format!("{}, {}{}", row.tensor, row.qtype, worst.unwrap_or_default());
        let of_experts = self.expert_checks(at).or_else(|| self.own_expert_checks(at));
        let mut checks = Vec::new();
        if let Some(sums) = &row.sums {
            let (r, q) = (sums.reference_nonfinite, sums.quantized_nonfinite);
            let message = if row.nonfinite == 0 {
                format!("all values are finite ({subject})")
            } else {
                format!(
                    "{r} NaN or infinite values in the reference, {q} in the quantized tensor ({subject})"
                )
            };
            let mut finite = fact("finite", row.nonfinite == 0, message);
            gate::excuse(&mut finite, self.resolver.tensor(&row.tensor).integrity(Gate::Finite));
            checks.push(finite);
            if let Some(metrics) = row.metrics() {
                let tensor = self.resolver.tensor(&row.tensor);
                metric_checks(self.resolver, tensor.bounds(), &metrics, &subject, &mut checks);
                self.parity_check(row, &mut checks);
            }
            self.integrity_checks(at, &subject, of_experts.as_deref(), &mut checks);
        } else {
            let message = match row.first_difference {
                None => format!("equal bit for bit ({subject})"),
                Some(at) => format!("element {at} differs ({subject})"),
            };
            checks.push(fact("exact", row.first_difference.is_none(), message));
        }
        let quantized = &self.quantized.tensors[self.matched[at].quantized];
        gate::check_types(quantized, &row.tensor, self.resolver, &mut checks);
        let least =
            of_experts.as_ref().and_then(|all| all.iter().map(|it| gate::coverage(it)).min());
        let coverage = least.unwrap_or_else(|| gate::coverage(&checks));
        checks.extend(self.coverage_check(at, &subject, coverage));
        let mut record = conclude(test, checks);
        if record.outcome == TestOutcome::Failed {
            record.diagnosis =
                self.diagnose(at, &test.id, &record.checks, of_experts.as_deref().unwrap_or(&[]));
        }
        record
    }

    /// The cause of values that cannot be read, if it is their type.
    fn unknown_type(&self, at: usize, reason: &str) -> Option<Diagnosis> {
        let quantized = &self.quantized.tensors[self.matched[at].quantized];
        let unknown = matches!(quantized.storage, Storage::Undecodable { .. });
        let gguf = self.quantized.format == Format::Gguf;
        (unknown && gguf).then(|| Diagnosis::certain(Cause::UnknownType, reason))
    }

    /// Looks for the cause of a tensor's failure.
    fn diagnose(
        &self,
        at: usize,
        id: &str,
        checks: &[CheckRecord],
        of_experts: &[Vec<CheckRecord>],
    ) -> Option<Diagnosis> {
        let matched = self.matched[at];
        let (r, q) = (
            &self.reference.tensors[matched.reference],
            &self.quantized.tensors[matched.quantized],
        );
        let violated = |name: &str| {
            let found = |it: &&CheckRecord| it.check.starts_with(name) && is_violated(it);
            checks.iter().find(found)
        };
        let of_type = violated("qtype").map(|check| diagnose::of_type(r, q, check));
        let otherwise = of_type.or_else(|| checks.iter().find_map(diagnose::of_check));
        let damaged = violated("integrity.").or(violated("finite")).is_some();
        if !damaged {
            return otherwise;
        }
        if let Some(evidence) = self.broken_folds.get(&r.name) {
            return Some(Diagnosis::likely(Cause::Fold, evidence));
        }
        let of_companions = diagnose::of_companions(self.quantized, q);
        let Measured::Values { sums, locals } = &self.measured[at] else {
            return of_companions.or(otherwise);
        };
        if of_companions.is_some() {
            return of_companions;
        }
        let mut examined = self.examined.borrow_mut();
        let seek = self.seek_causes && examined.len() < MOST_EXAMINED;
        examined.push(Examined { test: id.to_owned(), otherwise: otherwise.clone() });
        let whole = diagnose::Subject {
            reference: self.reference,
            quantized: self.quantized,
            at: matched,
            all: &self.pairing.matched,
            locals: Some(locals),
            twin: self.twins[at].as_ref().ok(),
        };
        let expert = self.expert_at_fault(at, of_experts);
        let (subject, sums, locals) = expert.unwrap_or((whole, sums, locals));
        let of_whole = || diagnose::of_values(&subject, sums);
        let of_expert = || self.of_own_expert(at, of_experts);
        // Where few of a stack's matrices fail, the fault is theirs.
        let failing = of_experts.iter().filter(|it| it.iter().any(is_violated)).count();
        let few = failing * 2 <= of_experts.len();
        let of_values = || {
            if few { of_expert().or_else(of_whole) } else { of_whole().or_else(of_expert) }
        };
        let of_values = if seek { of_values() } else { None };
        let others = || {
            let unlike = locals.unlike.filter(|unlike| unlike.count * 2 > sums.n)?;
            let check = violated("integrity.conversion").filter(|_| unlike.count > 0)?;
            Some(Diagnosis::likely(Cause::OtherWeights, &check.message))
        };
        of_values.or_else(others).or(otherwise)
    }

    /// Integrity gates, and the facts that the spec states about a tensor's values and planes.
    fn integrity_checks(
        &self,
        at: usize,
        subject: &str,
        of_experts: Option<&[Vec<CheckRecord>]>,
        checks: &mut Vec<CheckRecord>,
    ) {
        let Measured::Values { sums, locals } = &self.measured[at] else { return };
        let name = self.rows[at].tensor.as_str();
        if let Some(of_each) = of_experts.filter(|_| self.experts_of(at).is_some()) {
            checks.extend(worst_of(of_each.iter()));
        } else {
            let twin = self.twins[at].as_ref().map_err(String::as_str);
            let suspect = gate::Suspect { subject, sums, locals, twin };
            let tensor = self.resolver.tensor(name);
            let mut own = Vec::new();
            gate::check_integrity(&suspect, |gate| tensor.integrity(gate), &mut own);
            checks.extend(worst_of([&own].into_iter().chain(of_experts.unwrap_or(&[]))));
        }
        gate::check_nonzero(name, sums, self.resolver, checks);
        let quantized = &self.quantized.tensors[self.matched[at].quantized];
        gate::check_companions(self.quantized, quantized, name, sums, self.resolver, checks);
    }

    /// The matrices of the stack at `at`, if each is judged on its own.
    fn experts_of(&self, at: usize) -> Option<(&Experts, Range<usize>)> {
        let experts = self.experts?;
        Some((experts, experts.range(at)?))
    }

    /// What the gates find in each of the matrices of the stack at `at`.
    fn expert_checks(&self, at: usize) -> Option<Vec<Vec<CheckRecord>>> {
        let (experts, range) = self.experts_of(at)?;
        let tensor = self.resolver.tensor(&self.rows[at].tensor);
        let of_one = |expert: usize| {
            let mut checks = Vec::new();
            let subject = experts.subject(expert);
            if let Measured::Values { sums, locals } = &experts.measured[expert] {
                let twin = experts.twins[expert].as_ref().map_err(String::as_str);
                let suspect = gate::Suspect { subject: &subject, sums, locals, twin };
                gate::check_integrity(&suspect, |gate| tensor.integrity(gate), &mut checks);
            }
            checks
        };
        Some(range.map(of_one).collect())
    }

    /// What the gates find in each of the matrices of the stack of one type at `at`.
    fn own_expert_checks(&self, at: usize) -> Option<Vec<Vec<CheckRecord>>> {
        let twin = self.twins.get(at)?.as_ref().ok().filter(|twin| !twin.experts.is_empty())?;
        let Measured::Values { sums, locals } = &self.measured[at] else { return None };
        let tensor = self.resolver.tensor(&self.rows[at].tensor);
        let check = || checks_of_each(twin, locals.row_len, |gate| tensor.integrity(gate));
        (sums.nonfinite() == 0).then(check)
    }

    /// The cause of what is wrong with the first matrix of a stack of one type in which a gate is violated.
    fn of_own_expert(&self, at: usize, checks: &[Vec<CheckRecord>]) -> Option<Diagnosis> {
        let twin = self.twins[at].as_ref().ok()?;
        let expert = checks.iter().position(|it| it.iter().any(is_violated))?;
        cause_in(twin, expert, self.reference, self.quantized, self.matched[at])
    }

    /// The first matrix of the stack at `at` in which a gate is violated, by the checks of each.
    fn expert_at_fault(
        &self,
        at: usize,
        checks: &[Vec<CheckRecord>],
    ) -> Option<(diagnose::Subject<'_>, &Moments, &Locals)> {
        let (experts, range) = self.experts_of(at)?;
        let [reference, quantized] = experts.models.as_ref()?;
        let fails = |checks: &Vec<CheckRecord>| checks.iter().any(is_violated);
        let expert = range.start + checks.iter().position(fails)?;
        let Measured::Values { sums, locals } = &experts.measured[expert] else { return None };
        let subject = diagnose::Subject {
            reference,
            quantized,
            at: experts.matched[expert],
            all: &experts.matched,
            locals: Some(locals),
            twin: experts.twins[expert].as_ref().ok(),
        };
        Some((subject, sums, locals))
    }

    /// Says so where the gates could judge a tensor as a whole only, which leaves the verdict as it is,
    /// or where none of them could judge the values of a quantized tensor, which fails.
    fn coverage_check(&self, at: usize, subject: &str, coverage: Coverage) -> Option<CheckRecord> {
        let matched = self.matched[at];
        let (r, q) = (
            &self.reference.tensors[matched.reference],
            &self.quantized.tensors[matched.quantized],
        );
        match coverage {
            Coverage::Parts | Coverage::Exempt => None,
            Coverage::Nothing(reason) if is_quantized(r, q) => {
                let message = format!("no gate could judge its values: {reason} ({subject})");
                Some(CheckRecord { reason: Some(reason), ..fact(JUDGED, false, message) })
            }
            Coverage::WholeOnly(reason) | Coverage::Nothing(reason) => {
                let message = format!("judged as a whole only: {reason} ({subject})");
                Some(CheckRecord {
                    outcome: CheckOutcome::NotJudged,
                    level: Level::Warn,
                    reason: Some(reason),
                    ..fact(JUDGED, false, message)
                })
            }
        }
    }

    /// A tensor of the reference that could not be matched.
    fn unmatched(&self, test: &PlannedTest) -> TestRecord {
        match self.pairing.findings_of(&test.part).first() {
            Some(finding) if finding.allowed => ignored(test, &finding.message),
            Some(finding) => {
                let message = format!("{}: {}", test.part, finding.message);
                let mut record = conclude(test, vec![fact(finding.kind.name(), false, message)]);
                record.diagnosis = self.why_unmatched(&test.part).or(record.diagnosis);
                record
            }
            None => error(test, "the tensor is not in the reference any more", None),
        }
    }

    /// What leaves nothing to compare.
    fn hopeless(&self) -> Option<&Finding> {
        let hopeless = |kind| matches!(kind, FindingKind::NothingInCommon | FindingKind::Empty);
        self.pairing.findings_of("").iter().find(|finding| hopeless(finding.kind))
    }

    /// Looks for the cause of a tensor's having no match.
    fn why_unmatched(&self, name: &str) -> Option<Diagnosis> {
        if let Some(finding) = self.hopeless() {
            return Some(Diagnosis::certain(Cause::NothingCompared, &finding.message));
        }
        let by_name = |it: &Matched| (*self.reference.tensors[it.reference].name).cmp(name);
        let at = self.pairing.reshaped.binary_search_by(by_name).ok()?;
        let at = self.pairing.reshaped[at];
        diagnose::of_shape(&diagnose::Subject {
            reference: self.reference,
            quantized: self.quantized,
            at,
            all: &self.pairing.matched,
            locals: None,
            twin: None,
        })
    }

    /// The tensor sets, shapes and types of the two models.
    pub fn structure(&self, test: &PlannedTest) -> TestRecord {
        if let Some(finding) = self.hopeless() {
            let diagnosis = Diagnosis::certain(Cause::NothingCompared, &finding.message);
            return error(test, &finding.message, Some(diagnosis));
        }
        let mut checks: Vec<CheckRecord> = self
            .pairing
            .findings
            .iter()
            .map(|finding| {
                let message = match finding.tensor.as_str() {
                    "" => finding.message.clone(),
                    tensor => format!("{tensor}: {}", finding.message),
                };
                fact(finding.kind.name(), finding.allowed, message)
            })
            .collect();
        let mut said: HashSet<String> = checks.iter().map(|it| it.message.clone()).collect();
        for finding in plane_findings(self.quantized, self.resolver) {
            let message = format!("{}: {}", finding.tensor, finding.message);
            if said.insert(message.clone()) {
                checks.push(fact(&finding.kind, finding.allowed, message));
            }
        }
        checks
            .extend(self.undone.iter().map(|(check, problem)| fact(check, false, problem.clone())));
        self.quantized_checks(&mut checks);
        self.printed_check(&mut checks);
        checks.extend(self.unmatched.iter().map(spec_check));
        let names = self.reference.tensors.iter().map(|tensor| tensor.name.as_str());
        checks.extend(self.resolver.shadowed_rules(names).iter().map(spec_check));
        if !self.split {
            checks.extend(idle_waivers(self.resolver, self.rows));
        }
        conclude(test, checks)
    }

    /// A file of `llama-quantize-stats` that names none of the tensors shows nothing.
    fn printed_check(&self, checks: &mut Vec<CheckRecord>) {
        let (Some(printed), Some(file)) = (self.printed, &self.resolver.pair().quantize_stats)
        else {
            return;
        };
        let mut names =
            self.pairing.matched.iter().map(|it| &self.reference.tensors[it.reference].name);
        if !names.any(|name| printed.contains_key(name)) {
            let message = format!("{} names no tensor of the reference", file.written);
            let source = Some(Source::from(&file.at));
            checks.push(CheckRecord { source, ..fact("parity", false, message) });
        }
    }

    /// The round trip's RMSE against what `llama-quantize-stats` printed.
    fn parity_check(&self, row: &TensorRow, checks: &mut Vec<CheckRecord>) {
        let printed = self.printed.and_then(|printed| printed.get(&row.tensor));
        let (Some(&printed), Some(file)) = (printed, &self.resolver.pair().quantize_stats) else {
            return;
        };
        let holds = (row.rmse.0 - printed).abs() <= PARITY;
        let message = format!(
            "rmse {:.8}, llama-quantize-stats {printed:.8} ({}, {})",
            row.rmse.0, row.tensor, row.qtype
        );
        checks.push(CheckRecord {
            value: Some(Number(row.rmse.0)),
            bound: Some(Number(printed)),
            source: Some(Source::from(&file.at)),
            ..fact(PARITY_CHECK, holds, message)
        });
    }

    /// A "quantized" model of which every tensor is stored in the reference's own float type holds
    /// nothing that a test of quantization could be about.
    fn quantized_checks(&self, checks: &mut Vec<CheckRecord>) {
        let (mut floats, mut changed, mut quantized) = (0u64, 0u64, 0u64);
        // Floats that hold quantized values are quantized.
        let recovered: HashSet<usize> = self
            .matched
            .iter()
            .zip(self.rows)
            .filter(|(_, row)| row.recovered.is_some())
            .map(|(matched, _)| matched.reference)
            .collect();
        for matched in &self.pairing.matched {
            let r = &self.reference.tensors[matched.reference];
            let q = &self.quantized.tensors[matched.quantized];
            if r.class() != Class::Exact {
                let same = r.qtype() == q.qtype() && q.class() == Class::Float;
                let recovered = recovered.contains(&matched.reference);
                floats += 1;
                changed += u64::from(!same || recovered);
                quantized += u64::from(is_quantized(r, q) || recovered);
            }
        }
        let off = self.resolver.pair().integrity.get(Gate::Quantized);
        if !matches!(off, Some(Setting::Off { .. })) {
            let apart = self.quantized_apart();
            let holds =
                changed > 0 || apart.is_some() || floats == 0 && !self.pairing.matched.is_empty();
            checks.push(if let (Some(apart), 0) = (apart, changed) {
                fact(Gate::Quantized.name(), true, apart)
            } else if holds {
                quantized_check(changed, floats)
            } else {
                let message = format!(
                    "nothing was quantized: every tensor is stored in the reference's own float \
                     type{}",
                    self.first_matrices()
                );
                fact(Gate::Quantized.name(), false, message)
            });
        }
        gate::check_model(self.reference, self.quantized, quantized, self.resolver, checks);
        gate::check_config(
            self.quantized,
            self.resolver.pair().integrity.get(Gate::Config),
            checks,
        );
    }

    /// Quantized tensors that answer to none of the reference's: where that fails a test already, it
    /// cannot be said that nothing was quantized.
    fn quantized_apart(&self) -> Option<String> {
        let known = self.pairing.findings.iter().any(|finding| !finding.allowed);
        let quantized = self.quantized.tensors.iter();
        let apart = quantized.filter(|tensor| tensor.class() == Class::Quantized).count();
        (known && apart > 0).then(|| {
            format!("{apart} tensors are stored quantized, but none of them could be compared")
        })
    }

    /// The first tensors that a quantizer would have taken, in brackets.
    fn first_matrices(&self) -> String {
        let tensors = self.pairing.matched.iter().map(|it| &self.reference.tensors[it.reference]);
        let matrices = tensors.filter(|tensor| tensor.shape.len() > 1);
        let names: Vec<&str> = matrices.map(|tensor| tensor.name.as_str()).take(3).collect();
        if names.is_empty() { String::new() } else { format!(" ({}, …)", names.join(", ")) }
    }
}

/// All float tensors of a pair as one vector: judged from the record alone.
pub fn global(
    resolver: &Resolver,
    rows: &[TensorRow],
    global: Option<&GlobalRow>,
    test: &PlannedTest,
) -> TestRecord {
    if let Some(row) = rows.iter().find(|row| row.error.is_some()) {
        let reason = format!("{} could not be read, so that there is no whole", row.tensor);
        return error(test, &reason, None);
    }
    let bounds = || Metric::ALL.into_iter().filter_map(|metric| resolver.global_bound(metric));
    let Some(global) = global else {
        let message = "no float tensor was measured".to_owned();
        let bounded = !resolver.pair().groups.is_empty() || bounds().next().is_some();
        return conclude(test, vec![fact("measured", !bounded, message)]);
    };
    let subject = format!("{} tensors, {} elements", global.tensors, global.numel);
    let message = format!("{} NaN or infinite values ({subject})", global.nonfinite);
    let mut finite = fact("finite", global.nonfinite == 0, message);
    // Excused if all tensors are that hold such values.
    let settings = rows.iter().filter(|row| row.nonfinite > 0);
    let mut settings = settings.map(|row| resolver.tensor(&row.tensor).integrity(Gate::Finite));
    let off = |it: Option<&Setting>| matches!(it, Some(Setting::Off { .. }));
    let first = settings.next().flatten();
    if settings.all(off) {
        gate::excuse(&mut finite, first);
    }
    let mut checks = vec![finite];
    if let Some(metrics) = global.metrics() {
        metric_checks(resolver, bounds(), &metrics, &subject, &mut checks);
    }
    let floats = rows.iter().filter(|row| row.sums.is_some());
    let members = floats.map(|row| (row.tensor.as_str(), finite_metrics(row)));
    gate::check_groups(resolver, members, &mut checks);
    conclude(test, checks)
}

/// Waivers that no tensor of the pair needs: only the rows of all of them show that.
pub fn idle_waivers(resolver: &Resolver, rows: &[TensorRow]) -> Vec<CheckRecord> {
    let mut waivers = Vec::new();
    for row in rows {
        let Some(metrics) = row.metrics() else { continue };
        for effective in resolver.tensor(&row.tensor).bounds() {
            let value = gate::value_of(&metrics, effective.metric);
            if let Judgement::Waived(index) = effective.judge(value) {
                waivers.push(index);
            }
        }
    }
    resolver.unused_waivers(&waivers).iter().map(spec_check).collect()
}

fn metric_checks<'b>(
    resolver: &Resolver,
    bounds: impl Iterator<Item = Effective<'b>>,
    metrics: &Metrics,
    subject: &str,
    checks: &mut Vec<CheckRecord>,
) {
    for effective in bounds {
        let value = gate::value_of(metrics, effective.metric);
        gate::check_metric(&effective, resolver.pair(), value, subject, checks);
    }
}

/// A row's metrics, unless NaN or infinity make them worthless.
fn finite_metrics(row: &TensorRow) -> Option<Metrics> {
    row.metrics().filter(|_| row.nonfinite == 0)
}

/// What is wrong with the spec, as the models show.
pub fn spec_check(diagnostic: &Diagnostic) -> CheckRecord {
    let level = match diagnostic.severity {
        Severity::Error => Level::Fail,
        Severity::Warning => Level::Warn,
    };
    CheckRecord {
        level,
        source: Some(Source::from(&diagnostic.location)),
        ..fact(SPEC_CHECK, false, diagnostic.message.clone())
    }
}

/// The gate `quantized`, held: so many of the float tensors are stored in another type, or hold quantized
/// values.
pub fn quantized_check(changed: u64, floats: u64) -> CheckRecord {
    let message = format!(
        "{changed} of {floats} float tensors are stored in another type than the reference's, or \
         hold quantized values"
    );
    fact(Gate::Quantized.name(), true, message)
}

/// Whether this is the gate `quantized`, violated.
pub fn says_nothing_was_quantized(check: &CheckRecord) -> bool {
    check.check == Gate::Quantized.name() && check.outcome == CheckOutcome::Violated
}

/// A check that is about a fact, not a number.
pub fn fact(check: &str, holds: bool, message: String) -> CheckRecord {
    CheckRecord::fact(check, CheckOutcome::of(holds), Level::Fail, message)
}

/// Stored with codes and scales, or in floats of a byte or less where the reference has more.
fn is_quantized(reference: &Tensor, quantized: &Tensor) -> bool {
    let bits = |tensor: &Tensor| tensor.bits_per_weight().unwrap_or(0.0);
    quantized.class() == Class::Quantized || bits(quantized) <= 8.0 && bits(reference) > 8.0
}

fn is_violated(check: &CheckRecord) -> bool {
    check.outcome == CheckOutcome::Violated
}

/// A test passes if no failing check is violated; its reason is the first that is.
pub fn conclude(test: &PlannedTest, mut checks: Vec<CheckRecord>) -> TestRecord {
    for check in &mut checks {
        check.message = unsigned_zeros(std::mem::take(&mut check.message));
    }
    let failing = |check: &&CheckRecord| {
        check.outcome == CheckOutcome::Violated && check.level == Level::Fail
    };
    let reason = checks.iter().find(failing).map(|check| check.message.clone());
    let outcome = if reason.is_some() { TestOutcome::Failed } else { TestOutcome::Passed };
    let diagnosis = checks.iter().find_map(diagnose::of_check);
    let (id, kind) = (test.id.clone(), test.kind);
    TestRecord { id, kind, outcome, reason, checks, settled: None, diagnosis }
}

/// A test that was not run.
pub fn ignored(test: &PlannedTest, why: &str) -> TestRecord {
    without_checks(test, TestOutcome::Ignored, why)
}

/// A test that could not be judged.
pub fn error(test: &PlannedTest, reason: &str, diagnosis: Option<Diagnosis>) -> TestRecord {
    TestRecord { diagnosis, ..without_checks(test, TestOutcome::Error, reason) }
}

/// A test over which the program broke down.
pub fn internal(test: &PlannedTest, reason: &str) -> TestRecord {
    let checks = vec![fact(INTERNAL_CHECK, false, reason.to_owned())];
    TestRecord { checks, ..without_checks(test, TestOutcome::Error, reason) }
}

fn without_checks(test: &PlannedTest, outcome: TestOutcome, reason: &str) -> TestRecord {
    TestRecord {
        id: test.id.clone(),
        kind: test.kind,
        outcome,
        reason: Some(reason.to_owned()),
        checks: Vec::new(),
        settled: None,
        diagnosis: None,
    }
}

/// Under `--fail-level warn`, a violated warning fails its test.
pub fn fail_on_warnings(tests: &mut [TestRecord]) {
    for test in tests {
        let warning = test.checks.iter().find(|check| check.outcome == CheckOutcome::Violated);
        if let (TestOutcome::Passed, Some(check)) = (test.outcome, warning) {
            test.outcome = TestOutcome::Failed;
            test.reason = Some(check.message.clone());
        }
    }
}

/// Is this test about the pair's snapshot?
pub fn is_baseline(test: &TestRecord) -> bool {
    test.kind == TestKind::Baseline
}
