/*!
Lanes: one f32 operation on several independent groups at once.

The searches of [`super::encode_fit`] are written once over [`Lanes`]. An `f32` is one lane and gives
the definition; a vector type runs the same operations, in the same order, on as many groups as it
has lanes, so that no lane's bits change. Masks replace branches: both sides are computed, and a
lane keeps the one that its own comparison chose.
*/

use std::ops::{Add, BitAnd, Div, Mul, Neg, Sub};

use super::c_arithmetic::nearest_int;

/// One f32 of each of several groups.
pub(super) trait Lanes:
    Copy
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// One truth value a lane.
    type Mask: Copy + BitAnd<Output = Self::Mask>;

    /// How many groups.
    const COUNT: usize;

    /// The same value in each lane.
    fn splat(x: f32) -> Self;
    /// Lane k takes `values[k * stride]`.
    fn gather(values: &[f32], stride: usize) -> Self;
    /// Writes lane k to `out[k]`.
    fn store(self, out: &mut [f32]);
    /// Absolute value.
    fn abs(self) -> Self;
    /// Square root, correctly rounded.
    fn sqrt(self) -> Self;
    /// The nearest integer as `nearest_int` gives it, then at least `low` and at most `high`.
    fn nearest_within(self, low: i32, high: i32) -> Self;
    /// a < b; false for NaN.
    fn lt(self, other: Self) -> Self::Mask;
    /// a == b; false for NaN.
    fn eq(self, other: Self) -> Self::Mask;
    /// a != b; true for NaN.
    fn ne(self, other: Self) -> Self::Mask;
    /// not a < b; true for NaN.
    fn not_lt(self, other: Self) -> Self::Mask;
    /// `yes` where the mask holds, else `no`.
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;
    /// Whether any lane holds.
    fn any(mask: Self::Mask) -> bool;

    /// a > b; false for NaN.
    #[inline(always)]
    fn gt(self, other: Self) -> Self::Mask {
        other.lt(self)
    }
}

impl Lanes for f32 {
    type Mask = bool;

    const COUNT: usize = 1;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn gather(values: &[f32], _stride: usize) -> Self {
        values[0]
    }

    #[inline(always)]
    fn store(self, out: &mut [f32]) {
        out[0] = self;
    }

    #[inline(always)]
    fn abs(self) -> Self {
        f32::abs(self)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }

    #[inline(always)]
    fn nearest_within(self, low: i32, high: i32) -> Self {
        nearest_int(self).max(low).min(high) as f32
    }

    #[inline(always)]
    fn lt(self, other: Self) -> bool {
        self < other
    }

    #[inline(always)]
    fn eq(self, other: Self) -> bool {
        self == other
    }

    #[inline(always)]
    fn ne(self, other: Self) -> bool {
        self != other
    }

    #[inline(always)]
    fn not_lt(self, other: Self) -> bool {
        !self.lt(other)
    }

    #[inline(always)]
    fn select(mask: bool, yes: Self, no: Self) -> Self {
        if mask { yes } else { no }
    }

    #[inline(always)]
    fn any(mask: bool) -> bool {
        mask
    }
}

/// Element i of `V::COUNT` groups of `N` values that follow one another, for each i.
#[inline(always)]
pub(super) fn gather<V: Lanes, const N: usize>(groups: &[f32]) -> [V; N] {
    std::array::from_fn(|i| V::gather(&groups[i..], N))
}

/// The inverse of [`gather`] for levels, which are whole numbers from 0 to 255.
#[inline(always)]
pub(super) fn scatter<V: Lanes, const N: usize>(levels: &[V; N], groups: &mut [u8]) {
    let mut lanes = [0.0; 16];
    for (i, level) in levels.iter().enumerate() {
        level.store(&mut lanes);
        for (group, &level) in groups.chunks_exact_mut(N).zip(&lanes[..V::COUNT]) {
            group[i] = level as i32 as u8;
        }
    }
}

/// Defines a public encoder that runs a kernel generic over [`Lanes`] with the widest vectors that
/// the processor has.
macro_rules! encoder {
    ($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) = $kernel:ident) => {
        $(#[$doc])*
        pub fn $name($($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn wide($($arg: $ty),*) {
                    $kernel::<$crate::codec::ggml::encode_avx2::Eight>($($arg),*);
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has AVX2, as just detected.
                    return unsafe { wide($($arg),*) };
                }
            }
            $kernel::<f32>($($arg),*);
        }
    };
}
pub(super) use encoder;
