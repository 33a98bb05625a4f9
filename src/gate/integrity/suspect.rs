/*!
What a gate is given, and what it answers.
*/

use crate::measure::twin::Twin;
use crate::metrics::{Locals, Moments, functions};

/// What cutting bits off costs beside rounding to nearest, in dB, and a little for the sample.
const ROUNDING: f64 = 7.0;

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
    /// Whether every element is the reference's, as the type holds it: then no gate has anything to find.
    ///
    /// A value below the type's normal numbers may become zero; where so many do that the tensor as a whole
    /// is worse than any rounding makes it, the other gates look.
    pub fn is_converted(&self) -> bool {
        let unlike = self.locals.unlike.is_none_or(|unlike| unlike.count > 0);
        let whole = 10.0 * functions::log10(self.sums.rr / self.sums.ee);
        let expected = self.twin.ok().map(|twin| twin.sample.twin.sqnr_db());
        !unlike && (self.sums.ee == 0.0 || expected.is_none_or(|db| whole >= db - ROUNDING))
    }

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
