/*!
Faults of stored bytes: scales, minima, codes, tails. The files themselves are never touched: the
model gets files whose bytes are changed as they are read.
*/

use half::{bf16, f16};

use super::blocks;
use crate::codec::{Class, TensorType};
use crate::model::{Change, Edit, Extent, GridRole, Model, Plane, Storage, Tensor};

/// What happens to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It becomes NaN.
    Nan,
    /// It becomes infinite.
    Infinite,
    /// One bit of its exponent flips.
    Exponent,
    /// It becomes 256 times as large.
    Grow,
    /// It becomes 1.
    One,
    /// It becomes its reciprocal.
    Invert,
    /// Its bytes are reversed.
    Reverse,
    /// It becomes 0.
    Zero,
}

/// Numbers of one type at equal distances.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    /// The bytes that they lie in.
    at: Extent,
    /// Bytes from one to the next.
    unit: usize,
    /// The number's first byte in a unit.
    place: usize,
    ty: TensorType,
}

impl Numbers {
    fn in_blocks(ty: TensorType, at: Extent, (place, number): blocks::Place) -> Self {
        Self { at, unit: ty.info().block_bytes, place, ty: number }
    }

    /// The first row's scale of each unit of rows.
    fn in_rows(plane: &Plane, number: TensorType) -> Option<Self> {
        let merged = plane.ty.info().rows?.frame.rows() as u64;
        let columns = plane.shape.last().copied().unwrap_or(1);
        let units = plane.numel().checked_div(columns)? / merged;
        let unit = plane.at.len.checked_div(units)? as usize;
        Some(Self { at: plane.at, unit, place: 0, ty: number })
    }

    fn plain(ty: TensorType, at: Extent) -> Self {
        Self { at, unit: ty.info().block_bytes, place: 0, ty }
    }

    fn count(&self) -> u64 {
        self.at.len / self.unit as u64
    }
}

/// The scales of a tensor, those of which there are most first.
fn scales(tensor: &Tensor) -> Vec<Numbers> {
    let mut scales = match &tensor.storage {
        Storage::Plain { ty, at } => {
            let place = blocks::scale(*ty);
            place.map(|place| Numbers::in_blocks(*ty, *at, place)).into_iter().collect()
        }
        _ => of_role(tensor, GridRole::Scale),
    };
    scales.sort_by_key(|numbers| std::cmp::Reverse(numbers.count()));
    scales
}

fn minima(tensor: &Tensor) -> Vec<Numbers> {
    match &tensor.storage {
        Storage::Plain { ty, at } => {
            let place = blocks::minimum(*ty);
            place.map(|place| Numbers::in_blocks(*ty, *at, place)).into_iter().collect()
        }
        _ => of_role(tensor, GridRole::Zero),
    }
}

fn of_role(tensor: &Tensor, role: GridRole) -> Vec<Numbers> {
    let mut numbers = Vec::new();
    if let Storage::Joined(weight) = &tensor.storage {
        // Blocks may have scales of their own beside a factor.
        if let Some(codes) = weight.planes().first()
            && let Some(place) = blocks::scale(codes.ty)
            && role == GridRole::Scale
        {
            numbers.push(Numbers::in_blocks(codes.ty, codes.at, place));
        }
        if let Some(codes) = weight.planes().first()
            && let Some(number) = blocks::row_scale(codes.ty)
            && role == GridRole::Scale
        {
            numbers.extend(Numbers::in_rows(codes, number));
        }
        let grids = weight.grids().into_iter().filter(|grid| grid.role == role);
        numbers.extend(grids.map(|grid| Numbers::plain(grid.ty, grid.at)));
    }
    numbers
}

/// Does something to one scale of a tensor; `attempt` says which.
pub fn one_scale(model: &mut Model, target: usize, deed: Deed, attempt: u64) -> Option<()> {
    let numbers = *scales(&model.tensors[target]).first()?;
    one_of(model, numbers, deed, attempt)
}

/// Makes one number of a tensor's code book too large; `attempt` says which.
pub fn one_of_book(model: &mut Model, target: usize, attempt: u64) -> Option<()> {
    let numbers = *of_role(&model.tensors[target], GridRole::Book).first()?;
    one_of(model, numbers, Deed::Grow, attempt)
}

fn one_of(model: &mut Model, numbers: Numbers, deed: Deed, attempt: u64) -> Option<()> {
    let count = numbers.count().max(1);
    let places = [count / 2, count / 3, count - 1, 0];
    let index = (*places.get(attempt as usize)?).min(count - 1);
    can(deed, numbers.ty).then_some(())?;
    let unit = numbers.unit as u64;
    let at = Extent { offset: numbers.at.offset + index * unit, len: unit, ..numbers.at };
    edit_numbers(model, &Numbers { at, ..numbers }, deed);
    Some(())
}

/// Does something to every scale of a tensor.
pub fn all_scales(model: &mut Model, target: usize, deed: Deed) -> Option<()> {
    let mut scales = scales(&model.tensors[target]);
    scales.retain(|numbers| can(deed, numbers.ty));
    edit_all(model, &scales, deed)
}

/// Sets every minimum or zero point of a tensor to 0.
pub fn no_minima(model: &mut Model, target: usize) -> Option<()> {
    let minima = minima(&model.tensors[target]);
    edit_all(model, &minima, Deed::Zero)
}

/// Reverses the bytes of every value of a float tensor.
pub fn reverse_values(model: &mut Model, target: usize) -> Option<()> {
    let Storage::Plain { ty, at } = model.tensors[target].storage else { return None };
    let reversible = ty.info().class == Class::Float && can(Deed::Reverse, ty);
    reversible.then(|| edit_numbers(model, &Numbers::plain(ty, at), Deed::Reverse))
}

fn edit_all(model: &mut Model, all: &[Numbers], deed: Deed) -> Option<()> {
    for numbers in all {
        edit_numbers(model, numbers, deed);
    }
    (!all.is_empty()).then_some(())
}

fn edit_numbers(model: &mut Model, numbers: &Numbers, deed: Deed) {
    let Numbers { at, unit, place, ty } = *numbers;
    let width = ty.info().block_bytes;
    let change = Change::units(unit, move |_, bytes| {
        if let Some(number) = bytes.get_mut(place..place + width) {
            perform(deed, ty, number);
        }
    });
    edit(model, at, change);
}

fn edit(model: &mut Model, at: Extent, change: Change) {
    let file = &mut model.files[at.file];
    *file = file.edited(Edit { offset: at.offset, len: at.len, change });
}

/// Can numbers of this type be so changed?
fn can(deed: Deed, ty: TensorType) -> bool {
    use TensorType as T;
    let wide = matches!(ty, T::F16 | T::BF16 | T::F32);
    let narrow = matches!(ty, T::F8_E4M3 | T::F8_E5M2 | T::F8_E8M0);
    match deed {
        Deed::Nan | Deed::Exponent | Deed::One => wide || narrow,
        Deed::Infinite | Deed::Reverse | Deed::Grow => wide,
        Deed::Invert => wide || ty == T::F8_E8M0,
        Deed::Zero => true,
    }
}

fn perform(deed: Deed, ty: TensorType, number: &mut [u8]) {
    use TensorType as T;
    // NaN, infinity, one, and a bit in the middle of the exponent.
    let (nan, infinite, one, bit): (u32, u32, u32, u32) = match ty {
        T::F32 => (0x7fc0_0000, 0x7f80_0000, 0x3f80_0000, 1 << 25),
        T::F16 => (0x7e00, 0x7c00, 0x3c00, 1 << 12),
        T::BF16 => (0x7fc0, 0x7f80, 0x3f80, 1 << 9),
        T::F8_E5M2 => (0x7f, 0x7c, 0x3c, 1 << 4),
        T::F8_E8M0 => (0xff, 0xff, 127, 1 << 2),
        _ => (0x7f, 0x7f, 0x38, 1 << 5),
    };
    let mut old = [0; 4];
    let width = number.len().min(4);
    old[..width].copy_from_slice(&number[..width]);
    let old = u32::from_le_bytes(old);
    let new = match deed {
        Deed::Nan => nan,
        Deed::Infinite => infinite,
        Deed::Exponent => old ^ bit,
        Deed::One => one,
        Deed::Grow => match ty {
            T::F16 => f16::from_f32(256.0 * f16::from_bits(old as u16).to_f32()).to_bits().into(),
            T::BF16 => {
                bf16::from_f32(256.0 * bf16::from_bits(old as u16).to_f32()).to_bits().into()
            }
            _ => (256.0 * f32::from_bits(old)).to_bits(),
        },
        Deed::Invert => match ty {
            T::F32 => (1.0 / f32::from_bits(old)).to_bits(),
            T::F16 => f16::from_f32(1.0 / f16::from_bits(old as u16).to_f32()).to_bits().into(),
            T::BF16 => bf16::from_f32(1.0 / bf16::from_bits(old as u16).to_f32()).to_bits().into(),
            _ => 254 - old.min(254),
        },
        Deed::Reverse => return number.reverse(),
        Deed::Zero => return number.fill(0),
    };
    number[..width].copy_from_slice(&new.to_le_bytes()[..width]);
}

/// Where the codes of a tensor lie: the bytes, the unit, and which bytes of a unit.
fn codes(tensor: &Tensor) -> Option<(Extent, usize, std::ops::Range<usize>)> {
    let (ty, at) = match &tensor.storage {
        Storage::Plain { ty, at } => (*ty, *at),
        Storage::Joined(weight) => weight.planes().first().map(|plane| (plane.ty, plane.at))?,
        Storage::Undecodable { .. } => return None,
    };
    if let Some(bytes) = blocks::nibbles(ty) {
        return Some((at, ty.info().block_bytes, bytes));
    }
    // A plane of codes alone, four bits each.
    let four_bits = ty.info().class == Class::Exact && at.len * 2 == tensor.numel();
    four_bits.then_some((at, 4096, 0..4096))
}

/// Exchanges the two codes of every byte.
pub fn swap_nibbles(model: &mut Model, target: usize) -> Option<()> {
    let (at, unit, codes) = codes(&model.tensors[target])?;
    let change = Change::units(unit, move |_, bytes| {
        let end = codes.end.min(bytes.len());
        for byte in bytes.get_mut(codes.start..end).into_iter().flatten() {
            *byte = byte.rotate_left(4);
        }
    });
    edit(model, at, change);
    Some(())
}

/// Sets every code to zero.
pub fn zero_codes(model: &mut Model, target: usize) -> Option<()> {
    let tensor = &model.tensors[target];
    let (at, unit, codes) = match (&tensor.storage, codes(tensor)) {
        (_, Some(codes)) => codes,
        (Storage::Joined(weight), None) => (weight.planes().first()?.at, 4096, 0..4096),
        _ => return None,
    };
    let change = Change::units(unit, move |_, bytes| {
        let end = codes.end.min(bytes.len());
        bytes.get_mut(codes.start..end).into_iter().for_each(|codes| codes.fill(0));
    });
    edit(model, at, change);
    Some(())
}

/// Sets the last quarter of the stored bytes to zero, from a whole block on.
pub fn zero_tail(model: &mut Model, target: usize) -> Option<()> {
    let tensor = &model.tensors[target];
    let at = tensor.extent()?;
    let unit = match &tensor.storage {
        Storage::Plain { ty, .. } => ty.info().block_bytes as u64,
        _ => 1,
    };
    let kept = (at.len * 3 / 4).div_ceil(unit) * unit;
    if kept >= at.len {
        return None;
    }
    let tail = Extent { offset: at.offset + kept, len: at.len - kept, ..at };
    edit(model, tail, Change::units(4096, |_, bytes| bytes.fill(0)));
    Some(())
}

/// Reads the last row's bytes where another tensor's begin.
pub fn foreign_tail(model: &mut Model, target: usize) -> Option<()> {
    let tensor = &model.tensors[target];
    let at = tensor.extent()?;
    let rows = *tensor.shape.first()?;
    if rows < 2 || !at.len.is_multiple_of(rows) {
        return None;
    }
    let row = at.len / rows;
    let others = model.tensors.iter().filter_map(Tensor::extent);
    let mut others: Vec<u64> = others
        .filter(|other| other.file == at.file && other.offset != at.offset && other.len >= row)
        .map(|other| other.offset)
        .collect();
    others.sort_unstable();
    // The next one in the file, or else the first.
    let next = others.iter().find(|offset| **offset > at.offset).or(others.first())?;
    let tail = Extent { offset: at.offset + at.len - row, len: row, ..at };
    edit(model, tail, Change::From(*next));
    Some(())
}

/// Sets the scales of a tensor's activations to zero.
pub fn zero_input_scales(model: &mut Model, target: usize) -> Option<()> {
    let Storage::Joined(weight) = &model.tensors[target].storage else { return None };
    let planes: Vec<Extent> = weight.activation_planes().iter().map(|plane| plane.at).collect();
    for at in &planes {
        edit(model, *at, Change::units(4096, |_, bytes| bytes.fill(0)));
    }
    (!planes.is_empty()).then_some(())
}

/// Lets the file end in the middle of a tensor.
pub fn truncate(model: &mut Model, target: usize) -> Option<()> {
    let at = model.tensors[target].extent()?;
    let kept = at.len / 2;
    let rest = Extent { offset: at.offset + kept, len: at.len - kept, ..at };
    edit(model, rest, Change::Cut);
    Some(())
}
