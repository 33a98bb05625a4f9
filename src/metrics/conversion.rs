/*!
What a conversion between float types may change in an element: the definition, and the table of types
that it is made of.

A type that holds every value of the reference's leaves the value as it is; zeros of either sign are
equal. A narrower one holds one of the two neighbours of the value, whichever way it is rounded: to
nearest, towards zero, at random, or twice. A value below the type's normal numbers may become zero.
What is beyond its largest number has no neighbour there: an infinity or a saturated value is not
sound.

A reference that is computed (codes times scales, or a sum) is itself rounded, and the converter may
have computed it otherwise, in the narrower type. Then the bound is that of the operation: a rounded
factor and a rounded product, two units in the last place, and as much of the largest value of the run
for what cancels.
*/

use crate::codec::TensorType;

/// Which values a float type has.
#[derive(Clone, Copy)]
struct Format {
    /// Bits of the fraction.
    fraction: i32,
    /// Exponent of its smallest positive number.
    least: i32,
    /// Exponent of its largest number.
    top: i32,
}

impl Format {
    fn of(ty: TensorType) -> Option<Self> {
        // Rows that are merged hold the values of a plain type.
        let ty = ty.info().rows.and_then(|rows| rows.base).unwrap_or(ty);
        let (fraction, least, top) = match ty {
            TensorType::F64 => (52, -1074, 1023),
            TensorType::F32 => (23, -149, 127),
            TensorType::BF16 => (7, -133, 127),
            TensorType::F16 => (10, -24, 15),
            TensorType::F8_E4M3 => (3, -9, 8),
            TensorType::F8_E5M2 => (2, -16, 15),
            TensorType::F8_E4M3FNUZ => (3, -10, 7),
            TensorType::F8_E5M2FNUZ => (2, -17, 15),
            _ => return None,
        };
        Some(Self { fraction, least, top })
    }

    fn holds(self, other: Self) -> bool {
        self.fraction >= other.fraction && self.least <= other.least && self.top >= other.top
    }
}

/// Where the values of a reference come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// They are stored in this type.
    Stored(TensorType),
    /// They are computed as they are decoded.
    Computed,
}

/// What an element may differ by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// The bound, as a part of the power of two at or below |r|; the difference is smaller.
    ulp: f64,
    /// The bound where that is less.
    least: f64,
    /// Smaller values may be zero.
    normal: f64,
    /// From this power of two on, the one at or below |r| is a value of the type, and q is not below it.
    binades: f64,
    /// Whether the bound is also that part of the run's largest |r|.
    computed: bool,
}

impl Rule {
    /// Nothing but the sign of a zero.
    pub const EXACT: Self =
        Self { ulp: 0.0, least: 0.0, normal: 0.0, binades: f64::INFINITY, computed: false };

    /// The rule for a tensor of type `to`. `recomputed`: its values were computed on the way, from
    /// stored ones of that type and factors as coarse. `None` if `to` is no float type that is known.
    pub fn new(from: Origin, to: TensorType, recomputed: bool) -> Option<Self> {
        let target = Format::of(to);
        let mut units = match from {
            Origin::Stored(ty) if ty == to && !recomputed => return Some(Self::EXACT),
            Origin::Stored(ty) => {
                if !recomputed && target?.holds(Format::of(ty)?) {
                    return Some(Self::EXACT);
                }
                1.0
            }
            Origin::Computed => 2.0,
        };
        if recomputed {
            // The value and its factor are each off by less than a unit, which is two in the binade below.
            units = 4.0;
        }
        let Format { fraction, least, .. } = target?;
        let smallest = 2f64.powi(least);
        let normal = smallest * 2f64.powi(fraction);
        let computed = from == Origin::Computed || recomputed;
        Some(Self {
            ulp: units * 2f64.powi(-fraction),
            least: units * smallest,
            normal,
            binades: if computed { f64::INFINITY } else { normal },
            computed,
        })
    }

    /// Whether nothing but the sign of a zero may differ.
    pub fn is_exact(&self) -> bool {
        self.ulp == 0.0
    }

    /// The same rule for a run of which the largest |r| is known.
    #[must_use]
    pub fn for_run(&self, largest: f64) -> Self {
        let floor = if self.computed { self.ulp * power_of_two(largest) } else { 0.0 };
        Self { least: self.least.max(floor), ..*self }
    }

    /// Whether the largest |r| of a run makes a difference.
    pub fn needs_largest(&self) -> bool {
        self.computed
    }

    /// Whether a converter may have made q of r: the definition.
    pub fn allows(&self, r: f64, q: f64) -> bool {
        let (difference, binade) = ((q - r).abs(), power_of_two(r));
        let near = difference < (self.ulp * binade).max(self.least);
        let neighbour = near && (q.abs() >= binade || binade < self.binades);
        difference == 0.0 || neighbour || q == 0.0 && r.abs() < self.normal
    }

    /// Bound as a part of a power of two, bound of small values, the smallest normal number and the
    /// smallest binade that keeps its values, as f32, for types that are narrower than it.
    pub(super) fn singles(&self) -> [f32; 4] {
        [self.ulp, self.least, self.normal, self.binades].map(|value| value as f32)
    }
}

/// The power of two at or below |x|; 0 for subnormal numbers.
fn power_of_two(x: f64) -> f64 {
    f64::from_bits(x.to_bits() & 0x7FF0_0000_0000_0000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_conversion_may_change() {
        use TensorType::{BF16, F8_E4M3, F16, F32, F64};
        let ulp = 2f64.powi(-7);
        for (from, to, r, q, sound, why) in [
            (F32, F32, 1.5, 1.5, true, "the same"),
            (F32, F32, 0.0, -0.0, true, "zeros of either sign"),
            (F32, F32, 1.5, 1.500_000_1, false, "another value of the same type"),
            (BF16, F32, 1.5, 1.5, true, "widened"),
            (BF16, F32, 1.5, 1.5 + ulp / 2.0, false, "a wider type has every value"),
            (F32, BF16, 1.001, 1.0, true, "nearest"),
            (F32, BF16, 1.007, 1.0, true, "truncated"),
            (F32, BF16, 1.001, 1.0 + ulp, true, "rounded up at random"),
            (F32, BF16, 1.001, 1.0 + 2.0 * ulp, false, "not a neighbour"),
            (F32, BF16, 1.001, 1.0 - ulp / 2.0, false, "the neighbour of a neighbour"),
            (F32, BF16, 1.0, 1.0 + ulp, false, "a value that the type has"),
            (F32, BF16, 1.995, 2.0, true, "up into the next binade"),
            (F32, BF16, -1.007, -1.0, true, "negative"),
            (F32, BF16, 1.001, -1.0, false, "negated"),
            (F32, F16, 3e-6, 0.0, true, "a subnormal flushed to zero"),
            (F32, F16, 6.2e-5, 0.0, false, "a normal number that became zero"),
            (F32, F16, 1e-9, 0.0, true, "too small"),
            (F32, F16, 65_510.0, 65_504.0, true, "rounded to the largest"),
            (F32, F16, 70_000.0, 65_504.0, false, "saturated"),
            (F32, F16, 70_000.0, f64::INFINITY, false, "overflow"),
            (F16, BF16, 1.001, 1.0, true, "fewer digits"),
            (BF16, F16, 1e-8, 0.0, true, "a smaller range"),
            (BF16, F16, 1.0, 1.0 + 2f64.powi(-10), false, "a value that both have"),
            (F32, F8_E4M3, 460.0, 448.0, true, "the largest E4M3"),
            (F32, F8_E4M3, 1.06, 1.125, true, "E4M3"),
            (F64, F64, 1e-52, 0.0, false, "too small for single precision, and lost"),
            (F64, F64, 1e-52, -1e-52, false, "negated below single precision"),
            (F64, F32, 0.1, f64::from(0.1f32), true, "to single precision"),
            (F32, F32, f64::NAN, f64::NAN, false, "NaN is for another gate"),
        ] {
            let rule = Rule::new(Origin::Stored(from), to, false).unwrap();
            assert_eq!(rule.allows(r, q), sound, "{from} to {to}: {why}");
        }
    }

    #[test]
    fn what_is_computed_has_the_bound_of_its_operation() {
        let ulp = 2f64.powi(-7);
        let rule = Rule::new(Origin::Computed, TensorType::BF16, false).unwrap();
        assert!(rule.allows(1.001, 1.0 + ulp) && !rule.allows(1.0, 1.0 + 2.0 * ulp));
        assert!(!rule.allows(0.001, 0.005), "without a run");
        assert!(rule.for_run(1.0).allows(0.001, 0.005), "what cancelled");
        assert!(Rule::new(Origin::Stored(TensorType::F32), TensorType::Q8_0, false).is_none());
        let folded = Rule::new(Origin::Stored(TensorType::BF16), TensorType::BF16, true).unwrap();
        assert!(folded.allows(1.0, 1.0 + 3.0 * ulp) && !folded.allows(1.0, 1.0 + 4.0 * ulp));
    }
}
