/*!
Speed of the metric kernels on one core, data in the second-level cache: `cargo bench --bench metrics`.

Prints billions of element pairs a second for each pair of stored types and each instruction set,
the sums alone and with the local statistics (rows, slices, blocks).
*/

use std::hint::black_box;
use std::time::{Duration, Instant};

use half::{bf16, f16};
use qualm::codec::simd::Level;
use qualm::metrics::{Layout, Part, Sheet, Values, sum_rows};

/// Elements of a side.
const LEN: usize = 65536;

/// Elements that are summed up before their local statistics are taken.
const RUN: usize = 4096;

fn main() {
    let mut state = 1u64;
    let values: Vec<f32> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
    .take(LEN)
    .collect();
    let f32s: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let f16s: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
    let bf16s: Vec<u8> = values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
    // Vector loads that cross cache lines are slow; the engine's buffers begin on one.
    let [f32s, f16s, bf16s] = [f32s, f16s, bf16s].map(|bytes| aligned(&bytes));
    let (f32s, f16s, bf16s) = (Values::F32(f32s), Values::F16(f16s), Values::BF16(bf16s));
    let pairs = [
        ("F32 F32", f32s, f32s),
        ("F32 BF16", f32s, bf16s),
        ("F32 F16", f32s, f16s),
        ("BF16 BF16", bf16s, bf16s),
        ("F16 F16", f16s, f16s),
    ];
    println!(
        "{:<12}{:<10}{:>8}{:>14}{:>14}",
        "pair", "level", "row", "sums Gelem/s", "with locals"
    );
    for (name, r, q) in pairs {
        for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
            for row_len in [64, 384, 4096] {
                let (sums, locals) =
                    (speed(level, r, q, row_len, false), speed(level, r, q, row_len, true));
                println!("{name:<12}{:<10}{row_len:>8}{sums:>14.2}{locals:>14.2}", level.name());
            }
        }
    }
}

fn aligned(bytes: &[u8]) -> &'static [u8] {
    let len = bytes.len();
    let mut buffer = vec![0; len + 64].leak();
    let start = buffer.as_ptr().align_offset(64);
    buffer = &mut buffer[start..start + len];
    buffer.copy_from_slice(bytes);
    buffer
}

/// Best of many, in Gelem/s.
fn speed(level: Level, r: Values, q: Values, row_len: usize, locals: bool) -> f64 {
    let layout = Layout { row_len: row_len as u64, slice_len: 0 };
    let run = RUN / row_len * row_len;
    let mut sheet = Sheet::default();
    let mut best = Duration::MAX;
    for _ in 0..200 {
        let begun = Instant::now();
        let end = LEN / row_len * row_len;
        let mut part = Part::new(layout, &(0..end as u64));
        sheet.reset();
        for start in (0..end).step_by(run) {
            let range = start..(start + run).min(end);
            let len = range.len() as u64;
            sum_rows(level, r.slice(range.clone()), q.slice(range), row_len, &mut sheet);
            if locals {
                part.take(&mut sheet, len);
            }
            black_box(&sheet);
        }
        black_box(part.finish());
        best = best.min(begun.elapsed());
    }
    LEN as f64 / best.as_secs_f64() / 1e9
}
