/*!
The block types whose values are levels of a common list, scaled and shifted group by group, and where
in a block the codes lie that choose the level.

With every code of a block set to one level, what it decodes to says which values its scales and
offsets allow. The codebook types (`IQ1` to `IQ3`), whose codes stand for several elements at once, have
no such list.
*/

use super::grids::{E2M1_DOUBLED, IQ4_VALUES};
use crate::codec::TensorType;

/// The levels of a block type, and how to set all codes of a block to the lowest or the highest.
#[derive(Debug)]
pub struct Levels {
    ty: TensorType,
    values: Values,
    /// Bytes of a block that hold codes and nothing else.
    codes: &'static [(usize, usize)],
    /// What fills them: for the lowest level, and for the highest.
    fills: [u8; 2],
}

#[derive(Debug)]
enum Values {
    /// All integers of a range.
    From(i16, i16),
    /// A table.
    Of(&'static [i8]),
}

const fn row(
    ty: TensorType,
    values: Values,
    codes: &'static [(usize, usize)],
    fills: [u8; 2],
) -> Levels {
    Levels { ty, values, codes, fills }
}

/// One line a type; the layouts are those of the decoders.
const LEVELS: &[Levels] = &[
    row(TensorType::Q4_0, Values::From(-8, 7), &[(2, 18)], [0x00, 0xff]),
    row(TensorType::Q4_1, Values::From(0, 15), &[(4, 20)], [0x00, 0xff]),
    row(TensorType::Q5_0, Values::From(-16, 15), &[(2, 22)], [0x00, 0xff]),
    row(TensorType::Q5_1, Values::From(0, 31), &[(4, 24)], [0x00, 0xff]),
    row(TensorType::Q8_0, Values::From(-128, 127), &[(2, 34)], [0x80, 0x7f]),
    row(TensorType::Q8_1, Values::From(-128, 127), &[(4, 36)], [0x80, 0x7f]),
    row(TensorType::Q2_K, Values::From(0, 3), &[(16, 80)], [0x00, 0xff]),
    row(TensorType::Q3_K, Values::From(-4, 3), &[(0, 96)], [0x00, 0xff]),
    row(TensorType::Q4_K, Values::From(0, 15), &[(16, 144)], [0x00, 0xff]),
    row(TensorType::Q5_K, Values::From(0, 31), &[(16, 176)], [0x00, 0xff]),
    row(TensorType::Q6_K, Values::From(-32, 31), &[(0, 192)], [0x00, 0xff]),
    row(TensorType::Q8_K, Values::From(-128, 127), &[(4, 260)], [0x80, 0x7f]),
    row(TensorType::IQ4_NL, Values::Of(&IQ4_VALUES), &[(2, 18)], [0x00, 0xff]),
    row(TensorType::IQ4_XS, Values::Of(&IQ4_VALUES), &[(8, 136)], [0x00, 0xff]),
    row(TensorType::TQ1_0, Values::From(-1, 1), &[(0, 52)], [0x00, 0xff]),
    row(TensorType::TQ2_0, Values::From(-1, 1), &[(0, 64)], [0x00, 0xaa]),
    row(TensorType::I2_S, Values::From(-1, 1), &[(0, 32)], [0x00, 0xaa]),
    row(TensorType::Q1_0, Values::Of(&[-1, 1]), &[(2, 18)], [0x00, 0xff]),
    row(TensorType::Q2_0, Values::From(-1, 2), &[(2, 18)], [0x00, 0xff]),
    row(TensorType::MXFP4, Values::Of(&E2M1_DOUBLED), &[(1, 17)], [0xff, 0x77]),
    row(TensorType::NVFP4, Values::Of(&E2M1_DOUBLED), &[(4, 36)], [0xff, 0x77]),
];

/// Which end of the list of levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The smallest level.
    Lowest,
    /// The largest.
    Highest,
}

impl Levels {
    /// The levels of a type; none if it has no common list of them.
    pub fn of(ty: TensorType) -> Option<&'static Self> {
        LEVELS.iter().find(|row| row.ty == ty)
    }

    /// The levels, ascending.
    pub fn values(&self) -> Vec<f32> {
        let mut values: Vec<f32> = match &self.values {
            Values::From(first, last) => (*first..=*last).map(f32::from).collect(),
            Values::Of(table) => table.iter().map(|&value| f32::from(value)).collect(),
        };
        values.sort_by(f32::total_cmp);
        values.dedup();
        values
    }

    /// Sets all codes of whole blocks to one end of the list.
    pub fn fill(&self, end: End, blocks: &mut [u8]) {
        let fill = self.fills[usize::from(end == End::Highest)];
        for block in blocks.chunks_exact_mut(self.ty.info().block_bytes) {
            for &(from, to) in self.codes {
                block[from..to].fill(fill);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::TYPES;

    /// Blocks of arbitrary bytes with ordinary scales.
    fn blocks(info: &crate::codec::TypeInfo, count: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .take(info.block_bytes * count)
        .collect();
        // Scales of a magnitude that no product of codes takes out of the range of f32.
        for half in bytes.as_chunks_mut::<2>().0 {
            half[1] &= 0xbf;
        }
        bytes
    }

    #[test]
    fn whatever_a_block_decodes_to_is_a_level_between_the_ends_of_its_grid() {
        for row in LEVELS {
            let info = row.ty.info();
            // One scale for all is no part of a block.
            let Some(decode) = info.decode else { continue };
            let levels = row.values();
            let count = 256;
            let bytes = blocks(info, count);
            let values = |bytes: &[u8]| {
                let mut values = vec![0.0; info.block_len * count];
                decode(bytes, &mut values);
                values
            };
            let end = |end: End| {
                let mut bytes = bytes.clone();
                row.fill(end, &mut bytes);
                values(&bytes)
            };
            let (low, high) = (end(End::Lowest), end(End::Highest));
            let span = f64::from(levels[levels.len() - 1] - levels[0]);
            let mut met = std::collections::BTreeSet::new();
            for ((value, low), high) in values(&bytes).iter().zip(low).zip(high) {
                let (value, low, high) = (f64::from(*value), f64::from(low), f64::from(high));
                let step = (high - low) / span;
                let all = levels.iter().map(|&level| low + step * f64::from(level - levels[0]));
                let near = |(_, it): &(usize, f64)| {
                    (it - value).abs() <= 1e-5 * (low.abs() + high.abs()).max(1e-30)
                };
                let found = all.enumerate().find(near);
                // TQ2_0 has a code that its quantizer never writes.
                let unused = row.ty == TensorType::TQ2_0 && (value - high).abs() > 0.0;
                // The largest scales of MXFP4 take the ends of the list out of the range of f32.
                let overflows = !step.is_finite();
                assert!(found.is_some() || unused || overflows, "{}: {value}", row.ty);
                if step != 0.0 {
                    met.extend(found.map(|(index, _)| index));
                }
            }
            assert_eq!(met.len(), levels.len(), "{}: levels that occur", row.ty);
        }
    }

    #[test]
    fn only_codebook_types_have_no_list_of_levels() {
        for info in TYPES.iter().filter(|info| info.class == crate::codec::Class::Quantized) {
            let codebook = ["IQ1", "IQ2", "IQ3"].iter().any(|family| info.name.starts_with(family));
            // Types beyond mainline are judged by their quantizers alone, but for the one whose scale
            // no part of a tensor leads to.
            let codebook = codebook || info.ggml_id.is_some_and(|id| id >= 97);
            assert_eq!(Levels::of(info.ty).is_none(), codebook, "{}", info.name);
        }
    }
}
