/*!
A path to a directory of tensors: name, type, shape, byte ranges. One file a container.

This room knows where the bytes of a tensor lie and that they are in bounds: a [`Model`] that exists
can be read without further checks. What the bytes mean is `codec/`'s to say.
*/

mod backing;
mod checkpoint;
pub mod configuration;
mod directory;
mod edit;
mod error;
mod file;
mod gguf;
mod handles;
pub mod imatrix;
mod index;
mod own_grid;
pub mod place;
mod reads;
mod safetensors;
pub mod scheme;
mod tensor;
pub mod view;

pub use checkpoint::{from_bytes, open, strings};
pub use edit::{Change, Edit};
pub use error::{FileFault, ModelError, ReadError};
pub use file::{SourceFile, hex};
pub use own_grid::{OwnGrid, Rounding};
pub use tensor::{
    Extent, Format, Grid, GridRole, Model, ModelFinding, Plane, PlaneFault, PlaneFinding,
    ReadReference, Scratch, Storage, Tensor, Weight,
};
