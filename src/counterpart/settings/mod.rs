/*!
The configuration as a contract: what the metadata of a GGUF file says, against what the checkpoint's
`config.json` and its tokenizer's files say.

What follows from which key is data, `settings.toml`; this room reads it, compares, and says where both differ.
Where one side does not say a thing, nothing is said.
*/

mod compare;
mod look_up;
mod table;
mod tokenizer;
mod tokens;

pub use compare::{Compared, compare};

#[cfg(test)]
mod tests;
