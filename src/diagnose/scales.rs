/*!
Faults of scales and offsets: what a factor or a constant undoes, for the whole tensor or by the grid
of a stored plane.
*/

use super::bench::{Bench, Noise, gain, sqnr};
use super::{Cause, Certainty, Diagnosis};
use crate::codec::{Class, TensorType};
use crate::metrics::{Origin, Rule, functions};
use crate::model::{Plane, Scratch, Storage};

/// Most values of a plane that is read whole.
const LARGEST_PLANE: u64 = 1 << 20;

/// Decibels that a constant must take off the error to have been added, if more is left than the type gives: 99 % of
/// its power.
const EXPLAINED: f64 = 20.0;

/// A factor that people can compare: three significant digits.
fn three_digits(by: f64) -> f64 {
    format!("{by:.2e}").parse().unwrap_or(by)
}

/// One factor for the whole tensor.
pub fn factor(bench: &Bench) -> Option<Diagnosis> {
    let by = gain(&bench.r, &bench.q);
    if !(by.is_finite() && by != 0.0 && (by - 1.0).abs() > 0.02) {
        return None;
    }
    let score = bench.undone(|_, _, q| f64::from(q) / by);
    if !bench.is_sound(score) || bench.is_sound(bench.actual()) {
        return None;
    }
    let score = bench.score(score);
    let evidence = format!(
        "factor {}: all values are {by:.6} times the reference's; divided by that, {score}",
        three_digits(by)
    );
    let planes = scale_planes(bench);
    let ones = |plane: &ScalePlane| plane.values.iter().all(|&value| value == 1.0);
    if !planes.is_empty() && planes.iter().all(ones) {
        return Some(Diagnosis::certain(
            Cause::ScaleLost,
            format!("every scale is 1, and {evidence}"),
        ));
    }
    let constant = planes.iter().find_map(|plane| {
        let value = plane.constant()?;
        let square = value * value;
        let near = |a: f64| (a / by - 1.0).abs() < 0.05;
        (value != 1.0 && (near(square) || near(1.0 / square))).then_some((plane, value))
    });
    if let Some((plane, value)) = constant {
        let why =
            format!("{} is {value:e} where {:e} is meant: {evidence}", plane.name, 1.0 / value);
        return Some(Diagnosis::certain(Cause::ScaleReciprocal, why));
    }
    let power = is_power_of_two(by);
    if planes.is_empty() && scale_lies_outside(bench) && !(power && by.abs() < 8.0) {
        return Some(Diagnosis::certain(
            Cause::ScaleLost,
            format!("{} without a scale beside it; {evidence}", bench.subject.q().qtype()),
        ));
    }
    Some(Diagnosis::certain(Cause::ScaleFactor, evidence))
}

/// True of types whose weights need a factor that is stored beside them.
fn scale_lies_outside(bench: &Bench) -> bool {
    let tensor = bench.subject.q();
    let ty = match &tensor.storage {
        Storage::Plain { ty, .. } => Some(*ty),
        Storage::Joined(weight) => weight.planes().first().map(|plane| plane.ty),
        Storage::Undecodable { .. } => None,
    };
    ty.is_some_and(|ty| {
        use TensorType::{F4, F8_E4M3, F8_E4M3FNUZ, F8_E5M2, F8_E5M2FNUZ, I8, NVFP4, U8};
        matches!(ty, F4 | F8_E4M3 | F8_E4M3FNUZ | F8_E5M2 | F8_E5M2FNUZ | NVFP4 | U8 | I8)
    })
}

/// 2, 4, 0.5, …, but for 1; sign and a percent aside.
pub fn is_power_of_two(by: f64) -> bool {
    let log = functions::log2(by.abs());
    log.is_finite() && log.round() != 0.0 && (log - log.round()).abs() < 0.03
}

/// Whether every value is what a float tensor's type holds of the reference's value and a constant: the sum's
/// rounding is coarser than the value's.
fn holds_sums(bench: &Bench, constant: f64) -> bool {
    let ty = TensorType::from_name(bench.subject.q().qtype());
    let rule = ty.and_then(|ty| Rule::new(Origin::Computed, ty, false));
    rule.is_some_and(|rule| {
        let mut values = bench.r.iter().zip(&bench.q);
        values.all(|(&r, &q)| rule.allows(f64::from(r) + constant, f64::from(q)))
    })
}

/// One constant for the whole tensor.
pub fn offset(bench: &Bench) -> Option<Diagnosis> {
    let n = bench.r.len() as f64;
    let by =
        bench.r.iter().zip(&bench.q).map(|(&r, &q)| f64::from(q) - f64::from(r)).sum::<f64>() / n;
    let norm = bench.subject.r().shape.iter().filter(|&&extent| extent > 1).count() <= 1;
    let way =
        if by > 0.0 { "one was added to every value" } else { "one was taken off every value" };
    if norm && by.round().abs() == 1.0 && holds_sums(bench, by.round()) {
        let qtype = bench.subject.q().qtype();
        let why = format!("{way}: all are what {qtype} holds of the sums");
        return Some(Diagnosis::certain(Cause::PlusOneFold, why));
    }
    let score = bench.undone(|_, _, q| f64::from(q) - by);
    let (is_sound, gained) = (bench.is_sound(score), score - bench.actual());
    if by == 0.0 || gained < if is_sound { 3.0 } else { EXPLAINED } {
        return None;
    }
    // A constant of each group's own explains more.
    if by_groups(bench).is_some_and(|groups| groups.score > score + 2.0) {
        return None;
    }
    let score = bench.score(score);
    if is_sound && norm && (by.abs() - 1.0).abs() < 0.01 {
        return Some(Diagnosis::certain(
            Cause::PlusOneFold,
            format!("{way}, as for a norm of the other convention; without that, {score}"),
        ));
    }
    let evidence = format!("every value is {by:+.6} from the reference's; without that, {score}");
    // What was added made the type's steps coarser.
    let certainty = if is_sound { Certainty::Certain } else { Certainty::Likely };
    Some(Diagnosis::of(Cause::Offset, certainty, evidence))
}

/// A stored plane of scales, spread over its weight.
pub struct ScalePlane {
    /// Name of the plane.
    pub name: String,
    /// Its values.
    pub values: Vec<f32>,
    /// The same bytes, read in the other order.
    swapped: Option<Vec<f32>>,
    grid: Grid,
}

/// Which value of a plane belongs to a row and a column.
#[derive(Clone, Copy, Debug)]
enum Grid {
    Scalar,
    /// Rows of so many groups; elements of a group.
    Groups {
        across: usize,
        len: u64,
    },
    /// The same, transposed: rows of the plane are groups.
    Columns {
        rows: usize,
        len: u64,
    },
    /// Tiles of so many rows and columns; tiles across.
    Tiles {
        size: u64,
        across: usize,
    },
}

impl ScalePlane {
    fn index(&self, row: u64, column: u64) -> usize {
        match self.grid {
            Grid::Scalar => 0,
            Grid::Groups { across, len } => row as usize * across + (column / len) as usize,
            Grid::Columns { rows, len } => (column / len) as usize * rows + row as usize,
            Grid::Tiles { size, across } => {
                (row / size) as usize * across + (column / size) as usize
            }
        }
    }

    fn at(&self, values: &[f32], row: u64, column: u64) -> f64 {
        values.get(self.index(row, column)).map_or(f64::NAN, |&value| f64::from(value))
    }

    /// The value, if they are all the same.
    fn constant(&self) -> Option<f64> {
        let first = *self.values.first()?;
        self.values.iter().all(|&value| value == first).then_some(f64::from(first))
    }
}

/// The float planes beside a weight's codes.
pub fn scale_planes(bench: &Bench) -> Vec<ScalePlane> {
    let Storage::Joined(weight) = &bench.subject.q().storage else { return Vec::new() };
    let planes = weight.planes().iter().skip(1);
    planes.filter_map(|plane| scale_plane(bench, plane)).collect()
}

fn scale_plane(bench: &Bench, plane: &Plane) -> Option<ScalePlane> {
    let numel = plane.numel();
    if plane.ty.info().class != Class::Float || numel == 0 || numel > LARGEST_PLANE {
        return None;
    }
    let grid = grid(&plane.shape, numel, bench.row_count, bench.row_len)?;
    let files = &bench.subject.quantized.files;
    let mut values = vec![0.0; numel as usize];
    plane.decode(files, 0..numel, &mut Scratch::default(), &mut values).ok()?;
    let swapped = in_the_other_order(bench, plane);
    Some(ScalePlane { name: plane.name.clone(), values, swapped, grid })
}

/// A plane's values, its bytes read in the other order; none if its elements are single bytes.
fn in_the_other_order(bench: &Bench, plane: &Plane) -> Option<Vec<f32>> {
    let width = plane.ty.info().block_bytes;
    if width < 2 || plane.ty.info().block_len != 1 {
        return None;
    }
    let mut bytes = vec![0; plane.at.len as usize];
    bench.subject.quantized.files[plane.at.file].read_at(plane.at.offset, &mut bytes).ok()?;
    bytes.chunks_exact_mut(width).for_each(<[u8]>::reverse);
    let mut values = vec![0.0; plane.numel() as usize];
    (plane.ty.info().decode?)(&bytes, &mut values);
    Some(values)
}

fn grid(shape: &[u64], numel: u64, rows: u64, row_len: u64) -> Option<Grid> {
    if numel == 1 {
        return Some(Grid::Scalar);
    }
    if numel.is_multiple_of(rows) && row_len.is_multiple_of(numel / rows) {
        let groups = numel / rows;
        let transposed = matches!(shape, [first, second] if *first == groups && *second == rows && groups != rows);
        let len = row_len / groups;
        return Some(if transposed {
            Grid::Columns { rows: rows as usize, len }
        } else {
            Grid::Groups { across: groups as usize, len }
        });
    }
    let [down, across] = shape else { return None };
    let fits = |size: &u64| rows.div_ceil(*size) == *down && row_len.div_ceil(*size) == *across;
    let size = (3..12).map(|power| 1u64 << power).find(fits)?;
    Some(Grid::Tiles { size, across: *across as usize })
}

/// What a plane should have held instead.
pub fn planes(bench: &Bench) -> Option<Diagnosis> {
    let found = |score: f64| bench.is_sound(score) && !bench.is_sound(bench.actual());
    for plane in scale_planes(bench) {
        let name = &plane.name;
        let value = |at: usize, column: usize| {
            let (row, column) = (bench.rows[at], column as u64);
            (plane.at(&plane.values, row, column), row, column)
        };
        let squares: [fn(f64) -> f64; 2] = [|v| v * v, |v| 1.0 / (v * v)];
        for power in squares {
            let score = bench.undone(|at, column, q| f64::from(q) * power(value(at, column).0));
            if found(score) {
                let why =
                    format!("{name} holds reciprocals: with 1/x for x, {}", bench.score(score));
                return Some(Diagnosis::certain(Cause::ScaleReciprocal, why));
            }
        }
        let transposed = bench.undone(|at, column, q| {
            let (own, row, column) = value(at, column);
            f64::from(q) * plane.at(&plane.values, column, row) / own
        });
        if found(transposed) {
            let why =
                format!("{name} runs along the other axis: so read, {}", bench.score(transposed));
            return Some(Diagnosis::certain(Cause::ScaleAxis, why));
        }
        let reversed: Vec<f32> = plane.values.iter().rev().copied().collect();
        let moved = bench.undone(|at, column, q| {
            let (own, row, column) = value(at, column);
            f64::from(q) * plane.at(&reversed, row, column) / own
        });
        if found(moved) {
            let why = format!("{name} is in reverse order: so read, {}", bench.score(moved));
            return Some(Diagnosis::certain(Cause::ScalesMoved, why));
        }
        if let Some(score) = byte_swapped(bench, &plane)
            && bench.is_sound(score)
        {
            let why = format!("{name} is in the other byte order: so read, {}", bench.score(score));
            return Some(Diagnosis::certain(Cause::ByteSwapped, why));
        }
    }
    None
}

/// SQNR with the plane read in the other byte order, over values whose own scale says something.
fn byte_swapped(bench: &Bench, plane: &ScalePlane) -> Option<f64> {
    let swapped = plane.swapped.as_ref()?;
    let (mut noise, mut used) = (Noise::default(), 0usize);
    for (at, (r, q)) in bench.pairs().enumerate() {
        for (column, (&r, &q)) in r.iter().zip(q).enumerate() {
            let own = plane.at(&plane.values, bench.rows[at], column as u64);
            let other = plane.at(swapped, bench.rows[at], column as u64);
            if own.is_normal() && own.abs() > 1e-30 && q.is_finite() && q.abs() < 1e30 {
                noise.add(f64::from(r), f64::from(q) * other / own);
                used += 1;
            }
        }
    }
    (used * 8 > bench.r.len()).then(|| noise.sqnr_db())
}

/// What is left without a constant for each group that shares a scale.
struct ByGroups {
    /// Elements of a group.
    len: usize,
    /// Whether the group is that of the type's own blocks.
    own: bool,
    /// SQNR without the constants.
    score: f64,
    /// The constants, in steps of each group's grid.
    steps: Vec<f64>,
}

fn by_groups(bench: &Bench) -> Option<ByGroups> {
    let planes = scale_planes(bench);
    let by_plane = planes.iter().find_map(|plane| match plane.grid {
        Grid::Groups { len, .. } | Grid::Columns { len, .. } => Some(len as usize),
        _ => None,
    });
    let tensor = bench.subject.q();
    let own = match &tensor.storage {
        Storage::Plain { ty, .. } if has_minimums(*ty) => {
            Some(if *ty == TensorType::Q2_K { 16 } else { 32 })
        }
        _ => None,
    };
    let len = by_plane.or(own)?.min(bench.width);
    let (mut noise, mut steps) = (Noise::default(), Vec::new());
    for (r, q) in bench.pairs() {
        for (r, q) in r.chunks(len).zip(q.chunks(len)) {
            let n = r.len() as f64;
            let mean = r.iter().zip(q).map(|(&r, &q)| f64::from(q) - f64::from(r)).sum::<f64>() / n;
            r.iter().zip(q).for_each(|(&r, &q)| noise.add(f64::from(r), f64::from(q) - mean));
            steps.extend(step(q).map(|step| mean / step));
        }
    }
    Some(ByGroups { len, own: by_plane.is_none(), score: noise.sqnr_db(), steps })
}

/// A constant for each group: lost minimums and zero points.
pub fn group_offsets(bench: &Bench) -> Option<Diagnosis> {
    let ByGroups { len, own, score, steps } = by_groups(bench)?;
    if !bench.is_sound(score) || bench.actual() > score - 3.0 {
        return None;
    }
    let score = bench.score(score);
    let share = |is: &dyn Fn(f64) -> bool| {
        steps.iter().filter(|&&step| is(step)).count() as f64 / steps.len().max(1) as f64
    };
    let found = format!("each group of {len} is off by a constant of its own; without it, {score}");
    if own {
        return Some(Diagnosis::likely(Cause::MinLost, found));
    }
    let zeros = match &bench.subject.q().storage {
        Storage::Joined(weight) => weight.planes().iter().any(|plane| plane.name.contains("zero")),
        _ => false,
    };
    if share(&|step| (step.abs() - 1.0).abs() < 0.2) > 0.9 {
        let why = format!("{found}; the constant is one step of the group's scale");
        return Some(Diagnosis::certain(Cause::ZeroPointOffByOne, why));
    }
    let whole = share(&|step| (step - step.round()).abs() < 0.15) > 0.9;
    let cause = if zeros { Cause::Offset } else { Cause::ZeroPointLost };
    Some(match (zeros, whole) {
        (false, true) => {
            let why =
                format!("{found}; there are no zero points, and it is a whole number of steps");
            Diagnosis::certain(cause, why)
        }
        _ => Diagnosis::likely(cause, found),
    })
}

/// Types whose blocks store a minimum beside the scale.
pub fn has_minimums(ty: TensorType) -> bool {
    use TensorType::{Q2_K, Q4_1, Q4_K, Q5_1, Q5_K};
    matches!(ty, Q4_1 | Q5_1 | Q2_K | Q4_K | Q5_K)
}

/// The step of the grid that values lie on: the least distance between two that differ.
fn step(values: &[f32]) -> Option<f64> {
    let mut sorted: Vec<f32> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f32::total_cmp);
    let largest = sorted.iter().fold(0f32, |m, v| m.max(v.abs()));
    let gaps = sorted.windows(2).map(|two| two[1] - two[0]).filter(|gap| *gap > largest * 1e-5);
    gaps.min_by(f32::total_cmp).map(f64::from)
}

/// A map from columns to groups that was lost: each column has the codes of one group and the
/// scales of another.
pub fn lost_index(bench: &Bench) -> Option<Diagnosis> {
    let Storage::Joined(weight) = &bench.subject.q().storage else { return None };
    let index = weight.planes().iter().find(|plane| plane.name.ends_with("g_idx"))?;
    if !is_natural(bench, index)? {
        return None;
    }
    let planes = scale_planes(bench);
    let (len, groups) = planes.iter().find_map(|plane| match plane.grid {
        Grid::Columns { len, .. } | Grid::Groups { len, .. } => {
            Some((len as usize, bench.width / len as usize))
        }
        _ => None,
    })?;
    if groups < 2 {
        return None;
    }
    // The step of each row and group, from the values themselves.
    let rows: Vec<(&[f32], &[f32])> = bench.pairs().collect();
    let steps: Vec<Vec<f64>> = rows
        .iter()
        .map(|(_, q)| q.chunks(len).take(groups).map(|q| smallest(q).unwrap_or(0.0)).collect())
        .collect();
    let mut noise = Noise::default();
    let mut moved = 0;
    for column in 0..groups * len {
        let fit = |group: usize| {
            let mut noise = Noise::default();
            for ((r, q), steps) in rows.iter().zip(&steps) {
                let factor = steps[group] / steps[column / len];
                let value = if factor.is_finite() { f64::from(q[column]) * factor } else { 0.0 };
                noise.add(f64::from(r[column]), value);
            }
            noise
        };
        let fits: Vec<Noise> = (0..groups).map(fit).collect();
        let best = (0..groups).min_by(|&a, &b| fits[a].ee.total_cmp(&fits[b].ee))?;
        moved += usize::from(best != column / len);
        noise.rr += fits[best].rr;
        noise.ee += fits[best].ee;
    }
    let score = noise.sqnr_db();
    if !bench.is_sound(score) || bench.is_sound(bench.actual()) || moved == 0 {
        return None;
    }
    let why = format!(
        "{moved} of {} columns have the scales of another group than {} says; with their own, {}",
        groups * len,
        index.name,
        bench.score(score)
    );
    Some(Diagnosis::certain(Cause::GIdxLost, why))
}

/// Whether a map from columns to groups names these one after the other.
fn is_natural(bench: &Bench, index: &Plane) -> Option<bool> {
    let mut bytes = vec![0; usize::try_from(index.at.len.min(LARGEST_PLANE)).ok()?];
    bench.subject.quantized.files[index.at.file].read_at(index.at.offset, &mut bytes).ok()?;
    let groups = bytes.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes));
    Some(groups.is_sorted())
}

/// The smallest magnitude that is not zero.
fn smallest(values: &[f32]) -> Option<f64> {
    let sizes = values.iter().map(|value| value.abs()).filter(|size| *size > 0.0);
    sizes.min_by(f32::total_cmp).map(f64::from)
}

/// A part of a row: its twin, if that is known, the reference and the quantized values.
type Part<'a> = (Option<&'a [f32]>, &'a [f32], &'a [f32]);

/// A factor for one block of a bad row.
pub fn block_factor(bench: &Bench, bad: &[usize]) -> Option<Diagnosis> {
    let len = match &bench.subject.q().storage {
        Storage::Plain { ty, .. } => ty.info().block_len,
        _ => return None,
    };
    for &at in bad.iter().take(8).filter(|_| len >= 16 && bench.width > len) {
        let twin = bench.twin_row(at);
        let part = |index: usize| {
            let range = index * len..((index + 1) * len).min(bench.width);
            let (r, q) = bench.row(at);
            (twin.as_ref().map(|twin| &twin[range.clone()]), &r[range.clone()], &q[range])
        };
        let is_bad = |&index: &usize| {
            let (twin, r, q) = part(index);
            !bench.is_sound_beside(twin, r, q)
        };
        let bad: Vec<usize> = (0..bench.width.div_ceil(len)).filter(is_bad).collect();
        // A factor of the whole row is not the block's.
        let [index] = bad.as_slice() else { continue };
        let place = format!("block {index} of row {}", bench.rows[at]);
        if let Some(diagnosis) = factor_of(bench, part(*index), &place) {
            return Some(diagnosis);
        }
    }
    None
}

/// A factor for each of a few bad rows.
pub fn row_factor(bench: &Bench, bad: &[usize]) -> Option<Diagnosis> {
    bad.iter().take(8).find_map(|&at| {
        let (twin, (r, q)) = (bench.twin_row(at), bench.row(at));
        factor_of(bench, (twin.as_deref(), r, q), &format!("row {}", bench.rows[at]))
    })
}

/// The factor that undoes the damage of a part of a row.
fn factor_of(bench: &Bench, (twin, r, q): Part, place: &str) -> Option<Diagnosis> {
    let by = gain(r, q);
    let undone: Vec<f32> = q.iter().map(|&q| (f64::from(q) / by) as f32).collect();
    let is_factor = by.is_finite() && by != 0.0 && (by - 1.0).abs() > 0.02;
    if !is_factor || !bench.is_sound_beside(twin, r, &undone) {
        return None;
    }
    let why = format!(
        "{place} is {by:.4} times the reference's; divided by that, it has {:.1} dB",
        sqnr(r, &undone)
    );
    Some(if by < 0.0 && (by + 1.0).abs() < 0.05 {
        Diagnosis::certain(Cause::SignFlipped, why)
    } else if is_power_of_two(by) {
        Diagnosis::likely(Cause::ScaleBitFlip, why)
    } else {
        Diagnosis::certain(Cause::ScaleFactor, why)
    })
}
