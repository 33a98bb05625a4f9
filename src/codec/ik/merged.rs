/*!
Fields of merged blocks: how four, eight or sixteen rows share their bytes.

Everywhere four consecutive elements of the first row are followed by the same four of the second, and so
on, one 32-bit word a row; other elements of the same row take the remaining bits of each byte. A group of
32 elements is written as eight *quarters* of four codes, each a little-endian word.
*/

use crate::codec::isa::Isa;

/// The codes of 32 elements, four to a word.
pub(super) type Quarters = [u32; 8];

/// The bytes of the codes.
#[inline(always)]
pub(super) fn codes(quarters: Quarters) -> [u8; 32] {
    let mut codes = [0; 32];
    for (codes, quarter) in codes.as_chunks_mut::<4>().0.iter_mut().zip(quarters) {
        *codes = quarter.to_le_bytes();
    }
    codes
}

/// The word at byte `at`; the places are those of a layout, inside every block.
#[inline(always)]
fn word(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// The f16 of a row in a field of one for each row.
#[inline(always)]
pub(super) fn f16_of_row(isa: impl Isa, block: &[u8], at: usize, row: usize) -> f32 {
    isa.f16(u16::from_le_bytes([block[at + 2 * row], block[at + 2 * row + 1]]))
}

/// `N` bytes of one of `ROWS` rows whose words take turns from byte `at` on.
#[inline(always)]
pub(super) fn bytes_of_row<const ROWS: usize, const N: usize>(
    block: &[u8],
    at: usize,
    row: usize,
) -> [u8; N] {
    let mut bytes = [0; N];
    for (j, bytes) in bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        *bytes = word(block, at + 4 * (ROWS * j + row % ROWS)).to_le_bytes();
    }
    bytes
}

/// Group `ib` of 4-bit codes of four rows, from byte `at` on: a byte holds elements 8 apart; the lines
/// of 16 bytes have elements 0 to 3, 16 to 19, 4 to 7 and 20 to 23 in their low nibbles.
#[inline(always)]
pub(super) fn nibbles(block: &[u8], at: usize, ib: usize, row: usize) -> Quarters {
    let mut quarters = [0; 8];
    for line in 0..4 {
        let packed = word(block, at + 64 * ib + 16 * line + 4 * (row & 3));
        let first = 4 * (line % 2) + line / 2;
        quarters[first] = packed & 0x0F0F_0F0F;
        quarters[first + 2] = (packed >> 4) & 0x0F0F_0F0F;
    }
    quarters
}

/// Group `ib` of 2-bit codes of four rows, from byte `at` on: a byte holds elements 4 apart.
#[inline(always)]
pub(super) fn pairs(block: &[u8], at: usize, ib: usize, row: usize) -> Quarters {
    let mut quarters = [0; 8];
    for (t, quarter) in quarters.iter_mut().enumerate() {
        let packed = word(block, at + 32 * ib + 16 * (t / 4) + 4 * (row & 3));
        *quarter = (packed >> (2 * (t % 4))) & 0x0303_0303;
    }
    quarters
}

/// Where the quarters of a group have their bit in the byte that all eight share.
pub(super) type BitOrder = [u8; 8];

/// Bit t for quarter t.
pub(super) const IN_TURN: BitOrder = [0, 1, 2, 3, 4, 5, 6, 7];
/// `Q5_K_R4`: first the halves of 16, then quarters, then eighths.
pub(super) const Q5_ORDER: BitOrder = [0, 2, 1, 3, 4, 6, 5, 7];
/// `IQ5_K_R4` and `IQ5_KS_R4`: first the quarters, then halves of 16, then eighths.
pub(super) const IQ5_ORDER: BitOrder = [0, 4, 1, 5, 2, 6, 3, 7];
/// `Q5_0_R4`.
pub(super) const Q50_ORDER: BitOrder = [0, 2, 4, 6, 1, 3, 5, 7];

/// One more bit, `place`, of each code of group `ib`, from the bits from byte `at` on.
#[inline(always)]
pub(super) fn with_bit(
    mut quarters: Quarters,
    block: &[u8],
    (at, order): (usize, &BitOrder),
    (ib, row): (usize, usize),
    place: u32,
) -> Quarters {
    let bits = word(block, at + 16 * ib + 4 * (row & 3));
    for (quarter, shift) in quarters.iter_mut().zip(order) {
        *quarter |= ((bits >> shift) & 0x0101_0101) << place;
    }
    quarters
}

/// Two more bits, 4 and 5, of each code of group `ib`; `shift` says where in its byte a quarter has them.
#[inline(always)]
pub(super) fn with_pair(
    mut quarters: Quarters,
    block: &[u8],
    (at, order): (usize, &BitOrder),
    (ib, row): (usize, usize),
) -> Quarters {
    for (t, (quarter, shift)) in quarters.iter_mut().zip(order).enumerate() {
        let bits = word(block, at + 32 * ib + 16 * (t / 4) + 4 * (row & 3));
        *quarter |= ((bits >> shift) & 0x0303_0303) << 4;
    }
    quarters
}

/// `Q6_K_R4` and `Q6_0_R4` differ in which quarter comes first.
pub(super) const Q6_K_ORDER: BitOrder = [0, 4, 2, 6, 0, 4, 2, 6];
/// See [`Q6_K_ORDER`].
pub(super) const Q6_0_ORDER: BitOrder = [0, 2, 4, 6, 0, 2, 4, 6];

/// Number `index` of 4-bit numbers, of which the first half lie in low nibbles.
#[inline(always)]
pub(super) fn nibble_of(numbers: &[u8], index: usize) -> u8 {
    let half = numbers.len();
    (numbers[index % half] >> (4 * (index / half))) & 15
}

/// Number `index` of 2-bit numbers, of which the first quarter lie in the lowest bits.
#[inline(always)]
pub(super) fn pair_of(numbers: &[u8], index: usize) -> u8 {
    let quarter = numbers.len();
    (numbers[index % quarter] >> (2 * (index / quarter))) & 3
}

/// Bit `index` of bits that are laid out in the same way, the first eighth in bit 0.
#[inline(always)]
pub(super) fn bit_of(numbers: &[u8], index: usize) -> u8 {
    let eighth = numbers.len();
    (numbers[index % eighth] >> (index / eighth)) & 1
}

/// The numbers of the two halves of group `ib` of a row among those of four rows.
#[inline(always)]
pub(super) fn halves(ib: usize, row: usize) -> [usize; 2] {
    [8 * ib + (row & 3), 8 * ib + (row & 3) + 4]
}
