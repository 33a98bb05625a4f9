/*!
AMD Quark's integers. Weights in groups are stored transposed, others are not; eight 4-bit codes share
a word in AWQ's order unless `pack_method` is `order`, 3-bit codes are a stream, 8-bit codes are bytes.
*/

use super::affine::{Recipe, scale_type, signed, unsigned};
use super::awq::Transposed;
use super::codes::{Codes, Order, Packing};
use super::grid::{Grid, Source, Table, is_number};
use super::group::{Context, Found, Group, Match};
use super::joined::{Dims, Joined, Role, Zero};
use super::layout::block;
use crate::codec::TensorType;
use crate::model::Plane;

/// Every suffix of the family.
pub const SUFFIXES: &[&str] = &[CODES, SCALE, ZERO];

const CODES: &str = ".weight";
const SCALE: &str = ".weight_scale";
const ZERO: &str = ".weight_zero_point";

/// Joins a weight of integers that is laid out as no other tool does it.
pub fn build(group: &Group, context: &Context) -> Match {
    let (Some(codes), Some(scale)) = (group.get(CODES), group.get(SCALE)) else {
        return Ok(None);
    };
    if codes.shape.len() != 2 || !matches!(scale_type(scale), Some((_, Role::Scale))) {
        return Ok(None);
    }
    let settings = context.config.quark_weight();
    let by_group = settings["qscheme"].as_str() == Some("per_group");
    match (codes.ty, settings["dtype"].as_str()) {
        (TensorType::I32, _) => words(group, context, codes, scale),
        (TensorType::I8 | TensorType::U8, Some("int8" | "uint8" | "int2")) if by_group => {
            bytes(group, context, codes, scale)
        }
        (TensorType::U8, Some("int3")) => three_bits(group, codes),
        _ => Ok(None),
    }
}

/// What 4-bit codes stand for, and whether they are signed.
fn four_bits(group: &Group, context: &Context) -> (Box<Table>, bool) {
    let is_signed = match context.config.quark_weight()["dtype"].as_str() {
        Some("int4") => true,
        Some(_) => false,
        None => !group.has(ZERO),
    };
    (if is_signed { signed(4) } else { unsigned() }, is_signed)
}

/// Eight codes to a word: along the outputs if there are groups, along the inputs if not.
fn words(group: &Group, context: &Context, codes: &Plane, scale: &Plane) -> Match {
    const SCHEME: &str = "INT4";
    let (rows, words) = (codes.shape[0], codes.shape[1]);
    let (table, is_signed) = four_bits(group, context);
    let order = if context.config.quark_reordered() { Order::Awq } else { Order::LowFirst };
    let cols = words.saturating_mul(8);
    if let [groups, out] = scale.shape[..]
        && out == cols
    {
        let (codes, scale) = ((CODES, codes), (SCALE, scale));
        let transposed = Transposed { scheme: SCHEME, codes, scale, zero: ZERO, order, table };
        return transposed.join(group, context, rows, groups, is_signed.then_some(0.0));
    }
    let per_row = scale.shape == [rows];
    if !per_row && scale.numel() != 1 {
        return Ok(None);
    }
    let misfit = |suffix, message: String| group.fault(SCHEME, suffix, message);
    let packing = Packing::Across { bits: 4, order };
    let packed = Codes::new(codes.at, packing, 1, (rows, words * 4), (rows, cols))
        .map_err(|message| misfit(CODES, message))?;
    let dims = Dims { matrices: 1, rows, cols, transposed: false };
    let mut weight = Joined::new(SCHEME, dims, packed, table.clone());
    let (cells, cell) = if per_row { (rows, 1) } else { (1, u64::MAX) };
    let grid = |source| Grid::new(source, (cells, 1), (cell, u64::MAX));
    weight.scale = grid(Source::Plane { at: scale.at, ty: scale.ty, transposed: false });
    weight.add(codes, Role::Codes);
    weight.add(scale, Role::Scale);
    if let Some(zero) = group.get(ZERO) {
        // Packed along the outputs; a single one is not packed.
        let source = if per_row {
            let packing = Packing::Down { bits: 4, unit: 4, order };
            let codes = Codes::new(zero.at, packing, 1, (zero.at.len / 4, 4), (rows, 1))
                .map_err(|message| misfit(ZERO, message))?;
            Source::Codes(codes, table)
        } else {
            if zero.numel() != 1 || !is_number(zero.ty) {
                return Err(misfit(ZERO, format!("is {} {:?}", zero.ty, zero.shape)));
            }
            Source::Plane { at: zero.at, ty: zero.ty, transposed: false }
        };
        weight.zero = Zero::Before(grid(source));
        weight.add(zero, Role::Codes);
    } else if !is_signed {
        return group.need(SCHEME, ZERO).map(|_| None);
    }
    Ok(Some(Found::new(vec![rows, cols], weight)))
}

/// One byte a code, inputs as rows.
fn bytes(group: &Group, context: &Context, codes: &Plane, scale: &Plane) -> Match {
    let (rows, cols) = (codes.shape[0], codes.shape[1]);
    let [groups, out] = scale.shape[..] else { return Ok(None) };
    let size = block(rows, groups, context.config.group_size()).filter(|_| out == cols);
    let Some(size) = size else { return Ok(None) };
    let scheme = match context.config.quark_weight()["dtype"].as_str() {
        Some("int2") => "INT2",
        _ => "INT8",
    };
    let table = if codes.ty == TensorType::I8 { signed(8) } else { unsigned() };
    let packing = Packing::Across { bits: 8, order: Order::LowFirst };
    let packed = Codes::new(codes.at, packing, 1, (rows, cols), (rows, cols))
        .map_err(|message| group.fault(scheme, CODES, message))?;
    let dims = Dims { matrices: 1, rows, cols, transposed: true };
    let mut weight = Joined::new(scheme, dims, packed, table);
    let grid = |plane: &Plane| {
        let source = Source::Plane { at: plane.at, ty: plane.ty, transposed: false };
        Grid::new(source, (groups, cols), (size, 1))
    };
    weight.scale = grid(scale);
    weight.add(codes, Role::Codes);
    weight.add(scale, Role::Scale);
    if let Some(zero) = group.get(ZERO) {
        if zero.shape != scale.shape || !is_number(zero.ty) {
            let message = format!("is {} {:?}, unlike the scales", zero.ty, zero.shape);
            return Err(group.fault(scheme, ZERO, message));
        }
        weight.zero = Zero::Before(grid(zero));
        weight.add(zero, Role::Zero);
    }
    Ok(Some(Found::new(vec![cols, rows], weight)))
}

/// Eight 3-bit codes in three bytes, two's complement.
fn three_bits(group: &Group, codes: &Plane) -> Match {
    let shape = [codes.shape[0], codes.shape[1].saturating_mul(8) / 3];
    let (weight, _) = Recipe {
        scheme: "INT3",
        codes: CODES,
        shape: &shape,
        bits: 3,
        order: Order::LowFirst,
        table: signed(3),
        scale: SCALE,
        scale_as: None,
        block: None,
    }
    .join(group)?;
    Ok(Some(Found::new(shape.to_vec(), weight)))
}
