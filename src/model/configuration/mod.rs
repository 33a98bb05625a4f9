/*!
What a checkpoint's configuration says about its quantization, against the planes that are stored.

Serving engines build a model from the configuration and pour the stored planes into it: where the two
disagree, an engine refuses to load, or computes with wrong numbers and does not say so. What engines
read, how they match module names, and what they do with what does not fit was read in the sources of
vLLM 0.33, `SGLang` 0.5.23, transformers 5.24, compressed-tensors 0.20, `ModelOpt` 0.47, Quark 0.13,
GPTQModel and mlx-lm 0.32 (November 2026). Only headers are read, and index and zero-point planes of
GPTQ up to a bounded size.
*/

mod coverage;
mod finding;
mod judge;
mod keys;
mod matching;
mod observe;
mod places;

pub use finding::{Code, ConfigFinding, Severity};
pub use judge::judge;
pub use places::Places;
