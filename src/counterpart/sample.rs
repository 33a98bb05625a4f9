/*! Whether two tensors hold the same values up to quantization, as far as a sample of rows tells. */

use crate::model::{Model, ReadError, Scratch, Tensor};

/// Rows that are looked at.
const ROWS: u64 = 16;

/// Elements of a row that are looked at.
const WIDTH: u64 = 1024;

/// Elements of a row that is not put together with others.
const SHORTEST: u64 = 256;

/// Two samples with a cosine above this are the same weights: two bits a weight leave more, and
/// independent weights of so many elements stay far below.
const SAME: f64 = 0.8;

/// Fewest elements of a sample that says anything.
const LEAST: usize = 64;

/// What a sample says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// The same weights.
    Same,
    /// Others.
    Other,
    /// Too few values, or values that do not distinguish tensors: almost constant ones, as those of
    /// norms, are alike in any two tensors.
    Unclear,
}

/// Compares tensors of one shape on rows that are evenly spaced.
pub fn likeness(
    reference: (&Model, &Tensor),
    quantized: (&Model, &Tensor),
) -> Result<Likeness, ReadError> {
    let (own, other) = (values(reference)?, values(quantized)?);
    Ok(judge(&own, &other))
}

/// Compares samples.
fn judge(own: &[f32], other: &[f32]) -> Likeness {
    let mean = |values: &[f32]| {
        values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len().max(1) as f64
    };
    // About their means, so that a common offset is no likeness.
    let (a, b) = (mean(own), mean(other));
    let (mut dot, mut square_a, mut square_b, mut size) = (0.0, 0.0, 0.0, 0.0);
    for (x, y) in own.iter().zip(other) {
        let (x, y) = (f64::from(*x), f64::from(*y));
        dot += (x - a) * (y - b);
        square_a += (x - a).powi(2);
        square_b += (y - b).powi(2);
        size += x * x;
    }
    let varied = square_a > 0.1 * size;
    let cosine = dot / (square_a * square_b).sqrt();
    match cosine {
        _ if own.len() < LEAST || own.len() != other.len() || !varied || cosine.is_nan() => {
            Likeness::Unclear
        }
        _ if cosine > SAME => Likeness::Same,
        _ => Likeness::Other,
    }
}

/// The beginnings of evenly spaced rows; short ones, as in a convolution, count as one with those
/// beside them.
fn values((model, tensor): (&Model, &Tensor)) -> Result<Vec<f32>, ReadError> {
    let mut row = 1;
    for extent in tensor.shape.iter().rev() {
        row *= extent;
        if row >= SHORTEST {
            break;
        }
    }
    let row = row.max(1);
    let (rows, width) = (tensor.numel() / row, row.min(WIDTH));
    let (count, mut scratch) = (rows.min(ROWS), Scratch::default());
    let mut values = vec![0.0; (count * width) as usize];
    for (nth, part) in (0..count).zip(values.chunks_exact_mut(width as usize)) {
        let start = nth * rows / count * row;
        tensor.decode(&model.files, start..start + width, &mut scratch, part)?;
    }
    Ok(values)
}
