/*!
From sums to metrics: the contract's and DESIGN's formulas, edges included.

r = reference, q = quantized, e = q - r; n elements.
*/

use super::Moments;
use super::functions;

/// The metrics of a tensor, or of a whole model taken as one vector.
///
/// If either side holds a NaN or an infinity, every value here is NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metrics {
    /// `sqrt(Σe²/n)`; in units of the weights.
    pub rmse: f64,
    /// `Σrq / (|r||q|)`; 1 if both are all zero, 0 if one is.
    pub cosine: f64,
    /// `max |e|`; in units of the weights.
    pub max_abs: f64,
    /// `10 log10(Σr²/Σe²)`; infinite if the error is zero.
    pub sqnr_db: f64,
    /// `sqrt(Σe²/Σr²)`; 0 if both are all zero, infinite if only the reference is.
    pub rel_rmse: f64,
    /// `sqrt(Σq²/Σr²)`; 1 if both are all zero, infinite if only the reference is.
    pub gain: f64,
    /// `Σe/n`; in units of the weights.
    pub mean_error: f64,
}

impl Metrics {
    /// No error at all: what two equal tensors give, and two empty ones.
    pub const PERFECT: Self = Self {
        rmse: 0.0,
        cosine: 1.0,
        max_abs: 0.0,
        sqnr_db: f64::INFINITY,
        rel_rmse: 0.0,
        gain: 1.0,
        mean_error: 0.0,
    };

    /// The metrics that these sums give; `None` if there is nothing to measure (n = 0).
    pub fn from_moments(m: &Moments) -> Option<Self> {
        if m.n == 0 {
            return None;
        }
        if m.nonfinite() > 0 {
            let nan = f64::NAN;
            return Some(Self {
                rmse: nan,
                cosine: nan,
                max_abs: nan,
                sqnr_db: nan,
                rel_rmse: nan,
                gain: nan,
                mean_error: nan,
            });
        }
        let n = m.n as f64;
        Some(Self {
            rmse: (m.ee / n).sqrt(),
            cosine: cosine(m),
            max_abs: m.max_abs,
            sqnr_db: if m.ee == 0.0 { f64::INFINITY } else { 10.0 * functions::log10(m.rr / m.ee) },
            rel_rmse: if m.ee == 0.0 { 0.0 } else { (m.ee / m.rr).sqrt() },
            gain: if m.rr == 0.0 && m.qq == 0.0 { 1.0 } else { (m.qq / m.rr).sqrt() },
            mean_error: m.e / n,
        })
    }
}

/// Cosine of the angle between r and q, clamped to [-1, 1] against the last rounding.
pub fn cosine(m: &Moments) -> f64 {
    match (m.rr == 0.0, m.qq == 0.0) {
        (true, true) => 1.0,
        (true, false) | (false, true) => 0.0,
        // Identical vectors have cosine 1 exactly, whatever the square roots round to.
        _ if m.ee == 0.0 => 1.0,
        _ => (m.rq / (m.rr.sqrt() * m.qq.sqrt())).clamp(-1.0, 1.0),
    }
}

/// The contract's gate: the least cosine of a tensor.
pub const CONTRACT_COSINE: f64 = 0.95;

/// The contract's traffic light: cosine ≥ 0.999 is green, ≥ 0.99 yellow, anything else, NaN
/// included, red.
pub fn verdict(cosine: f64) -> &'static str {
    if cosine >= 0.999 {
        "green"
    } else if cosine >= 0.99 {
        "yellow"
    } else {
        "red"
    }
}

/// What one bit per weight is worth: `20 log10(2)` dB.
pub const DB_PER_BIT: f64 = 6.020_599_913_279_624;

/// Distance from the rate-distortion limit of a Gaussian source, in dB: no code of so many bits per
/// weight gives independent Gaussian weights more than `DB_PER_BIT` dB a bit. Weights with heavy
/// tails or on a lattice may come closer, or below 0.
pub fn rate_distortion_gap(bits_per_weight: f64, sqnr_db: f64) -> f64 {
    DB_PER_BIT * bits_per_weight - sqnr_db
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::piece;

    #[test]
    fn edges() {
        let metrics = |r: &[f32], q: &[f32]| Metrics::from_moments(&piece(r, q)).unwrap();
        let zero = metrics(&[0.0; 4], &[0.0; 4]);
        assert_eq!((zero.cosine, zero.rmse, zero.gain, zero.rel_rmse), (1.0, 0.0, 1.0, 0.0));
        let lost = metrics(&[1.0, 2.0], &[0.0; 2]);
        assert_eq!((lost.cosine, lost.gain, lost.sqnr_db), (0.0, 0.0, 0.0));
        let grown = metrics(&[0.0; 2], &[1.0, 2.0]);
        assert_eq!((grown.cosine, grown.gain), (0.0, f64::INFINITY));
        assert_eq!(grown.sqnr_db, f64::NEG_INFINITY);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(metrics(&[1.0, bad], &[1.0, 1.0]).cosine.is_nan());
            assert!(metrics(&[1.0, 1.0], &[1.0, bad]).max_abs.is_nan());
            assert_eq!(piece(&[1.0, bad, bad], &[1.0, bad, 0.0]).nonfinite(), 3);
        }
        assert!(Metrics::from_moments(&Moments::default()).is_none());
    }

    #[test]
    fn subnormals_count() {
        let tiny = f32::from_bits(1);
        let m = piece(&[tiny], &[tiny]);
        assert!(m.rr > 0.0, "the square of the smallest f32 is a normal f64");
        assert_eq!(cosine(&m), 1.0);
    }

    #[test]
    fn the_gap_to_the_rate_distortion_limit() {
        // Measured on Gaussian weights with ggml's own quantizers, and by Max 1960 for two bits.
        for (bits, sqnr_db, gap, why) in [
            (8.5, 45.42, 5.75, "Q8_0"),
            (4.5, 22.94, 4.15, "Q4_K"),
            (2.0, 9.30, 2.74, "Lloyd-Max, four levels"),
        ] {
            let found = rate_distortion_gap(bits, sqnr_db);
            assert!((found - gap).abs() < 0.01, "{why}: {found}");
        }
        assert!((DB_PER_BIT - 20.0 * 2f64.log10()).abs() < 1e-12);
    }

    #[test]
    fn verdict_buckets() {
        for (value, expected) in [
            (0.999, "green"),
            (0.9989, "yellow"),
            (0.99, "yellow"),
            (0.98, "red"),
            (f64::NAN, "red"),
        ] {
            assert_eq!(verdict(value), expected);
        }
    }
}
