/*!
Rows, and groups that share a scale, whose scale, zero point or sign is wrong: each is undone on the elements
concerned, and held against what the file's own way of rounding leaves of the others.
*/

use half::{bf16, f16};

use super::bench::Bench;
use super::undo::{Kind, Left, Lines, Undo, Undone};
use super::{Cause, Certainty, Diagnosis};
use crate::measure::displaced::Line;
use crate::measure::shift::Row;
use crate::metrics::functions;

/// Rows beside the sample's that are looked at: those whose codes are furthest from the nearest ones.
const FURTHEST: usize = 64;

/// Noise beyond that of the nearest levels, in the row's largest squared steps, that error feedback may leave, as the
/// gate `displaced` has it.
const FARTHEST: f64 = 9.0;

/// Sound rows that are asked whether neighbours have the same scales.
const ASKED: usize = 8;

/// How much more noise an undoing may leave than the best one to be as good: 3 dB.
const AS_GOOD: f64 = 2.0;

/// Fewest elements of a group that is looked at on its own.
const SMALLEST: usize = 16;

/// Parts that evidence names.
const NAMED: usize = 4;

/// How far a scale of one may seem to be from it, by what its levels are rounded by.
const ONE: f64 = 1e-4;

/// Bits of equal scales from which on they are no chance, and those of one in half precision.
const SURE_BITS: u32 = 20;
const HALF_BITS: u32 = 7;

/// How far factors that are one may be apart.
const ALIKE: f64 = 0.03;

/// Levels up to which error feedback may displace all of a group by a step, as the gate `displaced` has it.
const FEW: usize = 4;

/// The largest weight of a group without a scale, in parts of the row's, as the gate `displaced` has it.
const DEAD: f64 = 1.0 / 15.0;

/// A row, or a group of one, that is worse than the others.
struct Part {
    /// Its row, by place among the lines.
    at: usize,
    /// Its group; all of the row without one.
    group: Option<usize>,
    /// As it is.
    before: Left,
    /// What undoing each kind gave, if that leaves it sound.
    undone: [Option<(Undo, Undone)>; Kind::ALL.len()],
}

/// Rows of the sample, and those that stand out by their displacement.
pub fn rows(bench: &Bench) -> Vec<u64> {
    let own = bench.subject.twin.and_then(|twin| twin.own.as_ref());
    let mut far: Vec<&Row> = own.map_or(Vec::new(), |own| own.rows.iter().collect());
    let furthest = |row: &Row| row.groups.far.map_or(0.0, |it| it.shift.rms()).max(row.shift.rms());
    far.sort_by(|a, b| furthest(b).total_cmp(&furthest(a)));
    let mut rows = bench.rows.clone();
    rows.extend(far.iter().take(FURTHEST).map(|row| row.row));
    rows.sort_unstable();
    rows.dedup();
    rows
}

/// Parts that are worse than the file's way of rounding leaves them.
struct Parts<'a> {
    lines: &'a Lines<'a>,
    bad: Vec<Part>,
}

/// The part of all rows that are worse than the file's way of rounding leaves them.
pub fn displaced(lines: &Lines) -> f64 {
    let bad = lines.rows.iter().filter(|(_, line)| !lines.is_fine(&lines.left(line))).count();
    bad as f64 / lines.rows.len().max(1) as f64
}

impl<'a> Parts<'a> {
    fn of(lines: &'a Lines<'a>) -> Self {
        let mut parts = Self { lines, bad: Vec::new() };
        (0..lines.rows.len()).for_each(|at| parts.look_at(at));
        parts
    }

    fn look_at(&mut self, at: usize) {
        let lines = self.lines;
        let line = &lines.rows[at].1;
        let of =
            |part: &[usize]| Left::of(lines.ladder(), part.iter().map(|&at| line.elements[at]));
        let whole = lines.left(line);
        let groups: Vec<(usize, Left)> =
            line.groups.iter().map(|group| of(group)).enumerate().collect();
        let are_bad = |(at, left): &&(usize, Left)| {
            line.groups[*at].len() >= SMALLEST && !lines.is_fine(left)
        };
        let bad: Vec<&(usize, Left)> = groups.iter().filter(are_bad).collect();
        let is_bad = !lines.is_fine(&whole);
        if bad.is_empty() && !is_bad {
            return;
        }
        let is_undone = |part: &Part| part.undone.iter().any(Option::is_some);
        let row = self.part(at, None, whole);
        if is_bad && bad.len() * 2 >= groups.len() && is_undone(&row) {
            self.bad.push(row);
            return;
        }
        let few: Vec<Part> =
            bad.iter().map(|(at_group, left)| self.part(at, Some(*at_group), *left)).collect();
        // What was passed on from a coarse group to a fine one is in proportion to the coarse one's steps.
        let top = groups.iter().map(|(_, left)| left.ss / left.n.max(1.0)).fold(0.0, f64::max);
        let is_far =
            |left: &Left| left.ee - left.nearest > FARTHEST * top.max(left.ss / left.n) * left.n;
        let far = |left: &Left| if lines.feeds_back() { is_far(left) } else { true };
        let found = self.bad.len();
        self.bad.extend(few.into_iter().filter(|part| is_undone(part) || far(&part.before)));
        if is_bad && self.bad.len() == found && far(&whole) {
            self.bad.push(row);
        }
    }

    /// Undoes everything in a part.
    fn part(&self, at: usize, group: Option<usize>, before: Left) -> Part {
        let lines = self.lines;
        let line = &lines.rows[at].1;
        let groups: Vec<&[usize]> = match group {
            Some(group) => vec![&line.groups[group]],
            None => line.groups.iter().map(Vec::as_slice).collect(),
        };
        let mut undone = [const { None }; Kind::ALL.len()];
        for &undo in &lines.undoings {
            let Some(found) = undo.of(lines.ladder(), line, &groups) else { continue };
            let best: &mut Option<(Undo, Undone)> = &mut undone[undo.kind() as usize];
            let is_better = best.as_ref().is_none_or(|(_, it)| found.left.ee < it.left.ee);
            if lines.is_undone(&before, &found.left) && is_better {
                *best = Some((undo, found));
            }
        }
        Part { at, group, before, undone }
    }

    /// The kind that explains most parts, of equals the one that leaves least; how many these are, and whether no
    /// other does as well.
    fn kind(&self) -> Option<(Kind, usize, bool)> {
        let count = |kind: Kind| {
            let of = self.bad.iter().filter_map(|part| part.undone[kind as usize].as_ref());
            let (n, ee) = of.fold((0, 0.0), |(n, ee), (_, it)| (n + 1, ee + it.left.ee));
            (kind, n, ee)
        };
        let mut all = Kind::ALL.map(count);
        all.sort_by(|a, b| b.1.cmp(&a.1).then(a.2.total_cmp(&b.2)));
        let [(kind, count, ee), (_, next, next_ee), _] = all;
        let alone = next < count || next_ee > ee * AS_GOOD;
        (count > 0 && count * 2 >= self.bad.len()).then_some((kind, count, alone))
    }
}

/// A scale, a zero point or a sign that is wrong in rows or groups, and whether that is most of the rows.
pub fn undone(lines: &Lines) -> Option<(Diagnosis, bool)> {
    let parts = Parts::of(lines);
    let Some((kind, count, alone)) = parts.kind() else {
        return Some((dead(lines, &parts)?, false));
    };
    let found: Vec<(&Part, &Undone)> = parts
        .bad
        .iter()
        .filter_map(|part| Some((part, &part.undone[kind as usize].as_ref()?.1)))
        .collect();
    // Rows that are worse than zeros, which the nearest levels are not, and not among those.
    let is_other = |(at, (_, line)): &(usize, &(u64, Line))| {
        let left = lines.left(line);
        let is_lost = left.ee > left.rr && left.nearest * 4.0 < left.rr;
        is_lost && !found.iter().any(|(part, _)| part.at == *at)
    };
    let others = lines.rows.iter().enumerate().filter(is_other).count();
    if others > count {
        return None;
    }
    let is_lost = |part: &Part| {
        let scales = scales(lines, &lines.rows[part.at].1, part.group);
        scales.iter().all(|&scale| (scale - 1.0).abs() < ONE)
    };
    // A lost scale is seen itself, however much noise is left.
    let are_lost = kind == Kind::Scale && parts.bad.iter().all(is_lost);
    let all = are_lost || count == parts.bad.len() && others == 0;
    let is_sound = are_lost || lines.is_fine(&left_of(&found));
    let sure = if alone && all && is_sound { Certainty::Certain } else { Certainty::Likely };
    let (cause, most, what) = match kind {
        Kind::Sign => (Cause::SignFlipped, sure, "with the other sign".to_owned()),
        Kind::Zero => of_zero(lines, &found, sure),
        Kind::Scale if found.iter().all(|(part, _)| is_lost(part)) => {
            (Cause::ScaleLost, sure, "every scale is 1; with the scales that fit".to_owned())
        }
        Kind::Scale => of_scale(lines, &found, sure)?,
    };
    let mut why = say(lines, &found, &what);
    if !all {
        let of = parts.bad.len().max(count + others);
        why = format!("{why}; that explains {count} of {of} parts that are worse than the others");
    } else if !alone {
        why += "; another undoing leaves as much";
    }
    let whole = found.iter().filter(|(part, _)| part.group.is_none()).count();
    Some((Diagnosis::of(cause, most.min(sure), why), whole * 2 > lines.rows.len()))
}

/// What is left of all parts together.
fn left_of(found: &[(&Part, &Undone)]) -> Left {
    found.iter().fold(Left::default(), |mut sum, (_, it)| {
        sum.add(&it.left);
        sum
    })
}

/// The word for zero points that are wrong, how sure it can be, and what undid it.
fn of_zero(
    lines: &Lines,
    found: &[(&Part, &Undone)],
    sure: Certainty,
) -> (Cause, Certainty, String) {
    let up = found.iter().filter(|(_, it)| it.by[0] > 0.0).count();
    let what = match found.len() - up {
        0 => "one step lower",
        down if down == found.len() => "one step higher",
        _ => "one step lower or higher",
    };
    // In so few levels, error feedback may displace all of a group by a step.
    let may_be_fed_back = lines.feeds_back() && lines.reader.levels() <= FEW;
    let is_sure = !may_be_fed_back || found.iter().any(|(part, _)| part.group.is_none());
    let most = if is_sure { sure } else { Certainty::Likely };
    (Cause::ZeroPointOffByOne, most, what.to_owned())
}

/// The word for scales that are wrong, how sure it can be, and what undid it.
fn of_scale(
    lines: &Lines,
    found: &[(&Part, &Undone)],
    sure: Certainty,
) -> Option<(Cause, Certainty, String)> {
    let of_others = || -> Option<Vec<(u64, u32)>> {
        found.iter().map(|(part, _)| of_another_row(lines, part)).collect()
    };
    if found.len() * 2 < lines.rows.len()
        && let Some(others) = of_others()
        && !are_alike(lines, found)
    {
        let bits: u32 = others.iter().map(|it| it.1).sum();
        let most = if bits >= SURE_BITS { Certainty::Certain } else { Certainty::Likely };
        let other = others[0].0;
        let what = format!("the scales are those of row {other}; with the scales that fit");
        return Some((Cause::ScalesMoved, most, what));
    }
    let all: Vec<f64> = found.iter().flat_map(|(_, it)| it.by.iter().map(|by| 1.0 / by)).collect();
    let logs = all.iter().map(|by| functions::ln(by.abs()));
    let mean = functions::exp(logs.sum::<f64>() / all.len() as f64);
    let left = left_of(found);
    // What a factor that is fitted to a part of few elements is off by.
    let noise = (left.ee / left.rr * all.len() as f64 / left.n).sqrt();
    let agree = all.iter().all(|by| functions::ln(by / mean).abs() < ALIKE + 4.0 * noise);
    if !agree {
        let what = "with a factor of its own for each scale".to_owned();
        return Some((Cause::ScalesMoved, Certainty::Likely, what));
    }
    // One factor for all of a tensor has more than one name.
    if found.len() * 2 > lines.rows.len() {
        return None;
    }
    let what = format!("all values are {mean:.3} times the reference's; divided by that");
    // Two unlike factors may be alike by chance.
    let octaves = functions::log2(mean);
    let power = (octaves - octaves.round()).abs() < ALIKE + 2.0 * noise && octaves.round() != 0.0;
    let is_sure = found.len() > 2 || found.len() == 2 && power;
    let most = if is_sure { sure } else { Certainty::Likely };
    let one_bit = found.len() == 1 && power;
    Some((if one_bit { Cause::ScaleBitFlip } else { Cause::ScaleFactor }, most, what))
}

/// The scales of a row, or of a group of it.
fn scales(lines: &Lines, line: &Line, group: Option<usize>) -> Vec<f64> {
    let groups = line.groups.iter().enumerate().filter(|(at, _)| group.is_none_or(|it| it == *at));
    groups.map(|(_, group)| lines.ladder().scale(&line.elements[group[0]]).0).collect()
}

/// The neighbouring row whose scales a part has, and how many bits of them are equal.
fn of_another_row(lines: &Lines, part: &Part) -> Option<(u64, u32)> {
    let (row, line) = &lines.rows[part.at];
    let own = scales(lines, line, part.group);
    let mut different = own.clone();
    different.dedup();
    // Fewer than the type has: neighbours are of one magnitude.
    let bits = different.iter().map(|&scale| {
        let scale = scale as f32;
        let is_half =
            f16::from_f32(scale).to_f32() == scale || bf16::from_f32(scale).to_f32() == scale;
        if is_half { HALF_BITS } else { SURE_BITS }
    });
    let is_of = |(_, other): &(u64, Line)| {
        other.groups.len() == line.groups.len() && scales(lines, other, part.group) == own
    };
    let other = lines.beside(*row).into_iter().find(is_of)?;
    Some((other.0, bits.sum()))
}

/// Whether rows have their neighbours' scales even where nothing is wrong with them.
fn are_alike(lines: &Lines, found: &[(&Part, &Undone)]) -> bool {
    let is_sound = |at: &usize| found.iter().all(|(part, _)| part.at != *at);
    let sound = (0..lines.rows.len()).filter(is_sound);
    let asked = sound.step_by(lines.rows.len().div_ceil(ASKED));
    let mut same = asked.map(|at| {
        let (row, line) = &lines.rows[at];
        let own = scales(lines, line, None);
        lines.beside(*row).iter().any(|(_, other)| scales(lines, other, None) == own)
    });
    same.any(|it| it)
}

/// Groups whose scale is zero, in rows that are not zero throughout.
fn dead(lines: &Lines, parts: &Parts) -> Option<Diagnosis> {
    let ladder = lines.ladder();
    let mut found = Vec::new();
    for (row, line) in &lines.rows {
        let largest = line.elements.iter().fold(0f64, |most, at| most.max(at.r.abs()));
        if lines.left(line).n == 0.0 {
            continue;
        }
        for group in &line.groups {
            let is_zero = |&at: &usize| ladder.scale(&line.elements[at]).0 == 0.0;
            let reach = |&at: &usize| (line.elements[at].r - line.elements[at].low).abs();
            let lost = group.iter().map(reach).fold(0f64, f64::max);
            if group.iter().all(is_zero) && lost > DEAD * largest.max(ladder.lost_below()) {
                found.push(format!("row {row}, columns {}", span(lines, group)));
            }
        }
    }
    if found.is_empty() {
        return None;
    }
    let sure = if parts.bad.is_empty() { Certainty::Certain } else { Certainty::Likely };
    let named: Vec<&str> = found.iter().take(NAMED).map(String::as_str).collect();
    let why = format!("the scale of {} groups is 0: {}", found.len(), named.join("; "));
    Some(Diagnosis::of(Cause::ZeroScale, sure, why))
}

/// `64 to 95`.
fn span(lines: &Lines, group: &[usize]) -> String {
    let [first, last] =
        [group.first(), group.last()].map(|at| lines.first + *at.unwrap_or(&0) as u64);
    format!("{first} to {last}")
}

/// Which parts, what was done, and what that gave.
fn say(lines: &Lines, found: &[(&Part, &Undone)], what: &str) -> String {
    let mut before = Left::default();
    for (part, _) in found {
        before.add(&part.before);
    }
    let after = left_of(found);
    let name = |(part, _): &(&Part, &Undone)| {
        let (row, line) = &lines.rows[part.at];
        match part.group {
            Some(group) => format!("row {row}, columns {}", span(lines, &line.groups[group])),
            None => format!("row {row}"),
        }
    };
    let named: Vec<String> = found.iter().take(NAMED).map(name).collect();
    let whole = found.iter().filter(|(part, _)| part.group.is_none()).count();
    let more = if found.len() > NAMED { "; …" } else { "" };
    format!(
        "{whole} rows and {} groups of {} rows looked at ({}{more}): {what}, they have {:.1} dB where there was \
         {:.1}, {:.1} expected",
        found.len() - whole,
        lines.rows.len(),
        named.join("; "),
        after.sqnr_db(),
        before.sqnr_db(),
        after.expected_db(lines.rounding)
    )
}
