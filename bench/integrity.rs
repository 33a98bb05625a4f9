/*!
What the integrity gates cost: `cargo run --release --example bench-integrity [MILLIONS]`.

Makes pairs of models in memory, of large matrices, as of a model of seven billion weights, and of small
ones, as of one of a hundred million, and times, on one thread and in turns, (a) the metrics alone:
reading, decoding and summing up both sides; (b) the same with the statistics of rows, slices and
blocks; (c) all that a run does for its integrity gates: (b), the undamaged twins, and the gates'
judgement. The last column is the ratio of the fastest (c) to the fastest (a).
*/

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use half::{bf16, f16};
use qualm::codec::{TensorType, simd};
use qualm::gate::{Suspect, check_integrity};
use qualm::measure::{Measured, Pairing, Policy, Progress, measure, pair_up, twin};
use qualm::metrics::{Sheet, Values, sum_rows};
use qualm::model::{self, Model, Storage, Tensor};

/// Rows and columns of the matrices: of large models, and of small ones.
const MATRICES: [[u64; 2]; 2] = [[4096, 2048], [1024, 512]];

/// Turns of each measurement.
const TURNS: usize = 5;

/// The share of the metrics' time that the gates may take.
const MOST: f64 = 1.0 + 1.0 / 3.0;

fn main() -> std::process::ExitCode {
    let millions: f64 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(134.0);
    println!(
        "{:<16}{:<10}{:>12}{:>12}{:>12}{:>12}{:>10}",
        "pair", "matrices", "metrics s", "with rows s", "twins s", "all s", "ratio"
    );
    let mut worst = 0f64;
    for matrix in MATRICES {
        let tensors = ((millions * 1e6 / (matrix[0] * matrix[1]) as f64).round() as u64).max(1);
        for (r, q) in [
            (TensorType::F16, TensorType::Q4_K),
            (TensorType::F16, TensorType::Q8_0),
            (TensorType::F32, TensorType::BF16),
            (TensorType::F16, TensorType::IQ2_S),
            (TensorType::F16, TensorType::IQ3_XXS),
            (TensorType::F16, TensorType::IQ3_S),
        ] {
            let (reference, quantized) = (make(r, matrix, tensors), make(q, matrix, tensors));
            let [sums, rows, twins, all] = time(&reference, &quantized, matrix);
            let ratio = all / sums;
            worst = worst.max(ratio);
            let (pair, shape) =
                (format!("{tensors} {r} {q}"), format!("{}x{}", matrix[0], matrix[1]));
            println!(
                "{pair:<16}{shape:<10}{sums:>12.3}{rows:>12.3}{twins:>12.3}{all:>12.3}{ratio:>10.3}"
            );
        }
    }
    if worst < MOST {
        std::process::ExitCode::SUCCESS
    } else {
        println!("the integrity gates take more than a third of the metrics' time");
        std::process::ExitCode::FAILURE
    }
}

/// The best of several turns: metrics alone, with rows, the twins, all of the run's.
fn time(reference: &Model, quantized: &Model, matrix: [u64; 2]) -> [f64; 4] {
    let pairing = pair_up(reference, quantized, &Policy::STRICT);
    assert_eq!(pairing.matched.len(), reference.tensors.len());
    let mut best = [f64::INFINITY; 4];
    for _ in 0..TURNS {
        let now = clock();
        sums_alone(reference, quantized, matrix);
        let sums = clock() - now;
        let now = clock();
        let measured = measure(reference, quantized, &pairing.matched, 1, &Progress::default());
        let rows = clock() - now;
        let now = clock();
        judge(reference, quantized, &pairing, &mut measured.clone());
        let twins = clock() - now;
        for (best, new) in best.iter_mut().zip([sums, rows, twins, rows + twins]) {
            *best = best.min(new);
        }
    }
    best
}

/// Seconds that this thread has been on a processor, or has been running where that is not known.
fn clock() -> f64 {
    thread_local!(static BEGUN: Instant = Instant::now());
    let on_cpu = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = on_cpu.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    nanoseconds.map_or_else(|| BEGUN.with(|begun| begun.elapsed().as_secs_f64()), |ns| ns / 1e9)
}

/// The sums of every tensor, and nothing else, read and decoded as the engine does.
fn sums_alone(reference: &Model, quantized: &Model, matrix: [u64; 2]) {
    const CHUNK: u64 = 64 * 1024;
    const RUN: usize = 4096;
    let level = simd::current();
    let (mut r_bytes, mut q_bytes) = (Vec::new(), Vec::new());
    let (mut r_values, mut q_values) = (vec![0f32; RUN], vec![0f32; RUN]);
    let mut sheet = Sheet::default();
    for (r, q) in reference.tensors.iter().zip(&quantized.tensors) {
        let mut start = 0;
        sheet.reset();
        while start < r.numel() {
            let end = (start + CHUNK).min(r.numel());
            let r_row = read(reference, r, start, end, &mut r_bytes);
            let q_row = read(quantized, q, start, end, &mut q_bytes);
            let len = (end - start) as usize;
            for from in (0..len).step_by(RUN) {
                let run = from..(from + RUN).min(len);
                let r = values(r_row, &r_bytes, run.clone(), &mut r_values);
                let q = values(q_row, &q_bytes, run, &mut q_values);
                sum_rows(level, r, q, matrix[1] as usize, &mut sheet);
                black_box(&sheet);
            }
            start = end;
        }
    }
}

fn read(model: &Model, tensor: &Tensor, start: u64, end: u64, bytes: &mut Vec<u8>) -> TensorType {
    let Storage::Plain { ty, at } = tensor.storage else { panic!("made plain") };
    let stored = |element| ty.bytes_for(element).expect("whole blocks");
    bytes.resize((stored(end) - stored(start)) as usize, 0);
    model.files[at.file].read_at(at.offset + stored(start), bytes).expect("in memory");
    ty
}

fn values<'v>(
    ty: TensorType,
    bytes: &'v [u8],
    run: std::ops::Range<usize>,
    buffer: &'v mut [f32],
) -> Values<'v> {
    let info = ty.info();
    let stored = |at: usize| at / info.block_len * info.block_bytes;
    let bytes = &bytes[stored(run.start)..stored(run.end)];
    match ty {
        TensorType::F32 => Values::F32(bytes),
        TensorType::F16 => Values::F16(bytes),
        TensorType::BF16 => Values::BF16(bytes),
        _ => {
            let values = &mut buffer[..run.len()];
            info.decode.expect("a type with a decoder")(bytes, values);
            Values::Decoded(values)
        }
    }
}

/// Twins and gates, as a run has them.
fn judge(reference: &Model, quantized: &Model, pairing: &Pairing, measured: &mut [Measured]) {
    let elements = twin::elements_of(reference);
    let twins = twin::twins(reference, quantized, &pairing.matched, measured, elements, 1);
    for (measured, twin) in measured.iter().zip(&twins) {
        let Measured::Values { sums, locals } = measured else { panic!("made of floats") };
        let mut checks = Vec::new();
        let twin = twin.as_ref().map_err(String::as_str);
        let suspect = Suspect { subject: "weights", sums, locals, twin };
        check_integrity(&suspect, |_| None, &mut checks);
        assert!(checks.len() >= 5);
        black_box(checks);
    }
}

/// A GGUF file in memory: the same weights in every type.
fn make(ty: TensorType, matrix: [u64; 2], tensors: u64) -> Model {
    let id = ty.info().ggml_id.expect("a type that GGUF knows");
    let each = matrix[0] * matrix[1];
    let size = ty.bytes_for(each).expect("whole blocks");
    let mut file = Vec::from(*b"GGUF");
    file.extend(3u32.to_le_bytes());
    file.extend(tensors.to_le_bytes());
    file.extend(0u64.to_le_bytes());
    for index in 0..tensors {
        let name = format!("blk.{index}.weight");
        file.extend((name.len() as u64).to_le_bytes());
        file.extend(name.as_bytes());
        file.extend(2u32.to_le_bytes());
        file.extend(matrix[1].to_le_bytes());
        file.extend(matrix[0].to_le_bytes());
        file.extend(id.to_le_bytes());
        file.extend((index * size).to_le_bytes());
    }
    file.resize(file.len().next_multiple_of(32), 0);
    // One matrix is drawn and encoded; the others are the same, which costs as much to read.
    let mut state = 1u64;
    let values: Vec<f32> = (0..each)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let sum: u64 = (0..4).map(|k| state >> (16 * k) & 0xFFFF).sum();
            0.02 * (sum as f32 / 65536.0 - 2.0) * 1.732_050_8
        })
        .collect();
    let data: Vec<u8> = match ty {
        TensorType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        TensorType::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        TensorType::BF16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
        _ => {
            let mut blocks = vec![0; size as usize];
            ty.quantize(&values, None, &mut blocks).expect("a type with a quantizer");
            blocks
        }
    };
    for _ in 0..tensors {
        file.extend(&data);
    }
    model::from_bytes(Path::new("made.gguf"), file).expect("a sound file")
}
