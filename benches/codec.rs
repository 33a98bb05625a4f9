/*!
Decoding speed of every type at every instruction set that this processor has, on one core.

Output goes to a buffer of a few thousand elements, as in the streaming pass; input streams from
memory. `cargo bench --bench codec [NAME…]` measures the types whose names contain one of the words.
*/

use std::env;
use std::hint::black_box;
use std::time::{Duration, Instant};

use qualm::codec::simd::{Level, with_level};
use qualm::codec::types::DecodeFn;
use qualm::codec::{TYPES, TypeInfo};

/// Elements decoded by one call.
const CHUNK: usize = 4096;
/// Elements of the stored tensor: more than fits the nearer caches.
const ELEMENTS: usize = 1 << 22;
/// Passes over the tensor; the fastest counts, the others were disturbed.
const PASSES: usize = 12;

fn main() {
    let words: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let levels: Vec<Level> = Level::ALL.into_iter().filter(|level| level.is_available()).collect();
    print!("{:<12}", "Gelem/s");
    for level in &levels {
        print!("{level:>8}");
    }
    println!();
    for row in TYPES {
        let wanted =
            words.is_empty() || words.iter().any(|word| row.name.contains(&word.to_uppercase()));
        let Some(decode) = row.decode.filter(|_| wanted) else { continue };
        let blocks = pseudo_random(ELEMENTS / row.block_len * row.block_bytes);
        print!("{:<12}", row.name);
        for &level in &levels {
            let seconds = with_level(level, || fastest_pass(row, decode, &blocks)).as_secs_f64();
            print!("{:>8.2}", ELEMENTS as f64 / seconds / 1e9);
        }
        println!();
    }
}

fn fastest_pass(row: &TypeInfo, decode: DecodeFn, blocks: &[u8]) -> Duration {
    let mut values = vec![0.0; CHUNK];
    let pass = |_| {
        let start = Instant::now();
        for blocks in blocks.chunks_exact(CHUNK / row.block_len * row.block_bytes) {
            decode(black_box(blocks), &mut values);
            black_box(&mut values);
        }
        start.elapsed()
    };
    (0..PASSES).map(pass).min().unwrap_or_default()
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
