/*!
Causes that a check's name tells: what does not fit needs no experiment.
*/

use super::{Cause, Diagnosis};
use crate::gate::{CheckOutcome, CheckRecord};

/// The cause behind a violated check, if the check says it.
pub fn of_check(check: &CheckRecord) -> Option<Diagnosis> {
    if check.outcome != CheckOutcome::Violated {
        return None;
    }
    let cause = match check.check.as_str() {
        "missing" => Cause::Missing,
        "extra" => Cause::Extra,
        "shape" => Cause::Shape,
        "exact" => Cause::IntegerChanged,
        "nonzero" => Cause::Zeroed,
        "metadata" => Cause::Metadata,
        "quantized" | "min_quantized" => Cause::NotQuantized,
        _ => return None,
    };
    Some(Diagnosis::certain(cause, check.message.clone()))
}
