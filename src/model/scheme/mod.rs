/*!
Quantization schemes of safetensors checkpoints: from stored planes to logical weights.

A layer between container and codec. The container lists what is stored; here the planes that make up
a weight (codes, scales, zero points, indices) are found by their suffixes, types and shapes, checked
against each other, and joined into one tensor under the name that the full-precision checkpoint
uses. Configuration files beside the weights settle what the planes leave open, nothing more. One
table ([`SCHEMES`]) lists the schemes; one file a family says how each is laid out.
*/

mod affine;
mod align;
mod aqlm;
mod arrange;
mod awq;
mod bitsandbytes;
mod book;
mod check;
mod codes;
mod comfy;
mod config;
mod cut;
mod detect;
mod exl2;
mod exl3;
mod fold;
mod fold_search;
mod fp4;
mod fp8;
mod gptq;
mod grid;
mod group;
mod hqq;
mod inputs;
mod int8;
mod joined;
mod laid;
mod layout;
mod loose;
mod marlin;
mod mlx;
mod packed;
mod piece;
mod planes;
mod quanto;
mod quark;
mod refused;
mod sound;
mod sparse24;
mod table;
mod ternary;
mod torchao;
mod unpack;
mod vptq;

pub use align::align;
pub(super) use book::Loaded;
pub(super) use check::scales as check_scales;
pub use detect::join;
pub use fold::{Fold, Producer, Rename, folds_by_tensor, unfold};
pub use fold_search::{declared, folds, into_norms};
pub use inputs::leave_out_silent;
pub use loose::markdown_table as loose_table;
pub use table::{SCHEMES, Scheme, knows_qtype, markdown_table};
