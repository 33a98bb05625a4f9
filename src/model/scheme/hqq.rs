/*!
HQQ: codes in runs on top of each other, fractional zero points, and every setting a tensor.

The weight is flattened into groups along its rows (axis 1) or across them (axis 0); the groups are
what is packed, scaled and shifted, the shape comes last.
*/

use super::affine::unsigned;
use super::codes::{Codes, Packing};
use super::grid::{Grid, Source, is_number};
use super::group::{Context, Found, Group, Match, Trouble};
use super::joined::{Dims, Joined, Role, Zero};
use super::layout::product;
use crate::model::Plane;

/// Every suffix of the scheme.
pub const SUFFIXES: &[&str] = &[
    ".W_q",
    ".scale",
    ".zero",
    ".nbits",
    ".group_size",
    ".axis",
    ".shape",
    ".packing",
    ".channel_wise",
    ".compute_dtype",
    ".encoded_state_dict",
    ".offload_meta",
    ".optimize",
    ".quant_scale",
    ".quant_zero",
    ".round_zero",
    ".stores_quant_config",
    ".unpack_view_dtype",
    ".view_as_float",
    ".scale_q",
    ".zero_q",
    ".meta_scale",
    ".meta_zero",
];

const SCHEME: &str = "HQQ";

/// Joins an HQQ module: (q - zero) * scale.
pub fn build(group: &Group, context: &Context) -> Match {
    let Some(codes) = group.get(".W_q") else { return Ok(None) };
    let truth = |suffix: &str| -> Result<bool, Trouble> {
        let Some(plane) = group.get(suffix) else { return Ok(false) };
        Ok(context.integers(plane)?.first() == Some(&1))
    };
    if truth(".quant_scale")? || truth(".quant_zero")? {
        let reason = "HQQ with quantized scales or zero points is not decoded; quantize with \
                      quant_scale and quant_zero off";
        return Err(Trouble::Refused {
            scheme: "HQQ (quantized meta)".into(),
            reason: reason.into(),
        });
    }
    let integer = |suffix: &str| -> Result<Option<i64>, Trouble> {
        let Some(plane) = group.get(suffix) else { return Ok(None) };
        Ok(context.integers(plane)?.first().copied())
    };
    let defaults = &context.config.setting("quant_config")["weight_quant_params"];
    let bits = integer(".nbits")?.or(defaults["nbits"].as_i64()).unwrap_or(4);
    let axis = integer(".axis")?.or(defaults["axis"].as_i64()).unwrap_or(1);
    let shape = shape(group, context)?;
    let packing = match group.get(".packing") {
        Some(plane) => packing(&context.text(plane)?),
        None => packing(&if bits == 3 { "3bit_32".to_owned() } else { format!("{bits}bit_u8") }),
    };
    let Some(packing) = packing else {
        let message = "names a packing that is not known";
        return Err(group.fault(SCHEME, ".packing", message));
    };
    let scheme = format!("HQQ{}", packing.bits());
    let misfit = |suffix, message: String| group.fault(&scheme, suffix, message);
    let scale = group.need(&scheme, ".scale")?;
    let numel = product(&shape)
        .ok_or_else(|| misfit(".shape", format!("says {shape:?}, which no file holds")))?;
    let groups = scale.numel();
    if groups == 0 || numel == 0 || !numel.is_multiple_of(groups) {
        let message = format!("has {groups} values for a weight of {numel} elements");
        return Err(misfit(".scale", message));
    }
    let size = numel / groups;
    let (rows, cols) = if axis == 0 { (size, groups) } else { (groups, size) };
    let Packing::Parts { unit, .. } = packing else { return Ok(None) };
    let row_bytes = cols.saturating_mul(u64::from(unit));
    let stored_rows = codes.at.len / row_bytes;
    let packed = Codes::new(codes.at, packing, 1, (stored_rows, row_bytes), (rows, cols))
        .map_err(|message| misfit(".W_q", message))?;
    let dims = Dims { matrices: 1, rows, cols, transposed: false };
    let mut weight = Joined::new(&scheme, dims, packed, unsigned());
    let (grid, block) =
        if axis == 0 { ((1, cols), (u64::MAX, 1)) } else { ((rows, 1), (1, u64::MAX)) };
    let of = |plane: &Plane, suffix| -> Result<Grid, Trouble> {
        if plane.numel() != groups || !is_number(plane.ty) {
            let message = format!("is {} {:?} for {groups} groups", plane.ty, plane.shape);
            return Err(misfit(suffix, message));
        }
        let source = Source::Plane { at: plane.at, ty: plane.ty, transposed: false };
        Ok(Grid::new(source, grid, block))
    };
    weight.add(codes, Role::Codes);
    weight.scale = of(scale, ".scale")?;
    weight.add(scale, Role::Scale);
    let zero = group.need(&scheme, ".zero")?;
    weight.zero = Zero::Before(of(zero, ".zero")?);
    weight.add(zero, Role::Zero);
    for (suffix, plane) in &group.planes {
        if !matches!(*suffix, ".W_q" | ".scale" | ".zero") && SUFFIXES.contains(suffix) {
            weight.add(plane, Role::Setting);
        }
    }
    Ok(Some(Found::new(shape, weight)))
}

/// Shape of the logical weight.
fn shape(group: &Group, context: &Context) -> Result<Vec<u64>, Trouble> {
    let plane = group.need(SCHEME, ".shape")?;
    let shape = context.integers(plane)?;
    let positive: Option<Vec<u64>> = shape.iter().map(|&n| u64::try_from(n).ok()).collect();
    positive.ok_or_else(|| group.fault(SCHEME, ".shape", format!("says {shape:?}")))
}

/// `8bit_u8`, `4bit_u8`, `2bit_u8`, `1bit_u8`: bytes; `3bit_32`: ten codes in a word.
fn packing(name: &str) -> Option<Packing> {
    let (bits, parts, unit) = match name {
        "8bit_u8" => (8, 1, 1),
        "4bit_u8" => (4, 2, 1),
        "2bit_u8" => (2, 4, 1),
        "1bit_u8" => (1, 8, 1),
        "3bit_32" => (3, 10, 4),
        _ => return None,
    };
    Some(Packing::Parts { bits, parts, unit, high_first: true })
}
