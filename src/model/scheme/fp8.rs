/*!
FP8 weights with scales: per tensor, row, block or group, under any of the names in use, and MXFP8.

`weight_scale_inv` is a multiplier like the others, whatever its name says.
*/

use super::affine::{Recipe, apply_pre_quant_scale};
use super::codes::Order;
use super::grid::Table;
use super::group::{Context, Found, Group, Match};
use super::joined::Role;
use crate::codec::TensorType;
use crate::codec::float::{E4M3, E4M3FNUZ, E5M2, E5M2FNUZ};

/// Every suffix of the family.
pub const SUFFIXES: &[&str] = &[
    ".weight",
    ".weight_scale_inv",
    ".weight_scale",
    ".scale",
    ".qscale_weight",
    ".scale_weight",
    ".pre_quant_scale",
];

/// Names of the scale, in the order in which they are looked for.
pub const SCALES: &[&str] =
    &[".weight_scale_inv", ".weight_scale", ".scale", ".qscale_weight", ".scale_weight"];

/// The values of an 8-bit float type.
pub fn values(ty: TensorType) -> Option<&'static Table> {
    match ty {
        TensorType::F8_E4M3 => Some(&E4M3),
        TensorType::F8_E5M2 => Some(&E5M2),
        TensorType::F8_E4M3FNUZ => Some(&E4M3FNUZ),
        TensorType::F8_E5M2FNUZ => Some(&E5M2FNUZ),
        _ => None,
    }
}

/// Joins an F8 weight with its scale. A bare F8 weight is a plain cast and no scheme.
pub fn build(group: &Group, context: &Context) -> Match {
    let Some(codes) = group.get(".weight") else { return Ok(None) };
    let Some(table) = values(codes.ty) else { return Ok(None) };
    let Some(scale) = SCALES.iter().find(|suffix| group.has(suffix)) else { return Ok(None) };
    let (mut weight, spread) = Recipe {
        scheme: "FP8",
        codes: ".weight",
        shape: &codes.shape,
        bits: 8,
        order: Order::LowFirst,
        table: Box::new(*table),
        scale,
        scale_as: None,
        block: context.config.block_size(),
    }
    .join(group)?;
    let exponents = weight.parts.has(Role::Exponent);
    let one_block = spread.block.1 == u64::MAX && spread.cols <= 32 && spread.block.0 == 1;
    if exponents && (spread.block == (1, 32) || one_block) {
        "MXFP8".clone_into(&mut weight.scheme);
    }
    apply_pre_quant_scale(group, &mut weight)?;
    Ok(Some(Found::new(codes.shape.clone(), weight)))
}
