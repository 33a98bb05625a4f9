/*!
What `llama-quantize-stats` measures: each float tensor through each quantizer and back, in flat
chunks, with the errors' root mean square, maximum and histogram.

Formulas and constants are those of llama.cpp's `quantize-stats`: the difference is rounded to f32
before it is squared in f64, and percentiles are upper edges of [`BUCKETS`] buckets over
[0, [`RANGE`]), the last of which is open.
*/

use sha2::{Digest, Sha256};

use super::parallel::in_parallel;
use super::plan::CHUNK;
use super::stream::Progress;
use crate::codec::{Class, RowCodec, TensorType};
use crate::model::{Model, ReadError, Scratch, Tensor, hex};

/// Buckets of the histogram.
pub const BUCKETS: usize = 150;

/// Upper edge of the last closed bucket.
pub const RANGE: f64 = 0.03;

/// Errors of one tensor, or of all of them, through one type.
#[derive(Clone, Debug)]
pub struct ErrorStats {
    /// Σ of the squared differences.
    pub squares: f64,
    /// The largest difference.
    pub max_abs: f64,
    /// Number of values.
    pub count: u64,
    /// Differences per bucket.
    pub histogram: [u64; BUCKETS],
}

impl Default for ErrorStats {
    fn default() -> Self {
        Self { squares: 0.0, max_abs: 0.0, count: 0, histogram: [0; BUCKETS] }
    }
}

impl ErrorStats {
    fn update(&mut self, input: &[f32], output: &[f32]) {
        for (&input, &output) in input.iter().zip(output) {
            let difference = f64::from(input - output);
            self.squares += difference * difference;
            // NaN must not be passed over, as fmax does: it is the largest difference there is.
            if difference.is_nan() {
                self.max_abs = f64::NAN;
            } else if difference.abs() > self.max_abs {
                self.max_abs = difference.abs();
            }
            let bucket = (difference.abs() / RANGE * BUCKETS as f64).floor();
            // NaN and what lies beyond the range go into the last bucket.
            let bucket = if bucket < BUCKETS as f64 { bucket as usize } else { BUCKETS - 1 };
            self.histogram[bucket] += 1;
        }
        self.count += input.len() as u64;
    }

    fn add(&mut self, other: &Self) {
        self.squares += other.squares;
        self.max_abs =
            if other.max_abs.is_nan() { f64::NAN } else { self.max_abs.max(other.max_abs) };
        self.count += other.count;
        for (count, more) in self.histogram.iter_mut().zip(&other.histogram) {
            *count += more;
        }
    }

    /// Root mean square of the errors; NaN without values.
    pub fn rmse(&self) -> f64 {
        (self.squares / self.count as f64).sqrt()
    }

    /// Upper edge of the bucket below which this fraction of the errors lies.
    pub fn quantile(&self, fraction: f64) -> f64 {
        let wanted = self.count as f64 * fraction;
        let mut so_far = 0;
        for (bucket, count) in self.histogram.iter().enumerate() {
            so_far += count;
            if so_far as f64 >= wanted {
                return (bucket + 1) as f64 * RANGE / BUCKETS as f64;
            }
        }
        f64::INFINITY
    }
}

/// One tensor through one type.
#[derive(Clone, Debug)]
pub enum Through {
    /// It was quantized and dequantized.
    Done {
        /// The errors.
        errors: ErrorStats,
        /// SHA-256 of the encoded blocks, lower-case hex.
        encoded_sha256: String,
    },
    /// Its length is not a multiple of the block.
    NotQuantizable {
        /// Why.
        reason: String,
    },
    /// Its values could not be read.
    Unreadable(ReadError),
}

/// Every chosen tensor through one type.
#[derive(Clone, Debug)]
pub struct TypeStats {
    /// The type.
    pub ty: TensorType,
    /// Tensor names and what came out, in the order in which they were given.
    pub tensors: Vec<(String, Through)>,
}

impl TypeStats {
    /// All quantized tensors as one.
    pub fn total(&self) -> ErrorStats {
        let mut total = ErrorStats::default();
        for (_, through) in &self.tensors {
            if let Through::Done { errors, .. } = through {
                total.add(errors);
            }
        }
        total
    }
}

/// The tensors of a model that can go through a quantizer: those of a float type.
pub fn float_tensors(model: &Model) -> impl Iterator<Item = &Tensor> {
    model.tensors.iter().filter(|tensor| tensor.class() == Class::Float)
}

/// Sends `tensors` through every one of `types`, on `threads` threads.
pub fn quantize_stats(
    model: &Model,
    tensors: &[&Tensor],
    types: &[TensorType],
    threads: usize,
    progress: &Progress,
) -> Vec<TypeStats> {
    let jobs: Vec<(TensorType, &Tensor)> =
        types.iter().flat_map(|&ty| tensors.iter().map(move |&tensor| (ty, tensor))).collect();
    progress.expect(jobs.iter().map(|(_, tensor)| tensor.stored_bytes()));
    let results = in_parallel(
        jobs.len(),
        threads,
        || Buffers::new(progress),
        |index, buffers| {
            let (ty, tensor) = jobs[index];
            send_through(model, tensor, ty, buffers)
        },
    );
    let mut results = results.into_iter();
    types
        .iter()
        .map(|&ty| TypeStats {
            ty,
            tensors: tensors.iter().map(|t| t.name.clone()).zip(results.by_ref()).collect(),
        })
        .collect()
}

/// What a thread works with.
struct Buffers<'a> {
    progress: &'a Progress,
    scratch: Scratch,
    input: Vec<f32>,
    output: Vec<f32>,
    blocks: Vec<u8>,
}

impl<'a> Buffers<'a> {
    fn new(progress: &'a Progress) -> Self {
        let (input, output, blocks) = (Vec::new(), Vec::new(), Vec::new());
        Self { progress, scratch: Scratch::default(), input, output, blocks }
    }
}

fn send_through(model: &Model, tensor: &Tensor, ty: TensorType, buffers: &mut Buffers) -> Through {
    let row = ty.info();
    let numel = tensor.numel();
    if let Some(codec) = row.rows {
        return send_rows(model, tensor, ty, &codec, buffers);
    }
    let (Some(encode), Some(decode)) = (row.encode, row.decode) else {
        return Through::NotQuantizable { reason: ty.why_no_reference() };
    };
    if ty.bytes_for(numel).is_none() {
        let len = row.block_len;
        let reason = format!("{numel} elements are not whole blocks of {len}");
        return Through::NotQuantizable { reason };
    }
    let mut errors = ErrorStats::default();
    let mut digest = Sha256::new();
    let mut start = 0;
    // A chunk is a multiple of every block length.
    while start < numel {
        let end = (start + CHUNK).min(numel);
        let len = (end - start) as usize;
        buffers.input.resize(len, 0.0);
        buffers.output.resize(len, 0.0);
        buffers.blocks.resize(len / row.block_len * row.block_bytes, 0);
        let read =
            tensor.decode(&model.files, start..end, &mut buffers.scratch, &mut buffers.input);
        if let Err(error) = read {
            return Through::Unreadable(error);
        }
        encode(&buffers.input, &mut buffers.blocks);
        decode(&buffers.blocks, &mut buffers.output);
        digest.update(&buffers.blocks);
        errors.update(&buffers.input, &buffers.output);
        buffers.progress.decoded(tensor, end - start);
        start = end;
    }
    Through::Done { errors, encoded_sha256: hex(&digest.finalize()) }
}

/// Sends a tensor through a type whose rows have a form of their own, unit after unit.
fn send_rows(
    model: &Model,
    tensor: &Tensor,
    ty: TensorType,
    codec: &RowCodec,
    buffers: &mut Buffers,
) -> Through {
    let reason = match (ty.bytes_of(&tensor.shape), codec.encode) {
        (Ok(_), Some(encode)) if ty.has_reference_quantizer() => Ok(encode),
        (Err(error), _) => Err(error.to_string()),
        _ => Err(ty.why_no_reference()),
    };
    let encode = match reason {
        Ok(encode) => encode,
        Err(reason) => return Through::NotQuantizable { reason },
    };
    let (numel, rows) = (tensor.numel(), codec.frame.rows());
    let columns = tensor.shape.last().copied().unwrap_or(1);
    let unit = rows as u64 * columns;
    let Ok(bytes) = ty.bytes_of(&[rows as u64, columns]) else {
        return Through::NotQuantizable { reason: ty.why_no_reference() };
    };
    let mut errors = ErrorStats::default();
    let mut digest = Sha256::new();
    buffers.input.resize(unit as usize, 0.0);
    buffers.output.resize(unit as usize, 0.0);
    buffers.blocks.resize(bytes as usize, 0);
    let mut start = 0;
    while start < numel {
        let range = start..start + unit;
        let read = tensor.decode(&model.files, range, &mut buffers.scratch, &mut buffers.input);
        if let Err(error) = read {
            return Through::Unreadable(error);
        }
        encode(&buffers.input, columns as usize, None, &mut buffers.blocks);
        let (meta, blocks) = buffers.blocks.split_at(codec.frame.meta());
        (codec.decode)(meta, blocks, 0..rows, &mut buffers.output);
        digest.update(&buffers.blocks);
        errors.update(&buffers.input, &buffers.output);
        buffers.progress.decoded(tensor, unit);
        start += unit;
    }
    Through::Done { errors, encoded_sha256: hex(&digest.finalize()) }
}
