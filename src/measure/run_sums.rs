/*!
Sums over a run of elements of the reference and of something that stands for it: the quantized tensor, or
what is expected of it.
*/

use crate::metrics::{Moments, functions};

/// How far a row may be from what the sample leads to expect, as a ratio of Σe², before its pieces are
/// asked for their own twins: 1.5 dB, with which the gates pass it.
const ORDINARY: f64 = 1.4;

/// The same as a distance of the gains, of which the gates allow 0.05.
pub const ORDINARY_GAIN: f64 = 0.04;

/// Sums over a run of elements: r reference, x quantized (or its twin), e = x - r.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RunSums {
    /// Number of elements.
    pub n: u64,
    /// Σ r².
    pub rr: f64,
    /// Σ x².
    pub xx: f64,
    /// Σ e².
    pub ee: f64,
    /// Σ r·x.
    pub rx: f64,
}

impl RunSums {
    /// Of a run of the reference and of something else.
    pub fn of(reference: &[f32], other: &[f32]) -> Self {
        let mut sums = Self { n: reference.len() as u64, ..Self::default() };
        for (&r, &x) in reference.iter().zip(other) {
            sums.sum_up(f64::from(r), f64::from(x));
        }
        sums
    }

    /// Takes in one more element.
    pub fn take(&mut self, r: f64, x: f64) {
        self.n += 1;
        self.sum_up(r, x);
    }

    fn sum_up(&mut self, r: f64, x: f64) {
        let e = x - r;
        self.rr += r * r;
        self.xx += x * x;
        self.ee += e * e;
        self.rx += r * x;
    }

    /// Adds the sums of other elements.
    pub fn add(&mut self, other: &Self) {
        self.n += other.n;
        self.rr += other.rr;
        self.xx += other.xx;
        self.ee += other.ee;
        self.rx += other.rx;
    }

    /// The same as the sums of a tensor; what is not known of it, the mean error, is left out.
    pub fn moments(&self) -> Moments {
        let Self { n, rr, xx, ee, rx } = *self;
        Moments { n, rr, qq: xx, ee, rq: rx, ..Moments::default() }
    }

    /// Signal-to-noise ratio in dB; infinite without an error.
    pub fn sqnr_db(&self) -> f64 {
        if self.ee == 0.0 { f64::INFINITY } else { 10.0 * functions::log10(self.rr / self.ee) }
    }

    /// Ratio of the norms; 1 if both are zero.
    pub fn gain(&self) -> f64 {
        if self.rr == 0.0 && self.xx == 0.0 { 1.0 } else { (self.xx / self.rr).sqrt() }
    }

    /// Cosine; 1 if both sides are zero, 0 if one is.
    pub fn cosine(&self) -> f64 {
        match (self.rr == 0.0, self.xx == 0.0) {
            (true, true) => 1.0,
            (false, false) => self.rx / (self.rr.sqrt() * self.xx.sqrt()),
            _ => 0.0,
        }
    }

    /// The part of the power that is noise: 1 - cosine^2.
    pub fn lost(&self) -> f64 {
        1.0 - self.cosine() * self.cosine()
    }

    /// How far a gain is from what it should be, these being a twin's sums: from 1, or from the twin's,
    /// whichever is nearer. Coarse types scatter: a tenth of the twin's own relative error is taken off.
    pub fn gain_distance(&self, gain: f64) -> f64 {
        let from_one = (gain - 1.0).abs();
        if self.xx == 0.0 && gain == 0.0 {
            return 0.0;
        }
        if self.rr == 0.0 || self.xx == 0.0 {
            return from_one;
        }
        let from_twin = (gain / self.gain() - 1.0).abs();
        (from_one.min(from_twin) - 0.1 * (self.ee / self.rr).sqrt()).max(0.0)
    }

    /// Whether these sums of a row or piece are much like those of its twin, or of what is expected.
    pub fn is_like(&self, twin: &Self) -> bool {
        self.ee <= ORDINARY * twin.ee
            && self.lost() <= ORDINARY * twin.lost()
            && twin.gain_distance(self.gain()) <= ORDINARY_GAIN
    }

    /// What these sums lead to expect of other elements, of which these are the reference's.
    #[must_use]
    pub fn expected_of(&self, other: &Self) -> Self {
        let ratio = if self.rr == 0.0 { 0.0 } else { other.rr / self.rr };
        Self {
            n: other.n,
            rr: other.rr,
            xx: self.xx * ratio,
            ee: self.ee * ratio,
            rx: self.rx * ratio,
        }
    }

    /// Root mean square error.
    pub fn rms(&self) -> f64 {
        if self.n == 0 { 0.0 } else { (self.ee / self.n as f64).sqrt() }
    }
}
