/*!
EXL3's trellis code: 256 values of a tile as one cyclic stream of bits, of which every value sees the
last sixteen; and the rotation of a block that the values are stored in.

From the format of exllamav3 (`exl3_dq`, `codebook`): the state behind each value is hashed to the
value, so that there is a table of no more than one number for each state.
*/

use std::sync::OnceLock;

use half::f16;

use super::isa::Isa;
use super::simd::{Kernel, dispatch};

/// Rows and columns of a tile.
pub const TILE: usize = 16;

/// Rows and columns of a block that is rotated as one.
pub const BLOCK: usize = 128;

/// Elements of a group of a quantized embedding, which is rotated as one.
pub const GROUP: usize = 256;

/// 1 / sqrt(128), as the format's tool rounds it.
const NORM: f32 = 0.088_388_346;

/// States that a value can see.
const STATES: usize = 1 << 16;

/// How a state stands for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codebook {
    /// The default of the first releases: a linear congruence, summed up from two halves.
    ThreeInst,
    /// The same with another multiplier (`mcg`).
    Mcg,
    /// The sum of the product's bytes (`mul1`).
    Mul1,
}

impl Codebook {
    /// The multiplier, which files state.
    pub fn multiplier(self) -> u32 {
        match self {
            Self::ThreeInst => 89_226_354,
            Self::Mcg => 0xCBAC_1FED,
            Self::Mul1 => 0x83DC_D12D,
        }
    }

    /// The value of each state, rounded to f16 as the tool does.
    pub fn values(self) -> &'static [f32] {
        static TABLES: [OnceLock<Vec<f32>>; 3] = [const { OnceLock::new() }; 3];
        TABLES[self as usize]
            .get_or_init(|| (0..STATES as u32).map(|state| self.value(state).to_f32()).collect())
    }

    /// Root mean square of the values, which what is coded is scaled to.
    pub fn spread(self) -> f32 {
        if self == Self::Mul1 { 1.0003 } else { 1.244 }
    }

    /// Noise over signal that a sound search leaves of normally distributed values: up to 4 bits what the
    /// best path through the trellis gives (a test finds it). From 5 bits on the best path would leave
    /// less; what is stated there is what pruned searches were seen to reach (28 to 38 dB), a floor.
    pub fn distortion(rate: Rate) -> f32 {
        // 5.5, 8.6, 11.6, 14.5, 17.5, 20.4, 23.2, 28.5, 33, 35 and 36 dB.
        match rate.halves {
            2 => 0.2818,
            3 => 0.138,
            4 => 0.0692,
            5 => 0.0355,
            6 => 0.0178,
            7 => 0.0091,
            8 => 0.0048,
            10 => 0.0014,
            12 => 0.0005,
            14 => 0.00032,
            _ => 0.00025,
        }
    }

    fn value(self, state: u32) -> f16 {
        let product = state.wrapping_mul(self.multiplier());
        match self {
            Self::ThreeInst => halves(product.wrapping_add(THREE_INST_ADDEND)),
            Self::Mcg => halves(product),
            Self::Mul1 => {
                let sum: u16 = product.to_le_bytes().into_iter().map(u16::from).sum();
                // 1024 and the sum, then one fused multiplication and addition in f16.
                let sum = f16::from_bits(0x6400 + sum).to_f64();
                let [scale, shift] = [0x1EEE, 0xC931].map(|bits| f16::from_bits(bits).to_f64());
                f16::from_f64(sum * scale + shift)
            }
        }
    }
}

/// The values that follow a state of the linear congruence of [`Codebook::ThreeInst`], in all of its 32 bits.
pub fn three_inst<const N: usize>(mut state: u32) -> [f32; N] {
    std::array::from_fn(|_| {
        let value = Codebook::ThreeInst.value(state).to_f32();
        let product = state.wrapping_mul(Codebook::ThreeInst.multiplier());
        state = product.wrapping_add(THREE_INST_ADDEND);
        value
    })
}

/// What the linear congruence adds.
const THREE_INST_ADDEND: u32 = 64_248_484;

/// The sum of the two f16 that are left of a word when all but a few bits of each are fixed.
fn halves(word: u32) -> f16 {
    let word = word & 0x8FFF_8FFF ^ 0x3B60_3B60;
    let [low, high] = [word as u16, (word >> 16) as u16].map(|bits| f16::from_bits(bits).to_f32());
    f16::from_f32(low + high)
}

/// Bits of a value, in halves: two values take `halves` bits, the first of them the smaller part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    halves: usize,
}

impl Rate {
    /// The rate of tiles of so many 16-bit words: 1 to 8 bits, and the half rates below 4 bits.
    pub fn of_words(words: u64) -> Option<Self> {
        let halves = words / 8;
        let whole = (2..=16).contains(&halves) && halves.is_multiple_of(2);
        let known = words.is_multiple_of(8) && (whole || matches!(halves, 3 | 5 | 7));
        known.then_some(Self { halves: halves as usize })
    }

    /// Whether it is a whole number of bits.
    pub fn is_whole(self) -> bool {
        self.halves.is_multiple_of(2)
    }

    /// Bits of a value.
    pub fn bits(self) -> f64 {
        self.halves as f64 / 2.0
    }

    /// Bytes of a tile.
    pub fn tile_bytes(self) -> usize {
        self.halves * TILE
    }

    /// The bit of the stream before which the state of value `t` ends.
    #[inline(always)]
    fn end(self, t: usize) -> usize {
        t / 2 * self.halves + if t % 2 == 1 { self.halves } else { self.halves / 2 }
    }
}

/// Row and column in a tile of the value at each place of the stream, for the tensor cores' sake.
const PLACES: [(u8, u8); 256] = {
    let mut places = [(0, 0); 256];
    let mut t = 0;
    while t < 256 {
        let (u, lane) = (t / 8, t % 8);
        let row = 2 * (u % 4) + [0, 1, 8, 9][lane % 4];
        let col = u / 4 + if lane < 4 { 0 } else { 8 };
        places[t] = (row as u8, col as u8);
        t += 1;
    }
    places
};

/// What a block of 128 inputs and 128 outputs is made of.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Its tiles: 8 rows along the inputs of 8 along the outputs, each [`Rate::tile_bytes`] long.
    pub tiles: &'a [u8],
    /// Bits of a value.
    pub rate: Rate,
    /// The value of each state: [`Codebook::values`].
    pub values: &'a [f32],
    /// A factor for each input.
    pub inputs: &'a [f32; BLOCK],
    /// A factor for each output.
    pub outputs: &'a [f32; BLOCK],
}

impl Block<'_> {
    /// Decodes the block, one output a row: W = (H V diag(inputs))ᵀ rotated along the outputs, times
    /// their factors; every operation rounded to f32, butterflies from neighbours to halves. `work` is as
    /// long as `weights`; its contents do not matter.
    pub fn decode(self, work: &mut [f32], weights: &mut [f32]) {
        dispatch(DecodeBlock { block: self, work, weights });
    }
}

struct DecodeBlock<'a> {
    block: Block<'a>,
    work: &'a mut [f32],
    weights: &'a mut [f32],
}

/// Columns that are rotated at a time.
const LANES: usize = 16;

impl Kernel for DecodeBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, _: impl Isa) {
        let Block { tiles, rate, values, inputs, outputs } = self.block;
        let turned = self.work.as_chunks_mut::<BLOCK>().0;
        for col in 0..BLOCK / TILE {
            let mut strip = [[0f32; LANES]; BLOCK];
            for (row, strip) in strip.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
                let at = (row * (BLOCK / TILE) + col) * rate.tile_bytes();
                decode_tile(&tiles[at..at + rate.tile_bytes()], rate, values, strip);
            }
            butterflies(&mut strip);
            for (i, (row, factor)) in strip.iter().zip(inputs).enumerate() {
                for (lane, value) in row.iter().enumerate() {
                    turned[col * TILE + lane][i] = value * NORM * factor;
                }
            }
        }
        for start in (0..BLOCK).step_by(LANES) {
            let mut strip = [[0f32; LANES]; BLOCK];
            for (strip, row) in strip.iter_mut().zip(&*turned) {
                strip.copy_from_slice(&row[start..start + LANES]);
            }
            butterflies(&mut strip);
            let rows = self.weights.as_chunks_mut::<BLOCK>().0.iter_mut();
            for ((row, strip), factor) in rows.zip(&strip).zip(outputs) {
                for (value, rotated) in row[start..start + LANES].iter_mut().zip(strip) {
                    *value = rotated * NORM * factor;
                }
            }
        }
    }
}

/// The values of one tile, inputs as rows.
#[inline(always)]
fn decode_tile(bytes: &[u8], rate: Rate, values: &[f32], tile: &mut [[f32; TILE]; TILE]) {
    // The stream's first bit is the highest of the first 32-bit word; behind the last comes the first.
    let words = bytes.as_chunks::<4>().0;
    let mut stream = [0u32; 65];
    for (word, bytes) in stream.iter_mut().zip(words) {
        *word = u32::from_le_bytes(*bytes);
    }
    let count = words.len();
    stream[count] = stream[0];
    let bits = count * 32;
    for (t, &(row, col)) in PLACES.iter().enumerate() {
        let start = (rate.end(t) + bits - 16) % bits;
        let pair = u64::from(stream[start / 32]) << 32 | u64::from(stream[start / 32 + 1]);
        let state = (pair >> (48 - start % 32)) as u16;
        tile[usize::from(row)][usize::from(col)] = values[usize::from(state)];
    }
}

/// The Hadamard transform of every column, without its norm.
#[inline(always)]
fn butterflies<const COLUMNS: usize, const ROWS: usize>(rows: &mut [[f32; COLUMNS]; ROWS]) {
    let mut distance = 1;
    while distance < ROWS {
        for pairs in rows.chunks_exact_mut(2 * distance) {
            let (upper, lower) = pairs.split_at_mut(distance);
            for (upper, lower) in upper.iter_mut().zip(lower) {
                for (a, b) in upper.iter_mut().zip(lower) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
        }
        distance *= 2;
    }
}

/// Decodes a group of a quantized embedding: `words` are its codes of `bits` bits, the lowest bits
/// first, of which every value sees the last sixteen bits' worth; `scale` multiplies the values, `signs`
/// what they are rotated to.
pub fn decode_group(
    words: &[u8],
    bits: u32,
    scale: f32,
    signs: &[f32; GROUP],
    weights: &mut [f32; GROUP],
) {
    let values = Codebook::Mul1.values();
    let code = |i: usize| {
        let bit = i % GROUP * bits as usize;
        let low = u16::from_le_bytes([words[bit / 8], *words.get(bit / 8 + 1).unwrap_or(&0)]);
        (low >> (bit % 8)) & ((1u16 << bits) - 1)
    };
    let seen = 16usize.div_ceil(bits as usize);
    let mut state = (GROUP - seen..GROUP).fold(0u16, |state, i| push(state, code(i), bits));
    let mut rotated = [[0f32; 1]; GROUP];
    for (i, value) in rotated.iter_mut().enumerate() {
        state = push(state, code(i), bits);
        *value = [values[usize::from(state)] * scale];
    }
    butterflies(&mut rotated);
    for ((weight, [value]), sign) in weights.iter_mut().zip(rotated).zip(signs) {
        *weight = value * 0.0625 * sign;
    }
}

/// The state after one more code.
fn push(state: u16, code: u16, bits: u32) -> u16 {
    state << bits | code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::simd::{Level, with_level};

    #[test]
    fn code_books_have_the_spread_that_their_authors_state() {
        for (book, expected) in
            [(Codebook::ThreeInst, 1.2437), (Codebook::Mcg, 1.2441), (Codebook::Mul1, 1.0003)]
        {
            let values = book.values();
            let sum: f64 = values.iter().map(|&value| f64::from(value)).sum();
            let square: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
            let n = values.len() as f64;
            let spread = (square / n - (sum / n).powi(2)).sqrt();
            assert!((spread - expected).abs() < 1e-4, "{book:?}: {spread}");
        }
    }

    #[test]
    fn rates_follow_from_the_words_of_a_tile() {
        for (words, bits, why) in [
            (16, Some(1.0), "one bit"),
            (24, Some(1.5), "a half rate"),
            (40, Some(2.5), "a half rate"),
            (56, Some(3.5), "the last half rate"),
            (72, None, "4.5 is none"),
            (128, Some(8.0), "eight bits"),
            (144, None, "nine are too many"),
            (20, None, "no multiple of eight words"),
            (8, None, "half a bit"),
            (0, None, "nothing"),
        ] {
            let rate = Rate::of_words(words);
            assert_eq!(rate.map(Rate::bits), bits, "{why}");
            if let Some(rate) = rate {
                assert_eq!(rate.tile_bytes() as u64, words * 2);
                assert_eq!(rate.end(255), words as usize * 16, "the last state ends the stream");
            }
        }
    }

    #[test]
    fn every_level_decodes_the_same_bits() {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for words in [16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128] {
            let rate = Rate::of_words(words).unwrap();
            let tiles: Vec<u8> = (0..64 * rate.tile_bytes()).map(|_| next()).collect();
            let factors: [f32; BLOCK] = std::array::from_fn(|i| (i as f32 - 60.0) / 64.0);
            let values = Codebook::Mcg.values();
            let (inputs, outputs) = (&factors, &factors);
            let block = Block { tiles: &tiles, rate, values, inputs, outputs };
            let decode = |level| {
                let mut weights = vec![f32::NAN; BLOCK * BLOCK];
                let mut work = vec![f32::NAN; BLOCK * BLOCK];
                with_level(level, || block.decode(&mut work, &mut weights));
                weights.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
            };
            let scalar = decode(Level::Scalar);
            for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
                assert!(decode(level) == scalar, "{words} words at {level}");
            }
        }
    }

    /// Values that are distributed normally, from the sum of twelve that are spread evenly.
    fn normals(seed: u64, spread: f32) -> Vec<f32> {
        let mut state = seed;
        let mut even = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        (0..256).map(|_| ((0..12).map(|_| even()).sum::<f32>() - 6.0) * spread).collect()
    }

    /// The best path through the trellis, as states: from any state to any, or, if `tail` is given, from
    /// and to those whose lower bits, but for those of the first value, are its.
    fn best_path(values: &[f32], rate: Rate, book: &[f32], tail: Option<usize>) -> Vec<usize> {
        let first = rate.halves / 2;
        let width = |t: usize| rate.end(t) - if t == 0 { 0 } else { rate.end(t - 1) };
        let overlap = (1usize << (16 - first)) - 1;
        let mut costs: Vec<f32> = (0..STATES)
            .map(|state| if tail.is_none_or(|tail| state & overlap == tail) { 0.0 } else { 1e9 })
            .collect();
        let mut back: Vec<Vec<u8>> = Vec::new();
        for (t, value) in values.iter().enumerate() {
            let bits = width(t);
            let suffixes = STATES >> bits;
            let mut least = vec![(f32::INFINITY, 0u8); suffixes];
            for (state, cost) in costs.iter().enumerate() {
                let entry = &mut least[state % suffixes];
                if *cost < entry.0 {
                    *entry = (*cost, (state / suffixes) as u8);
                }
            }
            for (state, cost) in costs.iter_mut().enumerate() {
                *cost = least[state >> bits].0 + (book[state] - value).powi(2);
            }
            back.push(least.into_iter().map(|(_, prefix)| prefix).collect());
        }
        let fits = |state: &usize| tail.is_none_or(|tail| state & overlap == tail);
        let mut state =
            (0..STATES).filter(fits).min_by(|a, b| costs[*a].total_cmp(&costs[*b])).unwrap();
        let mut path = vec![0; values.len()];
        for t in (0..values.len()).rev() {
            path[t] = state;
            let suffixes = STATES >> width(t);
            let kept = state >> width(t);
            state = kept + usize::from(back[t][kept]) * suffixes;
        }
        path
    }

    /// The oracle is a search for the best path, closed in a ring as the format has it: first free from
    /// the middle on, then with the ends that this found.
    #[test]
    fn distortions_are_what_the_best_path_leaves() {
        for words in [16, 24, 32, 48, 56, 64, 80] {
            let rate = Rate::of_words(words).unwrap();
            for codebook in [Codebook::ThreeInst, Codebook::Mul1] {
                if !rate.is_whole() && codebook != Codebook::Mul1 {
                    continue;
                }
                let book = codebook.values();
                let (mut error, mut signal) = (0.0, 0.0);
                for seed in 1..3 {
                    let values = normals(seed, codebook.spread());
                    let turned = [&values[128..], &values[..128]].concat();
                    let overlap = (1 << (16 - rate.halves / 2)) - 1;
                    let tail = best_path(&turned, rate, book, None)[127] & overlap;
                    let path = best_path(&values, rate, book, Some(tail));
                    for (value, state) in values.iter().zip(path) {
                        error += f64::from(book[state] - value).powi(2);
                        signal += f64::from(*value).powi(2);
                    }
                }
                let found = error / signal;
                let stated = f64::from(Codebook::distortion(rate));
                println!("{words} {codebook:?}: {found:.5}, {stated:.5} stated");
                // Within 1 dB; a floor from 5 bits on.
                let least = if words <= 64 { 0.79 } else { 0.0 };
                let ratio = found / stated;
                assert!((least..1.26).contains(&ratio), "{words} {codebook:?}: {found} {stated}");
            }
        }
    }
}
