/*!
Σrq of tensors whose products almost cancel, once more and with twice the digits.

The pass adds up f64 sums that are right to 20 · 2⁻⁵³ · Σ|rq|, and Σ|rq| is at most |r| |q|. Where the
cosine is small, that is not twelve digits of it. Such a tensor has nothing in common with its
reference, which is rare: it is read a second time, and its products, which are exact in f64, are
added up together with what each addition loses (Knuth's two-sum), which leaves an error of
n · 2⁻¹⁰⁶ · Σ|rq|.
*/

use super::sides::{float_type, unreadable};
use super::{Matched, Measured, plan};
use crate::codec::TensorType;
use crate::metrics::{LANES, Moments, two_sum};
use crate::model::{Model, Scratch, Tensor};

/// Cosines below this are summed up again: 20 · 2⁻⁵³ of it is 6e-13.
const SMALL: f64 = 1.0 / 256.0;

/// Whether the products of this tensor cancel so far that their sum has lost digits.
fn has_lost_digits(sums: &Moments) -> bool {
    sums.nonfinite() == 0 && sums.rq.abs() < SMALL * (sums.rr.sqrt() * sums.qq.sqrt())
}

/// Replaces Σrq of the tensors that have lost digits of it.
pub fn restore_digits(
    reference: &Model,
    quantized: &Model,
    matched: &[Matched],
    measured: &mut [Measured],
) {
    let mut buffers = Buffers::default();
    for (pair, measured) in matched.iter().zip(measured) {
        let Measured::Values { sums, .. } = measured else { continue };
        let doubles = |tensor: &Tensor| float_type(tensor) == Some(TensorType::F64);
        let (r, q) = (&reference.tensors[pair.reference], &quantized.tensors[pair.quantized]);
        // Doubles are read as singles here, which loses more.
        if !has_lost_digits(sums) || doubles(r) || doubles(q) {
            continue;
        }
        let sides = [
            (&reference.tensors[pair.reference], reference, "reference"),
            (&quantized.tensors[pair.quantized], quantized, "quantized"),
        ];
        match products(sides, &mut buffers) {
            Ok(rq) => sums.rq = rq,
            Err(reason) => *measured = Measured::Unreadable { reason },
        }
    }
}

#[derive(Default)]
struct Buffers {
    scratch: Scratch,
    values: [Vec<f32>; 2],
}

/// Σrq of two tensors of one shape.
fn products(sides: [(&Tensor, &Model, &str); 2], buffers: &mut Buffers) -> Result<f64, String> {
    let numel = sides[0].0.numel();
    let mut sum = Products::default();
    let mut start = 0;
    while start < numel {
        let end = (start + plan::CHUNK).min(numel);
        for ((tensor, model, side), values) in sides.iter().zip(&mut buffers.values) {
            values.resize((end - start) as usize, 0.0);
            tensor
                .decode(&model.files, start..end, &mut buffers.scratch, values)
                .map_err(|error| unreadable((tensor, &model.files), side, &error))?;
        }
        let [r, q] = &buffers.values;
        sum.add(r, q);
        start = end;
    }
    Ok(sum.rounded())
}

/// A sum of products in lanes, each beside what its additions have lost.
#[derive(Default)]
struct Products {
    sums: [f64; LANES],
    lost: [f64; LANES],
}

impl Products {
    fn add(&mut self, r: &[f32], q: &[f32]) {
        for (r, q) in r.chunks(LANES).zip(q.chunks(LANES)) {
            for (lane, (&r, &q)) in r.iter().zip(q).enumerate() {
                let (sum, lost) = two_sum(self.sums[lane], f64::from(r) * f64::from(q));
                self.sums[lane] = sum;
                self.lost[lane] += lost;
            }
        }
    }

    fn rounded(&self) -> f64 {
        let (mut total, mut lost) = (0.0, self.lost.iter().sum::<f64>());
        for &lane in &self.sums {
            let rest;
            (total, rest) = two_sum(total, lane);
            lost += rest;
        }
        total + lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_after_cancellation_is_exact() {
        let tiny = 2f32.powi(-40);
        for (r, q, expected, why) in [
            (vec![1.0, 1.0, tiny], vec![1e10, -1e10, tiny], 2f64.powi(-80), "neighbours"),
            ([1e10, 1.0].repeat(40), [1.0, -1e10].repeat(40), 0.0, "lanes"),
            (vec![3.0; 33], vec![2.0; 33], 198.0, "no cancellation"),
            (vec![], vec![], 0.0, "nothing"),
        ] {
            let mut sum = Products::default();
            sum.add(&r, &q);
            assert_eq!(sum.rounded(), expected, "{why}");
        }
    }

    #[test]
    fn only_small_cosines_have_lost_digits() {
        let sums = |rq| Moments { n: 2, rr: 4.0, qq: 1.0, rq, ..Moments::default() };
        for (sums, expected, why) in [
            (sums(1.9), false, "a quantized tensor"),
            (sums(-0.01), false, "unrelated, but not by much"),
            (sums(-0.007), true, "almost orthogonal"),
            (sums(0.0), true, "orthogonal as far as can be told"),
            (Moments::default(), false, "all zero"),
            (Moments { quantized_nonfinite: 1, ..sums(0.0) }, false, "no cosine at all"),
        ] {
            assert_eq!(has_lost_digits(&sums), expected, "{why}");
        }
    }
}
