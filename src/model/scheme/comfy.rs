/*!
`ComfyUI`'s layouts: a plane of JSON beside each weight, or an entry of the file's header, names them.

FP8 and INT8 lie as everywhere else and are left to their own files. NVFP4 and MXFP8 are laid out for the
kernel: rows and columns are padded, scales lie in tiles of 128 rows by 4 columns
(`cublasLt`'s block-scaled layout), and NVFP4 has the even column in the high nibble.
*/

use serde_json::Value;

use super::affine::{apply_pre_quant_scale, scale_type, table, tensor_scales};
use super::codes::{Codes, Order, Packing};
use super::fp8;
use super::grid::{Factor, Grid, Source, Table};
use super::group::{Context, Found, Group, Match, Trouble};
use super::joined::{Dims, Joined, Role};
use crate::codec::TensorType;
use crate::codec::float::E2M1;

/// Suffixes of the family.
pub const SUFFIXES: &[&str] = &[".weight", ".weight_scale", ".weight_scale_2", ".pre_quant_scale"];

/// Layouts that are laid out as those of other tools.
const PLAIN: &[&str] = &["float8_e4m3fn", "float8_e5m2", "int8_tensorwise", "int8_blockwise"];

/// Settings under which weights were rotated.
const ROTATIONS: &[&str] = &["convrot", "rotation", "hadamard"];

/// Refuses what is not known, joins what is laid out for the kernel, and leaves the rest to others.
pub fn build(group: &Group, context: &Context) -> Match {
    let stated = match group.get(".comfy_quant") {
        Some(plane) => Some(read(&context.text(plane)?).ok_or_else(|| {
            group.fault("ComfyUI", ".comfy_quant", "is no JSON, and should name the layout")
        })?),
        None => context.config.comfy(&group.base).cloned(),
    };
    let Some(settings) = stated else { return Ok(None) };
    let format = settings["format"].as_str().unwrap_or_default();
    let on = |key: &&&str| !matches!(settings[**key], Value::Null | Value::Bool(false));
    if let Some(rotation) = ROTATIONS.iter().find(on) {
        let reason = format!(
            "ComfyUI's {format} with {rotation} (a rotation of the weights) is not decoded; compare a \
             file that was quantized without it"
        );
        return Err(Trouble::Refused { scheme: format!("ComfyUI {format}"), reason });
    }
    match format {
        "nvfp4" => nvfp4(group, context).map(Some),
        "mxfp8" => mxfp8(group).map(Some),
        plain if PLAIN.contains(&plain) => Ok(None),
        _ => {
            let reason = format!("ComfyUI's layout {format:?} is recognised but not decoded");
            Err(Trouble::Refused { scheme: format!("ComfyUI {format}").trim_end().into(), reason })
        }
    }
}

fn read(text: &str) -> Option<Value> {
    serde_json::from_str(text.trim_end_matches('\0')).ok().filter(Value::is_object)
}

fn nvfp4(group: &Group, context: &Context) -> Result<Found, Trouble> {
    let kernel = Kernel {
        scheme: "NVFP4",
        bits: 4,
        order: Order::HighFirst,
        table: table(&E2M1),
        size: 16,
        padding: 16,
        types: &[TensorType::U8],
    };
    let mut weight = kernel.join(group)?;
    let factors = tensor_scales(group, context, "NVFP4", ".weight_scale_2", 1)?;
    weight.scale.factor = Factor::Times(factors);
    weight.add(group.need("NVFP4", ".weight_scale_2")?, Role::Scale);
    apply_pre_quant_scale(group, &mut weight)?;
    Ok(Found::new(vec![weight.dims.rows, weight.dims.cols], weight))
}

fn mxfp8(group: &Group) -> Result<Found, Trouble> {
    let codes = group.need("MXFP8", ".weight")?;
    let values = fp8::values(codes.ty)
        .ok_or_else(|| group.fault("MXFP8", ".weight", format!("is {}, not FP8", codes.ty)))?;
    let kernel = Kernel {
        scheme: "MXFP8",
        bits: 8,
        order: Order::LowFirst,
        table: Box::new(*values),
        size: 32,
        padding: 32,
        types: &[TensorType::F8_E4M3, TensorType::F8_E5M2],
    };
    let mut weight = kernel.join(group)?;
    apply_pre_quant_scale(group, &mut weight)?;
    Ok(Found::new(vec![weight.dims.rows, weight.dims.cols], weight))
}

/// A layout for a kernel: padded codes, and scales in tiles.
struct Kernel<'a> {
    scheme: &'a str,
    bits: u32,
    order: Order,
    table: Box<Table>,
    /// Columns that share a scale.
    size: u64,
    /// Rows and columns are padded to a multiple of this.
    padding: u64,
    types: &'a [TensorType],
}

impl Kernel<'_> {
    fn join(self, group: &Group) -> Result<Joined, Trouble> {
        let Self { scheme, bits, order, size, padding, .. } = self;
        let (codes, scale) = (group.need(scheme, ".weight")?, group.need(scheme, ".weight_scale")?);
        let misfit = |suffix, message: String| group.fault(scheme, suffix, message);
        let shape = || format!("is {} {:?}", codes.ty, codes.shape);
        let &[rows, row_bytes] = &codes.shape[..] else { return Err(misfit(".weight", shape())) };
        if !self.types.contains(&codes.ty) {
            return Err(misfit(".weight", shape()));
        }
        let cols = row_bytes.saturating_mul(8 / u64::from(bits));
        let groups = cols.div_ceil(size);
        let (down, across) = (rows.div_ceil(128), groups.div_ceil(4));
        let (ty, role) = match scale.ty {
            TensorType::F8_E4M3 if scheme == "NVFP4" => (scale.ty, Role::Scale),
            TensorType::U8 if scheme == "NVFP4" => (TensorType::F8_E4M3, Role::ScaleBits),
            _ => {
                scale_type(scale).filter(|(_, role)| *role == Role::Exponent).ok_or_else(|| {
                    misfit(".weight_scale", format!("is {}, which is no type for scales", scale.ty))
                })?
            }
        };
        if down.checked_mul(across).and_then(|tiles| tiles.checked_mul(512)) != Some(scale.numel())
        {
            let message = format!(
                "has shape {:?}, not {down} x {across} tiles of 128 x 4 scales of {size} columns",
                scale.shape
            );
            return Err(misfit(".weight_scale", message));
        }
        let packing = Packing::Across { bits, order };
        let packed = Codes::new(codes.at, packing, 1, (rows, row_bytes), (rows, cols))
            .map_err(|message| misfit(".weight", message))?;
        let dims = Dims { matrices: 1, rows, cols, transposed: false };
        let mut weight = Joined::new(scheme, dims, packed, self.table);
        weight.add(codes, Role::Codes);
        weight.add(scale, role);
        let source = Source::Tiled { at: scale.at, ty, across, down };
        weight.scale = Grid::new(source, (rows, groups), (1, size));
        weight.padding = padding;
        Ok(weight)
    }
}
