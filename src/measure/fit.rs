/*!
The grid that a group of values lies on: whole multiples of a step, an offset and whole steps, or entries
of a known code book times a scale, each to within the rounding of the type that they are stored in.

The step is kept as an interval that every value narrows, so that nothing is fitted that does not fit.
What a group proves is counted in bits: how unlikely it is that values without a grid would fit as well.
*/

use super::Grid;
use crate::codec::{TensorType, float};
use crate::metrics::functions;

/// Bits that a group must prove to count for a grid.
pub const PROOF: f64 = 6.0;

/// Largest code, counted from zero or from the offset: 8 bits, with zero points at either end.
const LARGEST_CODE: f64 = 256.0;

/// The smallest magnitude of a group may be up to so many steps.
const STEPS: u32 = 64;

/// How values are rounded when they are stored.
#[derive(Clone, Copy)]
pub struct Rounding {
    /// Half a unit in the last place, as a part of the power of two at or below the value.
    half: f64,
    /// Of the smallest values.
    least: f64,
}

impl Rounding {
    /// Of a type.
    pub fn of(ty: TensorType) -> Self {
        let (half, least) = match ty {
            TensorType::BF16 => (2f64.powi(-8), 2f64.powi(-134)),
            TensorType::F16 => (2f64.powi(-11), 2f64.powi(-25)),
            // Whatever was stored in double precision was computed in single.
            _ => (0.0, 2f64.powi(-149)),
        };
        Self { half, least }
    }

    /// What a value of the grid may be off by: the rounding, and a little for what was computed in single
    /// precision before.
    fn around(self, value: f64) -> f64 {
        const COMPUTED: f64 = 2.4e-7;
        let power = f64::from_bits(value.to_bits() & 0x7FF0_0000_0000_0000);
        self.half * power * 1.01 + self.least + COMPUTED * value.abs()
    }
}

/// The grid of one group.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// What kind of grid.
    pub kind: Kind,
    /// Step, or scale of a code book.
    step: f64,
    offset: f64,
    /// Smallest and largest code.
    pub codes: (f64, f64),
    /// What the group proves.
    pub bits: f64,
}

/// A kind of grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Codes times a step, zero among them.
    Steps,
    /// Codes times a step beyond an offset.
    Offset,
    /// Index of a code book.
    Book(usize),
}

/// A code book: its name, bits of a code, values in ascending order.
pub type Book = (&'static str, u32, &'static [f32]);

/// Code books whose largest entry is at most so many entries above the one that a group reaches.
const UNUSED: usize = 24;

/// ggml's non-linear four bits, as they are stored.
static IQ4_NL: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0,
    89.0, 113.0,
];

/// The code books that are known.
pub fn books() -> &'static [Book] {
    static BOOKS: std::sync::OnceLock<Vec<Book>> = std::sync::OnceLock::new();
    BOOKS.get_or_init(|| {
        let finite = |table: &[f32]| -> &'static [f32] {
            let mut values: Vec<f32> = table.iter().copied().filter(|v| v.is_finite()).collect();
            values.sort_by(f32::total_cmp);
            values.dedup();
            Box::leak(values.into_boxed_slice())
        };
        vec![
            ("NF4", 4, &Grid::NF4[..]),
            ("FP4", 4, &Grid::FP4[..]),
            ("E2M1", 4, finite(&float::E2M1)),
            ("IQ4_NL", 4, &IQ4_NL[..]),
            ("E4M3", 8, finite(&float::E4M3)),
            ("E5M2", 8, finite(&float::E5M2)),
        ]
    })
}

impl Fit {
    /// The plainest grid that the values prove.
    ///
    /// One of the kind that is asked for comes first, whatever it proves.
    pub fn of(values: &[f32], storage: Rounding, kind: Option<Kind>) -> Option<Self> {
        let mut distinct: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
        if distinct.iter().any(|value| !value.is_finite()) {
            return None;
        }
        distinct.sort_by(f64::total_cmp);
        distinct.dedup();
        if distinct.len() > LARGEST_CODE as usize + 2 {
            return None;
        }
        let steps = Self::steps(&distinct, storage);
        let offset = Self::offset(&distinct, storage);
        let of_books = books()
            .iter()
            .enumerate()
            .filter_map(|(index, book)| Self::book(&distinct, index, book, storage));
        let candidates: Vec<Self> =
            steps.clone().into_iter().chain(offset).chain(of_books).collect();
        if let Some(fit) = candidates.iter().find(|fit| Some(fit.kind) == kind) {
            return Some(fit.clone());
        }
        // The grid with the fewest levels is the plainest explanation, of equals the first.
        candidates
            .into_iter()
            .filter(|fit| fit.bits >= PROOF)
            .min_by(|a, b| a.levels().total_cmp(&b.levels()))
            .or(steps)
    }

    /// Values that the grid has, as far as the group shows.
    pub fn levels(&self) -> f64 {
        match self.kind {
            Kind::Book(index) => books()[index].2.len() as f64,
            Kind::Steps => self.codes.1 - self.codes.0 + 1.0,
            // An offset is one more thing to explain.
            Kind::Offset => self.codes.1 - self.codes.0 + 2.0,
        }
    }

    /// Whole multiples of a step.
    fn steps(distinct: &[f64], storage: Rounding) -> Option<Self> {
        let mut magnitudes: Vec<f64> =
            distinct.iter().map(|value| value.abs()).filter(|value| *value > 0.0).collect();
        magnitudes.sort_by(f64::total_cmp);
        magnitudes.dedup();
        let first = *magnitudes.first()?;
        (1..=STEPS).find_map(|count| {
            let count = f64::from(count);
            let mut step = Interval::of(first / count, storage.around(first) / count);
            let mut bits = -functions::log2(count);
            for value in &magnitudes[1..] {
                bits += step.narrow(*value, storage.around(*value))?;
            }
            let step = step.middle();
            let codes = [distinct[0], distinct[distinct.len() - 1]].map(|it| (it / step).round());
            (codes[0].abs().max(codes[1].abs()) < LARGEST_CODE).then_some(Self {
                kind: Kind::Steps,
                step,
                offset: 0.0,
                codes: (codes[0].min(0.0), codes[1].max(0.0)),
                bits,
            })
        })
    }

    /// An offset and whole steps: counted from the smallest magnitude, whose rounding is the finest, to
    /// the values further and further away.
    fn offset(distinct: &[f64], storage: Rounding) -> Option<Self> {
        let anchor = distinct.iter().copied().min_by(|a, b| a.abs().total_cmp(&b.abs()))?;
        let mut distances: Vec<(f64, f64)> = distinct
            .iter()
            .filter(|value| **value != anchor)
            .map(|value| {
                let error = storage.around(*value) + storage.around(anchor);
                ((value - anchor).abs(), error)
            })
            .collect();
        distances.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (first, error) = *distances.first()?;
        (1..=4).find_map(|count| {
            let count = f64::from(count);
            let mut step = Interval::of(first / count, error / count);
            let mut bits = -functions::log2(count);
            for (distance, error) in &distances[1..] {
                bits += step.narrow(*distance, *error)?;
            }
            let step = step.middle();
            let code = |value: &f64| ((value - anchor) / step).round();
            let codes = (code(distinct.first()?), code(distinct.last()?));
            let kind = Kind::Offset;
            (codes.1 - codes.0 < LARGEST_CODE).then_some(Self {
                kind,
                step,
                offset: anchor,
                codes,
                bits,
            })
        })
    }

    /// Entries of a code book, scaled.
    fn book(
        distinct: &[f64],
        index: usize,
        (_, _, entries): &Book,
        storage: Rounding,
    ) -> Option<Self> {
        if distinct.len() > entries.len() {
            return None;
        }
        let (low, high) = (*distinct.first()?, *distinct.last()?);
        let of_low = low.abs() >= high;
        let extreme = if of_low { low } else { high };
        let candidates: Vec<f64> = entries.iter().map(|entry| f64::from(*entry)).collect();
        let reached: Box<dyn Iterator<Item = &f64>> =
            if of_low { Box::new(candidates.iter()) } else { Box::new(candidates.iter().rev()) };
        for entry in reached.take(UNUSED.min(entries.len() / 2)) {
            let scale = extreme / entry;
            if !(scale.is_finite() && scale > 0.0) {
                continue;
            }
            let mut bits = -functions::log2(UNUSED as f64);
            let fits = distinct.iter().all(|value| {
                let (nearest, gap) = nearest(entries, value / scale);
                let error =
                    storage.around(*value) + storage.around(extreme) * (value / extreme).abs();
                let chance = 2.0 * error / (gap * scale).abs();
                bits -= functions::log2(chance.min(1.0));
                (nearest * scale - value).abs() <= error
            });
            if fits {
                let kind = Kind::Book(index);
                return Some(Self { kind, step: scale, offset: 0.0, codes: (0.0, 0.0), bits });
            }
        }
        None
    }

    /// The nearest value of the grid, of which a code has `span` steps.
    pub fn nearest(&self, value: f64, span: f64) -> f64 {
        match self.kind {
            Kind::Book(index) => nearest(books()[index].2, value / self.step).0 * self.step,
            Kind::Steps | Kind::Offset => {
                let (low, high) = self.codes;
                let (low, high) = (low.min(high - span), high.max(low + span));
                let code = ((value - self.offset) / self.step).round().clamp(low, high);
                self.offset + code * self.step
            }
        }
    }
}

/// The nearest entry, and the distance of its nearest neighbour.
fn nearest(entries: &[f32], value: f64) -> (f64, f64) {
    let entry = |at: usize| f64::from(entries[at]);
    let above = entries.partition_point(|entry| f64::from(*entry) < value).min(entries.len() - 1);
    let below = above.saturating_sub(1);
    let at =
        if (value - entry(below)).abs() <= (entry(above) - value).abs() { below } else { above };
    let left = at.checked_sub(1).map_or(f64::INFINITY, |left| entry(at) - entry(left));
    let right = if at + 1 < entries.len() { entry(at + 1) - entry(at) } else { f64::INFINITY };
    (entry(at), left.min(right))
}

/// Where the step lies.
struct Interval {
    low: f64,
    high: f64,
}

impl Interval {
    fn of(middle: f64, around: f64) -> Self {
        Self { low: (middle - around).max(middle * 0.5), high: middle + around }
    }

    fn middle(&self) -> f64 {
        f64::midpoint(self.low, self.high)
    }

    /// Takes in a value that is a whole number of steps, to within an error; returns the bits that it
    /// proves, or `None` if no step of the interval fits.
    fn narrow(&mut self, value: f64, error: f64) -> Option<f64> {
        let step = self.middle();
        let count = (value / step).round().max(1.0);
        let width = 2.0 * error + count * (self.high - self.low);
        self.low = self.low.max((value - error) / count);
        self.high = self.high.min((value + error) / count);
        (self.low <= self.high).then(|| -functions::log2((width / step).min(1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    fn normals(seed: u64, len: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        (0..len).map(|_| 0.02 * ((0..12).map(|_| next()).sum::<f32>() - 6.0)).collect()
    }

    fn integers(values: &[f32], bits: u32, zero_points: bool) -> Vec<f32> {
        let top = values.iter().fold(0f32, |most, value| most.max(*value));
        let low = values.iter().fold(0f32, |least, value| least.min(*value));
        let levels = ((1 << bits) - 1) as f32;
        let (step, zero) = if zero_points {
            let step = (top - low) / levels;
            (step, (-low / step).round())
        } else {
            (top.max(-low) / ((levels - 1.0) / 2.0), 0.0)
        };
        values.iter().map(|value| (((value / step).round() + zero) - zero) * step).collect()
    }

    fn through_bf16(values: &[f32]) -> Vec<f32> {
        values.iter().map(|value| bf16::from_f32(*value).to_f32()).collect()
    }

    /// What a group shows, and whether that is proof enough.
    #[test]
    fn grids_are_found_where_there_are_some_and_nowhere_else() {
        let single = Rounding::of(TensorType::F32);
        let half = Rounding::of(TensorType::BF16);
        let x = normals(1, 512);
        let shifted: Vec<f32> =
            integers(&x[..32], 4, false).iter().map(|value| value + 0.001_234).collect();
        let absmax = x[..64].iter().fold(0f32, |most, value| most.max(value.abs()));
        let nf4: Vec<f32> = x[..64]
            .iter()
            .map(|value| nearest(&Grid::NF4, f64::from(value / absmax)).0 as f32 * absmax)
            .collect();
        for (values, storage, expected, why) in [
            (integers(&x, 8, false), single, Some(Kind::Steps), "INT8 of a row"),
            (integers(&x[..128], 4, true), single, Some(Kind::Steps), "INT4 with zero points"),
            (through_bf16(&integers(&x[..128], 4, true)), half, Some(Kind::Steps), "in BF16"),
            (through_bf16(&integers(&x, 8, false)), half, Some(Kind::Steps), "INT8 in BF16"),
            (integers(&x[..32], 3, false), single, Some(Kind::Steps), "INT3 of 32"),
            (shifted, single, Some(Kind::Offset), "with an offset"),
            (nf4.clone(), single, Some(Kind::Book(0)), "NF4"),
            (through_bf16(&nf4), half, Some(Kind::Book(0)), "NF4 in BF16"),
            (x.clone(), single, None, "weights"),
            (x[..32].to_vec(), single, None, "few weights"),
            (through_bf16(&x), half, None, "weights in BF16"),
            (through_bf16(&x[..32]), half, None, "few weights in BF16"),
            (vec![1.0; 64], single, None, "one value is no grid"),
            ([0.9, 1.1].repeat(32), single, None, "nor are two"),
        ] {
            let fit = Fit::of(&values, storage, None).filter(|fit| fit.bits >= 20.0);
            assert_eq!(fit.map(|fit| fit.kind), expected, "{why}");
        }
    }
}
