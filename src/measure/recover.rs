/*!
Grids recovered from values: tensors stored as floats whose values were quantized (fake quantization,
a round trip through some quantizer, a decoded checkpoint).

What lies on a grid, and what proves it, is `fit`'s to say. What a sample of rows shows
is verified on all rows. Then the reference, rounded to each group's own grid, is the twin that the tensor is
judged by.
*/

use super::fit::{Fit, Kind, PROOF, Rounding, books};
use super::pair::Pair;
use super::plan;
use super::sides::float_type;
use super::twin::{Both, RowTwin, RunSums, Twin};
use crate::metrics::{PIECE, Tally, functions};
use crate::model::Scratch;

/// What was recovered of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovered {
    /// For people: `4-bit integers of 32`.
    pub what: String,
    /// Bits of a code.
    pub bits: u32,
    /// Groups that do not lie on the grid that the others lie on: how many, and the first one's first element.
    pub off: Tally,
}

/// Lengths of groups that quantizers use, the longest first; a whole row is tried before.
const GROUPS: [usize; 9] = [4096, 2048, 1024, 512, 256, 128, 64, 32, 16];

/// Longest row that is looked at as one group.
const LONGEST: u64 = 1 << 18;

/// Rows of the sample.
const ROWS: u64 = 16;

/// Bits that all groups of the sample must prove together.
const PROOF_OF_ALL: f64 = 64.0;

/// Bits that shorter groups must save to be the plainer explanation: scales that are powers of two let a
/// whole row lie on the finest of its groups' grids.
const PLAINER: u32 = 2;

/// A row's Σe² relative to rounding to nearest that still is that.
const AS_NEAR: f64 = 1.02;

/// Looks for a grid that the quantized tensor's values lie on; with it comes the twin. `None` if there is
/// none, or the tensor is not stored as floats.
///
/// # Errors
///
/// One of the tensors cannot be read.
pub fn recover(pair: &Pair, scratch: &mut Scratch) -> Result<Option<Twin>, String> {
    let Some(ty) = float_type(pair.q) else { return Ok(None) };
    let row_len = plan::row_len(&pair.q.shape);
    let rows = pair.q.numel() / row_len;
    if row_len > LONGEST || rows == 0 {
        return Ok(None);
    }
    let storage = Rounding::of(ty);
    let taken = ROWS.min(rows);
    let mut sample = Vec::new();
    for at in 0..taken {
        let start = (at * rows / taken + rows / taken / 2).min(rows - 1) * row_len;
        sample.push(pair.read(start..start + row_len, scratch)?[1].clone());
    }
    let lengths = GROUPS.into_iter().filter(|&len| (len as u64) < row_len);
    let proven = std::iter::once(row_len as usize)
        .chain(lengths)
        .filter(|&len| row_len.is_multiple_of(len as u64))
        .filter_map(|len| Some((len, proven(&sample, len, storage)?)));
    let mut plainest: Option<(usize, Proven)> = None;
    for (len, found) in proven {
        if plainest.as_ref().is_none_or(|(_, so_far)| found.bits + PLAINER <= so_far.bits) {
            plainest = Some((len, found));
        }
    }
    let Some((group, Proven { kind, .. })) = plainest else { return Ok(None) };
    Survey::new(group, kind, storage).of_all_rows(pair, rows, row_len, scratch).map(Some)
}

/// What a sample proves.
struct Proven {
    /// The kind of grid of most groups.
    kind: Kind,
    /// Bits of a code, of the group with the most.
    bits: u32,
}

/// What the groups of a sample prove, if they lie on grids of one kind.
fn proven(sample: &[Vec<f32>], group: usize, storage: Rounding) -> Option<Proven> {
    let (mut groups, mut bits) = (0u64, 0.0);
    let mut kinds: Vec<(Kind, u64, f64)> = Vec::new();
    for values in sample.iter().flat_map(|row| row.chunks(group)) {
        if values.iter().all(|value| *value == 0.0) {
            continue;
        }
        groups += 1;
        let Some(fit) = Fit::of(values, storage, None).filter(|fit| fit.bits >= PROOF) else {
            continue;
        };
        bits += fit.bits;
        let levels = fit.levels();
        match kinds.iter_mut().find(|(kind, ..)| *kind == fit.kind) {
            Some((_, count, most)) => {
                *count += 1;
                *most = most.max(levels);
            }
            None => kinds.push((fit.kind, 1, levels)),
        }
    }
    let (kind, count, levels) = kinds.into_iter().max_by_key(|(_, count, _)| *count)?;
    let bits_of_code = functions::log2(levels).ceil() as u32;
    (count * 4 >= groups * 3 && bits >= PROOF_OF_ALL).then_some(Proven { kind, bits: bits_of_code })
}

/// All rows, looked at once.
struct Survey {
    group: usize,
    storage: Rounding,
    /// Steps from the smallest to the largest code of any group so far.
    span: f64,
    off: Tally,
    twin: Twin,
    /// The worst so far: by drop of the cosine, by gain, by a block's error.
    worst: [Option<(f64, RowTwin)>; 3],
    /// What the sample shows.
    kind: Kind,
    /// The grid of the group before.
    last: Option<Fit>,
    /// Rows that are as near to the reference as their grid allows.
    nearest: u64,
}

impl Survey {
    fn new(group: usize, kind: Kind, storage: Rounding) -> Self {
        let twin = Twin { tuned: true, ..Twin::default() };
        Self {
            last: None,
            nearest: 0,
            kind,
            group,
            storage,
            span: 1.0,
            off: Tally::default(),
            twin,
            worst: [None, None, None],
        }
    }

    fn of_all_rows(
        mut self,
        pair: &Pair,
        rows: u64,
        row_len: u64,
        scratch: &mut Scratch,
    ) -> Result<Twin, String> {
        for row in 0..rows {
            let start = row * row_len;
            let [r, q] = pair.read(start..start + row_len, scratch)?;
            self.row(row, start, &r, &q);
        }
        let bits = match self.kind {
            Kind::Book(index) => books()[index].1,
            _ => functions::log2(self.span + 1.0).ceil().clamp(1.0, 9.0) as u32,
        };
        let name = match self.kind {
            Kind::Book(index) => books()[index].0.to_owned(),
            Kind::Offset => format!("{bits}-bit integers with an offset"),
            Kind::Steps => format!("{bits}-bit integers"),
        };
        let of = if self.group as u64 == row_len {
            "one scale a row or fewer".to_owned()
        } else {
            format!("groups of {}", self.group)
        };
        let recovered = Recovered { what: format!("{name}, {of}"), bits, off: self.off };
        let mut twin = self.twin;
        twin.worst_piece = twin.sample.twin.rms();
        // Where most rows are rounded to nearest, nothing was traded for that.
        twin.tuned = self.nearest * 2 < rows;
        let mut kept: Vec<RowTwin> = self.worst.into_iter().flatten().map(|(_, row)| row).collect();
        kept.sort_by_key(|row| row.row);
        kept.dedup_by_key(|row| row.row);
        twin.rows = kept;
        twin.recovered = Some(recovered);
        Ok(twin)
    }

    fn row(&mut self, row: u64, start: u64, r: &[f32], q: &[f32]) {
        let mut expected = Vec::with_capacity(r.len());
        for (at, (r, q)) in r.chunks(self.group).zip(q.chunks(self.group)).enumerate() {
            if q.iter().all(|value| *value == 0.0) {
                // A group of zeros has no step of its own: its neighbour's says whether it may be zero.
                let span = self.span;
                match &self.last {
                    Some(fit) => {
                        expected.extend(r.iter().map(|r| fit.nearest(f64::from(*r), span) as f32));
                    }
                    None => expected.extend_from_slice(r),
                }
                continue;
            }
            let Some(fit) = Fit::of(q, self.storage, Some(self.kind)) else {
                let first = Some(start + (at * self.group) as u64);
                self.off.count += 1;
                self.off.first = self.off.first.or(first);
                expected.extend_from_slice(r);
                continue;
            };
            if fit.bits >= PROOF {
                self.span = self.span.max(fit.codes.1 - fit.codes.0);
            }
            let span = self.span;
            expected.extend(r.iter().map(|r| fit.nearest(f64::from(*r), span) as f32));
            self.last = Some(fit);
        }
        let pieces: Vec<Both> = (0..r.len())
            .step_by(PIECE)
            .map(|from| {
                let to = (from + PIECE).min(r.len());
                Both {
                    actual: RunSums::of(&r[from..to], &q[from..to]),
                    twin: RunSums::of(&r[from..to], &expected[from..to]),
                }
            })
            .collect();
        let mut whole = Both::default();
        for piece in &pieces {
            whole.add(piece);
        }
        if self.twin.lost.is_none() {
            let gone = |piece: &Both| piece.actual.xx == 0.0 && piece.twin.xx > 0.0;
            let first = pieces.iter().position(|piece| piece.actual.rr > 0.0 && gone(piece));
            self.twin.lost = first.map(|at| start + (at * PIECE) as u64);
        }
        self.twin.sample.add(&whole);
        self.nearest += u64::from(whole.actual.ee <= AS_NEAR * whole.twin.ee);
        let ratio = |piece: &Both| {
            let actual = piece.actual.rms();
            if actual == 0.0 { 0.0 } else { actual / piece.twin.rms() }
        };
        let keys = [
            whole.twin.cosine() - whole.actual.cosine(),
            whole.twin.gain_distance(whole.actual.gain()),
            pieces.iter().map(ratio).fold(0.0, f64::max),
        ];
        for (worst, key) in self.worst.iter_mut().zip(keys) {
            if worst.as_ref().is_none_or(|(so_far, _)| key > *so_far) {
                *worst = Some((key, RowTwin { row, first: 0, whole, pieces: pieces.clone() }));
            }
        }
    }
}
