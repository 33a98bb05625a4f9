/*!
torchao: tensor subclasses, flattened into planes whose class and block size stand in the file's
metadata.
*/

use serde_json::Value;

use super::affine::{Recipe, column_factors, plane_grid, signed, table, tensor_scales};
use super::codes::{Codes, Order, Packing};
use super::fp8;
use super::grid::{Factor, Grid, Source, is_number};
use super::group::{Context, Found, Group, Match, Trouble};
use super::joined::{Dims, Joined, Role, Zero};
use super::layout::block;
use crate::codec::TensorType;
use crate::codec::float::E2M1;

/// Every suffix of the scheme.
pub const SUFFIXES: &[&str] =
    &[CODES, SCALE, ZERO, TENSOR_SCALE, ACT_SCALE, PRE_SCALE, "._weight_scale_and_zero"];

const CODES: &str = "._weight_qdata";
const SCALE: &str = "._weight_scale";
const ZERO: &str = "._weight_zero_point";
const TENSOR_SCALE: &str = "._weight_per_tensor_scale";
/// By which the module multiplies its input: the codes are those of the weight divided by it.
const PRE_SCALE: &str = "._weight_act_pre_scale";
/// Scale of the activation.
const ACT_SCALE: &str = "._weight_act_per_tensor_scale";

/// Joins a flattened subclass.
pub fn build(group: &Group, context: &Context) -> Match {
    let Some(codes) = group.get(CODES) else { return Ok(None) };
    let settings = context.config.torchao(&format!("{}.weight", group.base)).unwrap_or_default();
    let class = settings["_type"].as_str().unwrap_or_default();
    let inferred = match codes.ty {
        ty if fp8::values(ty).is_some() => "Float8Tensor",
        TensorType::I8 => "Int8Tensor",
        _ => "",
    };
    let found = match if class.is_empty() { inferred } else { class } {
        "Float8Tensor" | "Int8Tensor" | "IntxUnpackedToInt8Tensor" => bytes(group, &settings),
        "Int4Tensor" => int4(group),
        class @ ("MXTensor" | "NVFP4Tensor") => micro(group, context, class, &settings),
        class => {
            let what = if class.is_empty() { "a tensor without metadata" } else { class };
            let reason = format!(
                "torchao's {what} is laid out for a kernel and not decoded; save the model with a \
                 plain (unpacked) layout"
            );
            Err(Trouble::Refused { scheme: format!("torchao {class}").trim_end().into(), reason })
        }
    };
    found?.map(|found| with_activation(group, found)).transpose()
}

/// Applies the factors of the activation, and counts its scale.
fn with_activation(group: &Group, mut found: Found) -> Result<Found, Trouble> {
    let Some(weight) = found.weight.joined() else { return Ok(found) };
    if let Some(plane) = group.get(PRE_SCALE) {
        let scheme = weight.scheme.clone();
        weight.columns = Some(column_factors(group, &scheme, PRE_SCALE, weight.dims.cols)?);
        weight.add(plane, Role::Scale);
    }
    if let Some(plane) = group.get(ACT_SCALE) {
        weight.add(plane, Role::Activation);
    }
    Ok(found)
}

/// The last two extents of `block_size`.
fn block_size(settings: &Value) -> Option<(u64, u64)> {
    let size = settings["_data"]["block_size"].as_array()?;
    let extent = |back: usize| size.get(size.len().checked_sub(back)?)?.as_u64();
    Some((extent(2)?, extent(1)?)).filter(|&(rows, cols)| rows > 0 && cols > 0)
}

/// One byte a code: (q - zero) * scale.
fn bytes(group: &Group, settings: &Value) -> Match {
    let codes = group.need("torchao", CODES)?;
    let target = settings["_data"]["target_dtype"]["_data"].as_str().unwrap_or_default();
    let (scheme, table) = match fp8::values(codes.ty) {
        Some(table) => ("FP8".to_owned(), Box::new(*table)),
        None if codes.ty == TensorType::I8 => {
            let bits = target.strip_prefix("int").and_then(|bits| bits.parse::<u32>().ok());
            (format!("INT{}", bits.unwrap_or(8)), signed(8))
        }
        None => return Ok(None),
    };
    let configured = block_size(settings);
    let (mut weight, spread) = Recipe {
        scheme: &scheme,
        codes: CODES,
        shape: &codes.shape,
        bits: 8,
        order: Order::LowFirst,
        table,
        scale: SCALE,
        scale_as: None,
        block: configured,
    }
    .join(group)?;
    if let Some(zero) = group.get(ZERO) {
        let shape = (&codes.shape[..], configured);
        weight.zero = Zero::Before(plane_grid(group, &scheme, ZERO, shape, &spread)?);
        weight.add(zero, Role::Zero);
    }
    Ok(Some(Found::new(codes.shape.clone(), weight)))
}

/// Signed nibbles [out, in/2]; scales and additive zero points [groups, out].
fn int4(group: &Group) -> Match {
    const SCHEME: &str = "INT4";
    let codes = group.need(SCHEME, CODES)?;
    let (scale, zero) = (group.need(SCHEME, SCALE)?, group.need(SCHEME, ZERO)?);
    let (&[rows, half], &[groups, scale_rows]) = (&codes.shape[..], &scale.shape[..]) else {
        return Err(group.fault(SCHEME, SCALE, format!("has shape {:?}", scale.shape)));
    };
    let cols = half.saturating_mul(2);
    let size = block(cols, groups, None).filter(|_| scale_rows == rows);
    let size = size.ok_or_else(|| {
        let message = format!("has shape {:?} for {rows} rows of {cols}", scale.shape);
        group.fault(SCHEME, SCALE, message)
    })?;
    if zero.shape != scale.shape || !is_number(zero.ty) || !is_number(scale.ty) {
        return Err(group.fault(SCHEME, ZERO, format!("has shape {:?}", zero.shape)));
    }
    let packing = Packing::Across { bits: 4, order: Order::LowFirst };
    let packed = Codes::new(codes.at, packing, 1, (rows, half), (rows, cols))
        .map_err(|message| group.fault(SCHEME, CODES, message))?;
    let dims = Dims { matrices: 1, rows, cols, transposed: false };
    let mut weight = Joined::new(SCHEME, dims, packed, signed(4));
    let grid = |plane: &crate::model::Plane| {
        let source = Source::Plane { at: plane.at, ty: plane.ty, transposed: true };
        Grid::new(source, (rows, groups), (1, size))
    };
    weight.scale = grid(scale);
    weight.zero = Zero::Plus(grid(zero));
    weight.add(codes, Role::Codes);
    weight.add(scale, Role::Scale);
    weight.add(zero, Role::Zero);
    Ok(Some(Found::new(vec![rows, cols], weight)))
}

/// OCP and NVIDIA microscaling, if the scales are in row order.
fn micro(group: &Group, context: &Context, class: &str, settings: &Value) -> Match {
    if settings["_data"]["is_swizzled_scales"].as_bool() == Some(true) {
        let reason =
            format!("torchao's {class} with swizzled scales is not decoded; save it unswizzled");
        return Err(Trouble::Refused { scheme: format!("torchao {class} (swizzled)"), reason });
    }
    let codes = group.need("torchao", CODES)?;
    let (scheme, bits, values) = match (class, fp8::values(codes.ty)) {
        ("MXTensor", Some(values)) => ("MXFP8", 8, Box::new(*values)),
        ("MXTensor", None) => ("MXFP4", 4, table(&E2M1)),
        _ => ("NVFP4", 4, table(&E2M1)),
    };
    let mut shape = codes.shape.clone();
    if let (Some(last), TensorType::U8) = (shape.last_mut(), codes.ty) {
        *last = last.saturating_mul(8 / u64::from(bits));
    }
    let (mut weight, spread) = Recipe {
        scheme,
        codes: CODES,
        shape: &shape,
        bits,
        order: Order::LowFirst,
        table: values,
        scale: SCALE,
        scale_as: None,
        block: Some((1, if class == "MXTensor" { 32 } else { 16 })),
    }
    .join(group)?;
    if let Some(plane) = group.get(TENSOR_SCALE) {
        let factors = tensor_scales(group, context, scheme, TENSOR_SCALE, spread.matrices)?;
        weight.scale.factor = Factor::Times(factors);
        weight.add(plane, Role::Scale);
    }
    Ok(Some(Found::new(shape, weight)))
}
