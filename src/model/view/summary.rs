/*! What a view is to those who do not ask for values: scheme, class, planes. */

use crate::codec::Class;
use crate::model::{Extent, Plane, Storage, Tensor};

/// A stored tensor that a view takes values from.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub tensor: Tensor,
    /// How many of its elements, at most all.
    pub used: u64,
    /// Whether the first of them may be among these.
    pub from_start: bool,
}

impl Leaf {
    /// Whether two stand for the same stored tensor.
    pub fn is_same(&self, other: &Tensor) -> bool {
        let first = |tensor: &Tensor| tensor.extent().map(|at| (at.file, at.offset));
        self.tensor.name == other.name && first(&self.tensor) == first(other)
    }

    /// The planes, each by the share of the tensor that is used.
    fn planes(&self) -> Vec<Plane> {
        let whole = u128::from(self.tensor.numel().max(1));
        let part = u128::from(self.used.min(self.tensor.numel()));
        let share = |at: Extent| Extent { len: (u128::from(at.len) * part / whole) as u64, ..at };
        let planes = planes(&self.tensor).into_iter();
        planes.map(|plane| Plane { at: share(plane.at), ..plane }).collect()
    }
}

/// The planes of a tensor, however it is stored.
pub fn planes(tensor: &Tensor) -> Vec<Plane> {
    match &tensor.storage {
        Storage::Joined(weight) => weight.planes().to_vec(),
        Storage::Plain { ty, at } => {
            let Tensor { name, shape, .. } = tensor;
            vec![Plane { name: name.clone(), ty: *ty, shape: shape.clone(), at: *at }]
        }
        Storage::Undecodable { .. } => Vec::new(),
    }
}

/// What a view's stored tensors make of it.
#[derive(Debug)]
pub struct Summary {
    pub leaves: Vec<Leaf>,
    /// The type or scheme of all stored tensors, or `mixed`.
    pub scheme: String,
    pub class: Class,
    pub planes: Vec<Plane>,
    pub activations: Vec<Plane>,
    pub shape_is_known: bool,
}

impl Summary {
    /// Of a view of these tensors.
    pub fn new(leaves: Vec<Leaf>) -> Self {
        let tensors = || leaves.iter().map(|leaf| &leaf.tensor);
        let scheme = tensors().next().map_or("F32", Tensor::qtype);
        let same = tensors().all(|tensor| tensor.qtype() == scheme);
        let class = tensors().next().map_or(Class::Float, Tensor::class);
        let alike = tensors().all(|tensor| tensor.class() == class);
        let joined = tensors().filter_map(|tensor| match &tensor.storage {
            Storage::Joined(weight) => Some(weight),
            _ => None,
        });
        let (mut activations, mut shape_is_known) = (Vec::new(), true);
        for weight in joined {
            activations.extend_from_slice(weight.activation_planes());
            shape_is_known &= weight.shape_is_known();
        }
        Self {
            scheme: if same { scheme } else { "mixed" }.to_owned(),
            // Elements that are compared bit for bit are so where they are stored only.
            class: if alike && class != Class::Exact { class } else { Class::Quantized },
            planes: leaves.iter().flat_map(Leaf::planes).collect(),
            activations,
            shape_is_known,
            leaves,
        }
    }
}
