/*!
One fault put into one pair: the directory of tensors is edited here, stored bytes and values in the
files beside.
*/

use serde_json::Value;

use super::Fault;
use super::stored::{self, Deed};
use super::values::{Change, Route, change};
use crate::codec::{Class, TensorType};
use crate::measure::{row_len, through};
use crate::model::{Format, Model, ReadError, Scratch, Storage, Tensor};

/// Places at which a fault may be tried, one after the other, until one has an effect.
pub const ATTEMPTS: u64 = 4;

/// Rows of a head, for faults about heads.
const HEAD: u64 = 32;

/// A pair of models that a fault is put into. Both are clones that nobody else needs.
pub struct Models {
    /// The float model.
    pub reference: Model,
    /// The quantized model.
    pub quantized: Model,
}

/// Where a fault goes.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// The tensor, by index into the quantized model's.
    pub target: usize,
    /// The tensor of the reference that it answers to.
    pub answer: Option<usize>,
    /// The quantized model is a round trip in memory: no file of it can be damaged.
    pub in_memory: bool,
    /// Which place to try, below [`ATTEMPTS`].
    pub attempt: u64,
}

/// Which tensors may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those with these names in the quantized model.
    Tensors(Vec<String>),
    /// All.
    Everything,
}

/// What an injection did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// Which tensors may have changed.
    pub reach: Reach,
    /// The models surely differ from the sound ones; if not, the target's values say.
    pub evident: bool,
}

impl Injected {
    fn into_values(name: &str) -> Self {
        Self { reach: Reach::Tensors(vec![name.to_owned()]), evident: false }
    }

    const EVERYTHING: Self = Self { reach: Reach::Everything, evident: true };
}

/// Puts a fault into a pair; `Ok(None)` if it cannot be done there.
pub fn inject(
    fault: Fault,
    models: &mut Models,
    site: &Site,
) -> Result<Option<Injected>, ReadError> {
    use super::Scope;
    if fault.info().scope == Scope::Model {
        return Ok(if site.in_memory { None } else { into_model(fault, models) });
    }
    let Some(target) = models.quantized.tensors.get(site.target) else { return Ok(None) };
    let name = target.name.clone();
    if target.numel() == 0 {
        return Ok(None);
    }
    if fault <= Fault::InputScaleZero {
        let done = if site.in_memory { None } else { into_file(fault, models, site) };
        return Ok(done.map(|evident| Injected { evident, ..Injected::into_values(&name) }));
    }
    if target.class() == Class::Exact {
        return Ok(None);
    }
    match fault {
        Fault::ZeroBoth => Ok(zero_both(models, site, &name)),
        Fault::TensorsSwapped => Ok(swap_tensors(&mut models.quantized, site.target)),
        Fault::Requantized => Ok(requantize(models, site).map(|()| Injected::into_values(&name))),
        _ => {
            let Some(what) = value_change(fault, &models.quantized, site)? else { return Ok(None) };
            change(&mut models.quantized.tensors[site.target], what);
            Ok(Some(Injected::into_values(&name)))
        }
    }
}

/// Faults of a whole model.
fn into_model(fault: Fault, models: &mut Models) -> Option<Injected> {
    let Models { reference, quantized } = models;
    match fault {
        Fault::EmptyModel => {
            quantized.tensors.clear();
            Some(Injected::EVERYTHING)
        }
        Fault::NothingInCommon => {
            for tensor in &mut quantized.tensors {
                tensor.name.insert_str(0, "prefix.");
            }
            Some(Injected::EVERYTHING)
        }
        Fault::NothingQuantized => {
            let types = |model: &Model| -> Vec<String> {
                model.tensors.iter().map(|tensor| tensor.qtype().to_owned()).collect()
            };
            let differs = types(reference) != types(quantized);
            let metadata = quantized.metadata.clone();
            *quantized = Model { metadata, ..reference.clone() };
            differs.then_some(Injected::EVERYTHING)
        }
        _ => {
            let at = metadata_key(reference, quantized)?;
            if fault == Fault::MetadataMissing {
                quantized.metadata.remove(at);
            } else {
                let value = &mut quantized.metadata[at].1;
                *value = match value.as_str() {
                    Some(text) => Value::from(format!("{text}-other")),
                    None => Value::from("other"),
                };
            }
            Some(Injected { reach: Reach::Tensors(Vec::new()), evident: true })
        }
    }
}

/// The key to damage: one that both models have with one value, of the tokenizer if there is one,
/// else of the architecture.
fn metadata_key(reference: &Model, quantized: &Model) -> Option<usize> {
    if quantized.format != Format::Gguf {
        return None;
    }
    let places = || {
        let entries = quantized.metadata.iter().enumerate();
        entries.filter(|(_, entry)| reference.metadata.contains(entry))
    };
    let of = |prefix: &str| places().find(|(_, (key, _))| key.starts_with(prefix));
    let architecture = || places().find(|(_, (key, _))| !key.starts_with("general."));
    of("tokenizer.ggml.pre").or_else(|| of("tokenizer.")).or_else(architecture).map(|(at, _)| at)
}

/// Faults that only a file can have; says whether the models surely differ.
fn into_file(fault: Fault, models: &mut Models, site: &Site) -> Option<bool> {
    let Site { target, attempt, .. } = *site;
    let quantized = &mut models.quantized;
    match fault {
        Fault::Truncated => {
            stored::truncate(quantized, target)?;
            return Some(true);
        }
        Fault::TensorMissing => {
            quantized.tensors.remove(target);
            return Some(true);
        }
        Fault::TensorExtra => {
            let mut extra = quantized.tensors[target].clone();
            extra.name.push_str(".extra");
            quantized.tensors.push(extra);
            return Some(true);
        }
        Fault::ShapeTransposed => {
            let shape = &mut quantized.tensors[target].shape;
            let before = shape.clone();
            shape.reverse();
            return (*shape != before).then_some(true);
        }
        Fault::RowCut => {
            let rows = quantized.tensors[target].shape.first_mut()?;
            *rows = rows.checked_sub(1)?;
            return Some(true);
        }
        Fault::IntegerChanged => return add_to_integer(quantized, target),
        Fault::WrongType | Fault::LeftFloat | Fault::FloatQuantized => {
            return other_type(fault, models, site).map(|()| true);
        }
        Fault::Relabelled => relabel(&mut quantized.tensors[target])?,
        Fault::ScaleNan => stored::one_scale(quantized, target, Deed::Nan, attempt)?,
        Fault::ScaleInfinite => stored::one_scale(quantized, target, Deed::Infinite, attempt)?,
        Fault::ScaleExponent => stored::one_scale(quantized, target, Deed::Exponent, attempt)?,
        Fault::BookEntry => stored::one_of_book(quantized, target, attempt)?,
        Fault::ScalesOne => stored::all_scales(quantized, target, Deed::One)?,
        Fault::ScalesInverted => stored::all_scales(quantized, target, Deed::Invert)?,
        Fault::ScalesSwapped => stored::all_scales(quantized, target, Deed::Reverse)?,
        Fault::BytesSwapped => stored::reverse_values(quantized, target)?,
        Fault::MinimaLost => stored::no_minima(quantized, target)?,
        Fault::NibblesSwapped => stored::swap_nibbles(quantized, target)?,
        Fault::CodesZero => stored::zero_codes(quantized, target)?,
        Fault::TailZero => stored::zero_tail(quantized, target)?,
        Fault::TailForeign => stored::foreign_tail(quantized, target)?,
        Fault::InputScaleMissing => {
            let Storage::Joined(weight) = &quantized.tensors[target].storage else { return None };
            if weight.activation_planes().is_empty() {
                return None;
            }
            change(&mut quantized.tensors[target], Change::NoActivations);
            return Some(true);
        }
        Fault::InputScaleZero => {
            stored::zero_input_scales(quantized, target)?;
            return Some(true);
        }
        _ => return None,
    }
    Some(false)
}

/// Adds one to the first element of an integer tensor.
fn add_to_integer(model: &mut Model, target: usize) -> Option<bool> {
    let Storage::Plain { ty, at } = model.tensors[target].storage else { return None };
    if ty.info().class != Class::Exact {
        return None;
    }
    let add = crate::model::Change::units(1, |_, byte| byte[0] = byte[0].wrapping_add(1));
    let file = &mut model.files[at.file];
    *file = file.edited(crate::model::Edit { offset: at.offset, len: 1, change: add });
    Some(true)
}

/// The same bytes under a type of the same size.
fn relabel(tensor: &mut Tensor) -> Option<()> {
    use TensorType as T;
    let Storage::Plain { ty, .. } = &mut tensor.storage else { return None };
    *ty = match *ty {
        T::F16 => T::BF16,
        T::BF16 => T::F16,
        T::F8_E4M3 => T::F8_E4M3FNUZ,
        T::F8_E4M3FNUZ => T::F8_E4M3,
        T::F8_E5M2 => T::F8_E5M2FNUZ,
        T::F8_E5M2FNUZ => T::F8_E5M2,
        T::Q4_0 => T::IQ4_NL,
        T::IQ4_NL => T::Q4_0,
        T::Q3_K => T::IQ3_S,
        T::IQ3_S => T::Q3_K,
        _ => return None,
    };
    Some(())
}

/// The reference's tensor as one of the quantized model, if its shape is the target's.
fn graft(models: &mut Models, site: &Site) -> Option<Tensor> {
    let Models { reference, quantized } = models;
    let source = &reference.tensors[site.answer?];
    let target = &quantized.tensors[site.target];
    let Storage::Plain { ty, mut at } = source.storage else { return None };
    if source.shape != target.shape || ty.info().class != Class::Float {
        return None;
    }
    at.file += quantized.files.len();
    quantized.files.extend(reference.files.iter().cloned());
    let storage = Storage::Plain { ty, at };
    Some(Tensor { name: target.name.clone(), shape: target.shape.clone(), storage })
}

/// A sound tensor of a type that nobody asked for.
fn other_type(fault: Fault, models: &mut Models, site: &Site) -> Option<()> {
    use TensorType as T;
    let target = &models.quantized.tensors[site.target];
    let (class, bits) = (target.class(), target.bits_per_weight()?);
    let own = target.qtype().to_owned();
    let row = row_len(&target.shape);
    let source = graft(models, site)?;
    let fits = |ty: &TensorType| {
        let row_is_whole = row.is_multiple_of(ty.info().block_len as u64);
        row_is_whole && !ty.name().eq_ignore_ascii_case(&own)
    };
    let ty = match (fault, class) {
        (Fault::LeftFloat, _) if own != source.qtype() => {
            models.quantized.tensors[site.target] = source;
            return Some(());
        }
        (Fault::FloatQuantized, Class::Float) => fits(&T::Q8_0).then_some(T::Q8_0)?,
        (Fault::WrongType, Class::Float) => match own.as_str() {
            "F16" => T::BF16,
            _ => T::F16,
        },
        (Fault::WrongType, Class::Quantized) => {
            let narrower = [T::Q8_0, T::Q5_0, T::Q4_0, T::Q3_K, T::Q2_K]
                .into_iter()
                .find(|ty| ty.bits_per_weight() < bits && fits(ty));
            narrower.or([T::Q4_0, T::Q8_0].into_iter().find(fits))?
        }
        _ => return None,
    };
    models.quantized.tensors[site.target].storage = through(&source, ty)?;
    Some(())
}

/// The reference through few bits, and then through the target's own type.
fn requantize(models: &mut Models, site: &Site) -> Option<()> {
    use TensorType as T;
    let target = &models.quantized.tensors[site.target];
    let (own, bits) = (TensorType::from_name(target.qtype())?, target.bits_per_weight()?);
    if own.info().class == Class::Float {
        // Floats that hold quantized values are sound.
        return None;
    }
    let row = row_len(&target.shape);
    let mut source = graft(models, site)?;
    let coarse = match own {
        T::Q4_0 => T::Q4_1,
        _ if bits >= 4.0 => T::Q4_0,
        _ if bits >= 3.0 => T::Q2_K,
        _ => return None,
    };
    row.is_multiple_of(coarse.info().block_len as u64).then_some(())?;
    source.storage = through(&source, coarse)?;
    models.quantized.tensors[site.target].storage = through(&source, own)?;
    Some(())
}

fn zero_both(models: &mut Models, site: &Site, name: &str) -> Option<Injected> {
    let answer = &mut models.reference.tensors[site.answer?];
    let all = 0..answer.numel();
    change(answer, Change::Scale(all.clone(), 0.0));
    change(&mut models.quantized.tensors[site.target], Change::Scale(all, 0.0));
    Some(Injected::into_values(name))
}

/// The target and the next tensor of its type and shape change places.
fn swap_tensors(model: &mut Model, target: usize) -> Option<Injected> {
    let count = model.tensors.len();
    let alike = |other: &usize| {
        let (a, b) = (&model.tensors[target], &model.tensors[*other]);
        a.shape == b.shape && a.qtype() == b.qtype()
    };
    let other = (1..count).map(|step| (target + step) % count).find(alike)?;
    let storage = model.tensors[target].storage.clone();
    model.tensors[target].storage = std::mem::replace(&mut model.tensors[other].storage, storage);
    let names = [target, other].map(|at| model.tensors[at].name.clone()).to_vec();
    Some(Injected { reach: Reach::Tensors(names), evident: false })
}

/// The change of values that a fault is.
fn value_change(fault: Fault, model: &Model, site: &Site) -> Result<Option<Change>, ReadError> {
    let tensor = &model.tensors[site.target];
    let Shape { numel, row_len, rows, slice } = Shape::of(tensor);
    let vector = tensor.shape.iter().filter(|&&extent| extent > 1).count() <= 1;
    let row = place(site.attempt, rows);
    let all = 0..numel;
    let change = match fault {
        Fault::Zero => Change::Scale(all, 0.0),
        Fault::ScaleLost => Change::Scale(all, 512.0),
        Fault::Doubled => Change::Scale(all, 2.0),
        Fault::ValueNan => Change::Set(place(site.attempt, numel), f32::NAN),
        Fault::ValueInfinite => Change::Set(place(site.attempt, numel), f32::INFINITY),
        Fault::Constant => Change::All(mean(model, tensor)?),
        Fault::ValueNegated if is_float(tensor) => {
            let at = largest(model, tensor)?;
            Change::Scale(at..at + 1, -1.0)
        }
        Fault::PlusOne if vector => Change::Add(1.0),
        Fault::MinusOne if vector => Change::Add(-1.0),
        Fault::BlockNegated if numel >= 64 => {
            let ty = TensorType::from_name(tensor.qtype());
            let len = ty.map_or(32, |ty| ty.info().block_len as u64).max(32).min(numel);
            let start = place(site.attempt, numel / len) * len;
            Change::Scale(start..start + len, -1.0)
        }
        Fault::BlocksSlipped if numel >= 128 => {
            Change::Route(Route::Shift { start: numel / 2 / 32 * 32, by: 32, end: numel })
        }
        _ if rows < 2 || vector => return Ok(None),
        Fault::RowsZero => {
            let count = (rows / 64).clamp(1, 5);
            Change::Scale(row * row_len..((row + count) * row_len).min(numel), 0.0)
        }
        Fault::RowScaled => Change::Scale(row * row_len..(row + 1) * row_len, 1.5),
        Fault::RowDuplicated => {
            let (to, from) = if row + 1 < rows { (row, row + 1) } else { (row, row - 1) };
            Change::Route(Route::Copy { to: to * row_len, from: from * row_len, len: row_len })
        }
        Fault::RowsShifted => Change::Route(Route::Shift { start: 0, by: row_len, end: numel }),
        Fault::ColumnsZero => Change::Columns { every: row_len.min(100), row_len },
        Fault::ColumnZero if rows >= 64 => Change::Columns { every: row_len, row_len },
        Fault::MeanShifted => Change::Add(rms(model, tensor)? * 0.1),
        Fault::Clipped => Change::Clip(rms(model, tensor)? * 2.0),
        Fault::OtherRevision => Change::Noise(rms(model, tensor)? * 0.25),
        Fault::Transposed => Change::Route(Route::Columns { rows, cols: row_len }),
        Fault::RopePermuted if rows.is_multiple_of(HEAD) => {
            Change::Route(Route::Rope { head: HEAD, row_len })
        }
        Fault::HeadsSwapped if rows >= 2 * HEAD => {
            let len = HEAD * row_len;
            Change::Route(Route::Swap { a: 0, b: len, len })
        }
        Fault::SliceZero if slice > 0 => Change::Scale(0..slice, 0.0),
        Fault::SlicesSwapped if slice > 0 && numel >= 2 * slice => {
            Change::Route(Route::Swap { a: 0, b: slice, len: slice })
        }
        _ => return Ok(None),
    };
    Ok(Some(change))
}

/// Extents of a tensor as faults see it.
#[derive(Clone, Copy)]
struct Shape {
    numel: u64,
    row_len: u64,
    rows: u64,
    /// Elements of a slice of the outermost of three or more dimensions; 0 for others.
    slice: u64,
}

impl Shape {
    fn of(tensor: &Tensor) -> Self {
        let numel = tensor.numel();
        let row_len = row_len(&tensor.shape).max(1);
        let slice = match tensor.shape.as_slice() {
            [outer, _, _, ..] => numel / (*outer).max(1),
            _ => 0,
        };
        Self { numel, row_len, rows: numel / row_len, slice }
    }
}

/// The place to try, of so many.
fn place(attempt: u64, of: u64) -> u64 {
    let last = of.saturating_sub(1);
    match attempt {
        0 => of / 2,
        1 => of / 3,
        2 => last,
        _ => 0,
    }
    .min(last)
}

/// Root mean square of a tensor's values, those that are not finite left out.
fn rms(model: &Model, tensor: &Tensor) -> Result<f32, ReadError> {
    Ok(mean_of(model, tensor, |value| value * value)?.sqrt() as f32)
}

/// Mean of a tensor's values, those that are not finite left out.
fn mean(model: &Model, tensor: &Tensor) -> Result<f32, ReadError> {
    Ok(mean_of(model, tensor, |value| value)? as f32)
}

/// Mean of something about each finite value.
fn mean_of(model: &Model, tensor: &Tensor, of: fn(f64) -> f64) -> Result<f64, ReadError> {
    const PIECE: u64 = 64 * 1024;
    let (mut scratch, mut values) = (Scratch::default(), Vec::new());
    let (mut sum, mut start) = (0f64, 0);
    while start < tensor.numel() {
        let end = (start + PIECE).min(tensor.numel());
        values.resize((end - start) as usize, 0.0);
        tensor.decode(&model.files, start..end, &mut scratch, &mut values)?;
        let finite = values.iter().filter(|value| value.is_finite());
        sum += finite.map(|&value| of(f64::from(value))).sum::<f64>();
        start = end;
    }
    Ok(sum / tensor.numel().max(1) as f64)
}

/// The place of the largest value; of equals the first.
fn largest(model: &Model, tensor: &Tensor) -> Result<u64, ReadError> {
    const PIECE: u64 = 64 * 1024;
    let (mut scratch, mut values) = (Scratch::default(), Vec::new());
    let (mut found, mut most, mut start) = (0, 0f32, 0);
    while start < tensor.numel() {
        let end = (start + PIECE).min(tensor.numel());
        values.resize((end - start) as usize, 0.0);
        tensor.decode(&model.files, start..end, &mut scratch, &mut values)?;
        for (at, value) in (start..).zip(&values) {
            if value.is_finite() && value.abs() > most {
                (found, most) = (at, value.abs());
            }
        }
        start = end;
    }
    Ok(found)
}

/// Whether the values are stored as floats.
fn is_float(tensor: &Tensor) -> bool {
    TensorType::from_name(tensor.qtype()).is_some_and(|ty| ty.info().class == Class::Float)
}
