/*!
compressed-tensors `sparse-24-bitmask`: two of every four weights of a row, and one bit for each weight
that says which; plain floats, or codes of FP8 or INT8 with scales.
*/

use std::ops::Range;

use super::affine::{grid, missing, scale_type};
use super::fp8;
use super::grid::{Grid, Source, numbers};
use super::group::{Context, Found, Group, Match};
use super::joined::Role;
use super::laid::{Laid, Layout};
use super::layout::spread;
use super::sound::{pruned, rounded};
use crate::codec::{Class, TensorType};
use crate::model::{Extent, Plane, ReadError, ReadReference, Scratch, SourceFile};

/// Every suffix of the scheme.
pub const SUFFIXES: &[&str] = &[".compressed", ".bitmask", ".shape", ".weight_scale"];

const SCHEME: &str = "SPARSE24";

/// Joins what was kept with the mask.
pub fn build(group: &Group, context: &Context) -> Match {
    if !group.has(".compressed") && !group.has(".bitmask") {
        return Ok(None);
    }
    let kept = group.need(SCHEME, ".compressed")?;
    let mask = group.need(SCHEME, ".bitmask")?;
    let misfit = |suffix, message: String| group.fault(SCHEME, suffix, message);
    let &[rows, half] = &kept.shape[..] else {
        return Err(misfit(".compressed", format!("has shape {:?}: no matrix", kept.shape)));
    };
    let mut findings = Vec::new();
    let cols = 2 * half;
    if let Some(plane) = group.get(".shape") {
        let stated = context.integers(plane)?;
        if stated != [rows as i64, cols as i64] {
            let message = format!("says {stated:?}, but {rows} x {half} weights were kept");
            return Err(misfit(".shape", message));
        }
    } else {
        let message = "is missing; the weight is taken for twice as wide as what was kept";
        findings.push(missing(group, ".shape", message));
    }
    if mask.ty != TensorType::U8 || mask.shape != [rows, cols.div_ceil(8)] {
        let message =
            format!("is {} {:?}, not one bit for each of {rows} x {cols}", mask.ty, mask.shape);
        return Err(misfit(".bitmask", message));
    }
    let is_code = fp8::values(kept.ty).is_some() || kept.ty == TensorType::I8;
    if !is_code && kept.ty.info().class != Class::Float {
        let message = format!("is {}, which is not known of sparse weights", kept.ty);
        return Err(misfit(".compressed", message));
    }
    let scheme = match (kept.ty, is_code) {
        (TensorType::I8, _) => "SPARSE24-INT8",
        (_, true) => "SPARSE24-FP8",
        _ => SCHEME,
    };
    let (scale, scale_plane) = match group.get(".weight_scale") {
        Some(plane) => (Some(scales(group, plane, (rows, cols), context)?), Some(plane)),
        None if is_code => return group.need(scheme, ".weight_scale").map(|_| None),
        None => (None, None),
    };
    let layout = Masked {
        kept: kept.at,
        ty: kept.ty,
        mask: mask.at,
        mask_name: mask.name.clone(),
        cols,
        scale,
    };
    let mut weight =
        Laid::new(scheme, (rows, cols), layout).with(kept, Role::Codes).with(mask, Role::Setting);
    if let Some(plane) = scale_plane {
        weight = weight.with(plane, Role::Scale);
    }
    if let Some(plane) = group.get(".shape") {
        weight = weight.with(plane, Role::Setting);
    }
    Ok(Some(Found { findings, ..Found::new(vec![rows, cols], weight) }))
}

/// The scales of a tensor, row, block or group.
fn scales(
    group: &Group,
    plane: &Plane,
    (rows, cols): (u64, u64),
    context: &Context,
) -> Result<Grid, super::group::Trouble> {
    let misfit = |message: String| group.fault(SCHEME, ".weight_scale", message);
    let Some((ty, Role::Scale)) = scale_type(plane) else {
        return Err(misfit(format!("is {}, which is no type for scales", plane.ty)));
    };
    let block = context.config.block_size();
    let spread = spread(&[rows, cols], &plane.shape, block).map_err(misfit)?;
    Ok(grid(&spread, Source::Plane { at: plane.at, ty, transposed: false }))
}

/// The layout: the kept weights of each row side by side, and a row of bits.
#[derive(Debug)]
struct Masked {
    kept: Extent,
    ty: TensorType,
    mask: Extent,
    mask_name: String,
    cols: u64,
    scale: Option<Grid>,
}

impl Masked {
    /// Refuses a row of the mask that does not keep half of the row.
    fn check(&self, row: u64, mask: &[u8]) -> Result<(), ReadError> {
        let bits = count(mask, self.cols as usize) as u64;
        if bits == self.cols / 2 {
            return Ok(());
        }
        Err(ReadError::Corrupt(format!(
            "{:?} keeps {bits} weights of row {row}, but {} of {} are stored",
            self.mask_name,
            self.cols / 2,
            self.cols
        )))
    }
}

/// Set bits among the first `cols`.
fn count(mask: &[u8], cols: usize) -> usize {
    let (whole, rest) = (cols / 8, cols % 8);
    let ones: u32 = mask[..whole].iter().map(|byte| byte.count_ones()).sum();
    let last = mask.get(whole).map_or(0, |byte| (byte & ((1 << rest) - 1)).count_ones());
    (ones + last) as usize
}

fn bit(mask: &[u8], col: usize) -> bool {
    mask[col / 8] >> (col % 8) & 1 == 1
}

impl Layout for Masked {
    fn unit(&self) -> Option<(u64, u64)> {
        None
    }

    fn rectangle(
        &self,
        files: &[SourceFile],
        rows: &Range<u64>,
        cols: &Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let len = (cols.end - cols.start) as usize;
        let (mut mask, mut kept, mut factors) =
            (scratch.take_bytes(), scratch.take_floats(), scratch.take_floats());
        mask.resize(self.cols.div_ceil(8) as usize, 0);
        factors.resize(len, 0.0);
        let scales = match &self.scale {
            Some(scale) => Some(scale.load(files, 0, rows, cols, scratch)?),
            None => None,
        };
        for (row, values) in rows.clone().zip(values.chunks_exact_mut(len)) {
            files[self.mask.file].read_at(self.mask.offset + row * mask.len() as u64, &mut mask)?;
            self.check(row, &mask)?;
            let (from, to) = (cols.start as usize, cols.end as usize);
            let before = count(&mask, from);
            kept.resize(count(&mask, to) - before, 0.0);
            let first = row * (self.cols / 2) + before as u64;
            numbers(files, self.kept, self.ty, first, &mut kept, scratch)?;
            let mut next = kept.iter();
            for (col, value) in (from..to).zip(values.iter_mut()) {
                *value = if bit(&mask, col) { next.next().copied().unwrap_or(0.0) } else { 0.0 };
            }
            if let Some(scales) = &scales {
                scales.spread(row, cols.start, &mut factors);
                values.iter_mut().zip(&factors).for_each(|(value, factor)| *value *= factor);
            }
        }
        if let Some(scales) = scales {
            scales.give_back(scratch);
        }
        scratch.give_bytes(mask);
        scratch.give_floats(kept);
        scratch.give_floats(factors);
        Ok(())
    }

    fn expect(
        &self,
        files: &[SourceFile],
        rows: &Range<u64>,
        cols: &Range<u64>,
        _: ReadReference,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<bool, ReadError> {
        if !cols.start.is_multiple_of(4) || !cols.end.is_multiple_of(4) {
            return Ok(false);
        }
        pruned(values);
        let Some(scale) = &self.scale else {
            for value in values {
                *value = narrowed(*value, self.ty);
            }
            return Ok(true);
        };
        let len = (cols.end - cols.start) as usize;
        let scales = scale.load(files, 0, rows, cols, scratch)?;
        let mut factors = scratch.take_floats();
        factors.resize(len, 0.0);
        let codes = fp8::values(self.ty);
        for (row, values) in rows.clone().zip(values.chunks_exact_mut(len)) {
            scales.spread(row, cols.start, &mut factors);
            for (value, &factor) in values.iter_mut().zip(&factors) {
                *value = match codes {
                    Some(codes) if factor != 0.0 => nearest(codes, *value / factor) * factor,
                    Some(_) => 0.0,
                    None => rounded(*value, factor, 8),
                };
            }
        }
        scales.give_back(scratch);
        scratch.give_floats(factors);
        Ok(true)
    }
}

/// A value in a narrower float type.
fn narrowed(value: f32, ty: TensorType) -> f32 {
    match ty {
        TensorType::F16 => half::f16::from_f32(value).to_f32(),
        TensorType::BF16 => half::bf16::from_f32(value).to_f32(),
        _ => value,
    }
}

/// The finite code's value that is nearest.
fn nearest(codes: &[f32; 256], value: f32) -> f32 {
    let finite = codes.iter().copied().filter(|code| code.is_finite());
    finite.min_by(|a, b| (a - value).abs().total_cmp(&(b - value).abs())).unwrap_or(value)
}
