/*!
Decoding a range of a layout: the range is cut into boxes, each box is read in the order of its source,
in runs as long as can be, and its values are put in place.
*/

use std::ops::Range;

use super::layout::{Axis, Layout, Place};
use crate::model::{ReadError, Scratch};

/// Decodes a range of a source into values of its length.
pub type Fetch<'a> = dyn FnMut(Range<u64>, &mut Scratch, &mut [f32]) -> Result<(), ReadError> + 'a;

/// Takes a box: a range of indices of each axis.
type EachBox<'a> = dyn FnMut(&[Range<u64>]) -> Result<(), ReadError> + 'a;

/// Elements that are read for their order's sake at a time.
const STRIP: u64 = 128 * 1024;

/// Elements between two wanted runs that are rather read than skipped.
const GAP: u64 = 256;

/// A run of so many elements is worth a read of its own.
const LONG: u64 = 4096;

/// Side of a square of values that are put in place together: both sides stay in cache lines that
/// are already loaded.
const SIDE: u64 = 16;

impl Layout {
    /// Decodes the elements of `range`; `fetch` decodes those of the source.
    pub fn gather(
        &self,
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
        fetch: &mut Fetch<'_>,
    ) -> Result<(), ReadError> {
        if range.is_empty() {
            return Ok(());
        }
        let mut ranges: Vec<Range<u64>> = self.axes.iter().map(|axis| 0..axis.extent).collect();
        let mut rest = values;
        cut(&self.axes, 0, range, &mut ranges, &mut |ranges| {
            let len: u64 = ranges.iter().map(|range| range.end - range.start).product();
            let (part, next) = std::mem::take(&mut rest).split_at_mut(len as usize);
            rest = next;
            Reading::new(self, ranges).read(scratch, part, fetch)
        })
    }

    /// The axis along which the source is contiguous, as elements of the layout behind one index of
    /// it, and its extent: if it is not the last one, and a range as large as a chunk holds only a
    /// part of it, tiles pay.
    pub fn tiling(&self, chunk: u64) -> Option<(u64, u64)> {
        let pitch = |axis: &Axis| match axis.place {
            Place::Step(0) | Place::Table(_) => u64::MAX,
            Place::Step(step) => step,
        };
        let (at, axis) = self.axes.iter().enumerate().min_by_key(|(_, axis)| pitch(axis))?;
        let inner: u64 = self.axes[at + 1..].iter().map(|axis| axis.extent).product();
        let pays = inner > 1 && pitch(axis) < u64::MAX && axis.extent > chunk / inner;
        pays.then_some((inner, axis.extent))
    }
}

/// Cuts a range of the elements behind `level` axes into boxes, in order: a range of indices of each
/// axis, all of them behind the first that has more than one.
fn cut(
    axes: &[Axis],
    level: usize,
    range: Range<u64>,
    ranges: &mut [Range<u64>],
    each: &mut EachBox<'_>,
) -> Result<(), ReadError> {
    if level == axes.len() {
        return each(ranges);
    }
    let inner: u64 = axes[level + 1..].iter().map(|axis| axis.extent).product();
    let (mut first, last) = (range.start / inner, range.end / inner);
    if !range.start.is_multiple_of(inner) {
        let end = range.end.min((first + 1) * inner);
        ranges[level] = first..first + 1;
        cut(axes, level + 1, range.start - first * inner..end - first * inner, ranges, each)?;
        if end == range.end {
            return Ok(());
        }
        first += 1;
    }
    if first < last {
        ranges[level] = first..last;
        for (range, axis) in ranges[level + 1..].iter_mut().zip(&axes[level + 1..]) {
            *range = 0..axis.extent;
        }
        each(ranges)?;
    }
    if last * inner < range.end {
        ranges[level] = last..last + 1;
        cut(axes, level + 1, 0..range.end - last * inner, ranges, each)?;
    }
    Ok(())
}

/// One axis of a box: where its indices lie in the source, or in what was read of it, and in the
/// result.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    len: u64,
    from: From<'a>,
    to: u64,
}

#[derive(Clone, Copy, Debug)]
enum From<'a> {
    Step(u64),
    /// Places, and the lowest of them, which is where they are counted from.
    Table(&'a [u64], u64),
}

impl Line<'_> {
    fn at(&self, index: u64) -> u64 {
        match self.from {
            From::Step(step) => index * step,
            From::Table(places, lowest) => places[index as usize] - lowest,
        }
    }

    /// From the lowest place to the highest.
    fn reach(&self) -> u64 {
        match self.from {
            From::Step(step) => (self.len - 1) * step,
            From::Table(places, lowest) => places.iter().max().unwrap_or(&lowest) - lowest,
        }
    }

    /// How far neighbours are apart, on the average.
    fn pitch(&self) -> u64 {
        self.reach() / (self.len - 1)
    }

    /// Whether runs of `span` elements at its places are better read in one go.
    fn is_dense(&self, span: u64) -> bool {
        match self.from {
            From::Step(step) => step <= span + GAP,
            From::Table(..) => self.reach() + span <= 2 * self.len * span + GAP,
        }
    }

    /// The part of the line from an index on.
    fn part(&self, start: u64, len: u64) -> Self {
        let from = match self.from {
            From::Step(step) => From::Step(step),
            From::Table(places, lowest) => {
                From::Table(&places[start as usize..(start + len) as usize], lowest)
            }
        };
        Self { len, from, ..*self }
    }
}

/// How one box is read.
struct Reading<'a> {
    /// Where the box's lowest element lies in the source.
    base: u64,
    /// Lines of more than one place, the most distant places first.
    lines: Vec<Line<'a>>,
    /// Lines of one place each, which is repeated.
    repeats: Vec<Line<'a>>,
}

impl<'a> Reading<'a> {
    fn new(layout: &'a Layout, ranges: &[Range<u64>]) -> Self {
        let mut reading = Self { base: layout.offset, lines: Vec::new(), repeats: Vec::new() };
        let mut to = 1;
        for (axis, range) in layout.axes.iter().zip(ranges).rev() {
            let len = range.end - range.start;
            let from = match &axis.place {
                Place::Step(step) => {
                    reading.base += range.start * step;
                    From::Step(*step)
                }
                Place::Table(places) => {
                    let places = &places[range.start as usize..range.end as usize];
                    let lowest = places.iter().copied().min().unwrap_or(0);
                    reading.base += lowest;
                    From::Table(places, lowest)
                }
            };
            let line = Line { len, from, to };
            to *= len;
            match line.from {
                _ if len == 1 => {}
                From::Step(0) => reading.repeats.push(line),
                _ => reading.lines.push(line),
            }
        }
        reading.lines.sort_by_key(|line| std::cmp::Reverse(line.pitch()));
        reading
    }

    /// Decodes the box into `values`, its elements in order.
    fn read(
        &self,
        scratch: &mut Scratch,
        values: &mut [f32],
        fetch: &mut Fetch<'_>,
    ) -> Result<(), ReadError> {
        let (outer, run) = self.in_order();
        let (loose, span) = self.dense();
        let gains =
            loose < outer || loose.checked_sub(1).is_some_and(|at| self.lines[at].is_dense(span));
        if self.repeats.is_empty() && (run >= LONG || !gains) {
            return walk(&self.lines[..outer], self.base, 0, &mut |from, to| {
                let part = &mut values[to as usize..(to + run) as usize];
                fetch(from..from + run, scratch, part)
            });
        }
        let mut strip = scratch.take_floats();
        let result = self.by_strips(loose, span, scratch, &mut strip, values, fetch);
        scratch.give_floats(strip);
        result
    }

    /// The number of lines before those that lie in the source as they do in the result, and the
    /// length of the run that these are.
    fn in_order(&self) -> (usize, u64) {
        let (mut outer, mut run) = (self.lines.len(), 1);
        while let Some(Line { len, from: From::Step(step), to }) =
            outer.checked_sub(1).map(|at| self.lines[at])
            && step == run
            && to == run
        {
            run *= len;
            outer -= 1;
        }
        (outer, run)
    }

    /// The number of lines before those that are read in one go, and how far these reach.
    fn dense(&self) -> (usize, u64) {
        let (mut outer, mut span) = (self.lines.len(), 1);
        while let Some(line) = outer.checked_sub(1).map(|at| &self.lines[at])
            && line.is_dense(span)
            && line.reach() + span <= STRIP
        {
            span += line.reach();
            outer -= 1;
        }
        (outer, span)
    }

    /// Reads strips of all lines from `loose` on, and of as many places of the one before as fit.
    fn by_strips(
        &self,
        loose: usize,
        span: u64,
        scratch: &mut Scratch,
        strip: &mut Vec<f32>,
        values: &mut [f32],
        fetch: &mut Fetch<'_>,
    ) -> Result<(), ReadError> {
        let inner = self.lines[loose..].iter().chain(&self.repeats);
        let Some((line, outer)) = self.lines[..loose].split_last() else {
            strip.resize(span as usize, 0.0);
            fetch(self.base..self.base + span, scratch, strip)?;
            put(&mut inner.copied().collect::<Vec<_>>(), strip, values);
            return Ok(());
        };
        let whole = match line.from {
            From::Step(step) if line.is_dense(span) => Some(step),
            _ => None,
        };
        let count = match whole {
            Some(step) => (STRIP - span) / step + 1,
            None => (STRIP / span).max(1),
        };
        walk(outer, self.base, 0, &mut |from, to| {
            let mut start = 0;
            while start < line.len {
                let line = line.part(start, count.min(line.len - start));
                let pitch = if let Some(step) = whole {
                    let from = from + start * step;
                    let len = (line.len - 1) * step + span;
                    strip.resize(len as usize, 0.0);
                    fetch(from..from + len, scratch, strip)?;
                    step
                } else {
                    strip.resize((line.len * span) as usize, 0.0);
                    for (index, strip) in strip.chunks_exact_mut(span as usize).enumerate() {
                        let step = if let From::Step(step) = line.from { step * start } else { 0 };
                        let from = from + step + line.at(index as u64);
                        fetch(from..from + span, scratch, strip)?;
                    }
                    span
                };
                let line_in_strip = Line { from: From::Step(pitch), ..line };
                let mut lines: Vec<Line> =
                    std::iter::once(line_in_strip).chain(inner.clone().copied()).collect();
                put(&mut lines, strip, &mut values[(to + start * line.to) as usize..]);
                start += line.len;
            }
            Ok(())
        })
    }
}

/// Calls `each` with the places of all combinations of the lines' indices.
fn walk(
    lines: &[Line],
    from: u64,
    to: u64,
    each: &mut dyn FnMut(u64, u64) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let Some((line, rest)) = lines.split_first() else { return each(from, to) };
    for index in 0..line.len {
        walk(rest, from + line.at(index), to + index * line.to, each)?;
    }
    Ok(())
}

/// Copies values from their places in a strip to those in the result.
fn put(lines: &mut Vec<Line>, strip: &[f32], values: &mut [f32]) {
    // The innermost line is the one whose results lie closest; beside it the one whose sources do.
    lines.sort_by_key(|line| std::cmp::Reverse(line.to));
    let Some(across) = lines.pop() else {
        values[0] = strip[0];
        return;
    };
    let nearest = |line: &Line| match line.from {
        From::Step(step) if step > 0 => step,
        _ => u64::MAX,
    };
    let beside = (0..lines.len()).min_by_key(|&at| nearest(&lines[at]));
    let beside = beside.filter(|&at| nearest(&lines[at]) < nearest(&across));
    let down = beside.map(|at| lines.remove(at));
    spread(lines, 0, 0, &mut |from, to| {
        let (strip, values) = (&strip[from as usize..], &mut values[to as usize..]);
        match down {
            Some(down) => square(&down, &across, strip, values),
            None => line(&across, strip, values),
        }
    });
}

fn spread(lines: &[Line], from: u64, to: u64, each: &mut dyn FnMut(u64, u64)) {
    let Some((line, rest)) = lines.split_first() else { return each(from, to) };
    for index in 0..line.len {
        spread(rest, from + line.at(index), to + index * line.to, each);
    }
}

/// Copies one line.
fn line(line: &Line, strip: &[f32], values: &mut [f32]) {
    if let (From::Step(1), 1) = (line.from, line.to) {
        values[..line.len as usize].copy_from_slice(&strip[..line.len as usize]);
        return;
    }
    let values = values.iter_mut().step_by(line.to as usize).take(line.len as usize);
    match line.from {
        From::Step(0) => values.for_each(|value| *value = strip[0]),
        From::Step(step) => {
            let strip = strip.iter().step_by(step as usize);
            values.zip(strip).for_each(|(value, from)| *value = *from);
        }
        From::Table(places, lowest) => {
            let pairs = values.zip(places);
            pairs.for_each(|(value, place)| *value = strip[(place - lowest) as usize]);
        }
    }
}

/// Copies a matrix, in squares.
fn square(down: &Line, across: &Line, strip: &[f32], values: &mut [f32]) {
    for first in (0..down.len).step_by(SIDE as usize) {
        let last = (first + SIDE).min(down.len);
        for start in (0..across.len).step_by(SIDE as usize) {
            let end = (start + SIDE).min(across.len);
            for index in first..last {
                let (from, to) = (down.at(index), index * down.to);
                let values = values[(to + start * across.to) as usize..].iter_mut();
                let values = values.step_by(across.to as usize).take((end - start) as usize);
                if let From::Step(step @ 1..) = across.from {
                    let strip = strip[(from + start * step) as usize..].iter();
                    let strip = strip.step_by(step as usize);
                    values.zip(strip).for_each(|(value, from)| *value = *from);
                } else {
                    let places = (start..end).map(|column| from + across.at(column));
                    values.zip(places).for_each(|(value, at)| *value = strip[at as usize]);
                }
            }
        }
    }
}
