/*!
Spot checks: of each matrix some rows are read, and judged as the matrix would be.

The rows are spans, one at a random place of each of as many equal strata, so that no period of damage escapes;
of a stack of experts they are the same rows of each. The first row is always among them. What is small, is
no matrix, or is stored in several planes is read whole.
*/

use std::collections::HashMap;

use super::record::{Number, SampleRecord, TensorRow};
use crate::codec::Class;
use crate::measure::{self, Matched};
use crate::metrics::functions;
use crate::model::view::View;
use crate::model::{Model, Storage, Tensor};

/// Fewest rows that are read of a matrix, and most spans.
const FEWEST: u64 = 8;
const MOST_SPANS: u64 = 64;
/// Shorter rows are no rows of a matrix.
const SHORTEST: u64 = 32;
/// How often damage of the stated size is missed.
const MISSED: f64 = 0.01;
/// Where the random places begin.
const SEED: u64 = 1;

/// The rows that stand for a pair, and what they stand for.
pub struct Sample {
    pub record: SampleRecord,
    /// Shape and stored bytes of the tensors that are not read whole, by name in the reference.
    whole: HashMap<String, (Vec<u64>, u64)>,
}

impl Sample {
    /// Puts rows of matched tensors in the place of the tensors.
    pub fn take(
        share: f64,
        reference: &mut Model,
        quantized: &mut Model,
        matched: &[Matched],
    ) -> Self {
        let of = measure::bytes_of(reference, quantized, matched);
        let mut whole = HashMap::new();
        let (mut finds, mut weakest) = (0.0, String::new());
        for pair in matched {
            let r = &reference.tensors[pair.reference];
            let q = &quantized.tensors[pair.quantized];
            let Some((axis, spans)) = spans(r, q, share) else { continue };
            let Some([few_r, few_q]) = rows(r, q, axis, &spans) else { continue };
            whole.insert(r.name.clone(), (r.shape.clone(), q.stored_bytes()));
            // Damage to a share of the rows escapes each span with what is left.
            let found = 1.0 - functions::pow(MISSED, 1.0 / (spans.len() - 1) as f64);
            if found > finds {
                (finds, weakest) = (found, r.name.clone());
            }
            reference.tensors[pair.reference] = few_r;
            quantized.tensors[pair.quantized] = few_q;
        }
        let bytes = measure::bytes_of(reference, quantized, matched);
        let (share, finds) = (Number(share), Number(finds));
        Self {
            record: SampleRecord { share, seed: SEED, bytes, of, requests: 0, finds, weakest },
            whole,
        }
    }

    /// Whether all was read, as of small models.
    pub fn is_whole(&self) -> bool {
        self.whole.is_empty()
    }

    /// Gives rows of the record the shapes and sizes of the tensors that they stand for.
    pub fn restore(&self, rows: &mut [TensorRow]) {
        for row in rows {
            if let Some((shape, stored)) = self.whole.get(&row.tensor) {
                row.shape.clone_from(shape);
                row.numel = shape.iter().product();
                row.stored_bytes = *stored;
            }
        }
    }
}

/// A first row, and how many.
type Span = (u64, u64);

/// The axis of rows and the spans of a matrix, or of each of a stack; none if it is to be read whole.
fn spans(r: &Tensor, q: &Tensor, share: f64) -> Option<(usize, Vec<Span>)> {
    let axis = r.shape.len().checked_sub(2)?;
    let (rows, columns) = (r.shape[axis], r.shape[axis + 1]);
    let fits = r.shape == q.shape && columns >= SHORTEST && is_plain(r) && is_plain(q);
    let count = ((rows as f64 * share).ceil() as u64).max(FEWEST);
    if !fits || count + 1 >= rows {
        return None;
    }
    let strata = count.clamp(FEWEST, MOST_SPANS);
    let len = count.div_ceil(strata);
    let mut state = r.name.bytes().fold(SEED, |hash, byte| mixed(hash ^ u64::from(byte)));
    let mut spans = vec![(0, 1)];
    for stratum in 0..strata {
        let (first, end) = (rows * stratum / strata, rows * (stratum + 1) / strata);
        let len = len.min(end - first);
        state = mixed(state);
        spans.push((first + state % (end - first - len + 1), len));
    }
    Some((axis, spans))
}

/// Whether rows can be taken out of a tensor, and known for what they are: a run of elements or blocks, or a
/// view of such.
fn is_plain(tensor: &Tensor) -> bool {
    let plain = |tensor: &Tensor| matches!(tensor.storage, Storage::Plain { .. });
    let known = tensor.class() != Class::Exact && tensor.qtype() != "mixed";
    known && (plain(tensor) || tensor.view().is_some_and(|view| view.sources().all(plain)))
}

/// The same rows of both.
fn rows(r: &Tensor, q: &Tensor, axis: usize, spans: &[Span]) -> Option<[Tensor; 2]> {
    let mut indices: Vec<u64> = spans.iter().flat_map(|(first, len)| *first..first + len).collect();
    indices.sort_unstable();
    indices.dedup();
    let few = |tensor: &Tensor| {
        let view = View::of(tensor).gather(axis, &indices).ok()?;
        Some(view.into_tensor(tensor.name.clone()))
    };
    Some([few(r)?, few(q)?])
}

/// `SplitMix64`.
fn mixed(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::TensorType;
    use crate::model::Extent;

    fn matrix(name: &str, shape: &[u64]) -> Tensor {
        let at = Extent { file: 0, offset: 0, len: shape.iter().product::<u64>() * 4 };
        let storage = Storage::Plain { ty: TensorType::F32, at };
        Tensor { name: name.to_owned(), shape: shape.to_vec(), storage }
    }

    #[test]
    fn every_stratum_has_its_span_and_the_first_row_is_read() {
        for (rows, share) in [(100, 0.01), (576, 0.01), (49152, 0.01), (14336, 0.05), (4096, 0.3)] {
            let it = matrix("a", &[rows, 64]);
            let (axis, spans) = self::spans(&it, &it, share).unwrap();
            assert_eq!((axis, spans[0]), (0, (0, 1)));
            let strata = spans.len() as u64 - 1;
            assert!((FEWEST..=MOST_SPANS).contains(&strata));
            for (at, (first, len)) in (0..).zip(&spans[1..]) {
                assert!(*first >= rows * at / strata && first + len <= rows * (at + 1) / strata);
            }
            let read: u64 = spans.iter().map(|(_, len)| len).sum();
            assert!(read as f64 <= (rows as f64 * share).max(8.0) + 65.0, "{rows}: {read}");
        }
    }

    #[test]
    fn experts_are_all_touched_and_small_things_read_whole() {
        let stack = matrix("a", &[128, 768, 64]);
        assert_eq!(spans(&stack, &stack, 0.01).unwrap().0, 1);
        for shape in [&[768u64][..], &[8, 64], &[1000, 3]] {
            let it = matrix("a", shape);
            assert!(spans(&it, &it, 0.01).is_none(), "{shape:?}");
        }
        let other = self::spans(&matrix("b", &[576, 64]), &matrix("b", &[576, 64]), 0.01);
        assert_ne!(other, self::spans(&matrix("a", &[576, 64]), &matrix("a", &[576, 64]), 0.01));
    }
}
