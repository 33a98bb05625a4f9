/*!
AWQ: eight 4-bit codes of neighbouring outputs in a word.

`gemm` (what nearly everybody ships) interleaves them, `gemv` packs along the input. Zero points are
stored as they are.
*/

use super::affine::{column_factors, unsigned};
use super::arrange::ACTIVATION_FACTORS;
use super::codes::{Codes, Order, Packing};
use super::grid::{Grid, Source, Table, is_number};
use super::group::{Context, Found, Group, Match, Trouble};
use super::joined::{Dims, Joined, Role, Zero};
use super::layout::block;
use crate::codec::TensorType;
use crate::model::Plane;

const SCHEME: &str = "AWQ4";

/// Joins an AWQ module: (q - zero) * scale, transposed.
pub fn build(group: &Group, context: &Context) -> Match {
    let (Some(codes), Some(scale)) = (group.get(".qweight"), group.get(".scales")) else {
        return Ok(None);
    };
    if codes.ty == TensorType::I16 {
        let reason = "AWQ in the gemv_fast (llm-awq) layout is interleaved for its kernel and not \
                      decoded; export it with version gemm";
        return Err(Trouble::Refused {
            scheme: "AWQ (gemv_fast)".to_owned(),
            reason: reason.into(),
        });
    }
    let (&[rows, words], &[scale_rows, scale_cols]) = (&codes.shape[..], &scale.shape[..]) else {
        return Ok(None);
    };
    if codes.ty != TensorType::I32 || !is_number(scale.ty) {
        return Ok(None);
    }
    if words.checked_mul(8) == Some(scale_cols) && words > 0 {
        let transposed = Transposed {
            scheme: SCHEME,
            codes: (".qweight", codes),
            scale: (".scales", scale),
            zero: ".qzeros",
            order: Order::Awq,
            table: unsigned(),
        };
        let found = transposed.join(group, context, rows, scale_rows, Some(8.0))?;
        return found.map(|found| take_out_factors(group, found)).transpose();
    }
    // gemv: one row of codes and scales an output.
    if context.config.word("version") == "gemv" && scale_rows == rows {
        let found = gemv(group, context, codes, scale)?;
        return found.map(|found| take_out_factors(group, found)).transpose();
    }
    Ok(None)
}

/// Divides by the factors of the activation before the matrix, where `AutoAWQ` left them there.
fn take_out_factors(group: &Group, mut found: Found) -> Result<Found, Trouble> {
    let Some(plane) = group.get(ACTIVATION_FACTORS) else { return Ok(found) };
    let Some(weight) = found.weight.joined() else { return Ok(found) };
    let inputs = if weight.dims.transposed { weight.dims.rows } else { weight.dims.cols };
    let factors = column_factors(group, SCHEME, ACTIVATION_FACTORS, inputs)?;
    if weight.dims.transposed {
        // The inputs are the rows of the stored matrix.
        weight.rows = Some(Grid { rows: inputs, cols: 1, block: (1, u64::MAX), ..factors });
    } else {
        weight.columns = Some(factors);
    }
    weight.divides = true;
    weight.add(plane, Role::Scale);
    found.notes.push(format!(
        "{}.weight: its columns hold smoothing factors, which {} takes out again in the activation; \
         they are taken out of the weight",
        group.base, plane.name
    ));
    Ok(found)
}

/// Codes [in, out/8], scales [groups, out], zero points [groups, out/8].
pub struct Transposed<'a> {
    /// Name in reports.
    pub scheme: &'a str,
    /// Suffix and plane of the codes.
    pub codes: (&'a str, &'a Plane),
    /// Suffix and plane of the scales.
    pub scale: (&'a str, &'a Plane),
    /// Suffix of the zero points.
    pub zero: &'a str,
    /// Order of the eight codes of a word.
    pub order: Order,
    /// What codes and zero points stand for.
    pub table: Box<Table>,
}

impl Transposed<'_> {
    /// Joins the planes; `implied` is the zero point of a symmetric weight without a plane of them.
    pub fn join(
        self,
        group: &Group,
        context: &Context,
        rows: u64,
        groups: u64,
        implied: Option<f32>,
    ) -> Match {
        let Self { scheme, codes: (suffix, codes), scale: (scale_suffix, scale), zero, .. } = self;
        let misfit = |suffix, message: String| group.fault(scheme, suffix, message);
        let out = codes.shape[1] * 8;
        let packing = Packing::Across { bits: 4, order: self.order };
        let packed = Codes::new(codes.at, packing, 1, (rows, out / 2), (rows, out))
            .map_err(|message| misfit(suffix, message))?;
        let size = block(rows, groups, context.config.group_size())
            .or((rows == 0).then_some(1))
            .ok_or_else(|| {
                misfit(scale_suffix, format!("has {groups} groups of {rows} columns"))
            })?;
        let dims = Dims { matrices: 1, rows, cols: out, transposed: true };
        let mut weight = Joined::new(scheme, dims, packed, self.table.clone());
        weight.add(codes, Role::Codes);
        weight.add(scale, Role::Scale);
        let source = Source::Plane { at: scale.at, ty: scale.ty, transposed: false };
        weight.scale = Grid::new(source, (groups, out), (size, 1));
        let zero_point = context.config.setting("zero_point").as_bool();
        weight.zero = match (group.get(zero), implied) {
            (Some(zeros), _) => {
                if zeros.ty != TensorType::I32 || zeros.shape != [groups, out / 8] {
                    let message = format!(
                        "is {} {:?}, not I32 {:?}",
                        zeros.ty,
                        zeros.shape,
                        [groups, out / 8]
                    );
                    return Err(misfit(zero, message));
                }
                weight.add(zeros, Role::Codes);
                let codes = Codes::new(zeros.at, packing, 1, (groups, out / 2), (groups, out))
                    .map_err(|message| misfit(zero, message))?;
                let source = Source::Codes(codes, self.table);
                Zero::Before(Grid::new(source, (groups, out), (size, 1)))
            }
            (None, Some(0.0)) => Zero::None,
            (None, Some(value)) if zero_point == Some(false) => Zero::Before(Grid::constant(value)),
            (None, _) => return group.need(scheme, zero).map(|_| None),
        };
        Ok(Some(Found::new(vec![out, rows], weight)))
    }
}

/// gemv: codes I32 [out, in/8] along the input, scales [out, padded groups], zero points packed along
/// the groups.
fn gemv(group: &Group, context: &Context, codes: &Plane, scale: &Plane) -> Match {
    let misfit = |suffix, message: String| group.fault(SCHEME, suffix, message);
    let zeros = group.need(SCHEME, ".qzeros")?;
    let (rows, words, padded) = (codes.shape[0], codes.shape[1], scale.shape[1]);
    let cols = words * 8;
    let size = context.config.group_size().unwrap_or(128);
    if zeros.ty != TensorType::I32 || zeros.shape != [rows, padded.div_ceil(8)] {
        return Err(misfit(".qzeros", format!("is {} {:?}", zeros.ty, zeros.shape)));
    }
    if cols.div_ceil(size) > padded {
        let message = format!("has {padded} groups of {size}, too few for {cols} columns");
        return Err(misfit(".scales", message));
    }
    let packing = Packing::Across { bits: 4, order: Order::LowFirst };
    let packed = Codes::new(codes.at, packing, 1, (rows, words * 4), (rows, cols))
        .map_err(|message| misfit(".qweight", message))?;
    let zero = Codes::new(zeros.at, packing, 1, (rows, padded.div_ceil(8) * 4), (rows, padded))
        .map_err(|message| misfit(".qzeros", message))?;
    let dims = Dims { matrices: 1, rows, cols, transposed: false };
    let mut weight = Joined::new(SCHEME, dims, packed, unsigned());
    let source = Source::Plane { at: scale.at, ty: scale.ty, transposed: false };
    weight.scale = Grid::new(source, (rows, padded), (1, size));
    let source = Source::Codes(zero, unsigned());
    weight.zero = Zero::Before(Grid::new(source, (rows, padded), (1, size)));
    weight.add(codes, Role::Codes);
    weight.add(scale, Role::Scale);
    weight.add(zeros, Role::Codes);
    Ok(Some(Found::new(vec![rows, cols], weight)))
}
