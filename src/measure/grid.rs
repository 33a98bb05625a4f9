/*!
The kind of grid that a tensor's values were rounded to, and plain rounding to it.

For ggml's block types this is ggml's own quantizer. For the schemes of safetensors it is
round-to-nearest with scales taken from the extremes, group by group: what their simplest tool would
do, and what the others are meant to beat or to trade for something better.
*/

use crate::codec::{Class, Frame, TensorType, float};
use crate::metrics::PIECE;
use crate::model::{Plane, Storage, Tensor, Weight};

/// A kind of grid.
#[derive(Clone, Debug)]
pub enum Grid {
    /// A float type, without scales.
    Float(TensorType),
    /// A ggml block type.
    Blocks(TensorType),
    /// Integers: group length, largest magnitude of a code, symmetric or from the smallest value up.
    Integers {
        /// Elements that share a scale.
        group: usize,
        /// Bits of a code.
        bits: u32,
        /// One scale, no zero point.
        symmetric: bool,
        /// Whether the scheme's tools trade plain error for less harm.
        tuned: bool,
    },
    /// The weight's own scales, code books and places: it says itself what they make of values.
    Own {
        /// Whether the scheme's tools trade plain error for less harm.
        tuned: bool,
    },
    /// Codes of a table, scaled by the group's largest magnitude.
    Codes {
        /// Elements that share a scale.
        group: usize,
        /// Values of the codes, ascending.
        table: Vec<f32>,
    },
}

impl Grid {
    /// bitsandbytes' NF4: quantiles of a normal distribution, from its paper's definition.
    pub const NF4: [f32; 16] = [
        -1.0,
        -0.696_192_8,
        -0.525_073_05,
        -0.394_917_5,
        -0.284_441_38,
        -0.184_773_43,
        -0.091_050_036,
        0.0,
        0.079_580_3,
        0.160_930_2,
        0.246_112_3,
        0.337_915_24,
        0.440_709_83,
        0.562_617,
        0.722_956_84,
        1.0,
    ];

    /// bitsandbytes' FP4, which is not E2M1.
    pub const FP4: [f32; 15] = [
        -1.0,
        -0.666_666_7,
        -0.5,
        -0.333_333_34,
        -0.25,
        -0.166_666_67,
        -0.005_208_333_5,
        0.0,
        0.005_208_333_5,
        0.166_666_67,
        0.25,
        0.333_333_34,
        0.5,
        0.666_666_7,
        1.0,
    ];

    /// The grid of a quantized tensor; none if it is not known.
    pub fn of(tensor: &Tensor, row_len: u64) -> Option<Self> {
        match &tensor.storage {
            Storage::Plain { ty, .. } => match ty.info().class {
                Class::Float => Some(Self::Float(*ty)),
                Class::Quantized => Some(Self::Blocks(*ty)),
                Class::Exact => None,
            },
            Storage::Joined(weight) => {
                Some(Self::of_scheme(weight.as_ref(), tensor.numel(), row_len))
            }
            Storage::Undecodable { .. } => None,
        }
    }

    fn of_scheme(weight: &dyn Weight, numel: u64, row_len: u64) -> Self {
        let scheme = weight.scheme();
        if let Some(ty) = TensorType::from_name(scheme) {
            // One scale for all of a tensor: a part of the reference does not lead to it.
            if matches!(ty.info().rows.map(|rows| rows.frame), Some(Frame::Whole { .. })) {
                return Self::Own { tuned: false };
            }
            // GGUF's own NVFP4, and round trips in memory.
            match ty.info().class {
                Class::Quantized => return Self::Blocks(ty),
                Class::Float => return Self::Float(ty),
                Class::Exact => {}
            }
        }
        let family = scheme.trim_end_matches(|c: char| c.is_ascii_digit());
        let bits: u32 = scheme[family.len()..].parse().unwrap_or(0);
        // The plane with the most elements beside the codes holds the scales.
        let planes = weight.planes();
        let scales = planes.iter().skip(1).map(Plane::numel).max().unwrap_or(1).max(1);
        let group = (numel / scales).clamp(1, row_len.max(1)) as usize;
        let table = |values: &[f32]| {
            let mut values: Vec<f32> = values.iter().copied().filter(|v| v.is_finite()).collect();
            values.sort_by(f32::total_cmp);
            values.dedup();
            values
        };
        match (family, bits) {
            ("FP" | "MXFP", 8) => {
                let codes = match planes.first().map(|plane| plane.ty) {
                    Some(TensorType::F8_E5M2) => &float::E5M2,
                    Some(TensorType::F8_E4M3FNUZ) => &float::E4M3FNUZ,
                    Some(TensorType::F8_E5M2FNUZ) => &float::E5M2FNUZ,
                    _ => &float::E4M3,
                };
                Self::Codes { group, table: table(codes) }
            }
            ("FP", 4) => Self::Codes { group, table: table(&Self::FP4) },
            ("NF", 4) => Self::Codes { group, table: Self::NF4.to_vec() },
            ("MXFP" | "NVFP", 4) => Self::Codes { group, table: table(&float::E2M1) },
            ("INT" | "GPTQ" | "AWQ" | "MLX" | "HQQ" | "UINT", 2..=8) => {
                // GPTQ stores zero points even where they are all the same.
                let zeros = planes.iter().any(|plane| plane.name.contains("zero"));
                let asymmetric = match family {
                    "MLX" | "HQQ" | "AWQ" => true,
                    "GPTQ" => false,
                    _ => zeros,
                };
                let tuned = matches!(family, "GPTQ" | "AWQ" | "HQQ") || bits < 8;
                Self::Integers { group, bits, symmetric: !asymmetric, tuned }
            }
            _ => Self::Own { tuned: true },
        }
    }

    /// A conversion between float types: nothing but rounding may differ.
    pub fn is_conversion(&self) -> bool {
        matches!(self, Self::Float(_))
    }

    /// Tools of this kind of scheme may give up plain error on purpose.
    pub fn is_tuned(&self) -> bool {
        matches!(self, Self::Integers { tuned: true, .. } | Self::Own { tuned: true })
    }

    /// True if a row's pieces are quantized as they would be alone: no scale is shared beyond one.
    pub fn is_local(&self) -> bool {
        let group = match self {
            Self::Float(_) => 1,
            Self::Blocks(ty) if ty.scales_rows() => return false,
            Self::Blocks(ty) => ty.info().block_len,
            Self::Integers { group, .. } | Self::Codes { group, .. } => *group,
            Self::Own { .. } => return false,
        };
        PIECE.is_multiple_of(group)
    }

    /// Rounds a row, or a part of one, to the grid; none if that cannot be done.
    pub fn quantize(&self, values: &[f32]) -> Option<Vec<f32>> {
        match self {
            Self::Float(ty) => Some(values.iter().map(|&value| convert(*ty, value)).collect()),
            Self::Blocks(ty) => ty.through(values),
            Self::Integers { group, bits, symmetric, .. } => {
                Some(values.chunks(*group).flat_map(|g| integers(g, *bits, *symmetric)).collect())
            }
            Self::Own { .. } => None,
            Self::Codes { group, table } => {
                Some(values.chunks(*group).flat_map(|g| codes(g, table)).collect())
            }
        }
    }
}

/// One value through a float type.
fn convert(ty: TensorType, value: f32) -> f32 {
    let small = |table: &[f32]| {
        let table = table.iter().copied().filter(|v| v.is_finite());
        table.min_by(|a, b| (a - value).abs().total_cmp(&(b - value).abs())).unwrap_or(value)
    };
    match ty.info().rows.and_then(|rows| rows.base).unwrap_or(ty) {
        TensorType::F16 => half::f16::from_f32(value).to_f32(),
        TensorType::BF16 => half::bf16::from_f32(value).to_f32(),
        TensorType::F8_E4M3 => small(&float::E4M3),
        TensorType::F8_E5M2 => small(&float::E5M2),
        TensorType::F8_E4M3FNUZ => small(&float::E4M3FNUZ),
        TensorType::F8_E5M2FNUZ => small(&float::E5M2FNUZ),
        _ => value,
    }
}

fn integers(values: &[f32], bits: u32, symmetric: bool) -> Vec<f32> {
    let magnitude = values.iter().fold(0f32, |m, v| m.max(v.abs()));
    let (scale, zero, low, high) = if symmetric {
        let high = (1 << (bits - 1)) as f32 - 1.0;
        (magnitude / high, 0.0, -high - 1.0, high)
    } else {
        let high = ((1u32 << bits) - 1) as f32;
        let (min, max) = values.iter().fold((0f32, 0f32), |(lo, hi), &v| (lo.min(v), hi.max(v)));
        let scale = (max - min) / high;
        (scale, (-min / scale).round(), 0.0, high)
    };
    if scale == 0.0 || !scale.is_finite() {
        return vec![0.0; values.len()];
    }
    values
        .iter()
        .map(|v| ((v / scale).round() + zero).clamp(low, high) - zero)
        .map(|q| q * scale)
        .collect()
}

fn codes(values: &[f32], table: &[f32]) -> Vec<f32> {
    let magnitude = values.iter().fold(0f32, |m, v| m.max(v.abs()));
    let top = table.iter().fold(0f32, |m, v| m.max(v.abs()));
    let scale = magnitude / top;
    if scale == 0.0 || !scale.is_finite() {
        return vec![0.0; values.len()];
    }
    values.iter().map(|v| nearest(table, v / scale) * scale).collect()
}

/// The nearest entry of an ascending table.
fn nearest(table: &[f32], value: f32) -> f32 {
    let above = table.partition_point(|&entry| entry < value);
    let candidates = [above.saturating_sub(1), above.min(table.len() - 1)];
    let [a, b] = candidates.map(|at| table[at]);
    if (value - a).abs() <= (b - value).abs() { a } else { b }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model;

    /// Values that a scheme's own tool wrote lie on its grid: rounding them to it again moves them
    /// by next to nothing, and to another grid by as much as that grid's noise.
    #[test]
    fn what_tools_wrote_lies_on_the_grid_of_its_scheme() {
        for (case, qtype) in [
            ("bnb-fp4", "FP4"),
            ("bnb-nf4", "NF4"),
            ("fp8-per-tensor", "FP8"),
            ("quark-fp8-e5m2", "FP8"),
            ("ct-mxfp4", "MXFP4"),
        ] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/schemes").join(case);
            let model = model::open(&path).unwrap();
            let tensor = model.tensors.iter().find(|tensor| tensor.qtype() == qtype).unwrap();
            let row_len = *tensor.shape.last().unwrap();
            let grid = Grid::of(tensor, row_len).unwrap();
            let mut row = vec![0.0; row_len as usize];
            tensor
                .decode(&model.files, 0..row_len, &mut model::Scratch::default(), &mut row)
                .unwrap();
            let again = grid.quantize(&row).unwrap();
            let signal: f32 = row.iter().map(|value| value * value).sum();
            let noise: f32 = row.iter().zip(&again).map(|(a, b)| (a - b) * (a - b)).sum();
            // A row need not hold the largest code, which the scale of the rounding is taken from:
            // 8-bit floats keep their own noise then, 4-bit codes are hit exactly or nearly so.
            let least = if qtype == "FP8" { 20.0 } else { 25.0 };
            let sqnr = 10.0 * (signal / noise).log10();
            assert!(sqnr > least, "{case}: {sqnr} dB");
        }
    }
}
