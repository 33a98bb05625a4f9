/*!
Unpacking: from bytes to one code a byte, for every order of codes in a row or a unit.
*/

use super::codes::Order;

/// Codes in the smallest run that ends on a whole 32-bit word for every width.
pub const RUN: u64 = 32;

/// Unpacks the codes at the start of `bytes`, which has at least eight bytes more than they take.
pub fn unpack(bytes: &[u8], bits: u32, order: Order, codes: &mut [u8]) {
    match (order, bits) {
        (Order::LowFirst, 1) => stream::<1>(bytes, codes),
        (Order::LowFirst, 2) => stream::<2>(bytes, codes),
        (Order::LowFirst, 3) => stream::<3>(bytes, codes),
        (Order::LowFirst, 4) => nibbles(bytes, codes),
        (Order::LowFirst, 5) => stream::<5>(bytes, codes),
        (Order::LowFirst, 6) => stream::<6>(bytes, codes),
        (Order::LowFirst, 7) => stream::<7>(bytes, codes),
        (Order::LowFirst | Order::HighFirst, _) if bits == 8 => {
            codes.copy_from_slice(&bytes[..codes.len()]);
        }
        (Order::HighFirst, 4) => {
            for (pair, &byte) in codes.chunks_mut(2).zip(bytes) {
                pair.copy_from_slice(&[byte >> 4, byte & 15][..pair.len()]);
            }
        }
        (Order::HighFirst, _) => {
            let per_byte = (8 / bits) as usize;
            let mask = (1u8 << bits) - 1;
            for (codes, &byte) in codes.chunks_mut(per_byte).zip(bytes) {
                for (i, code) in codes.iter_mut().enumerate() {
                    *code = (byte >> (8 - bits * (i as u32 + 1))) & mask;
                }
            }
        }
        (Order::Awq, _) => awq(bytes, codes),
        (Order::Planes, _) => {
            for (codes, words) in codes.chunks_mut(32).zip(bytes.chunks(4 * bits as usize)) {
                for (i, code) in codes.iter_mut().enumerate() {
                    *code = plane_code(bits, i as u32, |word| word_at(words, word as usize));
                }
            }
        }
        (Order::Loose | Order::LowFirst, _) => {
            let mask = (1u32 << bits) - 1;
            for (codes, word) in
                codes.chunks_mut((32 / bits) as usize).zip(bytes.as_chunks::<4>().0)
            {
                let word = u32::from_le_bytes(*word);
                for (i, code) in codes.iter_mut().enumerate() {
                    *code = ((word >> (i as u32 * bits)) & mask) as u8;
                }
            }
        }
    }
}

/// Two codes in a byte, the low one first: `stream::<4>`, in a form that vectorizes.
fn nibbles(bytes: &[u8], codes: &mut [u8]) {
    let (pairs, last) = codes.as_chunks_mut::<2>();
    let (whole, rest) = bytes.split_at(pairs.len());
    for (pair, &byte) in pairs.iter_mut().zip(whole) {
        *pair = [byte & 15, byte >> 4];
    }
    if let ([code], Some(byte)) = (last, rest.first()) {
        *code = byte & 15;
    }
}

/// A dense stream of `BITS`-bit codes, lowest bits first: eight codes in `BITS` bytes.
fn stream<const BITS: usize>(bytes: &[u8], codes: &mut [u8]) {
    let mask = (1u64 << BITS) - 1;
    let whole = codes.len() / 8;
    let (eights, rest) = codes.as_chunks_mut::<8>();
    for (i, eight) in eights.iter_mut().enumerate() {
        let Some(word) = bytes[i * BITS..].first_chunk::<8>() else { return };
        let word = u64::from_le_bytes(*word);
        *eight = std::array::from_fn(|k| ((word >> (k * BITS)) & mask) as u8);
    }
    if let Some(word) = bytes.get(whole * BITS..).and_then(|bytes| bytes.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*word);
        for (k, code) in rest.iter_mut().enumerate() {
            *code = ((word >> (k * BITS)) & mask) as u8;
        }
    }
}

/// Nibble of a word in which each of eight codes lies.
pub const AWQ_ORDER: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// Eight codes in a word in [`AWQ_ORDER`].
fn awq(bytes: &[u8], codes: &mut [u8]) {
    let (eights, rest) = codes.as_chunks_mut::<8>();
    let (words, _) = bytes.as_chunks::<4>();
    let columns =
        |[a, b, c, d]: [u8; 4]| [a & 15, c & 15, a >> 4, c >> 4, b & 15, d & 15, b >> 4, d >> 4];
    for (eight, word) in eights.iter_mut().zip(words) {
        *eight = columns(*word);
    }
    if let Some(word) = words.get(eights.len()) {
        rest.copy_from_slice(&columns(*word)[..rest.len()]);
    }
}

/// A 32-bit word of a row of words; zero beyond its end.
pub fn word_at(bytes: &[u8], word: usize) -> u32 {
    bytes.get(4 * word..4 * word + 4).map_or(0, |bytes| {
        u32::from(bytes[0])
            | u32::from(bytes[1]) << 8
            | u32::from(bytes[2]) << 16
            | u32::from(bytes[3]) << 24
    })
}

/// Code `i` of 32 that are stored as planes of 4, 2 and 1 bits, low plane first (3 = 2 + 1,
/// 5 = 4 + 1, 6 = 4 + 2, 7 = 4 + 2 + 1; a power of two is one plane).
pub fn plane_code(bits: u32, i: u32, word: impl Fn(u32) -> u32) -> u8 {
    let (mut code, mut shift, mut first_word) = (0, 0, 0);
    for width in [8, 4, 2, 1] {
        if bits & width != 0 {
            let bit = i * width;
            let part = word(first_word + bit / 32) >> (bit % 32) & ((1 << width) - 1);
            code |= part << shift;
            shift += width;
            first_word += width;
        }
    }
    code as u8
}

/// Takes the code at `shift` out of each unit.
pub fn pick(units: &[u8], unit: u32, shift: u32, bits: u32, codes: &mut [u8]) {
    if unit == 1 {
        let mask = ((1u32 << bits) - 1) as u8;
        for (code, &unit) in codes.iter_mut().zip(units) {
            *code = (unit >> shift) & mask;
        }
        return;
    }
    let mask = (1u32 << bits) - 1;
    for (code, word) in codes.iter_mut().zip(units.as_chunks::<4>().0) {
        *code = ((u32::from_le_bytes(*word) >> shift) & mask) as u8;
    }
}
