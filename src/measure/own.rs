/*!
What is to be expected of a tensor with a grid of its own: the noise of the nearest levels, plus what
the file's own way of rounding adds to it.

How a file was rounded shows in the median row: rounding to nearest displaces nothing; trained or
stochastic rounding and error feedback displace by about half a step, everywhere. What they add to the
noise is taken from that row, so that a damaged row does not excuse itself.
*/

use super::displaced::{Columns, Reader};
use super::run_sums::RunSums;
use super::shift::{Codes, Piece, Row, Shift, Slopes};
use super::twin::{Both, Effort, RowTwin, Twin};
use crate::model::Scratch;

/// Elements up to which all of a model is looked at.
const WHOLE: u64 = 8 << 20;

/// Elements of the evenly spaced rows of each tensor of a larger one.
const SAMPLE: u64 = 16 * 1024;

/// Elements of consecutive rows that are taken together.
const BUNDLE: u64 = 1024;

/// Rows that are taken together where scales are shared down the columns: half of the shortest group.
const TURNED: u64 = 8;

/// From this displacement of the median row on, in steps, a file does not round to nearest alone.
pub const FEEDBACK: f64 = 0.05;

/// Most noise that a way of rounding adds, in squared steps: a displacement of 0.7, beyond which codes
/// are not for these weights.
const MOST: f64 = 0.5;

/// Most noise of a single row, in squared steps: where inputs nearly depend on each other, error feedback goes on for
/// steps. Codes that know nothing of the reference are told by their slope.
const FARTHEST: f64 = 4.0;

/// Slope of the displacement in a run of a row that is half way to a negated one: that is no feedback.
const HALF_TURNED: f64 = -1.0;

/// Elements for each level of the grid from which on the codes that do not occur are left out.
const CODES: f64 = 16.0;

/// Rows of so small a part of the tensor's mean power say nothing: 80 dB.
const SILENT: f64 = 1e-8;

/// The smallest normal number of half precision, in which ggml's blocks have their scales.
pub const COARSE_SCALES: f64 = 6.103_515_625e-5;

/// Where a tensor's codes are on its own grid.
#[derive(Clone, Debug)]
pub struct Own {
    /// Displacement of the median row, in steps.
    pub rounding: f64,
    /// Mean displacement of the evenly spaced rows, in steps.
    pub mean: f64,
    /// Number of levels of the grid.
    pub levels: usize,
    /// What the nearest levels give on the evenly spaced rows.
    pub nearest: RunSums,
    /// Whether it was rounded otherwise than to nearest, as tools of its kind do.
    pub feedback: bool,
    /// Whether its scales are quantized in their turn, as those of ggml's blocks are.
    pub blocks: bool,
    /// All rows that were looked at and are not silent; without their pieces.
    pub rows: Vec<Row>,
    /// What of the displacement is in proportion to the reference in each group that shares a scale.
    pub groups: Slopes,
    /// The same in each column, where factors of columns are stored beside the codes.
    pub columns: Option<Slopes>,
}

/// The expectation of a tensor, from evenly spaced rows and from those that stand out, or from all rows
/// where the model has few elements; `may_feed_back` says whether tools of its kind may round otherwise than
/// to nearest.
pub fn twin(
    reader: &Reader,
    effort: Effort,
    standing_out: &[u64],
    may_feed_back: bool,
    scratch: &mut Scratch,
) -> Result<Option<Twin>, String> {
    let (count, row_len) = (reader.rows(), reader.row_len());
    if count == 0 {
        return Ok(None);
    }
    let smoothed = reader.has_column_factors();
    let turned = !smoothed && reader.is_turned(scratch)?;
    let mut columns = (smoothed || turned).then(|| Columns::new(row_len, !smoothed));
    let mut rows = Vec::new();
    if effort.elements <= WHOLE {
        rows = reader.rows_in(0..count, columns.as_mut(), scratch)?;
    } else {
        let bundle = (BUNDLE / row_len).max(if turned { TURNED } else { 1 });
        let bundles = (SAMPLE / effort.share / (bundle * row_len)).max(1);
        let step = (count / bundles).max(bundle);
        for start in (0..bundles).map(|at| at * step + step / 2) {
            let end = (start + bundle).min(count);
            if start < end {
                rows.append(&mut reader.rows_in(start..end, columns.as_mut(), scratch)?);
            }
        }
    }
    let even = rows.len();
    // Most rows have codes that are not the nearest ones: scales were fitted to the codes once more.
    let moved = rows.iter().filter(|row| row.shift.moved > 0.0).count();
    if !may_feed_back
        && moved * 2 > even
        && let Some(refitted) = reader.refitted()
    {
        return twin(&refitted, effort, standing_out, may_feed_back, scratch);
    }
    for &row in standing_out {
        if row < count && !rows.iter().any(|it| it.row == row) {
            rows.append(&mut reader.rows_in(row..row + 1, None, scratch)?);
        }
    }
    let mut twin = expectation(rows, even, reader.levels(), may_feed_back);
    if let Some(own) = &mut twin.own {
        match columns.map(Columns::slopes) {
            Some(slopes) if smoothed => own.columns = Some(slopes),
            Some(slopes) => own.groups = slopes,
            None => {}
        }
    }
    Ok(Some(twin))
}

/// The twin that rows lead to, the first `even` of which are evenly spaced.
fn expectation(mut rows: Vec<Row>, even: usize, levels: usize, may_feed_back: bool) -> Twin {
    let wholes: Vec<Piece> = rows.iter().map(Row::whole).collect();
    let power = wholes[..even].iter().map(|it| it.actual.rr).sum::<f64>() / even.max(1) as f64;
    let speaks = |whole: &Piece| whole.actual.rr > SILENT * power && whole.ss > 0.0;
    let of_even = || rows[..even].iter().zip(&wholes).filter(|(_, whole)| speaks(whole));
    let rounding = median(of_even().map(|(row, _)| row.shift.rms()).collect());
    let mut total = Shift::default();
    of_even().for_each(|(row, _)| total.add(&row.shift));
    let mean = total.mean();
    let mut groups = Slopes::default();
    of_even().for_each(|(row, _)| groups.add(&row.slopes));
    let mut codes = Codes::default();
    of_even().for_each(|(row, _)| codes.join(&row.codes));
    // Who rounds otherwise than to nearest uses all codes; who leaves them out has a coarser grid.
    let is_coarser = total.n >= CODES * levels as f64 && codes.are_sparse();
    let feedback = may_feed_back && rounding >= FEEDBACK && !is_coarser;
    let added = of_even().map(|(_, it)| (it.actual.ee - it.nearest.ee) / it.ss).collect();
    let added = if feedback { median(added).clamp(0.0, MOST) } else { 0.0 };

    let (mut sample, mut nearest) = (Both::default(), RunSums::default());
    let mut worst_piece = 0f64;
    for whole in &wholes[..even] {
        nearest.add(&whole.nearest);
        sample.add(&Both { actual: whole.actual, twin: with(&whole.nearest, added * whole.ss) });
    }
    let twins: Vec<RowTwin> = rows
        .iter_mut()
        .map(|row| {
            // Feedback passes errors on to where the steps are smaller.
            let is_whole = row.turned > HALF_TURNED;
            let own =
                if feedback && is_whole { unstructured(row).clamp(added, FARTHEST) } else { added };
            let noise = own * row.top * row.top;
            let pieces = std::mem::take(&mut row.pieces).into_iter();
            let pieces = pieces.map(|it| Both {
                actual: it.actual,
                twin: with(&it.nearest, noise * it.actual.n as f64),
            });
            let pieces: Vec<Both> = pieces.collect();
            let mut whole = Both::default();
            for piece in &pieces {
                whole.add(piece);
            }
            RowTwin { row: row.row, first: 0, whole, pieces }
        })
        .collect();
    for row in &twins[..even] {
        for piece in &row.pieces {
            worst_piece = worst_piece.max(piece.twin.rms());
        }
    }
    let mut speaking = wholes.iter().map(speaks);
    // Below, scales in half precision are subnormal, and off by more than codes can bear.
    let least = if may_feed_back { 0.0 } else { COARSE_SCALES };
    rows.retain(|row| speaking.next() == Some(true) && row.top >= least);
    let columns = None;
    let blocks = !may_feed_back;
    let own = Own { rounding, mean, levels, nearest, feedback, blocks, rows, groups, columns };
    Twin { sample, worst_piece, rows: twins, tuned: feedback, own: Some(own), ..Twin::default() }
}

/// What the displacement of a row adds to its noise beside what is in proportion to the reference, in its largest
/// squared steps.
fn unstructured(row: &Row) -> f64 {
    let shift = &row.shift;
    let along = if shift.rr > 0.0 { shift.dr * shift.dr / shift.rr } else { 0.0 };
    let power = shift.n * row.top * row.top;
    if power > 0.0 { (shift.dd - along).max(0.0) / power } else { 0.0 }
}

/// Sums with noise that has nothing to do with the reference.
fn with(sums: &RunSums, noise: f64) -> RunSums {
    RunSums { ee: sums.ee + noise, xx: sums.xx + noise, ..*sums }
}

/// The middle value; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
