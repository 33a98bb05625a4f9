/*!
Convolutions whose axes are in another order: MLX keeps channels last, [out, height, width, in] where
`PyTorch` has [out, in, height, width].

The shapes of a model's convolutions decide for all of them, and values confirm each. In a model whose
other convolutions are in the reference's order, one that is not is damage, and stays as it is.
*/

use super::sample::{Likeness, likeness};
use crate::model::view::{View, ViewError};
use crate::model::{Format, Model, Tensor};

/// Longest axis of a kernel.
const KERNEL: u64 = 32;

/// Where the input channels of the quantized model's convolutions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channels {
    /// Behind the kernel; in the reference before it.
    Last,
    /// Before the kernel; in the reference behind it.
    First,
}

impl Channels {
    /// The order of axes that makes the quantized tensor's those of the reference.
    fn axes(self, rank: usize) -> Vec<usize> {
        let mut axes: Vec<usize> = (0..rank).collect();
        match self {
            Self::Last => axes[1..].rotate_right(1),
            Self::First => axes[1..].rotate_left(1),
        }
        axes
    }

    /// A shape of the quantized model as the reference has it.
    fn turned(self, shape: &[u64]) -> Vec<u64> {
        self.axes(shape.len()).into_iter().map(|axis| shape[axis]).collect()
    }

    /// Whether the reference's shape is that of a convolution.
    fn is_kernel(self, reference: &[u64]) -> bool {
        match (self, reference) {
            (Self::Last, [_, _, kernel @ ..]) | (Self::First, [_, kernel @ .., _]) => {
                !kernel.is_empty() && kernel.iter().all(|&extent| extent <= KERNEL)
            }
            _ => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::First => "first",
        }
    }
}

/// Gives `quantized` the reference's order of axes where its convolutions have another, and says so.
pub fn align(reference: &Model, quantized: &mut Model) -> Vec<String> {
    if [reference.format, quantized.format] != [Format::Safetensors; 2] {
        return Vec::new();
    }
    [Channels::Last, Channels::First]
        .into_iter()
        .filter_map(|channels| turn(reference, quantized, channels))
        .collect()
}

/// Turns the convolutions of a model that has them all the other way round.
fn turn(reference: &Model, quantized: &mut Model, channels: Channels) -> Option<String> {
    let by_name = reference.by_name();
    let mut turned = Vec::new();
    let mut told = false;
    for (index, tensor) in quantized.tensors.iter().enumerate() {
        let Some(&counterpart) = by_name.get(tensor.name.as_str()) else { continue };
        let own = &reference.tensors[counterpart];
        if own.shape.len() != tensor.shape.len() || !channels.is_kernel(&own.shape) {
            continue;
        }
        let (same, other) =
            (own.shape == tensor.shape, channels.turned(&tensor.shape) == own.shape);
        match (same, other) {
            // One that is in the reference's order: so are all, or there is no order.
            (true, false) => return None,
            (_, true) => turned.push((index, counterpart)),
            (false, false) => continue,
        }
        told |= !same;
    }
    if !told {
        return None;
    }
    let mut count = 0;
    for (index, counterpart) in turned {
        let own = (reference, &reference.tensors[counterpart]);
        let Ok(view) = in_order(&quantized.tensors[index], channels) else { continue };
        let likely = likeness(own, (quantized, &view));
        let fits = quantized.tensors[index].shape == own.1.shape;
        let as_it_is = (quantized as &Model, &quantized.tensors[index]);
        // What has the reference's shape already is turned where that alone makes it the reference's.
        let turns = match likely {
            Ok(Likeness::Same) => !fits || !matches!(likeness(own, as_it_is), Ok(Likeness::Same)),
            Ok(Likeness::Unclear) => !fits,
            Ok(Likeness::Other) | Err(_) => false,
        };
        if turns {
            quantized.tensors[index] = view;
            count += 1;
        }
    }
    (count > 0).then(|| {
        format!(
            "{count} convolutions have their channels {}, the reference has them elsewhere: compared \
             in the reference's order of axes",
            channels.name()
        )
    })
}

fn in_order(tensor: &Tensor, channels: Channels) -> Result<Tensor, ViewError> {
    let view = View::of(tensor).transpose(&channels.axes(tensor.shape.len()))?;
    Ok(view.into_tensor(&tensor.name))
}
