/*!
optimum-quanto: `_data`, `_scale` and, below eight bits, `_shift`.

Packed weights keep groups, not rows: their shape is that of the groups until the reference says what
it was.
*/

use super::affine::{Recipe, signed, unsigned};
use super::codes::{Codes, Order, Packing};
use super::fp8;
use super::grid::{Grid, Source, is_number};
use super::group::{Context, Found, Group, Match, Trouble};
use super::joined::{Dims, Joined, Role, Zero};
use crate::codec::TensorType;
use crate::model::Plane;

/// Every suffix of the scheme.
pub const SUFFIXES: &[&str] = &[
    ".weight._data",
    ".weight._data._data",
    ".weight._scale",
    ".weight._shift",
    ".weight._data._scale",
];

/// Joins a quanto weight.
pub fn build(group: &Group, context: &Context) -> Match {
    if let Some(codes) = group.get(".weight._data._data") {
        return packed(group, context, codes);
    }
    let Some(codes) = group.get(".weight._data") else { return Ok(None) };
    let (scheme, table) = match (codes.ty, fp8::values(codes.ty)) {
        (_, Some(table)) => ("FP8", Box::new(*table)),
        (TensorType::I8, _) => ("INT8", signed(8)),
        _ => return Ok(None),
    };
    let (weight, _) = Recipe {
        scheme,
        codes: ".weight._data",
        shape: &codes.shape,
        bits: 8,
        order: Order::LowFirst,
        table,
        scale: ".weight._scale",
        scale_as: None,
        block: None,
    }
    .join(group)?;
    Ok(Some(Found::new(codes.shape.clone(), weight)))
}

/// Groups as rows, cut into runs that lie on top of each other, the first in the lowest bits.
fn packed(group: &Group, context: &Context, codes: &Plane) -> Match {
    const SCHEME: &str = "quanto";
    let (TensorType::U8, &[stored_rows, cols]) = (codes.ty, &codes.shape[..]) else {
        let reason = "a quanto weight in a kernel's layout (tinygemm, marlin) is not decoded; save \
                      it from a CPU";
        return Err(Trouble::Refused { scheme: "quanto (packed)".into(), reason: reason.into() });
    };
    let scale = group.need(SCHEME, ".weight._scale")?;
    let shift = group.need(SCHEME, ".weight._shift")?;
    let &[rows, 1] = &scale.shape[..] else {
        return Err(group.fault(SCHEME, ".weight._scale", format!("has shape {:?}", scale.shape)));
    };
    let configured = match context.config.quanto(&group.base) {
        Some("qint2") => Some(2),
        Some("qint4") => Some(4),
        _ => None,
    };
    let fits = |bits: &u32| rows.div_ceil(u64::from(8 / bits)) == stored_rows;
    let Some(bits) = configured.filter(fits).or_else(|| [4, 2].into_iter().find(fits)) else {
        let message = format!("has {stored_rows} rows of bytes for {rows} groups");
        return Err(group.fault(SCHEME, ".weight._data._data", message));
    };
    let scheme = format!("INT{bits}");
    let packing = Packing::Parts { bits, parts: 8 / bits, unit: 1, high_first: false };
    let packed = Codes::new(codes.at, packing, 1, (stored_rows, cols), (rows, cols))
        .map_err(|message| group.fault(&scheme, ".weight._data._data", message))?;
    let dims = Dims { matrices: 1, rows, cols, transposed: false };
    let mut weight = Joined::new(&scheme, dims, packed, unsigned());
    weight.shape_is_known = false;
    let of = |plane: &Plane, suffix| -> Result<Grid, Trouble> {
        if plane.numel() != rows || !is_number(plane.ty) {
            let message = format!("is {} {:?} for {rows} groups", plane.ty, plane.shape);
            return Err(group.fault(&scheme, suffix, message));
        }
        let source = Source::Plane { at: plane.at, ty: plane.ty, transposed: false };
        Ok(Grid::new(source, (rows, 1), (1, u64::MAX)))
    };
    weight.add(codes, Role::Codes);
    weight.scale = of(scale, ".weight._scale")?;
    weight.add(scale, Role::Scale);
    let grid = of(shift, ".weight._shift")?;
    let is_float = shift.ty.info().decode.is_some();
    weight.zero = if is_float { Zero::Minus(grid) } else { Zero::Before(grid) };
    weight.add(shift, Role::Zero);
    Ok(Some(Found::new(vec![rows, cols], weight)))
}
