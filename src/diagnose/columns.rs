/*!
Input columns that are negated or in each other's places: undone on all rows of the sample, and held against what
the other columns have.
*/

use super::bench::Bench;
use super::undo::{Left, Lines};
use super::{Cause, Certainty, Diagnosis};
use crate::measure::ladder::{Drift, Element};
use crate::measure::twin::Both;

/// Fewest rows of which a column says something, and most lost columns that are looked at.
const FEWEST: usize = 16;
const MOST: usize = 64;

/// A column is lost where its cosine and so many standard errors are below half of what its type gives.
const SURE: f64 = 3.0;

/// The part of columns, one in so many, that may have more noise than the others.
const LOUD: usize = 20;

/// How much more of it than they a column may have.
const LOUDER: f64 = 1.5;

/// Columns that evidence names.
const NAMED: usize = 4;

/// What is wrong with a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Negated,
    Swapped,
}

/// How sound columns are.
struct Sound<'a> {
    lines: &'a Lines<'a>,
    /// Noise beyond that of the nearest levels that all but a few columns stay below, in squared steps.
    excess: f64,
}

/// Whether a column of so many rows has nothing of its reference although its type has; `of` are its sums.
fn is_lost(of: &Both, rows: usize) -> bool {
    let (half, chance) = (of.twin.cosine() / 2.0, SURE / (rows as f64).sqrt());
    let is_other = of.actual.xx == 0.0 || of.actual.cosine() + chance < half;
    of.actual.rr > 0.0 && half > chance && is_other
}

/// Columns that are another's, or negated, in a tensor with a grid of its own.
pub fn undone(bench: &Bench) -> Option<Diagnosis> {
    let found = bench.subject.locals?.columns.filter(|it| it.unrelated.count > 0)?;
    let first = found.unrelated.first? % bench.row_len;
    // The window of columns in which the first one is.
    let window = first / bench.width as u64 * bench.width as u64;
    let lines = Lines::read(bench, &bench.rows, window)?;
    if lines.rows.len() < FEWEST {
        return None;
    }
    let (sound, lost) = look(&lines);
    if lost.is_empty() || lost.len() > MOST {
        return None;
    }
    let negated: Vec<Option<Left>> = lost.iter().map(|&at| sound.negated(at)).collect();
    let swapped = sound.swapped(&lost);
    let count = |all: &[Option<Left>]| all.iter().flatten().count();
    let (kind, which, others) = if count(&negated) >= count(&swapped) {
        (Kind::Negated, &negated, count(&swapped))
    } else {
        (Kind::Swapped, &swapped, count(&negated))
    };
    let explained = count(which);
    if explained == 0 || explained * 2 < lost.len() {
        return None;
    }
    // A window shows no columns beyond it.
    let all =
        explained == lost.len() && found.unrelated.count + found.dead.count <= lost.len() as u64;
    let sure = if all && others < explained { Certainty::Certain } else { Certainty::Likely };
    let (cause, what) = match kind {
        Kind::Negated => (Cause::ColumnNegated, "with the other sign"),
        Kind::Swapped => (Cause::ColumnsSwapped, "in each other's places"),
    };
    let (mut before, mut after) = (Left::default(), Left::default());
    let mut named = Vec::new();
    for (at, left) in lost.iter().zip(which) {
        let Some(left) = left else { continue };
        before.add(&sound.of(*at, |at| at));
        after.add(left);
        named.push((window + *at as u64).to_string());
    }
    let more = if named.len() > NAMED { ", …" } else { "" };
    named.truncate(NAMED);
    let mut why = format!(
        "{explained} columns ({}{more}) {what} have {:.1} dB in the {} rows looked at where there was {:.1}, {:.1} \
         expected",
        named.join(", "),
        after.sqnr_db(),
        lines.rows.len(),
        before.sqnr_db(),
        after.expected_db(lines.rounding)
    );
    if !all {
        let lost = found.unrelated.count + found.dead.count;
        why = format!("{why}; that explains {explained} of {lost} lost columns");
    }
    Some(Diagnosis::of(cause, sure, why))
}

/// How sound columns are, and those that are lost.
fn look<'a>(lines: &'a Lines<'a>) -> (Sound<'a>, Vec<usize>) {
    let ladder = lines.ladder();
    let width = lines.rows[0].1.elements.len();
    let (mut sums, mut left) = (vec![Both::default(); width], vec![Left::default(); width]);
    for (_, line) in &lines.rows {
        for (at, element) in line.elements.iter().enumerate() {
            let placed = ladder.place(element, &Drift::default());
            sums[at].actual.take(element.r, element.q);
            sums[at].twin.take(element.r, placed.nearest);
            left[at].take(ladder, element);
        }
    }
    let mut excess: Vec<f64> = left.iter().map(Left::excess).collect();
    excess.sort_by(f64::total_cmp);
    let excess = excess[(width - 1) - width / LOUD];
    let lost = (0..width).filter(|&at| is_lost(&sums[at], lines.rows.len()));
    (Sound { lines, excess }, lost.collect())
}

impl Sound<'_> {
    /// A column with something done to its elements.
    fn of(&self, column: usize, undo: impl Fn(Element) -> Element) -> Left {
        let lines = self.lines.rows.iter().map(|(_, line)| undo(line.elements[column]));
        Left::of(self.lines.ladder(), lines)
    }

    fn is_sound(&self, left: &Left) -> bool {
        let is_fine = self.lines.is_fine(left) || left.excess() <= self.excess * LOUDER;
        left.n > 0.0 && is_fine && left.ee * 2.0 <= left.rr
    }

    /// The better of two that is sound.
    fn better(&self, one: Left, other: Left) -> Option<Left> {
        let best = if one.ee <= other.ee { one } else { other };
        self.is_sound(&best).then_some(best)
    }

    /// With the other sign of the values, or with codes counted from the other end.
    fn negated(&self, column: usize) -> Option<Left> {
        self.better(self.of(column, Element::negated), self.of(column, Element::reflected))
    }

    /// Each with the codes, or the values, of another one that has its own; columns in pairs.
    fn swapped(&self, lost: &[usize]) -> Vec<Option<Left>> {
        let mut found: Vec<Option<Left>> = vec![None; lost.len()];
        for one in 0..lost.len() {
            if found[one].is_some() {
                continue;
            }
            for other in one + 1..lost.len() {
                let here = self.taken_from(lost[one], lost[other]);
                let (Some(here), None) = (here, found[other]) else { continue };
                if let Some(there) = self.taken_from(lost[other], lost[one]) {
                    (found[one], found[other]) = (Some(here), Some(there));
                    break;
                }
            }
        }
        found
    }

    /// A column with what another one holds.
    fn taken_from(&self, column: usize, other: usize) -> Option<Left> {
        let ladder = self.lines.ladder();
        let (mut values, mut codes) = (Left::default(), Left::default());
        for (_, line) in &self.lines.rows {
            let (own, at) = (line.elements[column], line.elements[other]);
            values.take(ladder, &Element { r: own.r, ..at });
            let height = (at.q - at.low) / (at.high - at.low);
            let q = own.low + height * (own.high - own.low);
            if q.is_finite() {
                codes.take(ladder, &Element { q, ..own });
            }
        }
        self.better(values, codes)
    }
}
