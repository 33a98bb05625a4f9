/*!
BitNet as Hugging Face packs it: four ternary weights to a byte, a quarter of the rows each, and one
scale that divides.
*/

use super::affine::scale_type;
use super::codes::{Codes, Packing};
use super::grid::Grid;
use super::group::{Context, Found, Group, Match};
use super::joined::{Dims, Joined, Role};
use crate::codec::TensorType;

/// Joins a packed ternary weight: (code - 1) / scale.
pub fn build(group: &Group, context: &Context) -> Match {
    const SCHEME: &str = "BITNET";
    let (Some(codes), Some(scale)) = (group.get(".weight"), group.get(".weight_scale")) else {
        return Ok(None);
    };
    let (TensorType::U8, &[quarter, cols]) = (codes.ty, &codes.shape[..]) else { return Ok(None) };
    let method = context.config.method();
    let float = matches!(scale_type(scale), Some((_, Role::Scale)));
    if scale.numel() != 1 || !float || !(method.is_empty() || method == "bitnet") {
        return Ok(None);
    }
    let scalar = context.numbers(scale)?.first().copied().unwrap_or(f32::NAN);
    // Packed offline, the layer divides its output by the scale; trained online, it multiplies.
    let online = context.config.word("linear_class") == "autobitlinear";
    let factor = if online { scalar } else { 1.0 / scalar };
    let rows = quarter.saturating_mul(4);
    let packing = Packing::Parts { bits: 2, parts: 4, unit: 1, high_first: false };
    let packed = Codes::new(codes.at, packing, 1, (quarter, cols), (rows, cols))
        .map_err(|message| group.fault(SCHEME, ".weight", message))?;
    let dims = Dims { matrices: 1, rows, cols, transposed: false };
    let table = Box::new(std::array::from_fn(|code| code as f32 - 1.0));
    let mut weight = Joined::new(SCHEME, dims, packed, table);
    weight.scale = Grid::constant(factor);
    weight.add(codes, Role::Codes);
    weight.add(scale, Role::Scale);
    Ok(Some(Found::new(vec![rows, cols], weight)))
}
