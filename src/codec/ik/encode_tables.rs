/*!
Encoders of the types with value tables, in super-blocks (`IQ2_K` to `IQ6_K`) and in rows (`IQ2_KS`,
`IQ3_KS`, `IQ4_KS`, `IQ4_KSS`, `IQ5_KS`, `IQ2_KL`): the searches of `encode_tries` and `encode_fit`, and the
packing.
*/

use half::f16;

use super::encode_fit::{Book, Fit, Group, Run, Values, importance};
use super::encode_tries::{Tries, whole};
use super::values::{
    PAIRS, V2, V2_SHIFT, V3, V3_SHIFT, V4, V4_SHIFT, V5, V5_SHIFT, V6_SHIFT, six_bits,
};
use crate::codec::ggml::c_arithmetic::f16_bits;

/// Elements of a super-block.
const LEN: usize = 256;

/// A scale as an f16 and back.
fn as_f16(scale: f32) -> f32 {
    f16::from_f32(scale).to_f32()
}

/// A scale as it is.
fn as_f32(scale: f32) -> f32 {
    scale
}

fn book(values: &[i8], shift: i8, tries: [f32; 2]) -> Values {
    let values = values.iter().map(|&value| f32::from(value));
    Values::new(values, f32::from(shift), tries)
}

fn two_bits() -> Values {
    book(&V2, V2_SHIFT, [0.8, 2.2])
}

fn three_bits() -> Values {
    book(&V3, V3_SHIFT, [0.8, 1.6])
}

fn four_bits() -> Values {
    book(&V4, V4_SHIFT, [0.85, 1.3])
}

/// The library's search for super-blocks with a table of values.
fn tries(values: &[i8], shift: i8) -> Tries {
    let values: Vec<f32> = values.iter().map(|&value| f32::from(value)).collect();
    let shifted = values.iter().map(|value| value + f32::from(shift)).collect();
    Tries {
        forms: [values, shifted],
        group: 16,
        around: 5,
        refit: true,
        variance: 2.0,
        share: 0.25,
        large: |extreme| -extreme / 32.0,
        level: |small| whole(small, -32, 31),
        levels: (-32, 1),
        zero: 0,
        pairs: false,
        blank: Some(0),
    }
}

/// The same where values count by their square, and scales that are tried are not corrected.
fn by_square(tries: Tries) -> Tries {
    Tries { refit: false, share: 0.0, ..tries }
}

/// Whole numbers from one to another, every `step`.
fn levels(from: i16, to: i16, step: usize) -> Vec<f32> {
    (from..=to).step_by(step).map(f32::from).collect()
}

/// Puts `bits` bits of `value` at bit `at` of a field.
fn put(field: &mut [u8], at: usize, value: usize) {
    field[at / 8] |= (value << (at % 8)) as u8;
}

/// The codes of all groups of a super-block, element after element.
fn codes_of(groups: &[Group]) -> impl Iterator<Item = (usize, usize)> {
    groups.iter().flat_map(|group| &group.codes).map(|&code| code as usize).enumerate()
}

/// 2-bit codes as `IQ2_K` and its kin have them.
fn put_pairs(field: &mut [u8], groups: &[Group]) {
    for (i, code) in codes_of(groups) {
        put(&mut field[32 * (i / 128) + i % 32..], 2 * (i / 32 % 4), code & 3);
    }
}

/// 4-bit codes of which a byte holds two, 16 elements apart.
fn put_nibbles_of_32(field: &mut [u8], groups: &[Group]) {
    for (i, code) in codes_of(groups) {
        put(&mut field[16 * (i / 32) + i % 16..], 4 * (i / 16 % 2), code & 15);
    }
}

/// 4-bit codes of which a byte holds two, 32 elements apart.
fn put_nibbles_of_64(field: &mut [u8], groups: &[Group]) {
    for (i, code) in codes_of(groups) {
        put(&mut field[32 * (i / 64) + i % 32..], 4 * (i / 32 % 2), code & 15);
    }
}

/// Bit `bit` of each code, a byte for the eight elements that are 32 apart.
fn put_bits(field: &mut [u8], groups: &[Group], bit: usize) {
    for (i, code) in codes_of(groups) {
        put(&mut field[i % 32..], i / 32, code >> bit & 1);
    }
}

/// The form of each group of 16, a bit each.
fn put_forms(field: &mut [u8], groups: &[Group]) {
    for (g, group) in groups.iter().enumerate() {
        put(field, g, group.form);
    }
}

/// Encodes super-blocks that stand alone.
fn blocks<const BYTES: usize>(
    search: impl Fn(&[f32], Option<&[f32]>) -> Run,
    (values, column_weights): (&[f32], Option<&[f32]>),
    blocks: &mut [u8],
    pack: impl Fn(&Run, &mut [u8; BYTES]),
) {
    let blocks = blocks.as_chunks_mut::<BYTES>().0;
    for (at, (x, block)) in values.chunks_exact(LEN).zip(blocks).enumerate() {
        let columns = column_weights.map(|weights| {
            let start = at * LEN % weights.len().max(1);
            &weights[start..start + LEN]
        });
        let run = search(x, columns);
        block.fill(0);
        block[..2].copy_from_slice(&f16_bits(run.scale).to_le_bytes());
        pack(&run, block);
    }
}

/// Encodes rows that have a scale in front.
fn rows<const DIM: usize, const BYTES: usize, B: Book<DIM>>(
    fit: &Fit<B>,
    (values, columns, column_weights): (&[f32], usize, Option<&[f32]>),
    unit: &mut [u8],
    pack: impl Fn(&[Group], &mut [u8; BYTES]),
) {
    let run = fit.run::<DIM>(values, &importance(values, column_weights));
    write_row(&run, fit.group, columns, unit, pack);
}

/// Writes a row's scale and super-blocks.
fn write_row<const BYTES: usize>(
    run: &Run,
    group: usize,
    columns: usize,
    unit: &mut [u8],
    pack: impl Fn(&[Group], &mut [u8; BYTES]),
) {
    let meta = unit.len() - columns / LEN * BYTES;
    unit.fill(0);
    let (head, blocks) = unit.split_at_mut(meta);
    match head {
        [a, b] => [*a, *b] = f16_bits(run.scale).to_le_bytes(),
        _ => head.copy_from_slice(&run.scale.to_le_bytes()),
    }
    let each = run.groups.chunks(LEN / group);
    for (groups, block) in each.zip(blocks.as_chunks_mut::<BYTES>().0) {
        pack(groups, block);
    }
}

/// The same for rows whose groups of 32 have odd levels.
fn in_rows(tries: Tries) -> Tries {
    Tries {
        group: 32,
        large: |extreme| extreme.abs() / 127.0,
        level: |small| 2 * whole(0.5 * (small + 127.0), 0, 127) - 127,
        levels: (-127, 2),
        ..tries
    }
}

fn iq2_k_any(values: &[f32], weights: Option<&[f32]>, out: &mut [u8]) {
    let levels = levels(-8, 7, 1);
    let fit = Fit { book: two_bits(), group: 16, levels: &levels, around: 1, store: as_f16 };
    let search = |x: &[f32], weights: Option<&[f32]>| fit.run::<1>(x, &importance(x, weights));
    blocks::<76>(search, (values, weights), out, |run, block| {
        put_forms(&mut block[2..4], &run.groups);
        for (g, group) in run.groups.iter().enumerate() {
            put(&mut block[4..12], 4 * g, group.level);
        }
        put_pairs(&mut block[12..], &run.groups);
    });
}

fn iq3_k_any(values: &[f32], weights: Option<&[f32]>, out: &mut [u8]) {
    let search = Tries {
        large: |extreme| extreme.abs() / 31.0,
        level: |small| {
            let magnitude = 2 * whole(0.5 * (small.abs() - 1.0), 0, 15) + 1;
            if small < 0.0 { -magnitude } else { magnitude }
        },
        levels: (-31, 2),
        blank: Some(16),
        variance: 1.5,
        ..tries(&V3, V3_SHIFT)
    };
    let search = |x: &[f32], weights: Option<&[f32]>| {
        let run = search.run(x, weights);
        Run { scale: 1.01 * run.scale, ..run }
    };
    blocks::<110>(search, (values, weights), out, |run, block| {
        put_forms(&mut block[2..4], &run.groups);
        for (g, group) in run.groups.iter().enumerate() {
            // Levels 0 to 15 are -31 to -1.
            let negative = group.level < 16;
            put(&mut block[4..6], g, usize::from(negative));
            let magnitude = if negative { 15 - group.level } else { group.level - 16 };
            put(&mut block[6..14], 4 * g, magnitude);
        }
        put_pairs(&mut block[14..], &run.groups);
        put_bits(&mut block[78..], &run.groups, 2);
    });
}

/// Upper and lower bits of the scales of `IQ4_K` and `IQ5_K`.
fn put_six_bit_scales(block: &mut [u8], groups: &[Group]) {
    for (g, group) in groups.iter().enumerate() {
        put(&mut block[4..8], 2 * g, group.level >> 4);
        put(&mut block[8..16], 4 * g, group.level & 15);
    }
}

fn iq4_k_any(values: &[f32], weights: Option<&[f32]>, out: &mut [u8]) {
    let search = Tries { around: 7, blank: None, zero: 8, ..by_square(tries(&V4, V4_SHIFT)) };
    blocks::<144>(
        |x, weights| search.run(x, weights),
        (values, weights),
        out,
        |run, block| {
            put_forms(&mut block[2..4], &run.groups);
            put_six_bit_scales(block, &run.groups);
            put_nibbles_of_32(&mut block[16..], &run.groups);
        },
    );
}

fn iq5_k_any(values: &[f32], weights: Option<&[f32]>, out: &mut [u8]) {
    let search = tries(&V5, V5_SHIFT);
    blocks::<176>(
        |x, weights| search.run(x, weights),
        (values, weights),
        out,
        |run, block| {
            put_forms(&mut block[2..4], &run.groups);
            put_six_bit_scales(block, &run.groups);
            put_nibbles_of_64(&mut block[16..], &run.groups);
            put_bits(&mut block[144..], &run.groups, 4);
        },
    );
}

fn iq6_k_any(values: &[f32], weights: Option<&[f32]>, out: &mut [u8]) {
    let table: Vec<f32> = (0..64u8).map(|code| six_bits(f32::from(code)).round()).collect();
    let shifted = table.iter().map(|value| value + V6_SHIFT).collect();
    let search = Tries {
        forms: [table, shifted],
        large: |extreme| -extreme / 127.0,
        level: |small| whole(small, -127, 127),
        levels: (-127, 1),
        blank: Some(127),
        ..tries(&V5, V5_SHIFT)
    };
    blocks::<212>(
        |x, weights| search.run(x, weights),
        (values, weights),
        out,
        |run, block| {
            put_forms(&mut block[2..4], &run.groups);
            for (g, group) in run.groups.iter().enumerate() {
                block[4 + g] = (group.level as i16 - 127) as u8;
            }
            put_nibbles_of_64(&mut block[20..], &run.groups);
            for (i, code) in codes_of(&run.groups) {
                put(&mut block[148 + 32 * (i / 128) + i % 32..], 2 * (i / 32 % 4), code >> 4);
            }
        },
    );
}

/// Defines the plain encoder of a type of super-blocks, and the weighted one.
macro_rules! super_blocks {
    ($($any:ident: $name:literal, $plain:ident $(, $weighted:ident)?;)*) => {$(
        #[doc = concat!("`", $name, "`.")]
        pub fn $plain(values: &[f32], blocks: &mut [u8]) {
            $any(values, None, blocks);
        }
        $(
            #[doc = concat!("`", $name, "` with an importance matrix.")]
            pub fn $weighted(values: &[f32], column_weights: &[f32], blocks: &mut [u8]) {
                $any(values, Some(column_weights), blocks);
            }
        )?
    )*};
}

super_blocks! {
    iq2_k_any: "IQ2_K", iq2_k;
    iq3_k_any: "IQ3_K", iq3_k;
    iq4_k_any: "IQ4_K", iq4_k, iq4_k_weighted;
    iq5_k_any: "IQ5_K", iq5_k, iq5_k_weighted;
    iq6_k_any: "IQ6_K", iq6_k, iq6_k_weighted;
}

/// `IQ4_KS`.
pub fn iq4_ks(values: &[f32], columns: usize, weights: Option<&[f32]>, unit: &mut [u8]) {
    let search = Tries { around: 7, pairs: true, ..in_rows(by_square(tries(&V4, V4_SHIFT))) };
    let run = search.run(values, weights);
    write_row::<136>(&run, 32, columns, unit, |groups, block| {
        for (h, group) in groups.iter().enumerate() {
            block[h] = (2 * group.level + group.form) as u8;
        }
        put_nibbles_of_32(&mut block[8..], groups);
    });
}

/// `IQ5_KS`.
pub fn iq5_ks(values: &[f32], columns: usize, weights: Option<&[f32]>, unit: &mut [u8]) {
    let run = in_rows(by_square(tries(&V5, V5_SHIFT))).run(values, weights);
    write_row::<168>(&run, 32, columns, unit, |groups, block| {
        for (h, group) in groups.iter().enumerate() {
            block[h] = (2 * group.level + group.form) as u8;
        }
        put_nibbles_of_64(&mut block[8..], groups);
        put_bits(&mut block[136..], groups, 4);
    });
}

/// `IQ2_KS`.
pub fn iq2_ks(values: &[f32], columns: usize, weights: Option<&[f32]>, unit: &mut [u8]) {
    let levels = levels(-16, 15, 1);
    let fit = Fit { book: two_bits(), group: 32, levels: &levels, around: 1, store: as_f16 };
    rows::<1, 70, _>(&fit, (values, columns, weights), unit, |groups, block| {
        for (h, group) in groups.iter().enumerate() {
            put(block, h, group.form);
            put(block, 8 + h, group.level >> 4);
            put(&mut block[2..6], 4 * h, group.level & 15);
        }
        put_pairs(&mut block[6..], groups);
    });
}

/// `IQ3_KS`.
pub fn iq3_ks(values: &[f32], columns: usize, weights: Option<&[f32]>, unit: &mut [u8]) {
    let levels = levels(-16, 15, 1);
    let fit = Fit { book: three_bits(), group: 32, levels: &levels, around: 1, store: as_f16 };
    rows::<1, 102, _>(&fit, (values, columns, weights), unit, |groups, block| {
        for (h, group) in groups.iter().enumerate() {
            put(block, h, group.level >> 4);
            put(block, 8 + h, group.form);
            put(&mut block[2 + h % 4..6], 4 * (h / 4), group.level & 15);
        }
        put_pairs(&mut block[6..], groups);
        put_bits(&mut block[70..], groups, 2);
    });
}

/// Four codes whose bits together are even in number, of least error where they stand for `y`; as one
/// word, the first in its lowest bits. One code at most is not that of the nearest value.
fn even_word(book: &Values, form: usize, y: [f32; 4], weights: [f32; 4]) -> u32 {
    let mut codes = y.map(|y| book.nearest(form, &[y], &[1.0]));
    if codes.iter().map(|code| code.count_ones()).sum::<u32>() % 2 == 1 {
        let cost = |at: usize, code: u32| {
            let difference = book.entry(form, code)[0] - y[at];
            weights[at] * difference * difference
        };
        let mut best = (f32::INFINITY, 0, codes[0] ^ 1);
        for (at, &code) in codes.iter().enumerate() {
            let beside = [code.wrapping_sub(1), code + 1].into_iter();
            for other in beside.filter(|&at| at < 16 && (at ^ code).count_ones() % 2 == 1) {
                let more = cost(at, other) - cost(at, code);
                if more < best.0 {
                    best = (more, at, other);
                }
            }
        }
        codes[best.1] = best.2;
    }
    codes[0] | codes[1] << 4 | codes[2] << 8 | codes[3] << 12
}

/// `IQ4_KSS`: the search of `encode_fit`, in which values count by their square alone; then each word of
/// four codes is made even, since the lowest bit of what is stored belongs to the scale.
pub fn iq4_kss(values: &[f32], columns: usize, weights: Option<&[f32]>, unit: &mut [u8]) {
    let levels = levels(-127, 127, 2);
    let fit = Fit { book: four_bits(), group: 32, levels: &levels, around: 1, store: as_f32 };
    let importance = match weights {
        None => values.iter().map(|x| x * x).collect(),
        Some(_) => importance(values, weights),
    };
    let run = fit.run::<1>(values, &importance);
    let (head, blocks) = unit.split_at_mut(unit.len() - columns / LEN * 128);
    head.copy_from_slice(&run.scale.to_le_bytes());
    let groups = run.groups.iter().zip(blocks.as_chunks_mut::<16>().0);
    let sources = values.as_chunks::<32>().0.iter().zip(importance.as_chunks::<32>().0);
    for ((group, block), (x, weights)) in groups.zip(sources) {
        let scale = run.scale * levels[group.level];
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        let byte = 2 * group.level + group.form;
        for (k, word) in block.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            // Low and high nibbles of two bytes.
            let places = [0, 16, 1, 17].map(|at| 2 * k + at);
            let y = places.map(|at| x[at] * inverse);
            let mut stored =
                even_word(&fit.book, group.form, y, places.map(|at| weights[at])) as u16;
            for shift in [1, 2, 4, 8] {
                stored ^= stored >> shift;
            }
            *word = (stored & 0xFFFE | (byte >> k & 1) as u16).to_le_bytes();
        }
    }
}

/// The book of `IQ2_KL`.
struct PairBook(Values);

impl Book<2> for PairBook {
    const FORMS: usize = 1;

    fn nearest(&self, _form: usize, y: &[f32; 2], weights: &[f32; 2]) -> u32 {
        let mut best = (f32::INFINITY, 0);
        for (code, pair) in (0..).zip(&PAIRS) {
            let [a, b] = [0, 1].map(|at| f32::from(pair[at]) - y[at]);
            let error = weights[0] * a * a + weights[1] * b * b;
            if error < best.0 {
                best = (error, code);
            }
        }
        best.1
    }

    fn entry(&self, _form: usize, code: u32) -> [f32; 2] {
        PAIRS[code as usize & 31].map(f32::from)
    }

    fn first_scale(&self, x: &[f32], weights: &[f32]) -> f32 {
        self.0.first_scale(x, weights)
    }
}

/// `IQ2_KL`.
pub fn iq2_kl(values: &[f32], columns: usize, weights: Option<&[f32]>, unit: &mut [u8]) {
    let levels = levels(-32, 31, 1);
    let book = PairBook(three_bits());
    let fit = Fit { book, group: 32, levels: &levels, around: 2, store: as_f16 };
    rows::<2, 86, _>(&fit, (values, columns, weights), unit, |groups, block| {
        for (h, group) in groups.iter().enumerate() {
            put(block, 2 * h, group.level >> 4);
            put(&mut block[2 + h % 4..6], 4 * (h / 4), group.level & 15);
            for (p, &code) in group.codes.iter().enumerate() {
                put(&mut block[6 + 16 * (h / 2) + p..], 4 * (h % 2), code as usize & 15);
                put(&mut block[70 + p..], h, code as usize >> 4);
            }
        }
    });
}
