/*!
INT8 weights, one byte a code: scales per tensor, row, block or group, with or without zero points.
*/

use super::affine::{Recipe, apply_pre_quant_scale, missing, plane_grid, signed};
use super::codes::{Codes, Order, Packing};
use super::grid::{Grid, Source, is_number};
use super::group::{Context, Found, Group, Match};
use super::joined::{Dims, Joined, Role, Zero};
use crate::codec::TensorType;

/// Every suffix of the family.
pub const SUFFIXES: &[&str] =
    &[".weight", ".weight_scale", ".weight_zero_point", ".pre_quant_scale", ".weight_shape"];

/// Joins an I8 weight with its scale and zero point: (q - zero) * scale.
pub fn build(group: &Group, context: &Context) -> Match {
    const SCHEME: &str = "INT8";
    let Some(codes) = group.get(".weight") else { return Ok(None) };
    if codes.ty != TensorType::I8 || !group.has(".weight_scale") {
        return Ok(None);
    }
    let configured = context.config.block_size();
    let (mut weight, spread) = Recipe {
        scheme: SCHEME,
        codes: ".weight",
        shape: &codes.shape,
        bits: 8,
        order: Order::LowFirst,
        table: signed(8),
        scale: ".weight_scale",
        scale_as: None,
        block: configured,
    }
    .join(group)?;
    let mut findings = Vec::new();
    if let Some(zero) = group.get(".weight_zero_point") {
        let shape = (&codes.shape[..], configured);
        weight.zero =
            Zero::Before(plane_grid(group, SCHEME, ".weight_zero_point", shape, &spread)?);
        weight.add(zero, Role::Zero);
    } else if context.config.symmetric() == Some(false) {
        let message = "is missing although the configuration says that weights are asymmetric";
        findings.push(missing(group, ".weight_zero_point", message));
    }
    apply_pre_quant_scale(group, &mut weight)?;
    Ok(Some(Found { findings, ..Found::new(codes.shape.clone(), weight) }))
}

/// EETQ: codes [in, out] and one scale for each output, the transpose of a plain INT8 weight.
pub fn build_eetq(group: &Group, _: &Context) -> Match {
    const SCHEME: &str = "INT8";
    let (Some(codes), Some(scale)) = (group.get(".weight"), group.get(".weight_scales")) else {
        return Ok(None);
    };
    let (TensorType::I8, &[rows, cols]) = (codes.ty, &codes.shape[..]) else { return Ok(None) };
    if scale.numel() != cols || !is_number(scale.ty) {
        let message = format!("has shape {:?}, not one scale for each of {cols}", scale.shape);
        return Err(group.fault(SCHEME, ".weight_scales", message));
    }
    let packing = Packing::Across { bits: 8, order: Order::LowFirst };
    let packed = Codes::new(codes.at, packing, 1, (rows, cols), (rows, cols))
        .map_err(|message| group.fault(SCHEME, ".weight", message))?;
    let dims = Dims { matrices: 1, rows, cols, transposed: true };
    let mut weight = Joined::new(SCHEME, dims, packed, signed(8));
    let source = Source::Plane { at: scale.at, ty: scale.ty, transposed: false };
    weight.scale = Grid::new(source, (1, cols), (u64::MAX, 1));
    weight.add(codes, Role::Codes);
    weight.add(scale, Role::Scale);
    Ok(Some(Found::new(vec![cols, rows], weight)))
}
