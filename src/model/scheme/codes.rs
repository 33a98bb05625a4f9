/*!
Packed codes: how every scheme lays its small integers into bytes and words, and how a rectangle of
them is read.

A code is at most eight bits wide and comes out as one byte, whatever it stands for. Only the bytes
that hold the rectangle are read, or a little more where that saves many small reads.
*/

use std::ops::Range;

use super::unpack::{AWQ_ORDER, RUN, pick, plane_code, unpack, word_at};
use crate::model::{Extent, ReadError, Scratch, SourceFile};

/// Rows whose wanted parts lie closer together than this are read in one go.
const SMALL_GAP: u64 = 4096;

/// Most bytes that one read takes for the sake of its gaps.
const LARGEST_SPAN: u64 = 4 << 20;

/// Order of the codes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One dense stream, the lowest bits first; codes may straddle bytes and words.
    LowFirst,
    /// Whole codes in a byte, the highest bits first (bitsandbytes).
    HighFirst,
    /// Eight 4-bit codes of a 32-bit word, interleaved for AWQ's kernels.
    Awq,
    /// Bit planes: 32 codes take `bits` words, a plane of the widest power of two first (`gptq_p`).
    Planes,
    /// Whole codes in a 32-bit word, the lowest bits first; the word's remaining bits are unused.
    Loose,
}

/// How codes are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Neighbours in a row share bytes.
    Across {
        /// Bits of a code.
        bits: u32,
        /// Order of a row's codes.
        order: Order,
    },
    /// Neighbours in a column share a unit of `unit` bytes (1 or 4): the transpose of `Across`.
    Down {
        /// Bits of a code.
        bits: u32,
        /// Bytes of a unit.
        unit: u32,
        /// Order of a column's codes; not `HighFirst`.
        order: Order,
    },
    /// The rows are cut into `parts` equal runs that lie on top of each other.
    Parts {
        /// Bits of a code.
        bits: u32,
        /// Codes that share a unit.
        parts: u32,
        /// Bytes of a unit (1 or 4).
        unit: u32,
        /// The first run is in the highest bits (HQQ), not in the lowest (quanto).
        high_first: bool,
    },
}

/// A plane of codes: `matrices` of `rows` x `cols`.
#[derive(Clone, Debug)]
pub struct Codes {
    at: Extent,
    packing: Packing,
    row_bytes: u64,
    stored_rows: u64,
    word_add: u32,
}

impl Codes {
    /// Checks that a plane of `matrices` x `stored_rows` rows of `row_bytes` fills its extent and is
    /// large enough for `rows` x `cols` codes each.
    pub fn new(
        at: Extent,
        packing: Packing,
        matrices: u64,
        (stored_rows, row_bytes): (u64, u64),
        (rows, cols): (u64, u64),
    ) -> Result<Self, String> {
        let fills = matrices.checked_mul(stored_rows).and_then(|n| n.checked_mul(row_bytes));
        if fills != Some(at.len) {
            return Err(format!(
                "has {} bytes, not {matrices} x {stored_rows} rows of {row_bytes}",
                at.len
            ));
        }
        let (needed_rows, needed_bytes) =
            packing.extent(rows, cols).ok_or("its shape is out of range")?;
        if needed_rows > stored_rows || needed_bytes > row_bytes {
            return Err(format!(
                "has {stored_rows} rows of {row_bytes} bytes where {rows} x {cols} codes of {} bits \
                 need {needed_rows} of {needed_bytes}",
                packing.bits()
            ));
        }
        Ok(Self { at, packing, row_bytes, stored_rows, word_add: 0 })
    }

    /// Adds `addend` to every 32-bit word before it is unpacked, wrapping (GPTQ's first format
    /// stores zero points less one, subtracted from the packed word).
    #[must_use]
    pub fn add_to_words(mut self, addend: u32) -> Self {
        self.word_add = addend;
        self
    }

    /// Bits of a code.
    pub fn bits(&self) -> u32 {
        self.packing.bits()
    }

    /// Reads the codes of a rectangle of one matrix, row by row.
    pub fn read(
        &self,
        files: &[SourceFile],
        matrix: u64,
        rows: &Range<u64>,
        cols: &Range<u64>,
        scratch: &mut Scratch,
        codes: &mut [u8],
    ) -> Result<(), ReadError> {
        if rows.is_empty() || cols.is_empty() {
            return Ok(());
        }
        if let Packing::Parts { .. } = self.packing {
            let end = (rows.start / self.stored_rows + 1) * self.stored_rows;
            if end < rows.end {
                let width = cols.end - cols.start;
                let (first, rest) = codes.split_at_mut(((end - rows.start) * width) as usize);
                self.read(files, matrix, &(rows.start..end), cols, scratch, first)?;
                return self.read(files, matrix, &(end..rows.end), cols, scratch, rest);
            }
        }
        let base = self.at.offset + matrix * self.stored_rows * self.row_bytes;
        let plan = self.packing.plan(rows, cols, self.row_bytes, self.stored_rows);
        let mut bytes = scratch.take_bytes();
        let pitch = read_window(&files[self.at.file], base, self.row_bytes, &plan, &mut bytes)?;
        if self.word_add != 0 {
            for word in bytes.as_chunks_mut::<4>().0 {
                *word = u32::from_le_bytes(*word).wrapping_add(self.word_add).to_le_bytes();
            }
        }
        let window = Window { bytes: &bytes, pitch, first: plan.rows.start };
        match self.packing {
            Packing::Across { bits, order } => {
                across(&window, bits, order, rows, cols, scratch, codes);
            }
            Packing::Down { bits, unit, order } => {
                down(&window, bits, unit, order, rows, cols, codes);
            }
            Packing::Parts { bits, parts, unit, high_first } => {
                let shift = |part: u64| {
                    let place = if high_first { u64::from(parts) - 1 - part } else { part };
                    bits * place as u32
                };
                let width = (cols.end - cols.start) as usize;
                for (row, codes) in rows.clone().zip(codes.chunks_exact_mut(width)) {
                    let units = window.row(row % self.stored_rows);
                    pick(units, unit, shift(row / self.stored_rows), bits, codes);
                }
            }
        }
        scratch.give_bytes(bytes);
        Ok(())
    }
}

/// Stored rows, and bytes of each, that a read takes.
struct Plan {
    rows: Range<u64>,
    bytes: Range<u64>,
}

/// What was read: row `first` begins at byte 0, each next one `pitch` bytes later.
struct Window<'a> {
    bytes: &'a [u8],
    pitch: usize,
    first: u64,
}

impl Window<'_> {
    fn row(&self, stored_row: u64) -> &[u8] {
        &self.bytes[(stored_row - self.first) as usize * self.pitch..]
    }
}

impl Packing {
    /// Bits of a code.
    pub fn bits(self) -> u32 {
        match self {
            Self::Across { bits, .. } | Self::Down { bits, .. } | Self::Parts { bits, .. } => bits,
        }
    }

    /// Stored rows, and bytes of a row, that `rows` x `cols` codes need.
    fn extent(self, rows: u64, cols: u64) -> Option<(u64, u64)> {
        let bits = u64::from(self.bits());
        if !(1..=8).contains(&bits) {
            return None;
        }
        let along = |codes: u64, order: Order| -> Option<u64> {
            Some(match order {
                Order::LowFirst => codes.checked_mul(bits)?.div_ceil(8),
                Order::HighFirst if 8 % bits == 0 => codes.checked_mul(bits)?.div_ceil(8),
                Order::Awq if bits == 4 => codes.div_ceil(8).checked_mul(4)?,
                Order::Planes => codes.div_ceil(RUN).checked_mul(4 * bits)?,
                Order::Loose => codes.div_ceil(32 / bits).checked_mul(4)?,
                Order::HighFirst | Order::Awq => return None,
            })
        };
        match self {
            Self::Across { order, .. } => Some((rows, along(cols, order)?)),
            Self::Down { unit, order, .. } => {
                let unit = u64::from(unit);
                let bytewise = order == Order::LowFirst && 8 % bits == 0;
                if order == Order::HighFirst || (unit == 1 && !bytewise) {
                    return None;
                }
                Some((along(rows, order)?.div_ceil(unit), cols.checked_mul(unit)?))
            }
            Self::Parts { parts, unit, .. } => {
                if parts == 0 || u64::from(parts) * bits > u64::from(unit) * 8 {
                    return None;
                }
                Some((rows.div_ceil(u64::from(parts)), cols.checked_mul(u64::from(unit))?))
            }
        }
    }

    /// What must be read for a rectangle.
    fn plan(self, rows: &Range<u64>, cols: &Range<u64>, row_bytes: u64, stored_rows: u64) -> Plan {
        let bits = u64::from(self.bits());
        match self {
            Self::Across { order, .. } => {
                let (start, end) = match order {
                    Order::Loose => {
                        let per_word = 32 / bits;
                        (cols.start / per_word * 4, cols.end.div_ceil(per_word) * 4)
                    }
                    Order::Planes => {
                        (cols.start / RUN * 4 * bits, cols.end.div_ceil(RUN) * 4 * bits)
                    }
                    _ => {
                        let end = (cols.end * bits).div_ceil(8).next_multiple_of(4);
                        (cols.start / RUN * 4 * bits, end)
                    }
                };
                Plan { rows: rows.clone(), bytes: start..end.min(row_bytes) }
            }
            Self::Down { unit, order, .. } => {
                let unit = u64::from(unit);
                let (start, end) = match order {
                    Order::Loose => (rows.start / (32 / bits), rows.end.div_ceil(32 / bits)),
                    Order::Planes => (rows.start / RUN * bits, rows.end.div_ceil(RUN) * bits),
                    Order::Awq => (rows.start / 8, rows.end.div_ceil(8)),
                    _ => (rows.start * bits / (8 * unit), (rows.end * bits).div_ceil(8 * unit)),
                };
                Plan { rows: start..end, bytes: cols.start * unit..cols.end * unit }
            }
            Self::Parts { unit, .. } => {
                let unit = u64::from(unit);
                let rows = rows.start % stored_rows..(rows.end - 1) % stored_rows + 1;
                Plan { rows, bytes: cols.start * unit..cols.end * unit }
            }
        }
    }
}

/// Reads the bytes of a plan and returns the distance between its rows; eight spare bytes follow.
fn read_window(
    file: &SourceFile,
    base: u64,
    stride: u64,
    plan: &Plan,
    bytes: &mut Vec<u8>,
) -> Result<usize, ReadError> {
    let width = plan.bytes.end - plan.bytes.start;
    let rows = plan.rows.end - plan.rows.start;
    let at = base + plan.rows.start * stride + plan.bytes.start;
    let span = (rows - 1) * stride + width;
    if stride - width <= SMALL_GAP && (stride == width || span <= LARGEST_SPAN) {
        bytes.resize(span as usize + 8, 0);
        file.read_at(at, &mut bytes[..span as usize])?;
        return Ok(stride as usize);
    }
    bytes.resize((rows * width) as usize + 8, 0);
    for (row, bytes) in
        bytes[..(rows * width) as usize].chunks_exact_mut(width as usize).enumerate()
    {
        file.read_at(at + row as u64 * stride, bytes)?;
    }
    Ok(width as usize)
}

/// Unpacks rows whose neighbours share bytes. The window begins at a multiple of [`RUN`] codes (of a
/// word's codes, if packed loosely).
fn across(
    window: &Window,
    bits: u32,
    order: Order,
    rows: &Range<u64>,
    cols: &Range<u64>,
    scratch: &mut Scratch,
    codes: &mut [u8],
) {
    let run = if order == Order::Loose { u64::from(32 / bits) } else { RUN };
    let skip = (cols.start % run) as usize;
    let width = (cols.end - cols.start) as usize;
    let mut row_codes = scratch.take_bytes();
    row_codes.resize(skip + width, 0);
    for (row, codes) in rows.clone().zip(codes.chunks_exact_mut(width)) {
        let bytes = window.row(row);
        if skip == 0 {
            unpack(bytes, bits, order, codes);
        } else {
            unpack(bytes, bits, order, &mut row_codes);
            codes.copy_from_slice(&row_codes[skip..]);
        }
    }
    scratch.give_bytes(row_codes);
}

/// Unpacks codes whose neighbours in a column share units.
fn down(
    window: &Window,
    bits: u32,
    unit: u32,
    order: Order,
    rows: &Range<u64>,
    cols: &Range<u64>,
    codes: &mut [u8],
) {
    let width = (cols.end - cols.start) as usize;
    for (row, codes) in rows.clone().zip(codes.chunks_exact_mut(width)) {
        match order {
            Order::Loose => {
                let per_word = u64::from(32 / bits);
                let shift = (row % per_word) as u32 * bits;
                pick(window.row(row / per_word), unit, shift, bits, codes);
            }
            Order::Awq => {
                let shift = 4 * AWQ_ORDER[(row % 8) as usize];
                pick(window.row(row / 8), unit, shift, bits, codes);
            }
            Order::Planes => {
                let first = row / RUN * u64::from(bits);
                for (col, code) in codes.iter_mut().enumerate() {
                    *code = plane_code(bits, (row % RUN) as u32, |word| {
                        word_at(window.row(first + u64::from(word)), col)
                    });
                }
            }
            _ => {
                let unit_bits = u64::from(8 * unit);
                let bit = row * u64::from(bits);
                let (stored, shift) = (bit / unit_bits, (bit % unit_bits) as u32);
                if shift + bits <= 8 * unit {
                    pick(window.row(stored), unit, shift, bits, codes);
                } else {
                    let (low, high) = (window.row(stored), window.row(stored + 1));
                    let mask = (1u64 << bits) - 1;
                    let words = low.as_chunks::<4>().0.iter().zip(high.as_chunks::<4>().0);
                    for (code, (low, high)) in codes.iter_mut().zip(words) {
                        let low = u64::from(u32::from_le_bytes(*low));
                        let high = u64::from(u32::from_le_bytes(*high));
                        *code = (((high << 32 | low) >> shift) & mask) as u8;
                    }
                }
            }
        }
    }
}
