/*!
The types of `ik_llama.cpp`, a fork of llama.cpp, beyond those that it shares with ggml: one file a
family, the value tables in [`values`].

Some have blocks that stand alone, as ggml's do; most have a scale in front of each row, or merge the
blocks of several rows (`_R4`, `_R8`, `_R16`), or both: see [`super::rows`]. Decoders give the bits of
that project's scalar `to_float`, products in the order that the formulas are written in; where that
function and the files disagree, the file's meaning counts: the scale of `IQ1_BN` and `IQ2_BN` multiplies,
and `MXFP4_R8` and `BF16_R16` are taken apart as they were put together.
*/

mod cells;
mod encode_fit;
pub mod encode_kt;
pub mod encode_one_bit;
pub mod encode_plain;
pub mod encode_tables;
mod encode_tries;
pub mod k;
pub mod ks;
pub mod kt;
mod merged;
pub mod merged_grids;
pub mod merged_linear;
pub mod merged_tables;
pub mod plain;
mod tables;
pub mod values;

use tables::{five_bits, four_bits, three_bits, two_bits};
