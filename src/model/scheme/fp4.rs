/*!
Microscaling floats: NVFP4, MXFP4 and MXFP6 under the names of compressed-tensors, `ModelOpt`, Quark
and DeepSeek-V4, and gpt-oss's transposed experts.

The nibble of the even column is the low one. The scale of a whole tensor divides if it is called
`weight_global_scale` and multiplies if it is called `weight_scale_2`.
*/

use super::affine::{Recipe, apply_pre_quant_scale, scale_type, table, tensor_scales};
use super::codes::{Codes, Order, Packing};
use super::grid::{Factor, Grid, Source};
use super::group::{Context, Found, Group, Match, Trouble};
use super::joined::{Dims, Joined, Role};
use super::layout::{block, product};
use crate::codec::TensorType;
use crate::codec::float::{E2M1, E2M3, E3M2};
use crate::model::Plane;

/// Suffixes of NVFP4.
pub const NVFP4_SUFFIXES: &[&str] = &[
    ".weight_packed",
    ".weight",
    ".weight_scale",
    ".weight_global_scale",
    ".weight_scale_2",
    ".pre_quant_scale",
    ".svdquant_lora_a",
    ".svdquant_lora_b",
];

/// Suffixes of MXFP4 and MXFP6.
pub const MX_SUFFIXES: &[&str] =
    &[".weight_packed", ".weight", ".weight_scale", ".scale", ".weight_scale_2"];

/// The plane of byte-packed codes: `weight_packed`, or `weight` itself.
fn packed(group: &Group) -> Option<(&'static str, &Plane)> {
    let planes = [".weight_packed", ".weight"].into_iter();
    let mut planes = planes.filter_map(|suffix| Some((suffix, group.get(suffix)?)));
    planes.find(|(_, plane)| matches!(plane.ty, TensorType::U8 | TensorType::I8))
}

/// Shape of codes of `bits` bits that were packed into bytes along the last dimension.
fn unpacked(shape: &[u64], bits: u64) -> Option<Vec<u64>> {
    let mut shape = shape.to_vec();
    let last = shape.last_mut()?;
    let total = last.checked_mul(8)?;
    *last = total.is_multiple_of(bits).then_some(total / bits)?;
    Some(shape)
}

/// Scales of 16 in E4M3 and one more of the tensor.
pub fn build_nvfp4(group: &Group, context: &Context) -> Match {
    const SCHEME: &str = "NVFP4";
    let Some((codes, plane)) = packed(group) else { return Ok(None) };
    let Some(scale) = group.get(".weight_scale") else {
        // Only this scheme has a scale of the tensor beside those of the groups.
        let of_tensor = group.has(".weight_global_scale") || group.has(".weight_scale_2");
        return if of_tensor {
            group.need(SCHEME, ".weight_scale").map(|_| None)
        } else {
            Ok(None)
        };
    };
    if scale.ty != TensorType::F8_E4M3 {
        return Ok(None);
    }
    if group.has(".svdquant_lora_a") {
        let reason = "NVFP4 with an SVD branch (svdquant_lora_a, _b) is not decoded; compare a \
                      checkpoint that was exported without it";
        return Err(Trouble::Refused { scheme: "NVFP4_SVD".to_owned(), reason: reason.to_owned() });
    }
    let Some(shape) = unpacked(&plane.shape, 4) else { return Ok(None) };
    let (shape, mut weight, matrices) = if let Some(turned) = Turned::of(plane, scale, 16) {
        turned.join(SCHEME, (codes, plane), (".weight_scale", scale), group)?
    } else {
        let (weight, spread) = Recipe {
            scheme: SCHEME,
            codes,
            shape: &shape,
            bits: 4,
            order: Order::LowFirst,
            table: table(&E2M1),
            scale: ".weight_scale",
            scale_as: None,
            block: Some((1, 16)),
        }
        .join(group)?;
        (shape, weight, spread.matrices)
    };
    let divides = codes == ".weight_packed" || group.has(".weight_global_scale");
    let suffix = if divides { ".weight_global_scale" } else { ".weight_scale_2" };
    let factors = tensor_scales(group, context, SCHEME, suffix, matrices)?;
    weight.scale.factor = if divides { Factor::Over(factors) } else { Factor::Times(factors) };
    if let Some(plane) = group.get(suffix) {
        weight.add(plane, Role::Scale);
    }
    apply_pre_quant_scale(group, &mut weight)?;
    Ok(Some(Found::new(shape, weight)))
}

/// A stack [matrices, in, out] of which each column is packed: codes [matrices, in/2, out] and scales
/// [matrices, in/size, out]. Tools that turn experts before they pack them write it.
struct Turned {
    matrices: u64,
    /// Rows of bytes, and of scales.
    rows: (u64, u64),
    cols: u64,
    size: u64,
}

impl Turned {
    /// Told by the two shapes; `None` if the rows are packed, or nothing fits.
    fn of(codes: &Plane, scale: &Plane, size: u64) -> Option<Self> {
        let (&[.., half, cols], &[.., groups, scale_cols]) = (&codes.shape[..], &scale.shape[..])
        else {
            return None;
        };
        let stack = &codes.shape[..codes.shape.len() - 2];
        let same = scale.shape.len() == codes.shape.len() && scale.shape.starts_with(stack);
        let cells = |halves: u64| Some(halves.checked_mul(2)?.div_ceil(size));
        let across = groups == half && cells(cols) == Some(scale_cols);
        let down = scale_cols == cols && cells(half) == Some(groups);
        let matrices = product(stack)?;
        (same && down && !across && stack.len() == 1).then_some(Self {
            matrices,
            rows: (half, groups),
            cols,
            size,
        })
    }

    /// Shape and weight, and the number of matrices.
    fn join(
        &self,
        scheme: &str,
        (suffix, codes): (&str, &Plane),
        (scale_suffix, scale): (&str, &Plane),
        group: &Group,
    ) -> Result<(Vec<u64>, Joined, u64), Trouble> {
        let Self { matrices, rows: (half, groups), cols, size } = *self;
        let rows = half * 2;
        let misfit = |suffix, message: String| group.fault(scheme, suffix, message);
        let (ty, role) = scale_type(scale)
            .ok_or_else(|| misfit(scale_suffix, format!("is {}, no scales", scale.ty)))?;
        let packing = Packing::Down { bits: 4, unit: 1, order: Order::LowFirst };
        let packed = Codes::new(codes.at, packing, matrices, (half, cols), (rows, cols))
            .map_err(|message| misfit(suffix, message))?;
        let dims = Dims { matrices, rows, cols, transposed: false };
        let mut weight = Joined::new(scheme, dims, packed, table(&E2M1));
        weight.add(codes, Role::Codes);
        weight.add(scale, role);
        let source = Source::Plane { at: scale.at, ty, transposed: false };
        weight.scale = Grid::new(source, (groups, cols), (size, 1));
        let shape = [&codes.shape[..codes.shape.len() - 2], &[rows, cols]].concat();
        Ok((shape, weight, matrices))
    }
}

/// Scales of 32 in E8M0.
pub fn build_mx(group: &Group, context: &Context) -> Match {
    let Some((codes, plane)) = packed(group) else { return Ok(None) };
    let mut suffixes = [".weight_scale", ".scale"].into_iter();
    let Some((suffix, scale)) = suffixes.find_map(|suffix| Some((suffix, group.get(suffix)?)))
    else {
        return Ok(None);
    };
    let Some((_, Role::Exponent)) = scale_type(scale) else { return Ok(None) };
    let (Some(&bytes), Some(&groups)) = (plane.shape.last(), scale.shape.last()) else {
        return Ok(None);
    };
    if let Some(turned) = Turned::of(plane, scale, 32) {
        let (shape, mut weight, _) =
            turned.join("MXFP4", (codes, plane), (suffix, scale), group)?;
        apply_pre_quant_scale(group, &mut weight)?;
        return Ok(Some(Found::new(shape, weight)));
    }
    // Four bits if a group of 32 takes 16 bytes, six if it takes 24; the last group may be short.
    let fits =
        |bits: u64| unpacked(&[bytes], bits).is_some_and(|shape| shape[0].div_ceil(32) == groups);
    let six_bits = || match context.config.quark_weight()["dtype"].as_str() {
        Some("fp6_e3m2") => &E3M2,
        _ => &E2M3,
    };
    let (scheme, bits, table) = if fits(4) {
        ("MXFP4", 4, table(&E2M1))
    } else if fits(6) {
        ("MXFP6", 6, table(six_bits()))
    } else {
        return Ok(None);
    };
    let Some(shape) = unpacked(&plane.shape, u64::from(bits)) else { return Ok(None) };
    let (mut weight, _) = Recipe {
        scheme,
        codes,
        shape: &shape,
        bits,
        order: Order::LowFirst,
        table,
        scale: suffix,
        scale_as: None,
        block: Some((1, 32)),
    }
    .join(group)?;
    apply_pre_quant_scale(group, &mut weight)?;
    Ok(Some(Found::new(shape, weight)))
}

/// gpt-oss: blocks U8 [experts, out, in/32, 16], scales U8 [experts, out, in/32]; the weight is
/// [experts, in, out].
pub fn build_gpt_oss(group: &Group, _: &Context) -> Match {
    const SCHEME: &str = "MXFP4";
    let Some(codes) = group.get("_blocks") else { return Ok(None) };
    if codes.ty != TensorType::U8 || codes.shape.len() < 3 {
        return Ok(None);
    }
    let scale = group.need(SCHEME, "_scales")?;
    let (outer, inner) = codes.shape.split_at(codes.shape.len() - 2);
    let (stack, rows) = outer.split_at(outer.len() - 1);
    let (rows, [groups, bytes]) = (rows[0], [inner[0], inner[1]]);
    let expected = [outer, &[groups]].concat();
    let exponents = matches!(scale_type(scale), Some((_, Role::Exponent)));
    if scale.shape != expected || !exponents {
        let message = format!("is {} {:?}, not U8 {expected:?}", scale.ty, scale.shape);
        return Err(group.fault(SCHEME, "_scales", message));
    }
    let row_bytes = groups.checked_mul(bytes);
    let cols = row_bytes.and_then(|bytes| bytes.checked_mul(2));
    let (Some(row_bytes), Some(cols), Some(matrices)) = (row_bytes, cols, product(stack)) else {
        return Ok(None);
    };
    let packing = Packing::Across { bits: 4, order: Order::LowFirst };
    let packed = Codes::new(codes.at, packing, matrices, (rows, row_bytes), (rows, cols))
        .map_err(|message| group.fault(SCHEME, "_blocks", message))?;
    let Some(size) = block(cols, groups, Some(bytes * 2)).or((cols == 0).then_some(1)) else {
        return Ok(None);
    };
    let dims = Dims { matrices, rows, cols, transposed: true };
    let mut weight = Joined::new(SCHEME, dims, packed, table(&E2M1));
    weight.add(codes, Role::Codes);
    weight.add(scale, Role::Exponent);
    let source = Source::Plane { at: scale.at, ty: TensorType::F8_E8M0, transposed: false };
    weight.scale = Grid::new(source, (rows, groups), (1, size));
    Ok(Some(Found::new([stack, &[cols, rows]].concat(), weight)))
}
