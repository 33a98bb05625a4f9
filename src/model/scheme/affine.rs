/*!
What most schemes have in common: codes in row-major order, and a plane of scales whose spread
follows from its shape. Also the two U8 layouts of signed integers that have no other home:
`ModelOpt`'s INT4 and Gemma's QAT weights.
*/

use super::codes::{Codes, Order, Packing};
use super::grid::{Grid, Source, Table, is_number};
use super::group::{Context, Found, Group, Match, Trouble};
use super::joined::{Dims, Joined, Role};
use super::layout::{self, Spread, block, spread};
use crate::codec::TensorType;
use crate::model::{Plane, PlaneFault};

/// Codes that stand for themselves.
pub fn unsigned() -> Box<Table> {
    Box::new(std::array::from_fn(|code| code as f32))
}

/// Two's complement of `bits` bits.
pub fn signed(bits: u32) -> Box<Table> {
    let half = 1 << (bits - 1);
    Box::new(std::array::from_fn(|code| {
        let code = code as i32 & ((1 << bits) - 1);
        (if code < half { code } else { code - 2 * half }) as f32
    }))
}

/// Codes less half their range: `q - 2^(bits - 1)`.
pub fn offset(bits: u32) -> Box<Table> {
    let half = 1 << (bits - 1);
    Box::new(std::array::from_fn(|code| (code as i32 - half) as f32))
}

/// The values of a short table, repeated.
pub fn table(values: &[f32]) -> Box<Table> {
    Box::new(std::array::from_fn(|code| values[code % values.len()]))
}

/// How the values of a scale plane are read: bytes are E8M0 exponents.
pub fn scale_type(plane: &Plane) -> Option<(TensorType, Role)> {
    match plane.ty {
        TensorType::U8 | TensorType::F8_E8M0 => Some((TensorType::F8_E8M0, Role::Exponent)),
        ty if is_number(ty) && ty.info().decode.is_some() => Some((ty, Role::Scale)),
        _ => None,
    }
}

/// What it takes to join codes in row-major order with their scales.
pub struct Recipe<'a> {
    /// Name in reports.
    pub scheme: &'a str,
    /// Suffix of the codes.
    pub codes: &'a str,
    /// Shape of the logical weight.
    pub shape: &'a [u64],
    /// Bits of a code; rows take whole bytes.
    pub bits: u32,
    /// Order of the codes in a byte or word.
    pub order: Order,
    /// What the codes stand for.
    pub table: Box<Table>,
    /// Suffix of the scales.
    pub scale: &'a str,
    /// How the scales are read, if not as their type says.
    pub scale_as: Option<(TensorType, Role)>,
    /// Block size that the configuration or the scheme names.
    pub block: Option<(u64, u64)>,
}

impl Recipe<'_> {
    /// Joins the planes of a group; whatever else belongs to the weight is the caller's to add.
    pub fn join(self, group: &Group) -> Result<(Joined, Spread), Trouble> {
        let Self { scheme, shape, bits, .. } = self;
        let codes = group.need(scheme, self.codes)?;
        let scale = group.need(scheme, self.scale)?;
        let misfit = |suffix, message: String| group.fault(scheme, suffix, message);
        let (ty, role) = self.scale_as.or_else(|| scale_type(scale)).ok_or_else(|| {
            misfit(self.scale, format!("is {}, which is no type for scales", scale.ty))
        })?;
        let spread = spread(shape, &scale.shape, self.block)
            .map_err(|message| misfit(self.scale, message))?;
        let Spread { matrices, rows, cols, .. } = spread;
        let row_bytes = cols.checked_mul(u64::from(bits)).filter(|bits| bits % 8 == 0);
        let row_bytes = row_bytes.ok_or_else(|| {
            misfit(self.codes, format!("has rows of {cols} {bits}-bit codes: not whole bytes"))
        })? / 8;
        let packing = Packing::Across { bits, order: self.order };
        let packed = Codes::new(codes.at, packing, matrices, (rows, row_bytes), (rows, cols))
            .map_err(|message| misfit(self.codes, message))?;
        let dims = Dims { matrices, rows, cols, transposed: false };
        let mut weight = Joined::new(scheme, dims, packed, self.table);
        weight.add(codes, Role::Codes);
        weight.add(scale, role);
        weight.scale = grid(&spread, Source::Plane { at: scale.at, ty, transposed: false });
        Ok((weight, spread))
    }
}

/// A grid that spreads as another was found to.
pub fn grid(spread: &Spread, source: Source) -> Grid {
    Grid::new(source, (spread.grid_rows, spread.grid_cols), spread.block).shared(spread.shared)
}

/// A plane whose shape was found to spread over a weight, read as its type says.
pub fn plane_grid(
    group: &Group,
    scheme: &str,
    suffix: &str,
    (shape, configured): (&[u64], Option<(u64, u64)>),
    like: &Spread,
) -> Result<Grid, Trouble> {
    let plane = group.need(scheme, suffix)?;
    if !is_number(plane.ty) {
        let message = format!("is {}, which is no type for zero points", plane.ty);
        return Err(group.fault(scheme, suffix, message));
    }
    let own = spread(shape, &plane.shape, configured)
        .map_err(|message| group.fault(scheme, suffix, message))?;
    let same = (own.matrices, own.rows, own.cols) == (like.matrices, like.rows, like.cols);
    if !same && own.grid_rows * own.grid_cols != 1 {
        let message = format!("has shape {:?}, unlike the scales", plane.shape);
        return Err(group.fault(scheme, suffix, message));
    }
    Ok(grid(&own, Source::Plane { at: plane.at, ty: plane.ty, transposed: false }))
}

/// A plane of one factor for each column (`pre_quant_scale`).
pub fn column_factors(
    group: &Group,
    scheme: &str,
    suffix: &str,
    cols: u64,
) -> Result<Grid, Trouble> {
    let plane = group.need(scheme, suffix)?;
    if plane.numel() != cols || !is_number(plane.ty) {
        let message =
            format!("is {} {:?}, not one factor for each of {cols} columns", plane.ty, plane.shape);
        return Err(group.fault(scheme, suffix, message));
    }
    let source = Source::Plane { at: plane.at, ty: plane.ty, transposed: false };
    Ok(Grid::new(source, (1, cols), (u64::MAX, 1)).shared(true))
}

/// The values of a scale of the whole tensor, or of each matrix of a stack.
pub fn tensor_scales(
    group: &Group,
    context: &Context,
    scheme: &str,
    suffix: &str,
    matrices: u64,
) -> Result<Vec<f32>, Trouble> {
    let plane = group.need(scheme, suffix)?;
    let numel = plane.numel();
    if numel != 1 && numel != matrices {
        let message = format!(
            "has {numel} values, not one for the tensor or for each of {matrices} matrices"
        );
        return Err(group.fault(scheme, suffix, message));
    }
    context.numbers(plane)
}

/// Applies `pre_quant_scale`, by which the module multiplies its input.
pub fn apply_pre_quant_scale(group: &Group, weight: &mut Joined) -> Result<(), Trouble> {
    const SUFFIX: &str = ".pre_quant_scale";
    if let Some(plane) = group.get(SUFFIX) {
        let scheme = weight.scheme.clone();
        weight.columns = Some(column_factors(group, &scheme, SUFFIX, weight.dims.cols)?);
        weight.add(plane, Role::Scale);
    }
    Ok(())
}

/// `ModelOpt`'s INT4: byte [r, c] holds rows 2r (low nibble) and 2r + 1, two's complement.
pub fn build_model_opt(group: &Group, _: &Context) -> Match {
    const SCHEME: &str = "INT4";
    let (Some(codes), Some(scale)) = (group.get(".weight"), group.get(".weight_scale")) else {
        return Ok(None);
    };
    let (&[.., pairs, cols], true) = (&codes.shape[..], codes.ty == TensorType::U8) else {
        return Ok(None);
    };
    let rows = pairs * 2;
    let stack = &codes.shape[..codes.shape.len() - 2];
    let &[.., scale_rows, groups] = &scale.shape[..] else { return Ok(None) };
    let (Some(matrices), true) = (layout::product(stack), scale_rows == rows) else {
        return Ok(None);
    };
    let fits = scale.shape.len() == codes.shape.len() && scale.shape.starts_with(stack);
    let group_size = block(cols, groups, None);
    let (Some((ty, Role::Scale)), Some(size), true) = (scale_type(scale), group_size, fits) else {
        return Ok(None);
    };
    let packing = Packing::Down { bits: 4, unit: 1, order: Order::LowFirst };
    let packed = Codes::new(codes.at, packing, matrices, (pairs, cols), (rows, cols))
        .map_err(|message| group.fault(SCHEME, ".weight", message))?;
    let dims = Dims { matrices, rows, cols, transposed: false };
    let mut weight = Joined::new(SCHEME, dims, packed, signed(4));
    weight.add(codes, Role::Codes);
    weight.add(scale, Role::Scale);
    let source = Source::Plane { at: scale.at, ty, transposed: false };
    weight.scale = Grid::new(source, (rows, groups), (1, size));
    apply_pre_quant_scale(group, &mut weight)?;
    if let Some(plane) = group.get(".weight_scale_2") {
        // For the kernel's FP8 arithmetic; the codes were made with `weight_scale` alone.
        weight.add(plane, Role::Setting);
    }
    let mut shape = codes.shape.clone();
    shape[stack.len()] = rows;
    Ok(Some(Found::new(shape, weight)))
}

/// Gemma's QAT weights: nibbles (or pairs of bits) less half their range, one scale a row.
pub fn build_gemma(group: &Group, context: &Context) -> Match {
    let (Some(codes), Some(scale)) = (group.get(".weight"), group.get(".weight_scale")) else {
        return Ok(None);
    };
    let gemma = context.config.method() == "gemma";
    if !gemma || codes.ty != TensorType::U8 || scale.ty == TensorType::U8 {
        return Ok(None);
    }
    let bits = match context.config.setting("bits").as_u64() {
        Some(2) => 2,
        _ => 4,
    };
    let mut shape = codes.shape.clone();
    if let Some(cols) = shape.last_mut() {
        *cols *= 8 / u64::from(bits);
    }
    let scheme = format!("INT{bits}");
    let (weight, _) = Recipe {
        scheme: &scheme,
        codes: ".weight",
        shape: &shape,
        bits,
        order: Order::LowFirst,
        table: offset(bits),
        scale: ".weight_scale",
        scale_as: None,
        block: None,
    }
    .join(group)?;
    Ok(Some(Found::new(shape, weight)))
}

/// A finding about a plane that is missing although the weight can be decoded.
pub fn missing(group: &Group, suffix: &str, message: &str) -> crate::model::PlaneFinding {
    crate::model::PlaneFinding {
        plane: format!("{}{suffix}", group.base),
        fault: PlaneFault::Missing,
        message: message.to_owned(),
    }
}
