/*!
NVFP4 weights in GGUF: the blocks of `<base>.weight` times the factor in `<base>.scale`.

The blocks alone are not the weight: llama.cpp multiplies by an F32 tensor with one value, or one
for each expert, that lies beside them; where it is absent the factor is 1. `<base>.input_scale`
scales activations and is no part of any weight. A `.scale` beside a weight of another type is an
ordinary tensor.
*/

use std::ops::Range;
use std::sync::Arc;

use crate::codec::TensorType;
use crate::model::tensor::{Plane, Scratch, Storage, Tensor, Weight};
use crate::model::{ReadError, SourceFile};

/// Blocks and their factors.
#[derive(Debug)]
struct Nvfp4 {
    /// The blocks, then the factors.
    planes: [Plane; 2],
    /// Elements that share a factor.
    elements_per_factor: u64,
}

impl Nvfp4 {
    /// Joins blocks with factors: one, or one for each slice of the outermost dimension.
    fn new(blocks: Plane, factors: Plane) -> Option<Self> {
        let experts = match blocks.shape.as_slice() {
            [experts, _, _, ..] => *experts,
            _ => 1,
        };
        let elements_per_factor = match factors.numel() {
            1 => blocks.numel(),
            count if count == experts && count > 0 => blocks.numel() / experts,
            _ => return None,
        };
        Some(Self { planes: [blocks, factors], elements_per_factor })
    }
}

impl Weight for Nvfp4 {
    fn scheme(&self) -> &'static str {
        TensorType::NVFP4.name()
    }

    fn planes(&self) -> &[Plane] {
        &self.planes
    }

    /// value = block value × factor, in f32.
    fn decode(
        &self,
        files: &[SourceFile],
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let [blocks, factors] = &self.planes;
        blocks.decode(files, range.clone(), scratch, values)?;
        let mut position = range.start;
        let mut rest = values;
        while !rest.is_empty() {
            let index = position / self.elements_per_factor;
            let left = (index + 1) * self.elements_per_factor - position;
            let (here, after) = rest.split_at_mut(rest.len().min(left as usize));
            let mut factor = [0.0];
            factors.decode(files, index..index + 1, scratch, &mut factor)?;
            for value in here.iter_mut() {
                *value *= factor[0];
            }
            position += here.len() as u64;
            rest = after;
        }
        Ok(())
    }
}

/// Joins every NVFP4 weight with its factor and leaves activation scales out; `tensors` is sorted
/// by name before and after.
pub fn join(tensors: &mut Vec<Tensor>, notes: &mut Vec<String>) {
    let mut taken = Vec::new();
    let mut activation_scales = 0;
    for index in 0..tensors.len() {
        let Some(blocks) = nvfp4_plane(&tensors[index]) else { continue };
        let Some(base) = blocks.name.strip_suffix(".weight").map(str::to_owned) else { continue };
        if let Ok(found) = find(tensors, &format!("{base}.input_scale")) {
            activation_scales += 1;
            taken.push(found);
        }
        let names = [format!("{base}.scale"), format!("{base}.weight.scale")];
        let Some(found) = names.iter().find_map(|name| find(tensors, name).ok()) else { continue };
        let joined = f32_plane(&tensors[found]).and_then(|factors| Nvfp4::new(blocks, factors));
        match joined {
            Some(weight) => {
                tensors[index].storage = Storage::Joined(Arc::new(weight));
                taken.push(found);
            }
            None => notes.push(format!(
                "{:?} is not an F32 factor of {:?} (one value, or one for each expert) and is \
                 read as a tensor of its own",
                tensors[found].name, tensors[index].name
            )),
        }
    }
    if activation_scales > 0 {
        notes.push(format!(
            "{activation_scales} input_scale tensors scale activations and are left out"
        ));
    }
    taken.sort_unstable();
    let mut index = 0;
    tensors.retain(|_| {
        let keep = taken.binary_search(&index).is_err();
        index += 1;
        keep
    });
}

fn find(tensors: &[Tensor], name: &str) -> Result<usize, usize> {
    tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name))
}

fn plane_of(tensor: &Tensor, wanted: TensorType) -> Option<Plane> {
    match tensor.storage {
        Storage::Plain { ty, at } if ty == wanted => {
            Some(Plane { name: tensor.name.clone(), ty, shape: tensor.shape.clone(), at })
        }
        _ => None,
    }
}

fn nvfp4_plane(tensor: &Tensor) -> Option<Plane> {
    plane_of(tensor, TensorType::NVFP4)
}

fn f32_plane(tensor: &Tensor) -> Option<Plane> {
    plane_of(tensor, TensorType::F32)
}
