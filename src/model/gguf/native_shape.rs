/*!
Native shapes in metadata: ComfyUI-GGUF stores a tensor whose rows are no whole blocks with rows of
another length, and its own shape under `comfy.gguf.orig_shape.NAME`.
*/

use serde_json::Value;

use crate::model::tensor::checked_numel;
use crate::model::{Model, ModelFinding, PlaneFault};

const KEY: &str = "comfy.gguf.orig_shape.";

/// Gives every tensor the shape that the metadata say is its own; one that cannot be is a finding.
pub fn restore(model: &mut Model) {
    let shape = |value: &Value| -> Option<Vec<u64>> {
        value.as_array()?.iter().map(Value::as_u64).collect()
    };
    for (key, value) in &model.metadata {
        let Some(name) = key.strip_prefix(KEY) else { continue };
        let place = model.tensors.binary_search_by(|tensor| tensor.name.as_str().cmp(name));
        let Some(tensor) = place.ok().map(|place| &mut model.tensors[place]) else { continue };
        let numel = tensor.numel();
        match shape(value).filter(|shape| checked_numel(shape) == Some(numel)) {
            Some(shape) => tensor.shape = shape,
            None => model.findings.push(ModelFinding {
                tensor: name.to_owned(),
                plane: key.clone(),
                fault: PlaneFault::Shape,
                message: format!("says {value}, which is no shape of {numel} elements"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::codec::TensorType;
    use crate::model::{Extent, Format, Storage, Tensor};

    #[test]
    fn a_native_shape_of_as_many_elements_is_the_tensors() {
        for (value, expected, findings, why) in [
            (json!([16, 320]), [16, 320], 0, "as stored by ComfyUI-GGUF"),
            (json!([17, 320]), [20, 256], 1, "another number of elements"),
            (json!([-16, -320]), [20, 256], 1, "no extents"),
            (json!("16x320"), [20, 256], 1, "no array"),
            (json!([u64::MAX, 2]), [20, 256], 1, "a product that overflows"),
        ] {
            let at = Extent { file: 0, offset: 0, len: 5440 };
            let storage = Storage::Plain { ty: TensorType::Q8_0, at };
            let tensor = Tensor { name: "a.weight".to_owned(), shape: vec![20, 256], storage };
            let empty = [&2u64.to_le_bytes()[..], b"{}"].concat();
            let mut model = crate::model::from_bytes(Path::new("memory"), empty).unwrap();
            model.format = Format::Gguf;
            model.tensors = vec![tensor];
            model.metadata =
                vec![(format!("{KEY}a.weight"), value), (format!("{KEY}b"), json!([1]))];
            restore(&mut model);
            assert_eq!(model.tensors[0].shape, expected, "{why}");
            assert_eq!(model.findings.len(), findings, "{why}");
        }
    }
}
