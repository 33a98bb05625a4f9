/*!
One model without a reference: what is wrong with it whatever it was made from.

Values are finite, nothing is zero that a trained model would not have zero, planes are complete, and what
configuration and metadata say agrees with the tensors.
*/

use super::check::{CheckOutcome, CheckRecord, Level};
use super::config::check_config;
use super::contract::plane_problems;
use super::metadata::check_metadata;
use crate::measure::Scan;
use crate::model::{Model, Storage, Tensor};
use crate::spec::Gate;

/// A check and the tensor that it is about; none for the whole model.
#[derive(Clone, Debug)]
pub struct Alone {
    /// Name of the tensor.
    pub tensor: Option<String>,
    /// The check.
    pub check: CheckRecord,
}

fn about(
    tensor: Option<&str>,
    name: String,
    outcome: CheckOutcome,
    level: Level,
    message: String,
) -> Alone {
    let check = CheckRecord::fact(name, outcome, level, message);
    Alone { tensor: tensor.map(str::to_owned), check }
}

fn violated(tensor: &str, name: &str, message: String) -> Alone {
    about(Some(tensor), name.to_owned(), CheckOutcome::Violated, Level::Fail, message)
}

fn held(tensor: &str, name: &str, message: String) -> Alone {
    about(Some(tensor), name.to_owned(), CheckOutcome::Held, Level::Fail, message)
}

/// Everything about the model as a whole: planes, configuration, metadata.
pub fn check_whole(model: &Model) -> Vec<Alone> {
    let mut all: Vec<Alone> = model
        .findings
        .iter()
        .map(|finding| {
            let message = format!("{} {}", finding.plane, finding.message);
            violated(&finding.tensor, "companion", message)
        })
        .collect();
    let mut checks = Vec::new();
    check_config(model, None, &mut checks);
    check_metadata(model, &mut checks);
    all.extend(checks.into_iter().map(|check| Alone { tensor: None, check }));
    if model.tensors.is_empty() {
        let message = "the model has no tensor".to_owned();
        all.push(about(None, "nothing".to_owned(), CheckOutcome::Violated, Level::Fail, message));
    }
    all
}

/// What a tensor's values show.
pub fn check_values(model: &Model, tensor: &Tensor, scan: &Scan) -> Vec<Alone> {
    let name = tensor.name.as_str();
    let subject = format!("{name}, {}", tensor.qtype());
    let finite = match scan.nonfinite.unwrap_or(0) {
        0 => held(name, "finite", format!("all values are finite ({subject})")),
        n => violated(name, "finite", format!("{n} values are NaN or infinite ({subject})")),
    };
    let mut checks = vec![finite];
    checks.extend(check_zeros(tensor, scan, &subject));
    if matches!(tensor.storage, Storage::Joined(_)) {
        // A weight that is zero throughout is reported as that; any other needs its scales.
        let energy = if scan.zero_rows.0 == scan.zero_rows.1 { 0.0 } else { f64::INFINITY };
        let problems = plane_problems(model, tensor, energy).into_iter();
        checks.extend(problems.map(|it| violated(name, it.gate.name(), it.message)));
    }
    checks
}

/// Zeros where a trained model has none: a matrix, a matrix of a stack, most rows of a matrix. Vectors may be
/// zero (biases are), and so may single rows (tokens that nothing was trained on).
fn check_zeros(tensor: &Tensor, scan: &Scan, subject: &str) -> Option<Alone> {
    let matrix = tensor.shape.iter().filter(|extent| **extent > 1).count() > 1;
    if !matrix || scan.zero_rows.1 == 0 {
        return None;
    }
    let gate = format!("integrity.{}", Gate::Zero);
    let ((rows, all_rows), (slices, all_slices)) = (scan.zero_rows, scan.zero_slices);
    let problem = if rows == all_rows {
        "all values are zero".to_owned()
    } else if slices > 0 {
        format!("{slices} of its {all_slices} slices are zero throughout")
    } else if rows * 2 > all_rows {
        format!("{rows} of its {all_rows} rows are zero throughout")
    } else if rows > 0 {
        let message = format!("{rows} of its {all_rows} rows are zero throughout ({subject})");
        return Some(about(Some(&tensor.name), gate, CheckOutcome::Violated, Level::Warn, message));
    } else {
        return Some(held(&tensor.name, &gate, format!("no row is zero ({subject})")));
    };
    Some(violated(&tensor.name, &gate, format!("{problem} ({subject})")))
}
