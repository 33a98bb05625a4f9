/*!
One place that chooses the instruction set that kernels run with.

A kernel is written once, over [`Isa`], and compiled for each [`Level`]; the processor is asked once
which of them it has. `QUALM_SIMD` overrides the choice. No level changes a result: products and
sums are the same IEEE operations in the same order (a multiplication is fused with an addition
where the scalar definition says so, and nowhere else), and `scalar` is the definition that tests
compare every other level with. The kernels of the metrics are chosen here as well.

On aarch64 the scalar kernels are vectorized by the compiler, for NEON, which is part of the base
instruction set there; level `neon` adds the instructions that it does not find.
*/

use std::cell::Cell;
use std::env;
use std::fmt;
use std::marker::PhantomData;
use std::sync::OnceLock;

#[cfg(target_arch = "aarch64")]
use super::isa::Neon;
#[cfg(target_arch = "x86_64")]
use super::isa::{Avx2, Avx512};
use super::isa::{Isa, Scalar};

/// The environment variable that overrides the choice: `scalar`, `neon`, `avx2` or `avx512`.
pub const VARIABLE: &str = "QUALM_SIMD";

/// A set of instructions that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What every processor of the architecture has.
    Scalar,
    /// aarch64, where NEON is part of the base instruction set.
    Neon,
    /// x86-64 with AVX2, FMA, F16C, BMI1, BMI2 and POPCNT.
    Avx2,
    /// The same and AVX-512 F, BW, DQ and VL.
    Avx512,
}

/// Why `QUALM_SIMD` cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// The value names no level.
    #[error(
        "{VARIABLE}={0:?} is not an instruction set: use scalar, neon, avx2 or avx512, or unset it"
    )]
    Unknown(String),
    /// The processor lacks the instructions.
    #[error("{VARIABLE}={0}: this processor does not have it; its best is {best}", best = Level::best())]
    Unavailable(Level),
}

impl Level {
    /// Every level of every architecture; of those that a processor has, the best last.
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Neon, Self::Avx2, Self::Avx512];

    /// Name as `QUALM_SIMD` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            Self::Neon => cfg!(target_arch = "aarch64"),
            Self::Avx2 => matches!(Self::best(), Self::Avx2 | Self::Avx512),
            Self::Avx512 => Self::best() == Self::Avx512,
        }
    }

    /// The best level that this processor has.
    pub fn best() -> Self {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(detect)
    }

    /// The level that a value of `QUALM_SIMD` asks for; unset and empty ask for the best one.
    fn from_setting(setting: Option<&str>) -> Result<Self, LevelError> {
        let Some(name) = setting.filter(|name| !name.is_empty()) else { return Ok(Self::best()) };
        let level = Self::ALL.into_iter().find(|level| level.name() == name);
        let level = level.ok_or_else(|| LevelError::Unknown(name.to_owned()))?;
        if level.is_available() { Ok(level) } else { Err(LevelError::Unavailable(level)) }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Level {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("popcnt");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512) {
        (true, true) => Level::Avx512,
        (true, false) => Level::Avx2,
        (false, _) => Level::Scalar,
    }
}

#[cfg(target_arch = "aarch64")]
fn detect() -> Level {
    Level::Neon
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detect() -> Level {
    Level::Scalar
}

/// The level that kernels run with: `QUALM_SIMD`, else the best one. Read once a process.
///
/// Kernels do not fail over a bad setting, they run with the best level; a program asks here
/// before it starts, and reports the error.
pub fn level() -> Result<Level, LevelError> {
    static LEVEL: OnceLock<Result<Level, LevelError>> = OnceLock::new();
    LEVEL
        .get_or_init(|| {
            let setting = env::var_os(VARIABLE);
            Level::from_setting(setting.as_deref().map(|name| name.to_string_lossy()).as_deref())
        })
        .clone()
}

thread_local! {
    static FORCED: Cell<Option<Level>> = const { Cell::new(None) };
}

/// Runs `work` with its kernels on this thread at a given level, for tests and benches.
///
/// # Panics
///
/// If the processor does not have that level.
pub fn with_level<T>(level: Level, work: impl FnOnce() -> T) -> T {
    /// Puts the old setting back, also when `work` panics.
    struct Restore(Option<Level>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORCED.set(self.0);
        }
    }
    assert!(level.is_available(), "this processor does not have {level}");
    let _restore = Restore(FORCED.replace(Some(level)));
    work()
}

/// The level for the next kernel on this thread; always an available one.
pub fn current() -> Level {
    FORCED.get().unwrap_or_else(|| level().unwrap_or_else(|_| Level::best()))
}

/// A computation that is compiled for every level. Mark `run` `#[inline(always)]`, and what it
/// calls: a function of its own would not be compiled for the level.
pub trait Kernel {
    /// What the computation gives.
    type Output;
    /// Runs the computation.
    fn run(self, isa: impl Isa) -> Self::Output;
}

/// Runs a kernel with the instruction set of this process (or of [`with_level`]).
pub fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    match current() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `current` gives available levels alone, so `detect` found these features.
        Level::Avx512 => unsafe { run_avx512(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 => unsafe { run_avx2(kernel) },
        #[cfg(target_arch = "aarch64")]
        Level::Neon => kernel.run(Neon),
        _ => kernel.run(Scalar),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c,bmi1,bmi2,popcnt")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2::new())
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c,bmi1,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::new())
}

/// Decodes one block of `BYTES` bytes and `LEN` elements with any instruction set.
pub(super) trait BlockDecoder<const BYTES: usize, const LEN: usize> {
    fn decode(isa: impl Isa, block: &[u8; BYTES], values: &mut [f32; LEN]);
}

/// The kernel that decodes whole blocks.
struct DecodeBlocks<'a, D, const BYTES: usize, const LEN: usize> {
    blocks: &'a [u8],
    values: &'a mut [f32],
    decoder: PhantomData<D>,
}

impl<D, const BYTES: usize, const LEN: usize> Kernel for DecodeBlocks<'_, D, BYTES, LEN>
where
    D: BlockDecoder<BYTES, LEN>,
{
    type Output = ();

    #[inline(always)]
    fn run(self, isa: impl Isa) {
        let (values, _) = self.values.as_chunks_mut();
        for (block, values) in self.blocks.as_chunks().0.iter().zip(values) {
            D::decode(isa, block, values);
        }
    }
}

/// Decodes whole blocks with the instruction set of this process.
pub(super) fn decode<D, const BYTES: usize, const LEN: usize>(blocks: &[u8], values: &mut [f32])
where
    D: BlockDecoder<BYTES, LEN>,
{
    dispatch(DecodeBlocks::<D, BYTES, LEN> { blocks, values, decoder: PhantomData });
}

/// Makes a [`DecodeFn`](super::types::DecodeFn) of each function that decodes one block.
macro_rules! decoders {
    ($($(#[$doc:meta])* $name:ident: $bytes:literal => $len:literal, $block:path;)*) => {$(
        $(#[$doc])*
        pub fn $name(blocks: &[u8], values: &mut [f32]) {
            struct Block;
            impl $crate::codec::simd::BlockDecoder<$bytes, $len> for Block {
                #[inline(always)]
                fn decode(isa: impl Isa, block: &[u8; $bytes], values: &mut [f32; $len]) {
                    $block(isa, block, values);
                }
            }
            $crate::codec::simd::decode::<Block, $bytes, $len>(blocks, values);
        }
    )*};
}
pub(super) use decoders;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_levels() {
        for (setting, expected, why) in [
            (None, Ok(Level::best()), "unset"),
            (Some(""), Ok(Level::best()), "empty is unset"),
            (Some("scalar"), Ok(Level::Scalar), "every processor has it"),
            (Some("AVX2"), Err(LevelError::Unknown("AVX2".into())), "names are lower case"),
            (Some("sse9"), Err(LevelError::Unknown("sse9".into())), "no such level"),
        ] {
            assert_eq!(Level::from_setting(setting), expected, "{why}");
        }
        for level in Level::ALL {
            let expected =
                if level.is_available() { Ok(level) } else { Err(LevelError::Unavailable(level)) };
            assert_eq!(Level::from_setting(Some(level.name())), expected);
        }
    }

    #[test]
    fn a_forced_level_ends_with_its_scope() {
        let before = current();
        with_level(Level::Scalar, || assert_eq!(current(), Level::Scalar));
        assert_eq!(current(), before);
        let panicked =
            std::panic::catch_unwind(|| with_level(Level::Scalar, || panic!("on purpose")));
        assert!(panicked.is_err());
        assert_eq!(current(), before);
    }
}
