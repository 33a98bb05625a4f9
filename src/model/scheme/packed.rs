/*!
compressed-tensors `pack-quantized`: integers of 1 to 8 bits in 32-bit words along each row, stored
with half their range added.

Before May 2025 a word held `32 / bits` whole codes, since then rows are dense streams; the number of
words tells them apart. Zero points are packed the same way, but along the output dimension.
*/

use super::affine::{missing, offset, scale_type};
use super::codes::{Codes, Order, Packing};
use super::grid::{Grid, Index, Source, is_number};
use super::group::{Context, Found, Group, Match, Trouble};
use super::joined::{Dims, Joined, Role, Zero};
use super::layout::{self, block};
use crate::codec::TensorType;
use crate::model::Plane;

/// Every suffix of the scheme.
pub const SUFFIXES: &[&str] = &[
    ".weight_packed",
    ".weight_scale",
    ".weight_shape",
    ".weight_zero_point",
    ".weight_g_idx",
    ".pre_quant_scale",
];

const SCHEME: &str = "INT";

/// Joins packed words with their scales: (q - zero) * scale.
pub fn build(group: &Group, context: &Context) -> Match {
    let Some(codes) = group.get(".weight_packed") else { return Ok(None) };
    if codes.ty != TensorType::I32 || codes.shape.len() < 2 {
        return Ok(None);
    }
    if let Some(rotation) = context.config.rotated() {
        let reason = format!(
            "the configuration has a {rotation}, which qualm does not undo: the weights cannot be \
             compared with the originals"
        );
        return Err(Trouble::Refused { scheme: "compressed-tensors transform".to_owned(), reason });
    }
    let scale = group.need(SCHEME, ".weight_scale")?;
    let Plan { matrices, rows, cols, words, bits, order, notes } = plan(group, context, codes)?;
    let scheme = format!("INT{bits}");
    let misfit = |suffix, message: String| group.fault(&scheme, suffix, message);
    let packing = Packing::Across { bits, order };
    let packed = Codes::new(codes.at, packing, matrices, (rows, words * 4), (rows, cols))
        .map_err(|message| misfit(".weight_packed", message))?;
    let dims = Dims { matrices, rows, cols, transposed: false };
    let mut weight = Joined::new(&scheme, dims, packed, offset(bits));
    weight.add(codes, Role::Codes);

    let stack = &codes.shape[..codes.shape.len() - 2];
    let shape = [stack, &[rows, cols]].concat();
    let (ty, role) = scale_type(scale)
        .ok_or_else(|| misfit(".weight_scale", format!("is {}: no scales", scale.ty)))?;
    weight.add(scale, role);
    let spread = layout::spread(&shape, &scale.shape, None)
        .map_err(|message| misfit(".weight_scale", message))?;
    // The dimensions of a stack stay apart: codes are padded row by row.
    let groups = if spread.block.1 == u64::MAX { 1 } else { spread.grid_cols };
    let per_tensor = spread.grid_rows * spread.grid_cols == 1;
    let grid_rows = if per_tensor { 1 } else { rows };
    if !per_tensor && spread.block.0 != 1 {
        return Err(misfit(".weight_scale", format!("has shape {:?}: not by rows", scale.shape)));
    }
    let size = block(cols, groups, context.config.group_size())
        .or((cols == 0).then_some(1))
        .ok_or_else(|| misfit(".weight_scale", format!("has {groups} groups of {cols} columns")))?;
    let cell = (if per_tensor { u64::MAX } else { 1 }, size);
    let source = Source::Plane { at: scale.at, ty, transposed: false };
    weight.scale = Grid::new(source, (grid_rows, groups), cell).shared(per_tensor);

    let mut findings = Vec::new();
    if let Some(zero) = group.get(".weight_zero_point") {
        let source = zero_source(zero, matrices, (rows, groups), bits, order)
            .map_err(|message| misfit(".weight_zero_point", message))?;
        weight.zero = Zero::Before(Grid::new(source, (grid_rows, groups), cell).shared(per_tensor));
        weight.add(zero, Role::Zero);
    } else if context.config.symmetric() == Some(false) {
        let message = "is missing although the configuration says that weights are asymmetric";
        findings.push(missing(group, ".weight_zero_point", message));
    }
    if let Some(plane) = group.get(".weight_g_idx") {
        let index = Index::new(plane, cols, groups);
        let index = index.map_err(|message| misfit(".weight_g_idx", message))?;
        if let Zero::Before(grid) = &mut weight.zero {
            grid.col_index = Some(index.clone());
        }
        weight.scale.col_index = Some(index);
        weight.add(plane, if groups > 1 { Role::Index } else { Role::Setting });
    }
    if let Some(plane) = group.get(".weight_shape") {
        weight.add(plane, Role::Setting);
    } else {
        let message = "is missing; the weight is decoded as if its rows had no padding";
        findings.push(missing(group, ".weight_shape", message));
    }
    super::affine::apply_pre_quant_scale(group, &mut weight)?;
    Ok(Some(Found { findings, notes, ..Found::new(shape, weight) }))
}

/// What the words hold.
struct Plan {
    matrices: u64,
    rows: u64,
    cols: u64,
    words: u64,
    bits: u32,
    order: Order,
    notes: Vec<String>,
}

/// Finds the width and packing of the codes from the number of words and columns.
fn plan(group: &Group, context: &Context, codes: &Plane) -> Result<Plan, Trouble> {
    let misfit = |suffix, message: String| group.fault(SCHEME, suffix, message);
    let (stack, matrix) = codes.shape.split_at(codes.shape.len() - 2);
    let (rows, words) = (matrix[0], matrix[1]);
    let matrices = layout::product(stack)
        .ok_or_else(|| misfit(".weight_packed", "its shape is out of range".to_owned()))?;
    let shape = group.get(".weight_shape").map(|plane| context.integers(plane)).transpose()?;
    let cols = match shape.as_deref() {
        Some(&[.., out, cols]) if out == rows as i64 && (0..1 << 40).contains(&cols) => cols as u64,
        Some(shape) => {
            let message =
                format!("says {shape:?}, but the codes have {rows} rows of {words} words");
            return Err(misfit(".weight_shape", message));
        }
        // Without it, the width of the codes has to come from elsewhere, and padding stays.
        None => words * 32 / u64::from(context.config.num_bits().unwrap_or(4).clamp(1, 8)),
    };
    let dense = |bits: &u32| (cols * u64::from(*bits)).div_ceil(32) == words;
    let loose = |bits: &u32| cols.div_ceil(u64::from(32 / *bits)) == words;
    let configured = context.config.num_bits().filter(|bits| (1..=8).contains(bits));
    let candidates = || configured.into_iter().chain([4, 8, 2, 3, 6, 5, 7, 1]);
    // A width that divides a word is packed alike by both.
    let bits = candidates().find(|bits| dense(bits) || loose(bits)).ok_or_else(|| {
        let message = format!(
            "has {words} words a row, which no width from 1 to 8 bits gives for {cols} columns"
        );
        misfit(".weight_packed", message)
    })?;
    let (dense, loose) = (dense(&bits), loose(&bits));
    let prefers_dense = context.config.dense_packing();
    let mut notes = Vec::new();
    if dense && loose && 32 % bits != 0 && prefers_dense.is_none() {
        notes.push(format!(
            "{}: {words} words a row fit both the old and the new packing of {bits}-bit codes; \
             taken as the new one",
            codes.name
        ));
    }
    let is_dense = dense && (!loose || prefers_dense.unwrap_or(true) || 32 % bits == 0);
    let order = if is_dense { Order::LowFirst } else { Order::Loose };
    Ok(Plan { matrices, rows, cols, words, bits, order, notes })
}

/// Zero points: packed along the output dimension like the codes, or plain integers (before 0.10).
fn zero_source(
    zero: &Plane,
    matrices: u64,
    (rows, groups): (u64, u64),
    bits: u32,
    order: Order,
) -> Result<Source, String> {
    if zero.ty == TensorType::I32 {
        let packing = Packing::Down { bits, unit: 4, order };
        let row_bytes = groups * 4;
        let per_matrix = matrices.checked_mul(row_bytes).filter(|&bytes| bytes > 0);
        let stored_rows = per_matrix.map_or(0, |bytes| zero.at.len / bytes);
        let codes =
            Codes::new(zero.at, packing, matrices, (stored_rows, row_bytes), (rows, groups))?;
        return Ok(Source::Codes(codes, offset(bits)));
    }
    let expected = matrices.checked_mul(rows).and_then(|n| n.checked_mul(groups));
    if !is_number(zero.ty) || Some(zero.numel()) != expected {
        return Err(format!(
            "is {} {:?}, neither packed nor one for each of {rows} x {groups} groups",
            zero.ty, zero.shape
        ));
    }
    Ok(Source::Plane { at: zero.at, ty: zero.ty, transposed: false })
}
