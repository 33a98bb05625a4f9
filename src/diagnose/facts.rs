/*!
Causes that need no experiment: what a violated check says by its name, and planes that are not there.
*/

use super::{Cause, Diagnosis};
use crate::codec::Class;
use crate::gate::{CheckOutcome, CheckRecord};
use crate::model::{FileFault, Model, ModelError, PlaneFault, Tensor};

/// The cause behind a violated check, if the check says it.
pub fn of_check(check: &CheckRecord) -> Option<Diagnosis> {
    if check.outcome != CheckOutcome::Violated {
        return None;
    }
    let message = check.message.as_str();
    let cause = match check.check.as_str() {
        "missing" => Cause::Missing,
        "extra" => Cause::Extra,
        "shape" => Cause::Shape,
        "exact" => Cause::IntegerChanged,
        "nonzero" => Cause::Zeroed,
        "metadata" => Cause::Metadata,
        "quantized" | "min_quantized" => Cause::NotQuantized,
        "qtype" => Cause::WrongQtype,
        "companion" if message.contains("missing") && message.contains("zero") => {
            Cause::ZeroPointLost
        }
        "companion" if message.contains("missing") => Cause::CompanionMissing,
        // Who lowers each code alone writes the same words where one of 0 wraps.
        "companion" if message.contains("borrowed") => {
            return Some(Diagnosis::likely(Cause::ZeroPointOffByOne, message));
        }
        "companion" if message.contains("zero") => Cause::ZeroScale,
        _ => return None,
    };
    Some(Diagnosis::certain(cause, message))
}

/// The cause of a file that cannot be read, if its fault has a name.
pub fn of_error(error: &ModelError) -> Option<Diagnosis> {
    let problem = &error.problem;
    let cause = match error.fault? {
        FileFault::Truncated => Cause::Truncated,
        FileFault::LfsPointer => Cause::LfsPointer,
        FileFault::Overlap => Cause::Overlap,
        FileFault::DuplicateName => Cause::DuplicateName,
        FileFault::RaggedRow => Cause::RaggedRow,
        FileFault::ShortRegion => return Some(Diagnosis::likely(Cause::ShortRegion, problem)),
        FileFault::Misaligned => {
            let why = format!("{problem}; written for ggml's own alignment, its data would fit");
            return Some(Diagnosis::likely(Cause::Misaligned, why));
        }
    };
    Some(Diagnosis::certain(cause, problem))
}

/// A matrix that is still in the reference's own float type was not quantized at all.
pub fn of_type(reference: &Tensor, quantized: &Tensor, check: &CheckRecord) -> Diagnosis {
    let matrix = reference.shape.iter().filter(|&&extent| extent > 1).count() > 1;
    let same = reference.qtype() == quantized.qtype() && quantized.class() == Class::Float;
    let cause = if matrix && same { Cause::NotQuantized } else { Cause::WrongQtype };
    Diagnosis::certain(cause, check.message.clone())
}

/// A plane that the weight is decoded with and that is missing or zero.
pub fn of_companions(model: &Model, tensor: &Tensor) -> Option<Diagnosis> {
    /// Last parts of the names of planes that scale activations, not weights.
    const ACTIVATIONS: [&str; 5] =
        ["input_scale", "input_global_scale", "k_scale", "v_scale", "output_scale"];
    let weighs = |plane: &str| !ACTIVATIONS.iter().any(|suffix| plane.ends_with(suffix));
    let finding = model.findings.iter().find(|finding| {
        finding.tensor == tensor.name
            && finding.fault == PlaneFault::Missing
            && weighs(&finding.plane)
    })?;
    let why = format!("{} {}", finding.plane, finding.message);
    let cause = if finding.plane.contains("zero") {
        Cause::ZeroPointLost
    } else if finding.plane.contains("scale") {
        Cause::ScaleLost
    } else {
        Cause::CompanionMissing
    };
    Some(Diagnosis::certain(cause, why))
}
