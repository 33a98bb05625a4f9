/*!
Metrics against exact arithmetic: sums of products of f32 are integers times a power of two, and are
added up here without any rounding.
*/

use crate::program::*;

/// Exponent of the least product of two f32.
const LEAST: i32 = -298;

/// A sum of products of f32, exactly: limbs of 32 bits, lowest first, carries left for the end.
#[derive(Clone)]
struct Exact([i128; 24]);

/// An f32 as an integer and a power of two.
fn parts(value: f32) -> (i128, i32) {
    let bits = value.to_bits();
    let (exponent, fraction) = ((bits >> 23 & 0xFF) as i32, i128::from(bits & 0x7F_FFFF));
    let (mantissa, exponent) =
        if exponent == 0 { (fraction, -149) } else { (fraction | 0x80_0000, exponent - 150) };
    (if bits >> 31 == 1 { -mantissa } else { mantissa }, exponent)
}

impl Exact {
    fn of(a: &[f32], b: &[f32]) -> Self {
        let mut limbs = [0i128; 24];
        for (&a, &b) in a.iter().zip(b) {
            let ((a, x), (b, y)) = (parts(a), parts(b));
            let shift = (x + y - LEAST) as usize;
            limbs[shift / 32] += (a * b) << (shift % 32);
        }
        Self(limbs)
    }

    /// self + factor · other.
    fn plus(mut self, factor: i128, other: &Self) -> Self {
        for (limb, other) in self.0.iter_mut().zip(other.0) {
            *limb += factor * other;
        }
        self
    }

    /// The nearest f64, or one beside it.
    fn value(&self) -> f64 {
        let mut limbs = self.0;
        for i in 0..limbs.len() - 1 {
            let carry = limbs[i] >> 32;
            limbs[i] -= carry << 32;
            limbs[i + 1] += carry;
        }
        if limbs[23] < 0 {
            return -Self(self.0.map(|limb| -limb)).value();
        }
        let Some(top) = limbs.iter().rposition(|&limb| limb != 0) else { return 0.0 };
        let mut value = 0.0;
        for i in (top.saturating_sub(4)..=top).rev() {
            value += limbs[i] as f64 * 2f64.powi(i as i32 * 32 + LEAST);
        }
        value
    }
}

fn close(ours: f64, exact: f64, absolute: f64, what: &str) {
    let off = (ours - exact).abs();
    assert!(off <= 1e-12 * exact.abs() + absolute, "{what}: {ours:e} is not {exact:e}");
}

fn check(what: &str, r: &[f32], q: &[f32]) {
    let suite = Suite::new();
    let shape: &[u64] = &[r.len() as u64];
    suite.models(&[("t", "F32", shape, f32s(r))], &[("t", "F32", shape, f32s(q))]);
    let diff = |threads: &str| {
        let arguments = [
            "diff",
            "r.safetensors",
            "q.safetensors",
            "--json",
            "--no-threshold",
            "--threads",
            threads,
        ];
        suite.qualm(&arguments).exits(0)
    };
    let ran = diff("1");
    assert_eq!(ran.out, diff("5").out, "{what}: the number of threads changes a bit");
    let row = &ran.json()["tensors"][0];
    let ours = |metric: &str| row[metric].as_f64().unwrap_or(f64::NAN);
    let (rr, qq, rq) = (Exact::of(r, r), Exact::of(q, q), Exact::of(r, q));
    let ee = qq.clone().plus(1, &rr).plus(-2, &rq).value();
    let (rr, qq, rq) = (rr.value(), qq.value(), rq.value());
    let n = r.len() as f64;
    close(ours("rmse"), (ee / n).sqrt(), 0.0, &format!("{what} rmse"));
    close(ours("rel_rmse"), (ee / rr).sqrt(), 0.0, &format!("{what} rel_rmse"));
    close(ours("gain"), (qq / rr).sqrt(), 0.0, &format!("{what} gain"));
    // Decibels are a logarithm: a relative error of the ratio is an absolute one of theirs.
    close(ours("sqnr_db"), 10.0 * (rr / ee).log10(), 1e-11, &format!("{what} sqnr_db"));
    let max =
        r.iter().zip(q).map(|(r, q)| (f64::from(*q) - f64::from(*r)).abs()).fold(0.0, f64::max);
    close(ours("max_abs"), max, 0.0, &format!("{what} max_abs"));
    let cosine = rq / (rr.sqrt() * qq.sqrt());
    close(ours("cosine"), cosine, 0.0, &format!("{what} cosine"));
}

#[test]
fn metrics_are_right_to_twelve_digits() {
    let mut random = Random(41);
    let r = random.normals(1 << 18);
    let rounded: Vec<f32> = r.iter().map(|value| (value * 16.0).round() / 16.0).collect();
    check("rounding", &r, &rounded);
    let near: Vec<f32> = r.iter().map(|value| f32::from_bits(value.to_bits() ^ 1)).collect();
    check("errors in the last bit", &r, &near);
    check("unrelated", &r, &random.normals(1 << 18));
    check("odd length", &r[..100_003], &rounded[..100_003]);
    check("one value", &[3.0], &[2.5]);
    let offset: Vec<f32> = r.iter().map(|value| value + 1e4).collect();
    let shifted: Vec<f32> = offset.iter().map(|value| value + 0.125).collect();
    check("far from zero", &offset, &shifted);
    let wild: Vec<f32> = r
        .iter()
        .enumerate()
        .map(|(i, value)| value * 10f32.powi((i * 7919 % 76) as i32 - 38))
        .collect();
    let halved: Vec<f32> = wild.iter().map(|value| value * 0.75).collect();
    check("magnitudes from 1e-38 to 1e38", &wild, &halved);
    let tiny: Vec<f32> = (0..70_000u32).map(|i| f32::from_bits(i * 113 % 0x7F_FFFF)).collect();
    let other: Vec<f32> = tiny.iter().map(|value| f32::from_bits(value.to_bits() / 2)).collect();
    check("subnormals", &tiny, &other);
    let mut spiked = r.clone();
    let mut spiked_too = rounded.clone();
    for (i, value) in [(0, 3e38), (1, -3e38), (70_000, 1e30), (200_000, -1e30)] {
        spiked[i] = value;
        spiked_too[i] = value;
    }
    check("errors beside spikes", &spiked, &spiked_too);
    let alternating: Vec<f32> =
        (0..100_000).map(|i| if i % 2 == 0 { 1e6 } else { -1e6 } + (i % 13) as f32).collect();
    let flat: Vec<f32> = (0..100_000).map(|i| 1e6 + (i % 7) as f32).collect();
    check("products that cancel", &alternating, &flat);
    let mut turned: Vec<f32> = r.chunks(2).flat_map(|pair| [pair[1], -pair[0]]).collect();
    check("orthogonal", &r, &turned);
    turned[77] *= 1.0 + f32::EPSILON;
    check("orthogonal but for one last digit", &r, &turned);
}
