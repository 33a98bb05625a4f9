/*!
How sure the order of two scores is, and what level of KLD a score lets expect.

From `docs/rank.md`: shares of pairs of one model in the right order, by the ratio of their scores.
*/

use super::score::{Basis, Score, Zone};

/// KLD in nats for one unit of the score, the median over models.
pub const KAPPA: f64 = 0.84;

/// Without a measured KLD of the same model, the level is known up to this factor.
pub const FREE_BAND: f64 = 3.0;

/// With one, up to this.
pub const ANCHOR_BAND: f64 = 1.4;

/// Scores closer than this are not separable.
const SEPARABLE: f64 = 1.15;

/// From this ratio on, an order is clear.
const CLEAR: f64 = 2.0;

/// How sure an order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// Nothing is known about such models.
    NotClaimed,
    /// The two may well be the other way round.
    NotSeparable,
    /// Right in more than 90 % of pairs.
    Likely,
    /// Right in more than 98 %.
    Clear,
}

impl Confidence {
    /// The words in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotClaimed => "not claimed",
            Self::NotSeparable => "not separable",
            Self::Likely => "likely",
            Self::Clear => "clear",
        }
    }
}

/// The order of two models.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The larger score over the smaller; not finite if the smaller is zero.
    pub ratio: f64,
    /// How sure it is.
    pub confidence: Confidence,
    /// Why it is no surer.
    pub reason: Option<&'static str>,
}

/// How sure it is that the better of two scores is the better one. `calibrated`: whether each file was made
/// with an importance matrix.
pub fn order(better: &Score, worse: &Score, calibrated: [bool; 2]) -> Order {
    let ratio = worse.value / better.value;
    let of = |confidence, reason| Order { ratio, confidence, reason };
    if !better.evidence || !worse.evidence {
        return of(Confidence::NotClaimed, Some("a type is not in the evidence"));
    }
    if calibrated[0] != calibrated[1] {
        let why = "one was made with an importance matrix, the other without";
        return of(Confidence::NotSeparable, Some(why));
    }
    // NaN, of two zeros, is not separable either.
    if !(ratio >= SEPARABLE) {
        return of(Confidence::NotSeparable, Some("the scores are closer than 15 %"));
    }
    if worse.zone() == Zone::NearLossless && ratio < CLEAR {
        return of(Confidence::NotSeparable, Some("both are below what weights can show"));
    }
    let measured = better.basis != Basis::Nominal || worse.basis != Basis::Nominal;
    match (ratio >= CLEAR, measured) {
        (true, false) => of(Confidence::Clear, None),
        (true, true) => of(
            Confidence::Likely,
            Some("some errors are measured, which the evidence does not cover"),
        ),
        (false, _) => of(Confidence::Likely, None),
    }
}

/// A level of KLD, in nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// The best guess.
    pub kld: f64,
    /// Its band.
    pub low: f64,
    /// Its band.
    pub high: f64,
}

impl Level {
    fn around(kld: f64, band: f64) -> Self {
        Self { kld, low: kld / band, high: kld * band }
    }
}

/// The level that a score lets expect without any measurement, within a factor of three; `None` outside the
/// zone in which the two are proportional.
pub fn level(score: &Score) -> Option<Level> {
    let known = score.evidence && score.zone() == Zone::Ok;
    known.then(|| Level::around(KAPPA * score.value, FREE_BAND))
}

/// The level that a score lets expect if the model of score `anchor` has a KLD of `kld`.
pub fn anchored(score: &Score, anchor: &Score, kld: f64) -> Option<Level> {
    let known = |score: &Score| score.evidence && score.zone() == Zone::Ok;
    let both = known(score) && known(anchor);
    both.then(|| Level::around(score.value * kld / anchor.value, ANCHOR_BAND))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(value: f64, basis: Basis, evidence: bool) -> Score {
        Score {
            value,
            basis,
            evidence,
            roles: Vec::new(),
            faults: Vec::new(),
            worse_than_zero: Vec::new(),
            layers: 1,
        }
    }

    #[test]
    fn confidence_by_ratio() {
        use Basis::{Mixed, Nominal};
        use Confidence::{Clear, Likely, NotClaimed, NotSeparable};
        for (better, worse, basis, evidence, calibrated, expected, why) in [
            (0.1, 0.11, Nominal, true, [false, false], NotSeparable, "closer than 1.15"),
            (0.1, 0.115, Nominal, true, [true, true], Likely, "1.15"),
            (0.1, 0.19, Nominal, true, [false, false], Likely, "below 2"),
            (0.1, 0.2, Nominal, true, [false, false], Clear, "2"),
            (0.1, 0.5, Mixed, true, [false, false], Likely, "measured errors"),
            (0.1, 0.5, Nominal, true, [true, false], NotSeparable, "calibrations differ"),
            (0.1, 0.5, Nominal, false, [false, false], NotClaimed, "no evidence"),
            (0.005, 0.009, Nominal, true, [false, false], NotSeparable, "near-lossless"),
            (0.0002, 0.009, Nominal, true, [false, false], Clear, "a big step below 0.01"),
            (0.0, 0.0, Nominal, true, [false, false], NotSeparable, "both without an error"),
            (0.0, 0.1, Nominal, true, [false, false], Clear, "one without an error"),
        ] {
            let order =
                order(&score(better, basis, evidence), &score(worse, basis, true), calibrated);
            assert_eq!(order.confidence, expected, "{why}");
        }
    }

    #[test]
    fn levels_have_a_zone_and_a_band() {
        let ok = score(0.1, Basis::Nominal, true);
        assert_eq!(level(&ok), Some(Level { kld: 0.084, low: 0.084 / 3.0, high: 0.084 * 3.0 }));
        for (value, evidence) in [(0.009, true), (0.51, true), (0.1, false)] {
            assert_eq!(level(&score(value, Basis::Nominal, evidence)), None);
            assert_eq!(anchored(&score(value, Basis::Nominal, evidence), &ok, 0.1), None);
        }
        let twice = anchored(&score(0.2, Basis::Nominal, true), &ok, 0.06);
        assert_eq!(twice.map(|it| it.kld), Some(0.2 * 0.06 / 0.1));
    }
}
