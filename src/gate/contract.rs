/*!
The type contract: facts about a pair that only its spec can state.
*/

use super::check::{CheckOutcome, CheckRecord, Level, Number, Source};
use crate::codec::Class;
use crate::metrics::Moments;
use crate::model::{Model, PlaneFault, Scratch, Storage, Tensor, Weight};
use crate::spec::{Gate, Location, Resolver, Setting};

fn check(name: &str, holds: bool, message: String, at: Option<&Location>) -> CheckRecord {
    let source = at.map(Source::from);
    CheckRecord { source, ..CheckRecord::fact(name, CheckOutcome::of(holds), Level::Fail, message) }
}

/// What a spec calls FP8 weights that are a plain cast, without a scale.
pub const PLAIN_CAST: &str = "fp8-plain-cast";

/// Names that a tensor's storage answers to: its type or scheme, and the type of its codes.
fn names(tensor: &Tensor) -> Vec<&str> {
    let mut names = vec![tensor.qtype()];
    if let Storage::Joined(weight) = &tensor.storage {
        names.extend(weight.planes().first().map(|codes| codes.ty.name()));
    }
    names
}

/// Is the tensor stored in one of the types that the spec asks for?
pub fn check_types(
    tensor: &Tensor,
    name: &str,
    resolver: &Resolver,
    checks: &mut Vec<CheckRecord>,
) {
    let stored = names(tensor);
    let among =
        |list: &[String]| list.iter().any(|it| stored.iter().any(|s| s.eq_ignore_ascii_case(it)));
    if let Some(scheme) = resolver.tensor(name).scheme() {
        let holds = match scheme.is.as_str() {
            PLAIN_CAST => tensor.qtype().starts_with("F8_"),
            scheme => stored.iter().any(|stored| stored.eq_ignore_ascii_case(scheme)),
        };
        let message =
            format!("{name} is stored as {}, the spec says {}", tensor.qtype(), scheme.is);
        checks.push(check("scheme", holds, message, Some(&scheme.at)));
    }
    for (_, rule) in resolver.tensor(name).qtypes() {
        let wanted = match (rule.is.as_slice(), rule.not.as_slice()) {
            (is, []) => is.join(" or "),
            ([], not) => format!("not {}", not.join(", ")),
            (is, not) => format!("{}, not {}", is.join(" or "), not.join(", ")),
        };
        let holds = (rule.is.is_empty() || among(&rule.is)) && !among(&rule.not);
        let message = format!("{name} is stored as {}, {wanted} is asked for", tensor.qtype());
        checks.push(check("qtype", holds, message, Some(&rule.at)));
    }
}

/// Tensors that must not be all zero, whatever the reference is.
pub fn check_nonzero(
    name: &str,
    sums: &Moments,
    resolver: &Resolver,
    checks: &mut Vec<CheckRecord>,
) {
    if let Some(glob) = resolver.tensor(name).nonzero() {
        let holds = sums.n == 0 || sums.qq > 0.0 || sums.quantized_nonfinite > 0;
        let message = if holds {
            format!("{name} is not all zero")
        } else {
            format!("{name} is all zero, which the spec forbids")
        };
        checks.push(check("nonzero", holds, message, Some(&glob.at)));
    }
}

/// Planes beside a tensor: those that the spec asks for, and what is wrong with those there are.
pub fn check_companions(
    model: &Model,
    tensor: &Tensor,
    name: &str,
    sums: &Moments,
    resolver: &Resolver,
    checks: &mut Vec<CheckRecord>,
) {
    let weight = match &tensor.storage {
        Storage::Joined(weight) => Some(weight.as_ref()),
        _ => None,
    };
    for companions in resolver.tensor(name).companions() {
        for suffix in &companions.suffixes {
            let problem = companion_problem(model, weight, suffix);
            let holds = problem.is_none();
            let message = match problem {
                None => format!("{name} has its {suffix}"),
                Some(problem) => format!("{name}: {suffix} {problem}"),
            };
            checks.push(check("companion", holds, message, Some(&companions.at)));
        }
    }
    for PlaneProblem { gate, message: problem, .. } in plane_problems(model, tensor, sums.rr) {
        let mut check = check(gate.name(), false, format!("{name}: {problem}"), None);
        excuse(&mut check, resolver.tensor(name).integrity(gate));
        checks.push(check);
    }
}

/// Lets a violation pass if the spec switched its gate off, and says so.
pub fn excuse(check: &mut CheckRecord, setting: Option<&Setting>) {
    if let (CheckOutcome::Violated, Some(Setting::Off { reason, at })) = (check.outcome, setting) {
        check.outcome = CheckOutcome::Waived;
        check.reason = Some(reason.clone());
        check.source = Some(Source::from(at));
    }
}

/// What is wrong with the values of a plane.
pub struct PlaneProblem {
    /// The gate that it fails.
    pub gate: Gate,
    /// Plane and problem.
    pub message: String,
    /// Whether the values that are decoded here are right all the same, and only other readers have others.
    pub elsewhere: bool,
}

/// What is wrong with the values of a weight's planes; `rr` is the Σr² of its reference, because a weight that
/// is zero there needs no scale.
pub fn plane_problems(model: &Model, tensor: &Tensor, rr: f64) -> Vec<PlaneProblem> {
    let Storage::Joined(weight) = &tensor.storage else { return Vec::new() };
    let findings = match weight.check_planes(&model.files, &mut Scratch::default()) {
        Ok(findings) => findings,
        Err(error) => {
            let message = error.to_string();
            return vec![PlaneProblem { gate: Gate::Companion, message, elsewhere: false }];
        }
    };
    findings
        .into_iter()
        .filter(|finding| finding.fault != PlaneFault::Zero || rr != 0.0)
        .map(|finding| {
            let nonfinite = finding.fault == PlaneFault::NonFinite;
            let gate = if nonfinite { Gate::Finite } else { Gate::Companion };
            let message = format!("{} {}", finding.plane, finding.message);
            PlaneProblem { gate, message, elsewhere: finding.fault == PlaneFault::Borrowed }
        })
        .collect()
}

/// Why a plane that must be beside a weight is not there, or of no use.
fn companion_problem(model: &Model, weight: Option<&dyn Weight>, suffix: &str) -> Option<String> {
    let planes = weight.map(|w| w.planes().iter().chain(w.activation_planes()));
    let wanted = suffix.trim_start_matches('.');
    let plane = planes.into_iter().flatten().find(|plane| {
        plane.name.strip_suffix(wanted).is_some_and(|base| base.ends_with('.') || base.is_empty())
    });
    let Some(plane) = plane else { return Some("is missing".to_owned()) };
    if plane.ty.info().class == Class::Exact {
        // Zero points may be all zero, and are integers.
        return None;
    }
    let storage = Storage::Plain { ty: plane.ty, at: plane.at };
    let tensor = Tensor { name: plane.name.clone(), shape: plane.shape.clone(), storage };
    let (mut scratch, mut values) = (Scratch::default(), Vec::new());
    let mut start = 0;
    while start < plane.numel() {
        let end = (start + 64 * 1024).min(plane.numel());
        values.resize((end - start) as usize, 0.0);
        if let Err(error) = tensor.decode(&model.files, start..end, &mut scratch, &mut values) {
            return Some(error.to_string());
        }
        if values.iter().any(|&value| value != 0.0) {
            return None;
        }
        start = end;
    }
    Some("is all zero".to_owned())
}

/// Facts about the whole pair: how much is quantized, bits per weight, metadata.
pub fn check_model(
    reference: &Model,
    quantized: &Model,
    really_quantized: u64,
    resolver: &Resolver,
    checks: &mut Vec<CheckRecord>,
) {
    let pair = resolver.pair();
    if let Some(least) = &pair.min_quantized {
        let message =
            format!("{really_quantized} tensors are quantized, {} are asked for", least.value);
        checks.push(check(
            "min_quantized",
            really_quantized >= least.value,
            message,
            Some(&least.at),
        ));
    }
    if let Some(bound) = &pair.bits_per_weight {
        let weights = quantized.tensors.iter().filter(|tensor| tensor.class() != Class::Exact);
        let (elements, bytes) = weights
            .fold((0u64, 0u64), |(n, b), tensor| (n + tensor.numel(), b + tensor.stored_bytes()));
        let bits = bytes as f64 * 8.0 / elements as f64;
        let holds =
            bound.min.is_none_or(|min| bits >= min) && bound.max.is_none_or(|max| bits <= max);
        let limit = |limit: Option<f64>| limit.map_or_else(|| "-".to_owned(), |v| v.to_string());
        let (min, max) = (limit(bound.min), limit(bound.max));
        let message = format!("{bits:.4} bits per weight, {min} to {max} are asked for");
        checks.push(CheckRecord {
            value: Some(Number(bits)),
            ..check("bits_per_weight", holds, message, Some(&bound.at))
        });
    }
    check_metadata(reference, quantized, resolver, checks);
}

/// Metadata keys that must be equal on both sides.
fn check_metadata(
    reference: &Model,
    quantized: &Model,
    resolver: &Resolver,
    checks: &mut Vec<CheckRecord>,
) {
    let Some(first) = resolver.pair().metadata_equal.first() else { return };
    let value = |model: &'_ Model, key: &str| {
        model.metadata.iter().find(|(it, _)| it == key).map(|(_, value)| value.clone())
    };
    let keys = reference.metadata.iter().chain(&quantized.metadata).map(|(key, _)| key.as_str());
    let mut keys: Vec<&str> = keys.filter(|key| resolver.metadata_equal(key)).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let (r, q) = (value(reference, key), value(quantized, key));
        let show = |value: &Option<serde_json::Value>| {
            value.as_ref().map_or_else(|| "missing".to_owned(), ToString::to_string)
        };
        let message = format!("metadata {key} is {}, the reference's {}", show(&q), show(&r));
        checks.push(check("metadata", r == q, message, Some(&first.at)));
    }
}
