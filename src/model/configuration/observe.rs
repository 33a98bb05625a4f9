/*! What is stored: planes by module, and the layout that they show. */

use std::collections::BTreeMap;

use crate::codec::{Class, TensorType};
use crate::model::Plane;

/// Suffixes of planes, after the module's name; longer ones come before what they end with.
const SUFFIXES: &[&str] = &[
    ".quant_state.bitsandbytes__nf4",
    ".quant_state.bitsandbytes__fp4",
    ".input_global_scale",
    ".weight_global_scale",
    ".input_zero_point",
    ".weight_zero_point",
    ".output_zero_point",
    ".weight_scale_inv",
    ".weight_scale_2",
    ".weight_packed",
    ".weight_bitmask",
    ".pre_quant_scale",
    ".weight_absmax",
    ".weight_scale",
    ".weight_shape",
    ".weight_g_idx",
    ".output_scale",
    ".input_scale",
    ".nested_absmax",
    ".quant_map",
    ".absmax",
    ".kv_scale",
    ".qweight",
    ".k_scale",
    ".v_scale",
    ".q_scale",
    ".qzeros",
    ".scales",
    ".biases",
    ".g_idx",
    ".weight",
    ".SCB",
    ".bias",
];

/// The layout of a module's planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Float weights.
    Plain,
    /// `weight_packed` I32 (compressed-tensors).
    Packed,
    /// `weight` F8 with scales.
    Fp8,
    /// `weight` I8 with scales.
    Int8,
    /// `weight_packed` U8 with `weight_global_scale` (compressed-tensors).
    Nvfp4,
    /// `weight` U8 with `weight_scale_2` (`ModelOpt`).
    ModelOptNvfp4,
    /// U8 codes with E8M0 scales.
    Mxfp4,
    /// `qweight` `[in * bits / 32, out]`.
    Gptq,
    /// `qweight` `[in, out / 8]`.
    Awq,
    /// `qweight` `[out, in / 8]`.
    AwqGemv,
    /// `weight` U32 with `scales`.
    Mlx,
    /// Another quantized layout.
    Other,
}

impl Kind {
    /// In messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Packed => "pack-quantized",
            Self::Fp8 => "float-quantized",
            Self::Int8 => "int-quantized",
            Self::Nvfp4 => "nvfp4-pack-quantized",
            Self::ModelOptNvfp4 => "ModelOpt NVFP4",
            Self::Mxfp4 => "MXFP4",
            Self::Gptq => "GPTQ",
            Self::Awq => "AWQ gemm",
            Self::AwqGemv => "AWQ gemv",
            Self::Mlx => "MLX",
            Self::Other => "quantized",
        }
    }
}

/// A module and its planes.
#[derive(Debug)]
pub struct Module<'a> {
    /// `model.layers.0.self_attn.q_proj`.
    pub name: String,
    /// By suffix.
    pub planes: BTreeMap<&'static str, &'a Plane>,
    /// Their layout.
    pub kind: Kind,
}

/// Groups planes by module, in order of names.
pub fn modules(planes: &[Plane]) -> Vec<Module<'_>> {
    let mut by_name: BTreeMap<&str, BTreeMap<&'static str, &Plane>> = BTreeMap::new();
    for plane in planes {
        let Some(suffix) = SUFFIXES.iter().find(|suffix| plane.name.ends_with(**suffix)) else {
            continue;
        };
        let name = &plane.name[..plane.name.len() - suffix.len()];
        by_name.entry(name).or_default().insert(suffix, plane);
    }
    by_name
        .into_iter()
        .map(|(name, planes)| Module { kind: kind(&planes), name: name.to_owned(), planes })
        .collect()
}

fn kind(planes: &BTreeMap<&'static str, &Plane>) -> Kind {
    let has = |suffix: &str| planes.contains_key(suffix);
    let float8 = |ty: TensorType| ty.name().starts_with("F8_") && ty != TensorType::F8_E8M0;
    if let Some(packed) = planes.get(".weight_packed") {
        return match packed.ty {
            TensorType::I32 if !has(".weight_bitmask") => Kind::Packed,
            TensorType::U8 if has(".weight_global_scale") => Kind::Nvfp4,
            TensorType::U8 => Kind::Mxfp4,
            _ => Kind::Other,
        };
    }
    if let Some(codes) = planes.get(".qweight") {
        return packed_words(codes, planes.get(".scales").copied(), planes.get(".qzeros").copied());
    }
    let Some(weight) = planes.get(".weight") else { return Kind::Other };
    match weight.ty {
        TensorType::U32 if has(".scales") => Kind::Mlx,
        TensorType::U8 if has(".weight_scale_2") => Kind::ModelOptNvfp4,
        TensorType::U8 if has(".weight_scale") && planes[".weight_scale"].ty == TensorType::U8 => {
            Kind::Mxfp4
        }
        TensorType::I8 if has(".weight_scale") => Kind::Int8,
        ty if float8(ty) => Kind::Fp8,
        ty if ty.info().class == Class::Float && !has(".absmax") && !has(".SCB") => Kind::Plain,
        _ => Kind::Other,
    }
}

/// GPTQ keeps the outputs as columns, AWQ packs them; gemv has them as rows.
fn packed_words(codes: &Plane, scales: Option<&Plane>, zeros: Option<&Plane>) -> Kind {
    let (Some(&[rows, cols]), Some(&[scale_rows, scale_cols])) =
        (codes.shape.first_chunk::<2>(), scales.and_then(|plane| plane.shape.first_chunk::<2>()))
    else {
        return Kind::Other;
    };
    let zero_cols = zeros.and_then(|plane| plane.shape.get(1).copied());
    let gemm = cols.checked_mul(8) == Some(scale_cols) && zero_cols.is_none_or(|it| it == cols);
    if gemm && rows != scale_rows {
        Kind::Awq
    } else if cols == scale_cols {
        Kind::Gptq
    } else if rows == scale_rows {
        Kind::AwqGemv
    } else {
        Kind::Other
    }
}

impl Module<'_> {
    /// A plane's shape.
    pub fn shape(&self, suffix: &str) -> Option<&[u64]> {
        self.planes.get(suffix).map(|plane| plane.shape.as_slice())
    }

    /// Whether a plane is there.
    pub fn has(&self, suffix: &str) -> bool {
        self.planes.contains_key(suffix)
    }

    /// The last two extents of a plane.
    pub fn matrix(&self, suffix: &str) -> Option<(u64, u64)> {
        let &[rows, cols] = self.shape(suffix)?.last_chunk::<2>()?;
        Some((rows, cols))
    }

    /// Whether engines build a linear layer for it, if it is plain: a matrix, or a stack of them, that
    /// is no embedding, norm, router, convolution or head.
    pub fn is_linear(&self) -> bool {
        let rank = self.shape(".weight").map_or(0, <[u64]>::len);
        let name = self.name.to_ascii_lowercase();
        let last = name.rsplit('.').next().unwrap_or_default();
        let other = ["embed", "norm", "conv", "router", "rotary", "pooler", "classifier"];
        let heads =
            ["lm_head", "gate", "wte", "wpe", "head", "score", "shared_expert_gate", "shared"];
        rank == 2 && !other.iter().any(|part| name.contains(part)) && !heads.contains(&last)
    }
}
