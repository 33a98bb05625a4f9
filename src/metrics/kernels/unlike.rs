/*!
Elements that a conversion does not explain: counted in groups without branches, which compilers turn
into vectors, once for each instruction set. All of it is exact or compared with room to spare, so
that no level changes a result; [`Rule::allows`] is the definition.
*/

use super::Values;
use super::widen::widen;
use crate::codec::simd::Level;
use crate::metrics::{Rule, Tally};

/// Elements of a group.
const GROUP: usize = 64;

/// The elements of a run that `rule` does not allow: how many, and the index of the first.
///
/// The rule is one for types no wider than f32. Takes as many values as the shorter side has.
pub fn unlike(level: Level, rule: &Rule, r: Values, q: Values) -> Tally {
    match level {
        // SAFETY: the instruction set is there.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if level.is_available() => unsafe { avx512(rule, r, q) },
        // SAFETY: the same.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 if level.is_available() => unsafe { avx2(rule, r, q) },
        _ => groups(rule, r, q),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn avx2(rule: &Rule, r: Values, q: Values) -> Tally {
    groups(rule, r, q)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn avx512(rule: &Rule, r: Values, q: Values) -> Tally {
    groups(rule, r, q)
}

#[inline(always)]
fn groups(rule: &Rule, r: Values, q: Values) -> Tally {
    let len = r.len().min(q.len());
    let mut tally = Tally::default();
    let (mut r_group, mut q_group) = ([0f32; GROUP], [0f32; GROUP]);
    let rule = if rule.needs_largest() { rule.for_run(largest(r, len)) } else { *rule };
    let bounds = rule.singles();
    for start in (0..len).step_by(GROUP) {
        let range = start..(start + GROUP).min(len);
        if range.len() < GROUP {
            (r_group, q_group) = ([0.0; GROUP], [0.0; GROUP]);
        }
        widen(r.slice(range.clone()), &mut r_group);
        widen(q.slice(range), &mut q_group);
        let mut count = 0u32;
        for (r, q) in r_group.iter().zip(&q_group) {
            count += u32::from(!allows(*r, *q, bounds));
        }
        if count > 0 {
            let of_group = r_group.iter().zip(&q_group);
            let first = of_group.into_iter().position(|(r, q)| !allows(*r, *q, bounds));
            let first = first.map(|at| (start + at) as u64);
            tally.join(&Tally { count: u64::from(count), first });
        }
    }
    tally
}

/// [`Rule::allows`] in single precision: the difference of neighbours is exact, and a difference that is
/// rounded is far from the bound.
#[inline(always)]
#[allow(clippy::needless_bitwise_bool, reason = "without a branch, so that vectors are made of it")]
fn allows(r: f32, q: f32, [ulp, least, normal, binades]: [f32; 4]) -> bool {
    let difference = (q - r).abs();
    let binade = f32::from_bits(r.to_bits() & 0x7F80_0000);
    let unit = binade * ulp;
    let unit = if unit > least { unit } else { least };
    let neighbour = (difference < unit) & ((q.abs() >= binade) | (binade < binades));
    (difference == 0.0) | neighbour | ((q == 0.0) & (r.abs() < normal))
}

/// The largest |r|; NaN is passed over.
#[inline(always)]
fn largest(r: Values, len: usize) -> f64 {
    let mut group = [0f32; GROUP];
    let mut lanes = [0f32; GROUP];
    for start in (0..len).step_by(GROUP) {
        let range = start..(start + GROUP).min(len);
        if range.len() < GROUP {
            group = [0.0; GROUP];
        }
        widen(r.slice(range), &mut group);
        for (lane, value) in lanes.iter_mut().zip(&group) {
            let value = value.abs();
            *lane = if value > *lane { value } else { *lane };
        }
    }
    f64::from(lanes.into_iter().fold(0.0, f32::max))
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::codec::TensorType;
    use crate::metrics::Origin;

    /// Bits that hit every exponent, neighbours of values, zeros and the odd NaN.
    fn material() -> (Vec<f32>, Vec<f32>) {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 32) as u32
        };
        let r: Vec<f32> = (0..5000)
            .map(|at| match at % 3 {
                0 => f32::from_bits(next()),
                1 => (next() % 1000) as f32 / 500.0 - 1.0,
                _ => f32::from_bits(next() & 0x8FFF_FFFF),
            })
            .collect();
        let q = r
            .iter()
            .map(|r| match next() % 4 {
                0 => bf16::from_f32(*r).to_f32(),
                1 => f32::from_bits(bf16::from_f32(*r).to_f32().to_bits() ^ (1 << 16)),
                2 => f16::from_f32(*r).to_f32(),
                _ => 0.0,
            })
            .collect();
        (r, q)
    }

    #[test]
    fn every_level_counts_what_the_definition_does_not_allow() {
        let (r, q) = material();
        let f32s: Vec<u8> = r.iter().flat_map(|v| v.to_le_bytes()).collect();
        let f16s: Vec<u8> = q.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        let bf16s: Vec<u8> = q.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
        let of_f16: Vec<f32> = q.iter().map(|v| f16::from_f32(*v).to_f32()).collect();
        let of_bf16: Vec<f32> = q.iter().map(|v| bf16::from_f32(*v).to_f32()).collect();
        for (to, stored, values) in [
            (TensorType::F16, Values::F16(&f16s), &of_f16),
            (TensorType::BF16, Values::BF16(&bf16s), &of_bf16),
            (TensorType::F8_E4M3, Values::Decoded(&q), &q),
        ] {
            for from in [Origin::Stored(TensorType::F32), Origin::Computed] {
                let rule = Rule::new(from, to, false).unwrap();
                let finite = r.iter().map(|r| f64::from(r.abs()));
                let largest = finite.filter(|r| !r.is_nan()).fold(0.0, f64::max);
                let of_run = if rule.needs_largest() { rule.for_run(largest) } else { rule };
                let bad: Vec<usize> = (0..r.len())
                    .filter(|&at| !of_run.allows(f64::from(r[at]), f64::from(values[at])))
                    .collect();
                let first = bad.first().map(|at| *at as u64);
                let expected = Tally { count: bad.len() as u64, first };
                for level in Level::ALL {
                    for reference in [Values::Decoded(&r), Values::F32(&f32s)] {
                        let found = unlike(level, &rule, reference, stored);
                        assert_eq!(found, expected, "{to}, {from:?}, {}", level.name());
                    }
                }
            }
        }
    }
}
