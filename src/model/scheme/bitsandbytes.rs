/*!
bitsandbytes: 4-bit codes of a stored map in blocks over the flattened weight, and LLM.int8.

The 4-bit weight's shape, block size and nesting stand in a JSON text that is stored as a tensor; the
packed bytes may be stored under any type.
*/

use serde_json::Value;

use super::affine::{signed, table};
use super::codes::{Codes, Order, Packing};
use super::grid::{Grid, Source};
use super::group::{Context, Found, Group, Match, Trouble};
use super::joined::{Dims, Joined, Role};
use super::layout::product;
use crate::codec::TensorType;
use crate::model::Plane;

/// Suffixes of the 4-bit scheme.
pub const FOUR_BIT_SUFFIXES: &[&str] = &[
    ".weight",
    ".weight.absmax",
    ".weight.quant_map",
    ".weight.nested_absmax",
    ".weight.nested_quant_map",
    NF4,
    FP4,
];

const NF4: &str = ".weight.quant_state.bitsandbytes__nf4";
const FP4: &str = ".weight.quant_state.bitsandbytes__fp4";

/// Suffixes of LLM.int8.
pub const INT8_SUFFIXES: &[&str] = &[".weight", ".SCB", ".weight_format", ".CB"];

/// 1/127 as bitsandbytes has it: a constant that multiplies, rounded to f32.
const INT8_FACTOR: f32 = 7.874015718698502e-3;

/// Joins a 4-bit weight: `map[code] * absmax` of the block.
pub fn build_4bit(group: &Group, context: &Context) -> Match {
    let state = [NF4, FP4].into_iter().find_map(|suffix| Some((suffix, group.get(suffix)?)));
    let Some((state_suffix, state)) = state else {
        if group.has(".weight.absmax") && group.has(".weight.quant_map") {
            return group.need("NF4", NF4).map(|_| None);
        }
        return Ok(None);
    };
    let scheme = if state_suffix == NF4 { "NF4" } else { "FP4" };
    let misfit = |suffix, message: String| group.fault(scheme, suffix, message);
    let codes = group.need(scheme, ".weight")?;
    let absmax = group.need(scheme, ".weight.absmax")?;
    let map = group.need(scheme, ".weight.quant_map")?;
    let text: Value = serde_json::from_slice(&context.bytes(state)?)
        .map_err(|error| misfit(state_suffix, format!("is not JSON: {error}")))?;
    let shape: Option<Vec<u64>> =
        text["shape"].as_array().and_then(|shape| shape.iter().map(Value::as_u64).collect());
    let size = text["blocksize"].as_u64().filter(|&size| size > 0);
    let (Some(shape), Some(size)) = (shape, size) else {
        return Err(misfit(state_suffix, "names no shape or no blocksize".to_owned()));
    };
    let numel = product(&shape)
        .ok_or_else(|| misfit(state_suffix, format!("names the shape {shape:?}")))?;
    let values = context.numbers(map)?;
    if values.len() != 16 {
        return Err(misfit(".weight.quant_map", format!("has {} values, not 16", values.len())));
    }
    let packing = Packing::Across { bits: 4, order: Order::HighFirst };
    let spare = codes.at.len.saturating_sub(numel.div_ceil(2));
    if spare >= codes.ty.info().block_bytes as u64 {
        let message = format!("has {} bytes for {numel} codes", codes.at.len);
        return Err(misfit(".weight", message));
    }
    let packed = Codes::new(codes.at, packing, 1, (1, codes.at.len), (1, numel))
        .map_err(|message| misfit(".weight", message))?;
    let blocks = numel.div_ceil(size);
    let dims = Dims { matrices: 1, rows: 1, cols: numel, transposed: false };
    let mut weight = Joined::new(scheme, dims, packed, table(&values));
    weight.add(codes, Role::Codes);
    let source = absmax_source(group, context, scheme, absmax, blocks, &text, &mut weight)?;
    weight.scale = Grid::new(source, (1, blocks), (1, size));
    weight.add(map, Role::Codes);
    weight.add(state, Role::Setting);
    Ok(Some(Found::new(shape, weight)))
}

/// The scale of each block: stored, or quantized once more.
fn absmax_source(
    group: &Group,
    context: &Context,
    scheme: &str,
    absmax: &Plane,
    blocks: u64,
    state: &Value,
    weight: &mut Joined,
) -> Result<Source, Trouble> {
    const NESTED: &str = ".weight.nested_absmax";
    const NESTED_MAP: &str = ".weight.nested_quant_map";
    let misfit = |suffix, message: String| group.fault(scheme, suffix, message);
    let unfit = || {
        let message =
            format!("is {} {:?}, not one for each of {blocks} blocks", absmax.ty, absmax.shape);
        misfit(".weight.absmax", message)
    };
    if absmax.numel() != blocks {
        return Err(unfit());
    }
    match absmax.ty {
        TensorType::F32 | TensorType::F16 | TensorType::BF16 => {
            weight.add(absmax, Role::Scale);
            Ok(Source::Plane { at: absmax.at, ty: absmax.ty, transposed: false })
        }
        TensorType::U8 => {
            weight.add(absmax, Role::Codes);
            let scales = group.need(scheme, NESTED)?;
            let map = group.need(scheme, NESTED_MAP)?;
            let block = state["nested_blocksize"].as_u64().unwrap_or(256).max(1);
            let offset = state["nested_offset"].as_f64().unwrap_or(0.0) as f32;
            if scales.ty != TensorType::F32 || scales.numel() != blocks.div_ceil(block) {
                let message = format!(
                    "is {} {:?}, not F32, one for {block} of {blocks} blocks",
                    scales.ty, scales.shape
                );
                return Err(misfit(NESTED, message));
            }
            let values = context.numbers(map)?;
            if values.len() != 256 {
                return Err(misfit(NESTED_MAP, format!("has {} values, not 256", values.len())));
            }
            weight.add(scales, Role::Scale);
            weight.add(map, Role::Codes);
            Ok(Source::Nested {
                at: absmax.at,
                map: table(&values),
                scales: scales.at,
                block,
                offset,
            })
        }
        _ => Err(unfit()),
    }
}

/// Joins an LLM.int8 weight: (code * SCB) / 127.
pub fn build_int8(group: &Group, context: &Context) -> Match {
    const SCHEME: &str = "INT8";
    let (Some(codes), Some(scale)) = (group.get(".weight"), group.get(".SCB")) else {
        return Ok(None);
    };
    let (TensorType::I8, &[rows, cols]) = (codes.ty, &codes.shape[..]) else { return Ok(None) };
    if let Some(format) = group.get(".weight_format")
        && context.integers(format)?.iter().any(|&order| order != 0)
    {
        let reason = "LLM.int8 in a tile order of old GPU kernels (weight_format is not 0) is not \
                      decoded; save it again with a current bitsandbytes";
        let scheme = "bitsandbytes INT8 (tiled)".to_owned();
        return Err(Trouble::Refused { scheme, reason: reason.to_owned() });
    }
    if scale.ty != TensorType::F32 || scale.numel() != rows {
        let message =
            format!("is {} {:?}, not one F32 for each of {rows} rows", scale.ty, scale.shape);
        return Err(group.fault(SCHEME, ".SCB", message));
    }
    let packing = Packing::Across { bits: 8, order: Order::LowFirst };
    let packed = Codes::new(codes.at, packing, 1, (rows, cols), (rows, cols))
        .map_err(|message| group.fault(SCHEME, ".weight", message))?;
    let dims = Dims { matrices: 1, rows, cols, transposed: false };
    let mut weight = Joined::new(SCHEME, dims, packed, signed(8));
    let source = Source::Plane { at: scale.at, ty: scale.ty, transposed: false };
    weight.scale = Grid::new(source, (rows, 1), (1, u64::MAX));
    weight.last_factor = Some(INT8_FACTOR);
    weight.add(codes, Role::Codes);
    weight.add(scale, Role::Scale);
    if let Some(format) = group.get(".weight_format") {
        weight.add(format, Role::Setting);
    }
    Ok(Some(Found::new(codes.shape.clone(), weight)))
}
