/*!
What a gate is given, and what it answers.
*/

use crate::measure::twin::Twin;
use crate::metrics::{Locals, Moments};

/// What is known of one tensor.
pub struct Suspect<'a> {
    /// Tensor and qtype, for messages.
    pub subject: &'a str,
    /// Sums over the whole tensor.
    pub sums: &'a Moments,
    /// Where in it the extremes are.
    pub locals: &'a Locals,
    /// What is to be expected, or why that is not known.
    pub twin: Result<&'a Twin, &'a str>,
}

impl<'a> Suspect<'a> {
    /// The expectation; a gate that needs one cannot judge without.
    pub fn expected(&self) -> Result<&'a Twin, NotJudged> {
        self.twin.map_err(NotJudged::because)
    }
}

/// What a gate found, or why it could not look.
pub type Ruling = Result<Finding, NotJudged>;

/// A gate that has looked.
pub struct Finding {
    /// Whether the gate holds.
    pub holds: bool,
    /// The value that was held against the bound, if the gate is about a number.
    pub value: Option<f64>,
    /// For people; the subject is added to it.
    pub message: String,
}

/// A gate that could not look, and why: a few words without numbers, so that tensors of one kind have
/// one reason.
pub struct NotJudged(pub String);

impl NotJudged {
    /// With this reason.
    pub fn because(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}
