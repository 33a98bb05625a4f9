/*!
NVFP4 weights in GGUF: the blocks of `<base>.weight` times the factor in `<base>.scale`.

The blocks alone are not the weight: llama.cpp multiplies by an F32 tensor with one value, or one
for each expert, that lies beside them; where it is absent the factor is 1. `<base>.input_scale`
scales activations: it belongs to the weight's module and not to its values. A `.scale` beside a weight of another type is an
ordinary tensor.
*/

use std::ops::Range;
use std::sync::Arc;

use crate::codec::{End, Levels, TensorType};
use crate::model::own_grid::decode_filled;
use crate::model::scheme::check_scales;
use crate::model::{
    Grid, GridRole, OwnGrid, Plane, PlaneFinding, ReadError, Rounding, Scratch, SourceFile,
    Storage, Tensor, Weight,
};

/// Blocks and their factors.
#[derive(Clone, Debug)]
struct Nvfp4 {
    /// Every code is at this end of the levels, whatever is stored.
    filled: Option<End>,
    /// The blocks, then the factors, if there are any.
    planes: Vec<Plane>,
    /// Elements that share a factor.
    elements_per_factor: u64,
    activations: Vec<Plane>,
}

/// How many elements of the weight share a factor; `None` if the factors do not fit: there must be
/// one, or one for each slice of the outermost dimension of three.
fn elements_per_factor(blocks: &Plane, factors: &Plane) -> Option<u64> {
    let experts = match blocks.shape.as_slice() {
        [experts, _, _, ..] => *experts,
        _ => 1,
    };
    match factors.numel() {
        1 => Some(blocks.numel()),
        count if count == experts && count > 0 => Some(blocks.numel() / experts),
        _ => None,
    }
}

impl Weight for Nvfp4 {
    fn scheme(&self) -> &'static str {
        TensorType::NVFP4.name()
    }

    fn planes(&self) -> &[Plane] {
        &self.planes
    }

    fn activation_planes(&self) -> &[Plane] {
        &self.activations
    }

    fn grids(&self) -> Vec<Grid> {
        let factors = self.planes.get(1);
        let grid = |plane: &Plane| Grid { role: GridRole::Scale, ty: plane.ty, at: plane.at };
        factors.map(grid).into_iter().collect()
    }

    /// value = block value × factor, in f32.
    fn decode(
        &self,
        files: &[SourceFile],
        range: Range<u64>,
        scratch: &mut Scratch,
        values: &mut [f32],
    ) -> Result<(), ReadError> {
        let blocks = &self.planes[0];
        match self.filled.zip(Levels::of(blocks.ty)) {
            None => blocks.decode(files, range.clone(), scratch, values)?,
            Some((end, levels)) => {
                let as_filled = (levels, end);
                decode_filled(
                    blocks.ty,
                    blocks.at,
                    as_filled,
                    files,
                    range.clone(),
                    scratch,
                    values,
                )?;
            }
        }
        let Some(factors) = self.planes.get(1) else { return Ok(()) };
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

    fn own_grid(&self) -> Option<OwnGrid> {
        let levels = Levels::of(self.planes[0].ty)?;
        let at = |end| Tensor {
            name: self.planes[0].name.clone(),
            shape: self.planes[0].shape.clone(),
            storage: Storage::Joined(Arc::new(Self { filled: Some(end), ..self.clone() })),
        };
        Some(OwnGrid {
            levels: levels.values().into(),
            lowest: at(End::Lowest),
            highest: at(End::Highest),
            rounding: Rounding::default(),
        })
    }

    fn check_planes(
        &self,
        files: &[SourceFile],
        scratch: &mut Scratch,
    ) -> Result<Vec<PlaneFinding>, ReadError> {
        let mut findings = Vec::new();
        for plane in self.planes[1..].iter().chain(&self.activations) {
            findings.extend(check_scales(plane, files, scratch)?);
        }
        Ok(findings)
    }
}

/// Joins every NVFP4 weight with its factor and the scale of its activations; `tensors` is sorted
/// by name before and after.
pub fn join(tensors: &mut Vec<Tensor>, notes: &mut Vec<String>) {
    let mut taken = Vec::new();
    for index in 0..tensors.len() {
        let Some(blocks) = plane_of(&tensors[index], TensorType::NVFP4) else { continue };
        let Some(base) = blocks.name.strip_suffix(".weight").map(str::to_owned) else { continue };
        let mut weight = Nvfp4 {
            filled: None,
            elements_per_factor: blocks.numel(),
            planes: vec![blocks],
            activations: Vec::new(),
        };
        let found = |suffix: &str| {
            let found = find(tensors, &format!("{base}{suffix}")).ok()?;
            Some((found, plane_of(&tensors[found], TensorType::F32)))
        };
        if let Some((scale, Some(plane))) = found(".input_scale") {
            weight.activations.push(plane);
            taken.push(scale);
        }
        if let Some((scale, plane)) = found(".scale").or_else(|| found(".weight.scale")) {
            let fitting = plane
                .and_then(|plane| Some((elements_per_factor(&weight.planes[0], &plane)?, plane)));
            if let Some((elements, plane)) = fitting {
                weight.elements_per_factor = elements;
                weight.planes.push(plane);
                taken.push(scale);
            } else {
                notes.push(format!(
                    "{:?} is not an F32 factor of {:?} (one value, or one for each expert) and is \
                     read as a tensor of its own",
                    tensors[scale].name, tensors[index].name
                ));
            }
        }
        if weight.planes.len() > 1 || !weight.activations.is_empty() {
            tensors[index].storage = Storage::Joined(Arc::new(weight));
        }
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
