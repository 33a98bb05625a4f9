/*! Expressions against an evaluator that knows arrays and indices only. */

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Quantizer, Recipe, Step, View, ViewError};
use crate::codec::{Class, TensorType};
use crate::model::{Extent, Scratch, SourceFile, Storage, Tensor};

/// An array, whole and in memory.
#[derive(Clone, Debug)]
struct Array {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Array {
    fn from(shape: Vec<usize>, value: impl Fn(&[usize]) -> f32) -> Self {
        let count: usize = shape.iter().product();
        let values = (0..count).map(|at| value(&unravel(at, &shape))).collect();
        Self { shape, values }
    }

    fn get(&self, index: &[usize]) -> f32 {
        let at = index.iter().zip(&self.shape).fold(0, |at, (index, extent)| at * extent + index);
        self.values[at]
    }

    fn take(&self, axis: usize, indices: &[usize]) -> Self {
        let mut shape = self.shape.clone();
        shape[axis] = indices.len();
        Self::from(shape, |index| {
            let mut index = index.to_vec();
            index[axis] = indices[index[axis]];
            self.get(&index)
        })
    }

    fn transpose(&self, axes: &[usize]) -> Self {
        Self::from(axes.iter().map(|&axis| self.shape[axis]).collect(), |index| {
            let mut from = vec![0; index.len()];
            for (at, &axis) in axes.iter().enumerate() {
                from[axis] = index[at];
            }
            self.get(&from)
        })
    }

    fn concat(parts: &[Self], axis: usize) -> Self {
        let mut shape = parts[0].shape.clone();
        shape[axis] = parts.iter().map(|part| part.shape[axis]).sum();
        Self::from(shape, |index| {
            let mut index = index.to_vec();
            for part in parts {
                if index[axis] < part.shape[axis] {
                    return part.get(&index);
                }
                index[axis] -= part.shape[axis];
            }
            unreachable!()
        })
    }

    fn map(&self, f: impl Fn(&[usize], f32) -> f32) -> Self {
        Self::from(self.shape.clone(), |index| f(index, self.get(index)))
    }
}

fn unravel(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (index, extent) in index.iter_mut().zip(shape).rev() {
        *index = at % extent;
        at /= extent;
    }
    index
}

fn wide(shape: &[usize]) -> Vec<u64> {
    shape.iter().map(|&extent| extent as u64).collect()
}

/// A view and what it should be.
type Both = (View, Array);

/// Does one thing to both, chosen by numbers; nothing where it cannot be done.
fn apply((view, array): &Both, kind: u32, numbers: [usize; 4]) -> Both {
    let [a, b, c, d] = numbers;
    let shape = array.shape.clone();
    let rank = shape.len();
    let axis = a % rank;
    let extent = shape[axis];
    let done = |view: Result<View, ViewError>, array: Array| (view.unwrap(), array);
    match kind % 16 {
        0 => {
            let mut axes: Vec<usize> = (0..rank).collect();
            axes.rotate_left(b % rank);
            axes.swap(0, a % rank);
            done(view.transpose(&axes), array.transpose(&axes))
        }
        1 | 2 => {
            let start = b % extent;
            let (stop, step) = (start + 1 + c % (extent - start), 1 + d % 3);
            let indices: Vec<usize> = (start..stop).step_by(step).collect();
            let range = start as u64..stop as u64;
            done(view.slice(axis, range, step as u64), array.take(axis, &indices))
        }
        3 if rank > 1 => {
            let index = b % extent;
            let mut shape = shape;
            shape.remove(axis);
            let taken = Array { shape, ..array.take(axis, &[index]) };
            done(view.select(axis, index as u64), taken)
        }
        4 => {
            let indices: Vec<usize> = (0..=d % 7).map(|i| (b + i * c) % extent).collect();
            done(view.gather(axis, &wide(&indices)), array.take(axis, &indices))
        }
        5 if array.values.len() < 5000 => {
            let times = 1 + b % 3;
            let indices: Vec<usize> = (0..extent * times).map(|i| i % extent).collect();
            done(view.repeat(axis, times as u64), array.take(axis, &indices))
        }
        6 => {
            // One axis as two, or two as one.
            let mut shape = shape;
            let factor = 1 + b % 4;
            if extent.is_multiple_of(factor) && rank < 6 {
                shape[axis] /= factor;
                shape.insert(axis + c % 2, factor);
            } else if axis + 1 < rank {
                let next = shape.remove(axis + 1);
                shape[axis] *= next;
            }
            done(view.reshape(&wide(&shape)), Array { shape, ..array.clone() })
        }
        7 if array.values.len() < 5000 => {
            let other = array.map(|_, value| value + 0.5);
            let parts = [view.clone(), view.add(0.5), view.clone()];
            let arrays = [array.clone(), other, array.clone()];
            done(View::concat(&parts, axis), Array::concat(&arrays, axis))
        }
        8 if array.values.len() < 5000 && rank < 6 => {
            let axis = a % (rank + 1);
            let mut raised = shape;
            raised.insert(axis, 1);
            let one = Array { shape: raised, ..array.clone() };
            let parts = [view.clone(), view.clone()];
            done(View::stack(&parts, axis), Array::concat(&[one.clone(), one], axis))
        }
        9 => {
            let more = b % 3;
            let mut zeros = shape;
            zeros[axis] = more;
            let padded = Array::concat(&[array.clone(), Array::from(zeros, |_| 0.0)], axis);
            done(view.pad_zero(axis, (extent + more) as u64), padded)
        }
        10 if shape[0].is_multiple_of(4) => {
            let order = |row: usize| row / 4 * 4 + row % 2 * 2 + row % 4 / 2;
            let indices: Vec<usize> = (0..shape[0]).map(order).collect();
            done(view.permute_qk((shape[0] / 4) as u64), array.take(0, &indices))
        }
        11 => {
            let factors: Arc<[f32]> = (0..extent).map(|i| 1.0 + (i % 5) as f32).collect();
            let expected = array.map(|index, value| value * factors[index[axis]]);
            done(view.mul_along(axis, Arc::clone(&factors)), expected)
        }
        12 => {
            let expected = array.map(|_, value| half::f16::from_f32(value / 3.0).to_f32());
            done(view.div(3.0).cast(TensorType::F16), expected)
        }
        13 => (view.mul(0.5), array.map(|_, value| value * 0.5)),
        14 => {
            let place = |start: u64, values: &mut [f32]| {
                for (at, value) in (start..).zip(values) {
                    *value += 0.25 * (at % 7) as f32;
                }
            };
            let shape = shape.clone();
            let expected = array.map(|index, value| {
                let at = index.iter().zip(&shape).fold(0, |at, (i, extent)| at * extent + i);
                value + 0.25 * (at % 7) as f32
            });
            (view.each(Step::new("place", Vec::new()), place), expected)
        }
        _ => (view.clone(), array.clone()),
    }
}

/// A stored tensor of ascending values.
fn leaf(name: &str, shape: &[usize], first: usize, bytes: &mut Vec<u8>) -> (Tensor, Array) {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (first..first + count).map(|value| value as f32).collect();
    let at = Extent { file: 0, offset: bytes.len() as u64, len: count as u64 * 4 };
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let storage = Storage::Plain { ty: TensorType::F32, at };
    let tensor = Tensor { name: name.to_owned(), shape: wide(shape), storage };
    (tensor, Array { shape: shape.to_vec(), values })
}

fn memory(bytes: Vec<u8>) -> Vec<SourceFile> {
    vec![SourceFile::from_bytes(Path::new("memory"), bytes)]
}

fn decode(tensor: &Tensor, files: &[SourceFile], cuts: &[usize]) -> Vec<f32> {
    let numel = tensor.numel();
    let mut bounds: Vec<u64> = cuts.iter().map(|&cut| cut as u64 % (numel + 1)).collect();
    bounds.extend([0, numel]);
    bounds.sort_unstable();
    // The parts in an order of their own, by one reader.
    let mut parts: Vec<_> = bounds.windows(2).map(|pair| pair[0]..pair[1]).collect();
    let by = parts.len() / 2;
    parts.rotate_left(by);
    let mut values = vec![f32::NAN; numel as usize];
    let mut scratch = Scratch::default();
    for range in parts {
        let part = &mut values[range.start as usize..range.end as usize];
        tensor.decode(files, range, &mut scratch, part).unwrap();
    }
    values
}

fn check(shape: &[usize], ops: &[(u32, [usize; 4])], cuts: &[usize]) {
    let mut bytes = Vec::new();
    let (tensor, array) = leaf("t", shape, 1, &mut bytes);
    let files = memory(bytes);
    let mut both = (View::of(&tensor), array);
    for (kind, numbers) in ops {
        both = apply(&both, *kind, *numbers);
    }
    let (view, array) = both;
    if let Recipe::Single { source: Some(_), ops } = view.recipe()
        && let Some(again) = View::of(&tensor).replay_all(&ops)
    {
        assert_eq!(again.recipe(), view.recipe());
        assert_eq!(decode(&again.into_tensor("v"), &files, &[]), array.values);
    }
    let recipe = view.recipe().to_string();
    assert_eq!(view.shape(), wide(&array.shape), "{recipe}");
    let tensor = view.clone().into_tensor("v");
    assert_eq!(decode(&tensor, &files, cuts), array.values, "{recipe} of {shape:?}");
    assert_eq!(tensor.class(), Class::Float);
    covers(&tensor, &recipe);
    let numel = view.numel();
    for (source, range) in view.reads(0..numel) {
        assert!(source == 0 && range.end <= shape.iter().product::<usize>() as u64, "{recipe}");
    }
}

/// The units of a tensor overlap nowhere, and leave out at most what is constant.
fn covers(tensor: &Tensor, recipe: &str) {
    let mut seen = vec![false; tensor.numel() as usize];
    for unit in tensor.units() {
        for row in 0..unit.rows {
            let start = (unit.start + row * unit.pitch) as usize;
            for seen in &mut seen[start..start + unit.cols as usize] {
                assert!(!std::mem::replace(seen, true), "{recipe}: {unit:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_partition_of_an_expression_is_the_whole_computed_naively(
        shape in prop::collection::vec(1usize..9, 1..5),
        ops in prop::collection::vec((any::<u32>(), any::<[u16; 4]>()), 0..7),
        cuts in prop::collection::vec(any::<u16>(), 0..6),
    ) {
        let wider = |numbers: [u16; 4]| numbers.map(usize::from);
        let ops: Vec<_> = ops.into_iter().map(|(kind, numbers)| (kind, wider(numbers))).collect();
        let cuts: Vec<usize> = cuts.into_iter().map(usize::from).collect();
        check(&shape, &ops, &cuts);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn movements_of_more_than_a_chunk_are_too(
        shape in prop::sample::select(vec![
            vec![300, 700], vec![700, 300], vec![3, 250, 260], vec![90_000, 2], vec![2, 90_000],
            vec![5000, 8, 3], vec![2, 2, 50_000],
        ]),
        ops in prop::collection::vec((0u32..7, any::<[u16; 4]>()), 1..4),
        cuts in prop::collection::vec(0usize..300_000, 0..6),
    ) {
        let ops: Vec<_> =
            ops.into_iter().map(|(kind, numbers)| (kind, numbers.map(usize::from))).collect();
        check(&shape, &ops, &cuts);
    }
}

#[test]
fn plain_runs_of_whole_blocks_stay_plain() {
    let mut bytes = Vec::new();
    let (tensor, _) = leaf("t", &[4, 6, 32], 0, &mut bytes);
    let at = Extent { file: 0, offset: 0, len: 4 * 6 * 34 };
    let blocks = Storage::Plain { ty: TensorType::Q8_0, at };
    let blocks = Tensor { storage: blocks, ..tensor.clone() };
    let view = View::of(&tensor);
    for (view, plain, why) in [
        (view.clone(), Some((0, 3072)), "the tensor itself"),
        (view.reshape(&[24, 32]).unwrap(), Some((0, 3072)), "another shape"),
        (view.select(0, 2).unwrap(), Some((1536, 768)), "a slice"),
        (view.select(0, 1).unwrap().slice(0, 2..4, 1).unwrap(), Some((1024, 256)), "some rows"),
        (view.slice(1, 2..4, 1).unwrap(), None, "rows of each slice"),
        (view.transpose(&[0, 2, 1]).unwrap(), None, "transposed"),
        (view.add(1.0), None, "computed"),
        (View::of(&blocks).select(0, 3).unwrap(), Some((612, 204)), "whole blocks"),
        (View::of(&blocks).slice(2, 0..16, 1).unwrap(), None, "half blocks"),
        (View::of(&blocks).reshape(&[768]).unwrap().slice(0, 8..72, 1).unwrap(), None, "unaligned"),
    ] {
        let extent = match view.into_tensor("v").storage {
            Storage::Plain { at, .. } => Some((at.offset, at.len)),
            _ => None,
        };
        assert_eq!(extent, plain, "{why}");
    }
}

#[test]
fn views_that_cannot_be_are_refused() {
    let mut bytes = Vec::new();
    let view = View::of(&leaf("t", &[6, 4], 0, &mut bytes).0);
    let other = View::of(&leaf("u", &[6, 3], 0, &mut bytes).0);
    for (refused, why) in [
        (view.reshape(&[5, 5]), "[6, 4] has not as many elements as [5, 5]"),
        (view.transpose(&[0, 0]), "[0, 0] is no order of the axes of [6, 4]"),
        (view.slice(2, 0..1, 1), "[6, 4] has no axis 2"),
        (view.slice(0, 2..7, 1), "2..7 in steps of 1 is no part of axis 0 of [6, 4]"),
        (view.slice(0, 2..4, 0), "2..4 in steps of 0 is no part of axis 0 of [6, 4]"),
        (view.select(1, 4), "4 is no index of axis 1 of [6, 4]"),
        (view.gather(0, &[0, 6]), "6 is no index of axis 0 of [6, 4]"),
        (view.permute_qk(2), "6 rows are not 2 heads of an even length"),
        (view.permute_qk(0), "6 rows are not 0 heads of an even length"),
        (view.repeat(0, u64::MAX), "[6, 4] has too many elements"),
        (view.pad_zero(0, 5), "axis 0 of [6, 4] is longer than 5"),
        (View::concat(&[], 0), "there is nothing to join"),
        (
            View::concat(&[view.clone(), other.clone()], 0),
            "[6, 3] does not fit to [6, 4] along axis 0",
        ),
        (View::stack(&[view.clone(), other], 0), "[6, 3] does not fit to [6, 4] along axis 0"),
        (view.mul_along(1, [1.0].into()), "1 factors do not fit to axis 1 of [6, 4]"),
        (view.cast(TensorType::Q8_0), "values of [6, 4] cannot be brought to Q8_0"),
        (
            view.round_trip(TensorType::Q4_K, Quantizer::Flat),
            "values of [6, 4] cannot be brought to Q4_K",
        ),
        (View::constant(0.0, &[u64::MAX, 2]), "[18446744073709551615, 2] has too many elements"),
    ] {
        assert_eq!(refused.unwrap_err().to_string(), why);
    }
}

#[test]
fn a_view_says_what_it_does_and_of_what() {
    let mut bytes = Vec::new();
    let (a, _) = leaf("a", &[4, 6], 0, &mut bytes);
    let (b, _) = leaf("b", &[4, 6], 24, &mut bytes);
    let (a, b) = (View::of(&a), View::of(&b));
    let joined = View::stack(&[a.slice(0, 1..3, 1).unwrap(), b.slice(0, 0..4, 2).unwrap()], 0);
    let view = joined.unwrap().transpose(&[0, 2, 1]).unwrap().add(1.0);
    assert_eq!(
        view.recipe().to_string(),
        "stack(axis=0) of [a: slice(axis=0, start=1, stop=3); \
         b: slice(axis=0, start=0, stop=4, step=2)]: transpose(axes=[0,2,1]), add(value=1.0)"
    );
    let names: Vec<&str> = view.sources().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    // What lies between is less than a read of its own costs.
    assert_eq!(view.reads(0..2), [(0, 6..13)]);
    assert_eq!(view.reads(0..24), [(0, 6..18), (1, 0..18)]);
}

#[test]
fn units_are_the_matrices_that_were_quantized_on_their_own() {
    let mut bytes = Vec::new();
    let (stack, _) = leaf("stack", &[3, 4, 2], 0, &mut bytes);
    let (gate, _) = leaf("gate", &[4, 2], 0, &mut bytes);
    let (up, _) = leaf("up", &[4, 2], 0, &mut bytes);
    let (stack, gate, up) = (View::of(&stack), View::of(&gate), View::of(&up));
    let turned = |view: &View| view.transpose(&[1, 0]).unwrap();
    for (view, expected, why) in [
        (
            stack.clone(),
            vec![("stack", 0, 0, 4, 2, 2), ("stack", 1, 8, 4, 2, 2), ("stack", 2, 16, 4, 2, 2)],
            "a stack",
        ),
        (stack.select(0, 1).unwrap(), vec![("stack", 1, 0, 4, 2, 2)], "one of a stack"),
        (
            stack.slice(1, 0..2, 1).unwrap(),
            vec![("stack", 0, 0, 2, 2, 2), ("stack", 1, 4, 2, 2, 2), ("stack", 2, 8, 2, 2, 2)],
            "half of each",
        ),
        (
            View::concat(&[gate.clone(), up.clone()], 0).unwrap(),
            vec![("gate", 0, 0, 4, 2, 2), ("up", 0, 8, 4, 2, 2)],
            "below each other",
        ),
        (
            View::concat(&[turned(&gate), turned(&up)], 1).unwrap(),
            vec![("gate", 0, 0, 2, 4, 8), ("up", 0, 4, 2, 4, 8)],
            "beside each other, transposed",
        ),
        (
            stack.reshape(&[12, 2]).unwrap().add(1.0),
            vec![("stack", 0, 0, 4, 2, 2), ("stack", 1, 8, 4, 2, 2), ("stack", 2, 16, 4, 2, 2)],
            "flat",
        ),
    ] {
        let (shape, storage) = (view.shape().to_vec(), Storage::Joined(Arc::new(view)));
        let units = Tensor { name: "v".to_owned(), shape, storage }.units();
        let parts: Vec<_> = units
            .iter()
            .map(|u| (u.source.name.as_str(), u.matrix, u.start, u.rows, u.cols, u.pitch))
            .collect();
        assert_eq!(parts, expected, "{why}");
    }
}

#[test]
fn first_passes_are_made_over_the_whole_tensor() {
    let mut bytes = Vec::new();
    let (tensor, array) = leaf("t", &[3, 2], 1, &mut bytes);
    let files = memory(bytes);
    let view = View::of(&tensor);
    // The mean of 1..=6 is 3.5; 1 / 3.5 rounds to 0, 2 / 3.5 to 1.
    let ternary = view.ternary_absmean().into_tensor("v");
    let scale = 1.0 / (1.0 / 3.5f32);
    assert_eq!(decode(&ternary, &files, &[2, 3]), [0.0, scale, scale, scale, scale, scale]);
    let normed = view.div_col_l2norm(1e-7).unwrap().into_tensor("v");
    let norm = |first: usize| {
        let column = array.values[first..].iter().step_by(2);
        (column.map(|value| f64::from(value * value)).sum::<f64>().sqrt() + 1e-7) as f32
    };
    let expected: Vec<f32> =
        array.values.iter().enumerate().map(|(at, value)| value / norm(at % 2)).collect();
    assert_eq!(decode(&normed, &files, &[1, 5]), expected);
}
