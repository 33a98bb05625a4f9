/*!
How much more noise than its twin's a tensor may have: shared by the gates that speak of noise.
*/

use crate::measure::twin::Twin;
use crate::metrics::CONTRACT_COSINE;
use crate::metrics::functions;
use crate::spec::Gate;

/// Least SQNR of a conversion between float types, in dB: bfloat16 gives 55 where it is rounded to
/// nearest, and 49 where it is cut off.
pub const CONVERSION: f64 = 48.0;

/// What error feedback and clipping may cost, in dB, on top of the bound.
const TUNED: f64 = 4.0;

/// dB that an SQNR may be below its twin's, beyond the bound.
fn allowance(twin: &Twin) -> f64 {
    if twin.tuned { TUNED } else { 0.0 }
}

/// The least SQNR that a twin's SQNR justifies.
pub fn least_sqnr(twin: &Twin, expected: f64, bound: f64) -> f64 {
    if twin.conversion {
        (expected - bound).min(CONVERSION)
    } else {
        expected - bound - allowance(twin)
    }
}

/// What noise beyond the expected by the default of `sqnr_expected` makes of a row's cosine, beyond the
/// default of `worst_row`: nothing for types of four bits and more, a little for coarser ones.
pub fn coarseness(expected: f64) -> f64 {
    let noisier = louder(expected, Gate::SqnrExpected.default_bound());
    (expected - noisier - Gate::WorstRow.default_bound()).max(0.0)
}

/// A cosine with the noise behind it louder by so many dB.
fn louder(cosine: f64, db: f64) -> f64 {
    let noise = (1.0 - cosine * cosine) * functions::pow(10.0, db / 10.0);
    (1.0 - noise).max(0.0).sqrt()
}

/// The contract's cosine gate for a tensor of which its type is known to give less: what the twin has,
/// with as much more noise as `sqnr_expected` allows. Types of four bits and more keep the contract's
/// own.
pub fn least_cosine(twin: Option<&Twin>) -> f64 {
    let Some(twin) = twin.filter(|twin| twin.sample.twin.rr > 0.0) else { return CONTRACT_COSINE };
    let slack = Gate::SqnrExpected.default_bound() + allowance(twin);
    louder(twin.sample.twin.cosine(), slack).min(CONTRACT_COSINE)
}
