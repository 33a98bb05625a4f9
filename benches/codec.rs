/*!
Speed of every type on one core: decoding at every instruction set that this processor has, decoding
fused with all sums against F16 as in a pass over two models, and encoding.

`cargo bench --bench codec [NAME…]` measures the types whose names contain one of the words.
Input streams from memory, output goes to a buffer of a few thousand elements. Portions of some ten
microseconds are timed and the fastest counts: on a machine that does other work as well, the others
were disturbed.
*/

use std::env;
use std::hint::black_box;
use std::time::{Duration, Instant};

use qualm::codec::simd::{self, Level, with_level};
use qualm::codec::types::{DecodeFn, TensorType};
use qualm::codec::{RowCodec, TYPES, TypeInfo};
use qualm::metrics::{Layout, Part, Sheet, Values, sum_rows};

/// Elements decoded by one call.
const RUN: usize = 4096;
/// Decoded values, on cache lines of their own as in the pass: vectors that cross lines are slow.
#[repr(align(64))]
struct Run([f32; RUN]);
/// Elements of a row.
const ROW: usize = 2048;
/// Elements of the stored tensor: more than fits the nearer caches.
const ELEMENTS: usize = 1 << 22;
/// Elements that are timed together.
const PORTION: usize = 8 * RUN;
/// Passes over the tensor.
const PASSES: usize = 8;
/// How long one type may be encoded for.
const ENCODING: Duration = Duration::from_millis(400);

fn main() {
    let words: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let levels: Vec<Level> = Level::ALL.into_iter().filter(|level| level.is_available()).collect();
    print!("{:<12}", "");
    for level in &levels {
        print!("{:>10}", format!("{level}"));
    }
    println!("{:>12}{:>12}", "with sums", "encode");
    print!("{:<12}", "");
    for _ in &levels {
        print!("{:>10}", "Gelem/s");
    }
    println!("{:>12}{:>12}", "Gelem/s", "Melem/s");
    let weights = weights(1 << 16);
    let halves =
        pseudo_random(ELEMENTS * 2).into_iter().map(|byte| byte & 0x3B).collect::<Vec<_>>();
    for row in TYPES {
        let wanted =
            words.is_empty() || words.iter().any(|word| row.name.contains(&word.to_uppercase()));
        if let Some(codec) = row.rows.filter(|_| wanted) {
            print!("{:<12}", row.name);
            for &level in &levels {
                let speed = with_level(level, || row_decoding_speed(row, &codec));
                print!("{:>10.2}", speed / 1e9);
            }
            println!("{:>12}{}", "-", row_encoding_speed(row, &codec, &weights));
        }
        let Some(decode) = row.decode.filter(|_| wanted) else { continue };
        let blocks = pseudo_random(ELEMENTS / row.block_len * row.block_bytes);
        print!("{:<12}", row.name);
        for &level in &levels {
            let speed = with_level(level, || decoding_speed(row, decode, &blocks));
            print!("{:>10.2}", speed / 1e9);
        }
        print!("{:>12.2}", summing_speed(row, decode, &blocks, &halves) / 1e9);
        println!("{}", column(encoding_speed(row.ty, &weights)));
    }
}

/// Millions of elements a second, if there is such a speed.
fn column(speed: Option<f64>) -> String {
    speed.map_or_else(|| format!("{:>12}", "-"), |speed| format!("{:>12.2}", speed / 1e6))
}

/// Elements a second of the fastest portion; `work` does the one at an index.
fn best_speed(mut work: impl FnMut(usize)) -> f64 {
    let mut best = Duration::MAX;
    for portion in (0..PASSES).flat_map(|_| 0..ELEMENTS / PORTION) {
        let start = Instant::now();
        work(portion);
        best = best.min(start.elapsed());
    }
    PORTION as f64 / best.as_secs_f64()
}

/// Decoding of units of rows, a run of each row at a time.
fn row_decoding_speed(row: &TypeInfo, codec: &RowCodec) -> f64 {
    let rows = codec.frame.rows();
    let meta = vec![0x35; codec.frame.meta()];
    let blocks = pseudo_random(ROW / row.block_len * row.block_bytes * rows);
    let mut values = vec![0.0; ROW * rows];
    best_speed(|_| {
        for _ in 0..PORTION / (ROW * rows) {
            (codec.decode)(&meta, black_box(&blocks), 0..rows, &mut values);
            black_box(&mut values);
        }
    })
}

fn decoding_speed(row: &TypeInfo, decode: DecodeFn, blocks: &[u8]) -> f64 {
    let run = RUN / row.block_len * row.block_bytes;
    let portions: Vec<&[u8]> = blocks.chunks_exact(PORTION / RUN * run).collect();
    let mut values = Run([0.0; RUN]);
    best_speed(|portion| {
        for blocks in portions[portion].chunks_exact(run) {
            decode(black_box(blocks), &mut values.0);
            black_box(&mut values);
        }
    })
}

/// What the pass over two models does with a quantized tensor and its F16 reference.
fn summing_speed(row: &TypeInfo, decode: DecodeFn, blocks: &[u8], halves: &[u8]) -> f64 {
    let run = RUN / row.block_len * row.block_bytes;
    let portions: Vec<&[u8]> = blocks.chunks_exact(PORTION / RUN * run).collect();
    let halves: Vec<&[u8]> = halves.chunks_exact(PORTION * 2).collect();
    let layout = Layout { row_len: ROW as u64, slice_len: 0 };
    let mut values = Run([0.0; RUN]);
    let (level, mut sheet) = (simd::current(), Sheet::default());
    best_speed(|portion| {
        let mut part = Part::new(layout, &(0..PORTION as u64));
        let blocks = portions[portion].chunks_exact(run);
        for (blocks, halves) in blocks.zip(halves[portion].chunks_exact(RUN * 2)) {
            decode(black_box(blocks), &mut values.0);
            sum_rows(level, Values::F16(halves), Values::Decoded(&values.0), ROW, &mut sheet);
            part.take(&mut sheet, RUN as u64);
        }
        black_box(part.finish());
    })
}

/// Elements a second of the quantizer that model files are made with.
fn encoding_speed(ty: TensorType, weights: &[f32]) -> Option<f64> {
    let importance = ty.requires_imatrix().then_some(&[1.0; 256][..]);
    let mut blocks = vec![0; ty.bytes_for(1 << 10)? as usize];
    best_encoding(weights, 1 << 10, |portion| {
        ty.quantize(portion, importance, &mut blocks).ok()?;
        black_box(&blocks);
        Some(())
    })
}

/// The same of a type of units of rows, of 256 columns each.
fn row_encoding_speed(row: &TypeInfo, codec: &RowCodec, weights: &[f32]) -> String {
    let (rows, columns) = (codec.frame.rows(), 256);
    let speed = codec.encode.and_then(|encode| {
        let bytes = row.ty.bytes_of(&[rows as u64, columns as u64]).ok()?;
        let mut unit = vec![0; bytes as usize];
        best_encoding(weights, rows * columns, |portion| {
            encode(portion, columns, None, &mut unit);
            black_box(&unit);
            Some(())
        })
    });
    column(speed)
}

/// The best of small portions, so that some of them are left undisturbed.
fn best_encoding(
    weights: &[f32],
    portion: usize,
    mut encode: impl FnMut(&[f32]) -> Option<()>,
) -> Option<f64> {
    // The first call makes the tables of the quantizers that search.
    encode(&weights[..portion])?;
    let (begun, mut best) = (Instant::now(), f64::MAX);
    while best == f64::MAX || begun.elapsed() < ENCODING {
        for values in weights.chunks_exact(portion) {
            let start = Instant::now();
            encode(black_box(values))?;
            best = best.min(start.elapsed().as_secs_f64() / portion as f64);
            if begun.elapsed() > ENCODING {
                break;
            }
        }
    }
    Some(1.0 / best)
}

/// Bytes of a 64-bit linear congruential generator (Knuth's multiplier).
fn pseudo_random(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Weights of about a normal distribution: sums of the bytes of pseudo-random words.
fn weights(len: usize) -> Vec<f32> {
    let bytes = pseudo_random(len * 8);
    let sum = |word: &[u8; 8]| word.iter().map(|&byte| f32::from(byte) - 127.5).sum::<f32>();
    bytes.as_chunks().0.iter().map(|word| sum(word) * 1e-4).collect()
}
