/*!
Counterparts without a rule: a matrix of the quantized model is the reference's whose rows it has, as
they are or in the rotary order of query and key rows.

Values decide alone, on a sample, so nothing is matched that they do not distinguish: vectors, matrices
that are almost constant, and copies of each other. What is found is said to be inferred.
*/

use std::collections::BTreeMap;

use crate::model::view::View;
use crate::model::{Model, ReadError, Scratch, Tensor};

/// Rows on which two tensors are compared: the first, the last, and rows at uneven distances between
/// them, so that no order of rows leaves all of them in place.
const ROWS: u64 = 48;

/// Elements of a row that are looked at.
const WIDTH: u64 = 256;

/// Shortest row that tells rows apart.
const SHORTEST: u64 = 16;

/// Most matrices of one shape: each is held against each.
const MOST: usize = 2048;

/// A cosine above this is the same row; those of different rows of random weights stay far below.
const SAME: f64 = 0.8;

/// What was found.
#[derive(Debug, Default)]
pub struct Inferred {
    /// What tensors of the quantized model are made of, by name.
    pub views: BTreeMap<String, View>,
    /// Tensors of the quantized model for which nothing was found, in order.
    pub unmatched: Vec<String>,
}

/// Looks for what `quantized`'s tensors are made of among `reference`'s.
pub fn infer(reference: &Model, quantized: &Model) -> Inferred {
    let mut shapes: BTreeMap<&[u64], Vec<&Tensor>> = BTreeMap::new();
    for tensor in &reference.tensors {
        shapes.entry(&tensor.shape).or_default().push(tensor);
    }
    shapes.retain(|shape, tensors| is_telling(shape) && tensors.len() <= MOST);
    let known: BTreeMap<&[u64], Vec<Ends>> = shapes
        .into_iter()
        .map(|(shape, tensors)| {
            let ends = tensors.into_iter().filter_map(|tensor| Ends::of(reference, tensor));
            (shape, ends.collect())
        })
        .collect();
    let mut inferred = Inferred::default();
    for tensor in &quantized.tensors {
        let known = known.get(&tensor.shape[..]);
        match known.and_then(|known| counterpart(reference, known, quantized, tensor)) {
            Some(view) => {
                inferred.views.insert(tensor.name.clone(), view);
            }
            None => inferred.unmatched.push(tensor.name.clone()),
        }
    }
    inferred
}

/// Whether tensors of a shape can be told apart by their rows.
fn is_telling(shape: &[u64]) -> bool {
    matches!(shape, &[rows, columns] if rows >= 2 && columns >= SHORTEST)
}

/// A tensor by the two rows that every rotary order leaves in place.
struct Ends<'a> {
    tensor: &'a Tensor,
    rows: Vec<Vec<f32>>,
}

impl<'a> Ends<'a> {
    /// None if the values do not distinguish the tensor from others.
    fn of(model: &Model, tensor: &'a Tensor) -> Option<Self> {
        let rows = read(model, tensor, &[0, tensor.shape[0] - 1]).ok()?;
        let telling = cosine(&rows[0], &rows[1]) < SAME && rows.iter().all(|row| varies(row));
        telling.then_some(Self { tensor, rows })
    }
}

/// What a tensor is made of, if that is one tensor alone.
fn counterpart(
    reference: &Model,
    known: &[Ends],
    quantized: &Model,
    tensor: &Tensor,
) -> Option<View> {
    let ends = Ends::of(quantized, tensor)?;
    let places = places(tensor.shape[0]);
    let rows = read(quantized, tensor, &places).ok()?;
    let explains = |view: &View| {
        let own = read(reference, &view.clone().into_tensor("candidate"), &places);
        own.is_ok_and(|own| are_alike(&own, &rows))
    };
    let alike = known.iter().filter(|other| are_alike(&other.rows, &ends.rows));
    let mut found = alike.filter_map(|other| {
        let view = View::of(other.tensor);
        let rows = tensor.shape[0];
        let heads = (1..=rows / 4)
            .filter(|heads| rows.is_multiple_of(*heads) && (rows / heads).is_multiple_of(2));
        let permuted = heads.filter_map(|heads| view.permute_qk(heads).ok());
        std::iter::once(view.clone()).chain(permuted).find(explains)
    });
    let view = found.next()?;
    found.next().is_none().then_some(view)
}

/// Rows to look at.
fn places(rows: u64) -> Vec<u64> {
    if rows <= ROWS {
        return (0..rows).collect();
    }
    // Steps of the golden ratio: evenly spread, and aligned with nothing.
    let between = (1..ROWS - 1).map(|nth| {
        let part = (nth as f64 * 0.618_033_988_749_895).fract();
        (part * rows as f64) as u64
    });
    between.chain([0, rows - 1]).collect()
}

/// The beginnings of rows of a matrix.
fn read(model: &Model, tensor: &Tensor, places: &[u64]) -> Result<Vec<Vec<f32>>, ReadError> {
    let columns = tensor.shape.last().copied().unwrap_or(0);
    let mut scratch = Scratch::default();
    let row = |place: &u64| {
        let start = place * columns;
        let mut values = vec![0.0; columns.min(WIDTH) as usize];
        let range = start..start + values.len() as u64;
        tensor.decode(&model.files, range, &mut scratch, &mut values)?;
        Ok(values)
    };
    places.iter().map(row).collect()
}

fn are_alike(a: &[Vec<f32>], b: &[Vec<f32>]) -> bool {
    a.iter().zip(b).all(|(a, b)| cosine(a, b) > SAME)
}

/// Whether values are not almost constant.
fn varies(values: &[f32]) -> bool {
    let sum =
        |of: &dyn Fn(f64) -> f64| values.iter().map(|value| of(f64::from(*value))).sum::<f64>();
    let mean = sum(&|value| value) / values.len() as f64;
    sum(&|value| (value - mean).powi(2)) > 0.1 * sum(&|value| value * value)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let size = (dot(a, a) * dot(b, b)).sqrt();
    if size > 0.0 { dot(a, b) / size } else { 0.0 }
}
