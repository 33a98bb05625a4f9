/*!
A tensor in its place and at its scale that is still worse than its type: what it went through before.
*/

use super::bench::{Bench, Noise, sqnr};
use super::{Cause, Diagnosis};
use crate::codec::{Class, TensorType};
use crate::measure::Grid;
use crate::measure::twin::{quantize_like, through};

/// Rows that are put through every candidate.
const ROWS: usize = 8;

/// Types that models are stored in before they are quantized again.
const SOURCES: [TensorType; 15] = [
    TensorType::Q4_0,
    TensorType::Q4_K,
    TensorType::Q4_1,
    TensorType::Q5_K,
    TensorType::Q5_0,
    TensorType::Q5_1,
    TensorType::Q3_K,
    TensorType::Q2_K,
    TensorType::Q6_K,
    TensorType::Q8_0,
    TensorType::IQ4_NL,
    TensorType::IQ4_XS,
    TensorType::MXFP4,
    TensorType::NVFP4,
    TensorType::F8_E4M3,
];

/// Quantized to a coarser type first: repeating both steps gives these very values.
pub fn twice(bench: &Bench) -> Option<Diagnosis> {
    let step = bench.rows.len().div_ceil(ROWS);
    let rows: Vec<usize> = (0..bench.rows.len()).step_by(step).collect();
    let mut had = Noise::default();
    for &at in &rows {
        let (r, q) = bench.row(at);
        r.iter().zip(q).for_each(|(&r, &q)| had.add(f64::from(r), f64::from(q)));
    }
    // Rows that are as good as they get say nothing.
    if had.sqnr_db() > bench.expected - 0.7 {
        return None;
    }
    let own = bench.subject.q().qtype();
    let mut best: Option<(f64, TensorType)> = None;
    for ty in SOURCES.into_iter().filter(|ty| ty.name() != own) {
        let mut noise = Noise::default();
        let repeated = rows.iter().try_for_each(|&at| {
            let (r, q) = bench.row(at);
            let again = quantize_like(bench.subject.q(), bench.row_len, &through(ty, r)?)?;
            q.iter().zip(&again).for_each(|(&q, &x)| noise.add(f64::from(q), f64::from(x)));
            Some(())
        });
        let score = noise.sqnr_db();
        if repeated.is_some() && best.is_none_or(|(so_far, _)| score > so_far) {
            best = Some((score, ty));
        }
    }
    let (score, ty) = best?;
    // How well the type alone foretells the values is what a single step would reach.
    if score < had.sqnr_db() + 10.0 || score < bench.expected.min(30.0) {
        return None;
    }
    let all = if score > 100.0 {
        "exactly these values".to_owned()
    } else {
        format!("these values to {score:.1} dB")
    };
    let q = bench.subject.q().qtype();
    let why = format!("the reference taken through {ty} and then through {q} gives {all}");
    Some(Diagnosis::certain(Cause::RequantizedTwice, why))
}

/// Values beyond a limit were cut off at it.
pub fn clipped(bench: &Bench) -> Option<Diagnosis> {
    let limit = bench.q.iter().fold(0f32, |most, value| most.max(value.abs()));
    let (mut beyond, mut at_limit, mut inside) = (0u64, 0u64, Noise::default());
    for (&r, &q) in bench.r.iter().zip(&bench.q) {
        if r.abs() > limit * 1.05 {
            beyond += 1;
            at_limit += u64::from(q.abs() > limit * 0.9 && (q < 0.0) == (r < 0.0));
        } else if r.abs() < limit * 0.95 {
            inside.add(f64::from(r), f64::from(q));
        }
    }
    let score = inside.sqnr_db();
    (beyond >= 2 && at_limit * 10 >= beyond * 9 && bench.is_sound(score)).then(|| {
        let why = format!(
            "{beyond} values of the sample beyond {limit:.4} were cut off there; the rest has {score:.1} \
             dB, {:.1} expected",
            bench.expected
        );
        Diagnosis::certain(Cause::Clipped, why)
    })
}

/// A few columns are better than the type gives, and all others worse.
pub fn uneven_columns(bench: &Bench) -> Option<Diagnosis> {
    // No other tools have importance matrices.
    let is_ggml = matches!(Grid::of(bench.subject.q(), bench.row_len), Some(Grid::Blocks(_)));
    if !is_ggml || bench.rows.len() < 24 || bench.width < 64 {
        return None;
    }
    let (mut actual, mut twin) = (vec![0.0; bench.width], vec![0.0; bench.width]);
    let step = bench.rows.len().div_ceil(128);
    for at in (0..bench.rows.len()).step_by(step) {
        let (r, q) = bench.row(at);
        let plain = quantize_like(bench.subject.q(), bench.row_len, r)?;
        for column in 0..bench.width {
            let of = f64::from(r[column]);
            actual[column] += (f64::from(q[column]) - of).powi(2);
            twin[column] += (f64::from(plain[column]) - of).powi(2);
        }
    }
    let mut ratios: Vec<f64> =
        actual.iter().zip(&twin).map(|(a, b)| a / b.max(f64::MIN_POSITIVE)).collect();
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    let good = ratios.iter().filter(|ratio| **ratio < median / 4.0).count();
    (median > 1.3 && good * 100 >= bench.width && good * 4 <= bench.width).then(|| {
        let why = format!(
            "{good} of {} columns have less than a quarter of the error of the others, whose error is \
             {median:.1} times what plain quantization gives",
            bench.width
        );
        Diagnosis::likely(Cause::BadImatrix, why)
    })
}

/// Noise that is not of this type's making, everywhere alike: other weights.
pub fn other_weights(bench: &Bench) -> Option<Diagnosis> {
    let actual = bench.actual();
    let steady =
        bench.pairs().filter(|(r, _)| r.iter().any(|value| *value != 0.0)).all(|(r, q)| {
            let row = sqnr(r, q);
            row > actual - 8.0 && row < actual + 8.0
        });
    let fine = bench.expected >= actual + 6.0 && actual > 3.0;
    let precise = bench.subject.q().bits_per_weight().is_some_and(|bits| bits >= 5.0);
    // Values that repeat lie on a coarser grid, and so are no others' weights.
    let coarse = bench.subject.q().class() != Class::Float && repeats(bench);
    (steady && fine && precise && !coarse && bench.rows.len() > 1).then(|| {
        let why = format!(
            "all rows alike differ from the reference by more than {} would ({actual:.1} dB, {:.1} expected), \
             and no coarser grid explains it",
            bench.subject.q().qtype(),
            bench.expected
        );
        Diagnosis::likely(Cause::OtherCheckpoint, why)
    })
}

/// Do the values of a row take far fewer levels than the type has?
fn repeats(bench: &Bench) -> bool {
    let levels = |values: &[f32]| {
        let mut bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
        bits.sort_unstable();
        bits.dedup();
        bits.len()
    };
    let (r, q) = bench.row(bench.rows.len() / 2);
    let Some(twin) = quantize_like(bench.subject.q(), bench.row_len, r) else { return true };
    levels(q) * 3 < levels(&twin) * 2
}
