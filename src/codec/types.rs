/*!
The one table of tensor types: every element or block type that a weight file can hold.

Readers look types up by their id or name, `inspect` and the reports print the names, the docs list
the rows, and the tests iterate over them. Adding a type is one variant, one row, and its codec.
This table is vocabulary: every room may know it.
*/

use std::fmt::{self, Write as _};

use super::float;
use super::ggml::{
    encode_float, encode_iq1, encode_iq2, encode_iq3, encode_iq4, encode_k, encode_legacy,
    encode_micro, encode_ternary, iq, k, legacy, micro, ternary,
};
use super::ik;
use super::rows::{DecodeRowsFn, Frame, RowCodec};

/// How the values of a type are to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Floating point; takes part in every metric.
    Float,
    /// Blocks of codes with scales; takes part in every metric.
    Quantized,
    /// Integers and booleans: two tensors are equal bit for bit, or they differ.
    Exact,
}

/// Decodes whole blocks: `blocks.len() / block_bytes * block_len == values.len()`.
///
/// Non-finite scales are values, not errors: they decode to what the arithmetic gives.
pub type DecodeFn = fn(blocks: &[u8], values: &mut [f32]);

/// Encodes a flat run of whole blocks; each block stands for itself.
pub type EncodeFn = fn(values: &[f32], blocks: &mut [u8]);

/// Encodes whole rows of `column_weights.len()` values with an importance matrix, as
/// `ggml_quantize_chunk` does.
pub type EncodeWeightedFn = fn(values: &[f32], column_weights: &[f32], blocks: &mut [u8]);

/// One row of the table.
pub struct TypeInfo {
    /// The type itself, to walk from a row back to the variant.
    pub ty: TensorType,
    /// Canonical name, as printed everywhere: `Q4_K`, `BF16`, `F8_E4M3`.
    pub name: &'static str,
    /// ggml's own spelling (`q4_K`), as `llama-quantize-stats` prints it.
    pub ggml_name: Option<&'static str>,
    /// Type id in a GGUF file.
    pub ggml_id: Option<u32>,
    /// `dtype` string in a safetensors header.
    pub safetensors: Option<&'static str>,
    /// How values are compared.
    pub class: Class,
    /// Elements in a block.
    pub block_len: usize,
    /// Bytes in a block; of one row's, where the blocks of several are merged.
    pub block_bytes: usize,
    /// Blocks to values; `None` for types that only compare bitwise.
    pub decode: Option<DecodeFn>,
    /// Values to blocks, by the reference quantizer.
    pub encode: Option<EncodeFn>,
    /// Values to blocks, as `ggml_quantize_chunk` does without an importance matrix. `None` with an
    /// encoder of the weighted kind: the type requires a matrix. Alone, it is as good as the library's,
    /// but has not its bits.
    pub encode_chunk: Option<EncodeFn>,
    /// Values to blocks, as `ggml_quantize_chunk` does with an importance matrix. `None` with an
    /// encoder of the chunk kind: a matrix makes no difference.
    pub encode_weighted: Option<EncodeWeightedFn>,
    /// For a type whose rows have a form of their own, how they are read and written; it has none of
    /// the functions above, and its size follows from the shape: see [`super::rows`].
    pub rows: Option<RowCodec>,
}

macro_rules! one_or_none {
    () => {
        None
    };
    ($some:expr) => {
        Some($some)
    };
}

macro_rules! types {
    ($($variant:ident $name:literal $ggml_name:expr, $id:expr, $st:expr, $class:ident,
        $len:literal / $bytes:literal, $decode:expr, $encode:expr, $chunk:expr, $weighted:expr
        $(, $rows:expr)?;)*) => {
        /// An element or block type that a weight file can hold.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(non_camel_case_types, missing_docs)]
        pub enum TensorType { $($variant),* }

        /// Every type, in the order of [`TensorType`]'s variants.
        pub static TYPES: &[TypeInfo] = &[$(TypeInfo {
            ty: TensorType::$variant,
            name: $name,
            ggml_name: $ggml_name,
            ggml_id: $id,
            safetensors: $st,
            class: Class::$class,
            block_len: $len,
            block_bytes: $bytes,
            decode: $decode,
            encode: $encode,
            encode_chunk: $chunk,
            encode_weighted: $weighted,
            rows: one_or_none!($($rows)?),
        }),*];
    };
}

// variant, name, ggml name, ggml id, safetensors dtype, class, block elements / block bytes,
// decode, encode: reference quantizer, chunk quantizer, chunk quantizer with importance matrix;
// for types whose rows have a form of their own, what reads and writes them.
types! {
    F32 "F32" Some("f32"), Some(0), Some("F32"), Float, 1 / 4, Some(float::f32), None, None, None;
    F16 "F16" Some("f16"), Some(1), Some("F16"), Float, 1 / 2, Some(float::f16), Some(encode_float::f16), Some(encode_float::f16), None;
    BF16 "BF16" Some("bf16"), Some(30), Some("BF16"), Float, 1 / 2, Some(float::bf16), Some(encode_float::bf16), Some(encode_float::bf16), None;
    F64 "F64" Some("f64"), Some(28), Some("F64"), Float, 1 / 8, Some(float::f64), None, None, None;
    F8_E4M3 "F8_E4M3" None, None, Some("F8_E4M3"), Float, 1 / 1, Some(float::e4m3), None, None, None;
    F8_E5M2 "F8_E5M2" None, None, Some("F8_E5M2"), Float, 1 / 1, Some(float::e5m2), None, None, None;
    F8_E4M3FNUZ "F8_E4M3FNUZ" None, None, Some("F8_E4M3FNUZ"), Float, 1 / 1, Some(float::e4m3fnuz), None, None, None;
    F8_E5M2FNUZ "F8_E5M2FNUZ" None, None, Some("F8_E5M2FNUZ"), Float, 1 / 1, Some(float::e5m2fnuz), None, None, None;
    F8_E8M0 "F8_E8M0" None, None, Some("F8_E8M0"), Float, 1 / 1, Some(float::e8m0), None, None, None;
    F4 "F4" None, None, Some("F4"), Float, 2 / 1, Some(float::e2m1), None, None, None;
    F6_E2M3 "F6_E2M3" None, None, Some("F6_E2M3"), Float, 4 / 3, None, None, None, None;
    F6_E3M2 "F6_E3M2" None, None, Some("F6_E3M2"), Float, 4 / 3, None, None, None, None;
    BOOL "BOOL" None, None, Some("BOOL"), Exact, 1 / 1, None, None, None, None;
    U8 "U8" None, None, Some("U8"), Exact, 1 / 1, None, None, None, None;
    I8 "I8" Some("i8"), Some(24), Some("I8"), Exact, 1 / 1, None, None, None, None;
    U16 "U16" None, None, Some("U16"), Exact, 1 / 2, None, None, None, None;
    I16 "I16" Some("i16"), Some(25), Some("I16"), Exact, 1 / 2, None, None, None, None;
    U32 "U32" None, None, Some("U32"), Exact, 1 / 4, None, None, None, None;
    I32 "I32" Some("i32"), Some(26), Some("I32"), Exact, 1 / 4, None, None, None, None;
    U64 "U64" None, None, Some("U64"), Exact, 1 / 8, None, None, None, None;
    I64 "I64" Some("i64"), Some(27), Some("I64"), Exact, 1 / 8, None, None, None, None;
    C64 "C64" None, None, Some("C64"), Exact, 1 / 8, None, None, None, None;
    Q4_0 "Q4_0" Some("q4_0"), Some(2), None, Quantized, 32 / 18, Some(legacy::q4_0), Some(encode_legacy::q4_0), Some(encode_legacy::q4_0), Some(encode_legacy::q4_0_weighted);
    Q4_1 "Q4_1" Some("q4_1"), Some(3), None, Quantized, 32 / 20, Some(legacy::q4_1), Some(encode_legacy::q4_1), Some(encode_legacy::q4_1), Some(encode_legacy::q4_1_weighted);
    Q5_0 "Q5_0" Some("q5_0"), Some(6), None, Quantized, 32 / 22, Some(legacy::q5_0), Some(encode_legacy::q5_0), Some(encode_legacy::q5_0), Some(encode_legacy::q5_0_weighted);
    Q5_1 "Q5_1" Some("q5_1"), Some(7), None, Quantized, 32 / 24, Some(legacy::q5_1), Some(encode_legacy::q5_1), Some(encode_legacy::q5_1), Some(encode_legacy::q5_1_weighted);
    Q8_0 "Q8_0" Some("q8_0"), Some(8), None, Quantized, 32 / 34, Some(legacy::q8_0), Some(encode_legacy::q8_0), Some(encode_legacy::q8_0), None;
    Q8_1 "Q8_1" Some("q8_1"), Some(9), None, Quantized, 32 / 36, Some(legacy::q8_1), None, None, None;
    Q2_K "Q2_K" Some("q2_K"), Some(10), None, Quantized, 256 / 84, Some(k::q2_k), Some(encode_k::q2_k), Some(encode_k::q2_k), Some(encode_k::q2_k_weighted);
    Q3_K "Q3_K" Some("q3_K"), Some(11), None, Quantized, 256 / 110, Some(k::q3_k), Some(encode_k::q3_k), Some(encode_k::q3_k), Some(encode_k::q3_k_weighted);
    Q4_K "Q4_K" Some("q4_K"), Some(12), None, Quantized, 256 / 144, Some(k::q4_k), Some(encode_k::q4_k), Some(encode_k::q4_k), Some(encode_k::q4_k_weighted);
    Q5_K "Q5_K" Some("q5_K"), Some(13), None, Quantized, 256 / 176, Some(k::q5_k), Some(encode_k::q5_k), Some(encode_k::q5_k), Some(encode_k::q5_k_weighted);
    Q6_K "Q6_K" Some("q6_K"), Some(14), None, Quantized, 256 / 210, Some(k::q6_k), Some(encode_k::q6_k), Some(encode_k::q6_k), Some(encode_k::q6_k_weighted);
    Q8_K "Q8_K" Some("q8_K"), Some(15), None, Quantized, 256 / 292, Some(k::q8_k), None, None, None;
    IQ2_XXS "IQ2_XXS" Some("iq2_xxs"), Some(16), None, Quantized, 256 / 66, Some(iq::iq2_xxs), None, None, Some(encode_iq2::iq2_xxs_weighted);
    IQ2_XS "IQ2_XS" Some("iq2_xs"), Some(17), None, Quantized, 256 / 74, Some(iq::iq2_xs), None, None, Some(encode_iq2::iq2_xs_weighted);
    IQ3_XXS "IQ3_XXS" Some("iq3_xxs"), Some(18), None, Quantized, 256 / 98, Some(iq::iq3_xxs), Some(encode_iq3::iq3_xxs), Some(encode_iq3::iq3_xxs), Some(encode_iq3::iq3_xxs_weighted);
    IQ1_S "IQ1_S" Some("iq1_s"), Some(19), None, Quantized, 256 / 50, Some(iq::iq1_s), None, None, Some(encode_iq1::iq1_s_weighted);
    IQ4_NL "IQ4_NL" Some("iq4_nl"), Some(20), None, Quantized, 32 / 18, Some(legacy::iq4_nl), Some(encode_iq4::iq4_nl), Some(encode_iq4::iq4_nl_chunk), Some(encode_iq4::iq4_nl_weighted);
    IQ3_S "IQ3_S" Some("iq3_s"), Some(21), None, Quantized, 256 / 110, Some(iq::iq3_s), Some(encode_iq3::iq3_s), Some(encode_iq3::iq3_s), Some(encode_iq3::iq3_s_weighted);
    IQ2_S "IQ2_S" Some("iq2_s"), Some(22), None, Quantized, 256 / 82, Some(iq::iq2_s), Some(encode_iq2::iq2_s), Some(encode_iq2::iq2_s), Some(encode_iq2::iq2_s_weighted);
    IQ4_XS "IQ4_XS" Some("iq4_xs"), Some(23), None, Quantized, 256 / 136, Some(iq::iq4_xs), Some(encode_iq4::iq4_xs), Some(encode_iq4::iq4_xs), Some(encode_iq4::iq4_xs_weighted);
    IQ1_M "IQ1_M" Some("iq1_m"), Some(29), None, Quantized, 256 / 56, Some(iq::iq1_m), None, Some(encode_iq1::iq1_m_chunk), Some(encode_iq1::iq1_m_weighted);
    TQ1_0 "TQ1_0" Some("tq1_0"), Some(34), None, Quantized, 256 / 54, Some(ternary::tq1_0), Some(encode_ternary::tq1_0), Some(encode_ternary::tq1_0), None;
    TQ2_0 "TQ2_0" Some("tq2_0"), Some(35), None, Quantized, 256 / 66, Some(ternary::tq2_0), Some(encode_ternary::tq2_0), Some(encode_ternary::tq2_0), None;
    MXFP4 "MXFP4" Some("mxfp4"), Some(39), None, Quantized, 32 / 17, Some(micro::mxfp4), Some(encode_micro::mxfp4), Some(encode_micro::mxfp4), None;
    NVFP4 "NVFP4" Some("nvfp4"), Some(40), None, Quantized, 64 / 36, Some(micro::nvfp4), Some(encode_micro::nvfp4), Some(encode_micro::nvfp4), None;
    Q1_0 "Q1_0" Some("q1_0"), Some(41), None, Quantized, 128 / 18, Some(ternary::q1_0), Some(encode_ternary::q1_0), Some(encode_ternary::q1_0), None;
    Q2_0 "Q2_0" Some("q2_0"), Some(42), None, Quantized, 64 / 18, Some(ternary::q2_0), Some(encode_ternary::q2_0), Some(encode_ternary::q2_0), None;
    I2_S "I2_S" Some("i2_s"), Some(36), None, Quantized, 128 / 32, None, None, None, None, RowCodec { frame: Frame::Whole { tail: 32 }, decode: ik::plain::i2_s, encode: Some(ik::encode_plain::i2_s), same_bits: false, base: None };
    Q6_0 "Q6_0" Some("q6_0"), Some(133), None, Quantized, 32 / 26, Some(ik::k::q6_0), None, Some(ik::encode_plain::q6_0), None;
    IQ1_BN "IQ1_BN" Some("iq1_bn"), Some(134), None, Quantized, 64 / 13, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 1, meta: 2 }, decode: ik::plain::iq1_bn, encode: Some(ik::encode_plain::iq1_bn), same_bits: true, base: None };
    IQ2_BN "IQ2_BN" Some("iq2_bn"), Some(135), None, Quantized, 64 / 16, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 1, meta: 4 }, decode: ik::plain::iq2_bn, encode: Some(ik::encode_plain::iq2_bn), same_bits: true, base: None };
    IQ2_K "IQ2_K" Some("iq2_k"), Some(137), None, Quantized, 256 / 76, Some(ik::k::iq2_k), None, Some(ik::encode_tables::iq2_k), None;
    IQ3_K "IQ3_K" Some("iq3_k"), Some(138), None, Quantized, 256 / 110, Some(ik::k::iq3_k), None, Some(ik::encode_tables::iq3_k), None;
    IQ4_K "IQ4_K" Some("iq4_k"), Some(139), None, Quantized, 256 / 144, Some(ik::k::iq4_k), Some(ik::encode_tables::iq4_k), Some(ik::encode_tables::iq4_k), Some(ik::encode_tables::iq4_k_weighted);
    IQ5_K "IQ5_K" Some("iq5_k"), Some(140), None, Quantized, 256 / 176, Some(ik::k::iq5_k), Some(ik::encode_tables::iq5_k), Some(ik::encode_tables::iq5_k), Some(ik::encode_tables::iq5_k_weighted);
    IQ6_K "IQ6_K" Some("iq6_k"), Some(141), None, Quantized, 256 / 212, Some(ik::k::iq6_k), Some(ik::encode_tables::iq6_k), Some(ik::encode_tables::iq6_k), Some(ik::encode_tables::iq6_k_weighted);
    IQ4_KS "IQ4_KS" Some("iq4_ks"), Some(144), None, Quantized, 256 / 136, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 1, meta: 4 }, decode: ik::ks::iq4_ks, encode: Some(ik::encode_tables::iq4_ks), same_bits: true, base: None };
    IQ2_KS "IQ2_KS" Some("iq2_ks"), Some(145), None, Quantized, 256 / 70, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 1, meta: 2 }, decode: ik::ks::iq2_ks, encode: Some(ik::encode_tables::iq2_ks), same_bits: false, base: None };
    IQ4_KSS "IQ4_KSS" Some("iq4_kss"), Some(146), None, Quantized, 256 / 128, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 1, meta: 4 }, decode: ik::ks::iq4_kss, encode: Some(ik::encode_tables::iq4_kss), same_bits: false, base: None };
    Q8_KV "Q8_KV" Some("q8_KV"), Some(151), None, Quantized, 32 / 32, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 1, meta: 8 }, decode: ik::plain::q8_kv, encode: Some(ik::encode_plain::q8_kv), same_bits: true, base: None };
    IQ5_KS "IQ5_KS" Some("iq5_ks"), Some(152), None, Quantized, 256 / 168, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 1, meta: 4 }, decode: ik::ks::iq5_ks, encode: Some(ik::encode_tables::iq5_ks), same_bits: true, base: None };
    IQ2_KT "IQ2_KT" Some("iq2_kt"), Some(153), None, Quantized, 256 / 68, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 1, meta: 4 }, decode: ik::kt::iq2_kt, encode: Some(ik::encode_kt::iq2_kt), same_bits: false, base: None };
    IQ3_KT "IQ3_KT" Some("iq3_kt"), Some(154), None, Quantized, 256 / 100, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 1, meta: 4 }, decode: ik::kt::iq3_kt, encode: Some(ik::encode_kt::iq3_kt), same_bits: false, base: None };
    IQ4_KT "IQ4_KT" Some("iq4_kt"), Some(155), None, Quantized, 256 / 128, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 1, meta: 4 }, decode: ik::kt::iq4_kt, encode: Some(ik::encode_kt::iq4_kt), same_bits: false, base: None };
    IQ3_KS "IQ3_KS" Some("iq3_ks"), Some(156), None, Quantized, 256 / 102, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 1, meta: 2 }, decode: ik::ks::iq3_ks, encode: Some(ik::encode_tables::iq3_ks), same_bits: false, base: None };
    IQ2_KL "IQ2_KL" Some("iq2_kl"), Some(157), None, Quantized, 256 / 86, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 1, meta: 2 }, decode: ik::ks::iq2_kl, encode: Some(ik::encode_tables::iq2_kl), same_bits: false, base: None };
    IQ1_KT "IQ1_KT" Some("iq1_kt"), Some(158), None, Quantized, 256 / 56, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 1, meta: 4 }, decode: ik::kt::iq1_kt, encode: Some(ik::encode_kt::iq1_kt), same_bits: false, base: None };
    Q4_0_R8 "Q4_0_R8" Some("q4_0_r8"), Some(202), None, Quantized, 32 / 18, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 8, meta: 0 }, decode: ik::merged_linear::q4_0_r8, encode: None, same_bits: false, base: Some(TensorType::Q4_0) };
    Q5_0_R4 "Q5_0_R4" Some("q5_0_r4"), Some(206), None, Quantized, 32 / 22, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 0 }, decode: ik::merged_linear::q5_0_r4, encode: None, same_bits: false, base: Some(TensorType::Q5_0) };
    Q8_0_R8 "Q8_0_R8" Some("q8_0_r8"), Some(208), None, Quantized, 32 / 34, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 8, meta: 0 }, decode: ik::merged_linear::q8_0_r8, encode: None, same_bits: false, base: Some(TensorType::Q8_0) };
    Q2_K_R4 "Q2_K_R4" Some("q2_k_r4"), Some(210), None, Quantized, 256 / 84, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 0 }, decode: ik::merged_linear::q2_k_r4, encode: None, same_bits: false, base: Some(TensorType::Q2_K) };
    Q3_K_R4 "Q3_K_R4" Some("q3_k_r4"), Some(211), None, Quantized, 256 / 110, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 0 }, decode: ik::merged_linear::q3_k_r4, encode: None, same_bits: false, base: Some(TensorType::Q3_K) };
    Q4_K_R4 "Q4_K_R4" Some("q4_k_r4"), Some(212), None, Quantized, 256 / 144, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 0 }, decode: ik::merged_linear::q4_k_r4, encode: None, same_bits: false, base: Some(TensorType::Q4_K) };
    Q5_K_R4 "Q5_K_R4" Some("q5_k_r4"), Some(213), None, Quantized, 256 / 176, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 0 }, decode: ik::merged_linear::q5_k_r4, encode: None, same_bits: false, base: Some(TensorType::Q5_K) };
    Q6_K_R4 "Q6_K_R4" Some("q6_k_r4"), Some(214), None, Quantized, 256 / 210, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 0 }, decode: ik::merged_linear::q6_k_r4, encode: None, same_bits: false, base: Some(TensorType::Q6_K) };
    IQ2_XXS_R4 "IQ2_XXS_R4" Some("iq2_xxs_r4"), Some(216), None, Quantized, 256 / 66, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 0 }, decode: ik::merged_grids::iq2_xxs_r4, encode: None, same_bits: false, base: Some(TensorType::IQ2_XXS) };
    IQ2_XS_R4 "IQ2_XS_R4" Some("iq2_xs_r4"), Some(217), None, Quantized, 256 / 74, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 0 }, decode: ik::merged_grids::iq2_xs_r4, encode: None, same_bits: false, base: Some(TensorType::IQ2_XS) };
    IQ3_XXS_R4 "IQ3_XXS_R4" Some("iq3_xxs_r4"), Some(218), None, Quantized, 256 / 98, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 0 }, decode: ik::merged_grids::iq3_xxs_r4, encode: None, same_bits: false, base: Some(TensorType::IQ3_XXS) };
    IQ1_S_R4 "IQ1_S_R4" Some("iq1_s_r4"), Some(219), None, Quantized, 32 / 6, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 2 }, decode: ik::merged_grids::iq1_s_r4, encode: Some(ik::encode_one_bit::iq1_s_r4), same_bits: false, base: None };
    IQ4_NL_R4 "IQ4_NL_R4" Some("iq4_nl_r4"), Some(220), None, Quantized, 32 / 18, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 0 }, decode: ik::merged_tables::iq4_nl_r4, encode: None, same_bits: false, base: Some(TensorType::IQ4_NL) };
    IQ3_S_R4 "IQ3_S_R4" Some("iq3_s_r4"), Some(221), None, Quantized, 256 / 110, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 0 }, decode: ik::merged_grids::iq3_s_r4, encode: None, same_bits: false, base: Some(TensorType::IQ3_S) };
    IQ2_S_R4 "IQ2_S_R4" Some("iq2_s_r4"), Some(222), None, Quantized, 256 / 82, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 0 }, decode: ik::merged_grids::iq2_s_r4, encode: None, same_bits: false, base: Some(TensorType::IQ2_S) };
    IQ4_XS_R8 "IQ4_XS_R8" Some("iq4_xs_r8"), Some(223), None, Quantized, 256 / 136, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 8, meta: 0 }, decode: ik::merged_tables::iq4_xs_r8, encode: None, same_bits: false, base: Some(TensorType::IQ4_XS) };
    IQ1_M_R4 "IQ1_M_R4" Some("iq1_m_r4"), Some(229), None, Quantized, 32 / 7, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 2 }, decode: ik::merged_grids::iq1_m_r4, encode: Some(ik::encode_one_bit::iq1_m_r4), same_bits: false, base: None };
    BF16_R16 "BF16_R16" Some("bf16_r16"), Some(230), None, Float, 2 / 4, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 16, meta: 0 }, decode: ik::merged_linear::bf16_r16, encode: None, same_bits: false, base: Some(TensorType::BF16) };
    Q6_0_R4 "Q6_0_R4" Some("q6_0_r4"), Some(233), None, Quantized, 32 / 26, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 0 }, decode: ik::merged_linear::q6_0_r4, encode: None, same_bits: false, base: Some(TensorType::Q6_0) };
    IQ2_BN_R4 "IQ2_BN_R4" Some("iq2_bn_r4"), Some(335), None, Quantized, 64 / 16, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 4 }, decode: ik::plain::iq2_bn_r4, encode: None, same_bits: false, base: Some(TensorType::IQ2_BN) };
    IQ2_K_R4 "IQ2_K_R4" Some("iq2_k_r4"), Some(337), None, Quantized, 256 / 76, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 0 }, decode: ik::merged_tables::iq2_k_r4, encode: None, same_bits: false, base: Some(TensorType::IQ2_K) };
    IQ3_K_R4 "IQ3_K_R4" Some("iq3_k_r4"), Some(338), None, Quantized, 256 / 110, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 0 }, decode: ik::merged_tables::iq3_k_r4, encode: None, same_bits: false, base: Some(TensorType::IQ3_K) };
    IQ4_K_R4 "IQ4_K_R4" Some("iq4_k_r4"), Some(339), None, Quantized, 256 / 144, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 0 }, decode: ik::merged_tables::iq4_k_r4, encode: None, same_bits: false, base: Some(TensorType::IQ4_K) };
    IQ5_K_R4 "IQ5_K_R4" Some("iq5_k_r4"), Some(340), None, Quantized, 256 / 176, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 0 }, decode: ik::merged_tables::iq5_k_r4, encode: None, same_bits: false, base: Some(TensorType::IQ5_K) };
    IQ4_KS_R4 "IQ4_KS_R4" Some("iq4_ks_r4"), Some(344), None, Quantized, 256 / 136, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 4 }, decode: ik::merged_tables::iq4_ks_r4, encode: None, same_bits: false, base: Some(TensorType::IQ4_KS) };
    IQ5_KS_R4 "IQ5_KS_R4" Some("iq5_ks_r4"), Some(352), None, Quantized, 256 / 168, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 4, meta: 4 }, decode: ik::merged_tables::iq5_ks_r4, encode: None, same_bits: false, base: Some(TensorType::IQ5_KS) };
    MXFP4_R8 "MXFP4_R8" Some("mxfp4_r8"), Some(353), None, Quantized, 32 / 17, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 8, meta: 0 }, decode: ik::merged_linear::mxfp4_r8, encode: None, same_bits: false, base: Some(TensorType::MXFP4) };
    Q8_K_R16 "Q8_K_R16" Some("q8_k_r16"), Some(397), None, Quantized, 256 / 258, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 16, meta: 0 }, decode: ik::plain::q8_k_r16, encode: Some(ik::encode_plain::q8_k_r16), same_bits: true, base: None };
    Q8_KV_R8 "Q8_KV_R8" Some("q8_KV_r8"), Some(398), None, Quantized, 32 / 32, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 8, meta: 4 }, decode: ik::plain::q8_kv_r8, encode: None, same_bits: false, base: Some(TensorType::Q8_KV) };
    Q8_K_R8 "Q8_K_R8" Some("q8_k_r8"), Some(399), None, Quantized, 256 / 258, None, None, None, None, RowCodec { frame: Frame::Rows { rows: 8, meta: 0 }, decode: ik::plain::q8_k_r8, encode: Some(ik::encode_plain::q8_k_r8), same_bits: true, base: None };
}

/// The table as Markdown, for the documentation: types of GGUF files, then those that only
/// safetensors files have.
pub fn markdown_table() -> String {
    let mut text = String::from(
        "| type | GGUF id | safetensors | block | bits per weight | compared | quantizers |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in TYPES {
        let id = row.ggml_id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let mut block = match (row.block_len, row.block_bytes) {
            (1, bytes) => format!("{bytes} B"),
            (len, bytes) => format!("{len} in {bytes} B"),
        };
        match row.rows.map(|rows| rows.frame) {
            Some(Frame::Rows { rows, meta }) => {
                if meta > 0 {
                    let _ = write!(block, ", {meta} B a row");
                }
                if rows > 1 {
                    let _ = write!(block, ", {rows} rows merged");
                }
            }
            Some(Frame::Whole { tail }) => {
                let _ = write!(block, ", {tail} B behind all");
            }
            None => {}
        }
        let compared = match row.class {
            Class::Exact => "bit for bit",
            Class::Float | Class::Quantized if row.decode.is_none() && row.rows.is_none() => {
                "not decoded"
            }
            Class::Float | Class::Quantized => "as f32",
        };
        let by_rows = row.rows.and_then(|rows| rows.encode.map(|_| rows.same_bits));
        let is_equivalent = row.is_equivalent();
        let quantizers = [
            (row.encode.is_some() || by_rows == Some(true), "reference"),
            (by_rows == Some(false) || is_equivalent, "equivalent"),
            (row.encode_chunk.is_some() && !is_equivalent, "plain"),
            (row.encode_weighted.is_some(), "by importance"),
        ];
        let quantizers: Vec<&str> =
            quantizers.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
        let cells = [
            row.name.to_owned(),
            id,
            row.safetensors.unwrap_or("-").to_owned(),
            block,
            format!("{}", row.ty.bits_per_weight()),
            compared.to_owned(),
            if quantizers.is_empty() { "-".to_owned() } else { quantizers.join(", ") },
        ];
        text.extend(["| ", &cells.join(" | "), " |\n"]);
    }
    text
}

impl TypeInfo {
    /// Whether its blocks have a quantizer that is only as good as the library's.
    fn is_equivalent(&self) -> bool {
        self.encode_chunk.is_some() && self.encode.is_none() && self.encode_weighted.is_none()
    }
}

impl TensorType {
    /// The table row of this type.
    pub fn info(self) -> &'static TypeInfo {
        &TYPES[self as usize]
    }

    /// Canonical name (`Q4_K`).
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// Whether something here quantizes to the type with the bits of its library's reference quantizer.
    pub fn has_reference_quantizer(self) -> bool {
        let info = self.info();
        info.encode.is_some()
            || info.rows.is_some_and(|rows| rows.same_bits && rows.encode.is_some())
    }

    /// How rows were decoded before the type changed its meaning, in June 2025; none if it did not.
    pub fn former_rows(self) -> Option<DecodeRowsFn> {
        match self {
            Self::IQ2_KT => Some(ik::kt::former_iq2_kt),
            Self::IQ3_KT => Some(ik::kt::former_iq3_kt),
            Self::IQ4_KT => Some(ik::kt::former_iq4_kt),
            _ => None,
        }
    }

    /// Why there is no reference quantizer.
    pub fn why_no_reference(self) -> String {
        let info = self.info();
        match info.rows.and_then(|rows| rows.base) {
            Some(base) => format!("{self} merges rows of {base} and has its values"),
            None if info.class == Class::Exact => format!("{self} holds no weights"),
            None if info.encode_weighted.is_some() => {
                format!("{self} is only quantized with an importance matrix")
            }
            None if info.encode_chunk.is_some() || info.rows.is_some() => {
                format!("the quantizer of {self} here has not the bits of the library's")
            }
            None => format!("nothing here quantizes to {self}"),
        }
    }

    /// Finds a type by its id in a GGUF file.
    pub fn from_ggml_id(id: u32) -> Option<Self> {
        TYPES.iter().find(|row| row.ggml_id == Some(id)).map(|row| row.ty)
    }

    /// Finds a type by the `dtype` string of a safetensors header.
    pub fn from_safetensors(dtype: &str) -> Option<Self> {
        TYPES.iter().find(|row| row.safetensors == Some(dtype)).map(|row| row.ty)
    }

    /// Finds a type by name, without regard to case: `q4_k`, `Q4_K` and `q4_K` are one.
    pub fn from_name(name: &str) -> Option<Self> {
        TYPES.iter().find(|row| row.name.eq_ignore_ascii_case(name)).map(|row| row.ty)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
