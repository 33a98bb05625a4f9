/*!
Values that are right and stand in the wrong place: transposed, permuted, shifted, exchanged.
*/

use super::bench::{Bench, cosine, sqnr};
use super::{Cause, Certainty, Diagnosis};
use crate::model::{Storage, Tensor};

/// Most rows that are searched for the place where a row comes from.
const SEARCHED: u64 = 4096;

/// Rows of the sample that are searched for.
const WANTED: usize = 96;

/// Elements by which rows are told apart.
const FINGERPRINT: usize = 256;

/// Elements at which a map from places to places is probed.
const PROBES: u64 = 2048;

/// Shifts that are tried, in elements, each way.
const FURTHEST: u64 = 4096;

/// Rows and columns exchanged, in the whole or in each slice of three dimensions.
pub fn transposed(bench: &Bench) -> Option<Diagnosis> {
    let shape = &bench.subject.r().shape;
    let [.., rows, columns] = *shape.as_slice() else { return None };
    if rows < 2 || columns < 2 {
        return None;
    }
    let slice = rows * columns;
    let from = |inner: u64, outer: u64| {
        move |at: u64| at / slice * slice + at % slice % outer * inner + at % slice / outer
    };
    // Written column by column, or read so.
    for (source, how) in [
        (&from(columns, rows) as &dyn Fn(u64) -> u64, "read column by column"),
        (&from(rows, columns), "read row by row of the other shape"),
    ] {
        if let Some(score) = mapped(bench, source)
            && bench.is_sound(score)
        {
            let why = format!("{how}, {}", bench.score(score));
            return Some(Diagnosis::certain(Cause::Transposed, why));
        }
    }
    None
}

/// The flat values as they are, where only the shapes differ.
pub fn reshaped(bench: &Bench) -> Option<Diagnosis> {
    let score = mapped(bench, &|at| at)?;
    bench.is_sound(score).then(|| {
        let (q, r) = (&bench.subject.q().shape, &bench.subject.r().shape);
        let why = format!("taken as {r:?} in place of {q:?}, {}", bench.score(score));
        Diagnosis::certain(Cause::Reshaped, why)
    })
}

/// SQNR of probes of the quantized tensor against the places of the reference that `source` names.
fn mapped(bench: &Bench, source: &dyn Fn(u64) -> u64) -> Option<f64> {
    let numel = bench.subject.q().numel();
    let run = 32.min(numel);
    let runs = (PROBES / run).min(numel / run);
    let (mut r, mut q) = (Vec::new(), Vec::new());
    for at in 0..runs {
        let start = at * (numel / runs) / run * run;
        q.extend(bench.quantized(start..start + run)?);
        for place in start..start + run {
            let from = source(place);
            r.extend(bench.reference(from..from + 1)?);
        }
    }
    Some(sqnr(&r, &q))
}

/// Length of a group, the place in it that a place comes from, and what that is called.
type Order<'a> = (usize, &'a dyn Fn(usize) -> usize, &'a str);

/// Codes in another order inside their words: what exchanging columns of a block undoes.
pub fn packed_otherwise(bench: &Bench) -> Option<Diagnosis> {
    const AWQ: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];
    let awq_back = |at: usize| AWQ.iter().position(|&it| it == at).unwrap_or(at);
    let orders: [Order; 6] = [
        (2, &|at| 1 - at, "every two neighbours exchanged"),
        (32, &|at| (at + 16) % 32, "the halves of every 32 exchanged"),
        (16, &|at| (at + 8) % 16, "the halves of every 16 exchanged"),
        (8, &|at| 7 - at, "every eight reversed"),
        (8, &|at| AWQ[at], "every eight in the interleaved order"),
        (8, &awq_back, "every eight out of the interleaved order"),
    ];
    for (len, order, how) in orders {
        if !bench.width.is_multiple_of(len) {
            continue;
        }
        let score = bench.undone(|at, column, _| {
            let from = column / len * len + order(column % len);
            f64::from(bench.row(at).1[from])
        });
        if bench.is_sound(score) && !bench.is_sound(bench.actual()) {
            let why = format!("with {how}, {}", bench.score(score));
            return Some(Diagnosis::certain(Cause::NibbleSwapped, why));
        }
    }
    None
}

/// A row of the quantized tensor, and the row of the reference that it is.
#[derive(Clone, Copy, Debug)]
struct Found {
    at: usize,
    row: u64,
    source: u64,
}

/// Rows in another place.
pub fn rows_moved(bench: &Bench) -> Option<Diagnosis> {
    if bench.row_count < 2 || bench.width < 32 {
        return None;
    }
    let wanted = wanted_rows(bench);
    let found = search(bench, &wanted)?;
    let moved: Vec<Found> = found.iter().copied().filter(|it| it.row != it.source).collect();
    if moved.is_empty() || found.len() * 10 < wanted.len() * 6 {
        return None;
    }
    let score = in_place(bench, &found);
    let say = |how: String| format!("{how}; with the rows in their places, {}", bench.score(score));
    let sure = |cause, how: String| {
        Some(if bench.is_sound(score) {
            Diagnosis::certain(cause, say(how))
        } else {
            Diagnosis::likely(cause, say(how))
        })
    };
    if let Some(by) = same_shift(&moved)
        && moved.len() > 1
    {
        let way = if by > 0 { "early" } else { "late" };
        return sure(Cause::RowShifted, format!("rows are {} places {way}", by.abs()));
    }
    if moved.len() * 8 <= found.len() || moved.len() == 1 {
        return few_moved(bench, &moved);
    }
    if packs_rows(bench)
        && let Some(order) = same_order(&found, 8)
    {
        return sure(
            Cause::NibbleSwapped,
            format!("every eight rows are in the order {}", places(&order)),
        );
    }
    if let Some((heads, how)) = rope(bench, &found) {
        return sure(Cause::RopePermuted, format!("rows are {how} in each of {heads} heads"));
    }
    if let Some(how) = exchanged(&moved) {
        return sure(Cause::Swapped, how);
    }
    let mut sources: Vec<u64> = found.iter().map(|it| it.source).collect();
    sources.sort_unstable();
    sources.dedup();
    if sources.len() < found.len() {
        return None;
    }
    let first = moved.first()?;
    sure(
        Cause::TilePermuted,
        format!(
            "{} of {} rows looked for are in other places (row {} is the reference's {})",
            moved.len(),
            found.len(),
            first.row,
            first.source
        ),
    )
}

/// Places in the sample of the rows to search for: spread over all, and those that are bad.
fn wanted_rows(bench: &Bench) -> Vec<usize> {
    // Odd, so that the sample has rows of every place in a tile.
    let step = bench.rows.len().div_ceil(WANTED) | 1;
    let mut wanted: Vec<usize> = (0..bench.rows.len()).step_by(step).collect();
    if step > 1 {
        wanted.extend(bench.bad_rows().into_iter().take(WANTED / 3));
        wanted.sort_unstable();
        wanted.dedup();
    }
    wanted
}

/// Looks for the reference's row that each of the wanted rows resembles.
fn search(bench: &Bench, wanted: &[usize]) -> Option<Vec<Found>> {
    let len = bench.width.min(FINGERPRINT);
    let all = bench.row_count <= SEARCHED;
    let print = |row: u64| {
        let start = row * bench.row_len;
        bench.reference(start..start + len as u64)
    };
    let prints: Vec<Vec<f32>> =
        if all { (0..bench.row_count).map(print).collect::<Option<_>>()? } else { Vec::new() };
    let wanted: Vec<usize> = if all {
        wanted.to_vec()
    } else {
        wanted.iter().step_by(wanted.len().div_ceil(16)).copied().collect()
    };
    let mut found = Vec::new();
    for at in wanted {
        let row = bench.rows[at];
        let q = &bench.row(at).1[..len];
        if !q.iter().all(|value| value.is_finite()) {
            continue;
        }
        let (first, near) = if all {
            (0, None)
        } else {
            let first = row.saturating_sub(SEARCHED / 8);
            let end = (row + SEARCHED / 8).min(bench.row_count);
            (first, Some((first..end).map(print).collect::<Option<Vec<_>>>()?))
        };
        let mut best: [(f64, u64); 2] = [(0.0, row); 2];
        for (print, source) in near.as_ref().unwrap_or(&prints).iter().zip(first..) {
            let cosine = cosine(print, q);
            if cosine > best[0].0 {
                best = [(cosine, source), best[0]];
            } else if cosine > best[1].0 {
                best[1] = (cosine, source);
            }
        }
        if best[0].0 > 0.6 && best[0].0 - best[1].0 > 0.1 {
            found.push(Found { at, row, source: best[0].1 });
        }
    }
    Some(found)
}

/// SQNR of the rows found, against those that they come from.
fn in_place(bench: &Bench, found: &[Found]) -> f64 {
    let (mut r, mut q) = (Vec::new(), Vec::new());
    for it in found {
        let start = it.source * bench.row_len;
        let Some(row) = bench.reference(start..start + bench.width as u64) else { continue };
        r.extend(row);
        q.extend_from_slice(bench.row(it.at).1);
    }
    sqnr(&r, &q)
}

/// The distance by which all of them moved, if it is one.
fn same_shift(moved: &[Found]) -> Option<i64> {
    let by = |it: &Found| it.source as i64 - it.row as i64;
    let most = |&&(_, count): &&(i64, usize)| count;
    let mut counts: Vec<(i64, usize)> = Vec::new();
    for shift in moved.iter().map(by) {
        match counts.iter_mut().find(|(known, _)| *known == shift) {
            Some((_, count)) => *count += 1,
            None => counts.push((shift, 1)),
        }
    }
    let &(shift, count) = counts.iter().max_by_key(most)?;
    // The last rows may have come round to the front.
    (count * 10 >= moved.len() * 9).then_some(shift)
}

/// One or a few rows among many that are in their places: copies, or exchanged.
fn few_moved(bench: &Bench, moved: &[Found]) -> Option<Diagnosis> {
    let it = moved.first()?;
    let start = |row: u64| row * bench.row_len;
    let width = bench.width as u64;
    let source = bench.reference(start(it.source)..start(it.source) + width)?;
    let score = sqnr(&source, bench.row(it.at).1);
    if !bench.is_sound(score) {
        return None;
    }
    let back = bench.quantized(start(it.source)..start(it.source) + width)?;
    let own = bench.reference(start(it.row)..start(it.row) + width)?;
    let (row, other) = (it.row, it.source);
    Some(if sqnr(&own, &back) > sqnr(&source, &back) {
        let why = format!("row {row} is the reference's row {other}, and that one is row {row}");
        Diagnosis::certain(Cause::Swapped, why)
    } else {
        let why =
            format!("row {row} is the reference's row {other} ({score:.1} dB), as is row {other}");
        Diagnosis::certain(Cause::RowDuplicated, why)
    })
}

/// Rotary orders: interleaved where half-split is meant, or the reverse. Heads, and which way.
fn rope(bench: &Bench, found: &[Found]) -> Option<(u64, &'static str)> {
    let rows = bench.row_count;
    let heads = (1..=rows / 4)
        .filter(|heads| rows.is_multiple_of(*heads) && (rows / heads).is_multiple_of(2));
    for heads in heads {
        let len = rows / heads;
        let half = len / 2;
        let interleaved = |row: u64| row / len * len + row % len % 2 * half + row % len / 2;
        let split = |row: u64| row / len * len + row % len % half * 2 + row % len / half;
        if found.iter().all(|it| it.source == interleaved(it.row)) {
            return Some((heads, "interleaved where the reference has halves"));
        }
        if found.iter().all(|it| it.source == split(it.row)) {
            return Some((heads, "split in halves where the reference interleaves"));
        }
    }
    None
}

/// Two runs of rows that changed places.
fn exchanged(moved: &[Found]) -> Option<String> {
    let by = |it: &Found| it.source as i64 - it.row as i64;
    let far = by(moved.first()?);
    let (early, late): (Vec<Found>, Vec<Found>) = moved.iter().partition(|it| by(it) == far);
    let opposite = !late.is_empty() && late.iter().all(|it| by(it) == -far);
    let (first, last) = (early.first()?.row, early.last()?.row);
    (opposite && far > 0).then(|| {
        let (from, to) = (first as i64 + far, last as i64 + far);
        format!("rows {first} to {last} and {from} to {to} changed places")
    })
}

/// True of schemes that pack the codes of neighbouring rows into one word.
fn packs_rows(bench: &Bench) -> bool {
    match &bench.subject.q().storage {
        Storage::Joined(weight) => weight.scheme().starts_with("AWQ"),
        _ => false,
    }
}

/// The order of rows inside every group of `len`, if it is the same in all.
fn same_order(found: &[Found], len: u64) -> Option<Vec<Option<u64>>> {
    let mut order = vec![None; len as usize];
    for it in found {
        if it.row / len != it.source / len {
            return None;
        }
        let known = order.get_mut((it.row % len) as usize)?;
        if known.is_some_and(|source| source != it.source % len) {
            return None;
        }
        *known = Some(it.source % len);
    }
    (order.iter().flatten().count() > order.len() / 2).then_some(order)
}

/// `0 2 4 6 1 ? 5 7`.
fn places(order: &[Option<u64>]) -> String {
    let words = order.iter().map(|it| it.map_or("?".to_owned(), |it| it.to_string()));
    words.collect::<Vec<_>>().join(" ")
}

/// Slices of three dimensions that changed places, beyond the rows that were searched.
pub fn slices_moved(bench: &Bench) -> Option<Diagnosis> {
    let locals = bench.subject.locals.filter(|locals| locals.slice_len > 0)?;
    let slices = bench.subject.r().numel() / locals.slice_len;
    let bad = locals.slices.worst?.index;
    let len = locals.slice_len.min(1024);
    let inside = (locals.slice_len - len) / 2 / 256 * 256;
    let range = |slice: u64| {
        let start = slice * locals.slice_len + inside;
        start..start + len
    };
    let q = bench.quantized(range(bad))?;
    let is =
        |slice: u64| bench.reference(range(slice)).is_some_and(|r| bench.is_sound(sqnr(&r, &q)));
    if is(bad) {
        return None;
    }
    let source = (0..slices.min(SEARCHED)).find(|&slice| slice != bad && is(slice))?;
    let back = bench.quantized(range(source))?;
    let own = bench.reference(range(bad))?;
    Some(if bench.is_sound(sqnr(&own, &back)) {
        let why = format!("slices {bad} and {source} changed places");
        Diagnosis::certain(Cause::Swapped, why)
    } else {
        let why = format!("slice {bad} is the reference's slice {source}");
        Diagnosis::certain(Cause::Copied, why)
    })
}

/// Everything from some element on, or inside a row, is a few elements early or late.
pub fn shifted(bench: &Bench, bad: &[usize]) -> Option<Diagnosis> {
    let numel = bench.subject.r().numel();
    let len = (FINGERPRINT as u64).min(bench.width as u64 / 2);
    if len < 16 {
        return None;
    }
    for &at in bad.iter().take(4) {
        let row = bench.rows[at];
        let start = row * bench.row_len + (bench.width as u64 - len) / 2;
        let q = &bench.row(at).1[(bench.width - len as usize) / 2..][..len as usize];
        let from = start.saturating_sub(FURTHEST);
        let r = bench.reference(from..(start + len + FURTHEST).min(numel))?;
        let score = |place: usize| sqnr(&r[place..place + len as usize], q);
        let places = 0..r.len() + 1 - len as usize;
        let Some(best) = places.max_by(|&a, &b| score(a).total_cmp(&score(b))) else { continue };
        let by = (from + best as u64) as i64 - start as i64;
        if by == 0 || !bench.is_sound(score(best)) {
            continue;
        }
        let way = if by > 0 { "early" } else { "late" };
        let (cause, count, what) = if by.unsigned_abs().is_multiple_of(bench.row_len) {
            (Cause::RowShifted, by.unsigned_abs() / bench.row_len, "rows")
        } else {
            (Cause::BlockShifted, by.unsigned_abs(), "elements")
        };
        let why = format!(
            "values of row {row} are {count} {what} {way}; so shifted, they have {:.1} dB, {:.1} expected",
            score(best),
            bench.expected
        );
        // A single row in another place may be a copy.
        let sure = if cause == Cause::RowShifted { Certainty::Likely } else { Certainty::Certain };
        return Some(Diagnosis::of(cause, sure, why));
    }
    None
}

/// The values of another tensor of the model.
pub fn another_tensor(bench: &Bench) -> Option<Diagnosis> {
    let subject = bench.subject;
    let numel = subject.r().numel();
    let len = numel.min(2048);
    let range = (numel - len) / 2 / 256 * 256..(numel - len) / 2 / 256 * 256 + len;
    let q = bench.quantized(range.clone())?;
    let same = |tensor: &Tensor| tensor.numel() == numel;
    let others = subject.all.iter().filter(|it| it.reference != subject.at.reference);
    for other in others.filter(|it| same(&subject.reference.tensors[it.reference])).take(1024) {
        let theirs = &subject.reference.tensors[other.reference];
        let Some(r) = bench.read(subject.reference, theirs, range.clone()) else { continue };
        let score = sqnr(&r, &q);
        if !bench.is_sound(score) {
            continue;
        }
        let back = bench.read(
            subject.quantized,
            &subject.quantized.tensors[other.quantized],
            range.clone(),
        );
        let own = bench.reference(range.clone())?;
        let mutual = back.is_some_and(|back| sqnr(&own, &back) >= 3.0f64.max(sqnr(&r, &back)));
        let name = &theirs.name;
        let matches = format!("it has {score:.1} dB against the reference's {name}");
        return Some(if mutual {
            let why = format!("{matches}, and {name} holds this one's values");
            Diagnosis::certain(Cause::Swapped, why)
        } else {
            Diagnosis::certain(Cause::Copied, matches)
        });
    }
    None
}
