/*!
The algebra of views against llama.cpp's converter: the operations that `expected.json` of each pair
gives, applied to the checkpoint, must be the bits that the converter wrote.

`QUALM_HF_GGUF=DIR` runs all pairs of a folder instead of those of `tests/data/hf-gguf`.
*/

use std::path::{Path, PathBuf};

use qualm::codec::TensorType;
use qualm::model::view::{Quantizer, View, ViewError};
use qualm::model::{self, Model, Scratch, Tensor};
use serde_json::Value;

fn folder() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hf-gguf");
    std::env::var_os("QUALM_HF_GGUF").map_or_else(own, PathBuf::from)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// One operation of `expected.json`.
fn apply(view: &View, op: &Value) -> Result<View, ViewError> {
    let count = |key: &str| number(&op[key]);
    let axis = || number(&op["axis"]) as usize;
    let value = || op["value"].as_f64().unwrap() as f32;
    let done = match op["op"].as_str().unwrap() {
        "reshape" => view.reshape(&numbers(&op["shape"])),
        "transpose" => {
            let axes: Vec<usize> = numbers(&op["axes"]).iter().map(|axis| *axis as usize).collect();
            view.transpose(&axes)
        }
        "slice" => {
            let step = op["step"].as_u64().unwrap_or(1);
            view.slice(axis(), count("start")..count("stop"), step)
        }
        "permute_qk" => view.permute_qk(count("n_head")),
        "pad_zero_rows" => view.pad_zero(0, count("rows")),
        "add" => Ok(view.add(value())),
        "mul" => Ok(view.mul(value())),
        "neg_exp" => Ok(view.neg_exp()),
        "ternary_absmean" => Ok(view.ternary_absmean()),
        "div_col_l2norm" => view.div_col_l2norm(op["eps"].as_f64().unwrap()),
        // The scheme of the checkpoint has decoded it already; MXFP4 experts as the float model has
        // them, inputs as rows.
        "gptq_dequant" | "fp8_block_dequant" | "ct_pack_dequant" => Ok(view.clone()),
        "mxfp4_dequant" => view.transpose(&[0, 2, 1]),
        other => panic!("{other} is no operation"),
    }?;
    match op["dtype"].as_str() {
        Some(dtype) => done.cast(TensorType::from_name(dtype).unwrap()),
        None => Ok(done),
    }
}

/// The tensor of a name in the checkpoint; what several planes make up has the weight's name.
fn find<'a>(model: &'a Model, name: &str) -> &'a Tensor {
    let weight = |suffix: &str| name.strip_suffix(suffix).map(|stem| format!("{stem}weight"));
    let names = [
        Some(name.to_owned()),
        weight("qweight"),
        weight("weight_packed"),
        name.strip_suffix("_blocks").map(str::to_owned),
    ];
    let found = names.iter().flatten().find_map(|name| model.by_name().get(&**name).copied());
    &model.tensors[found.unwrap_or_else(|| panic!("there is no {name}"))]
}

fn view(model: &Model, row: &Value) -> Result<View, ViewError> {
    let piece = |piece: &Value| {
        let source = View::of(find(model, piece["hf"].as_str().unwrap()));
        list(&piece["ops"]).iter().try_fold(source, |view, op| apply(&view, op))
    };
    let pieces: Vec<View> = list(&row["pieces"]).iter().map(piece).collect::<Result<_, _>>()?;
    let axis = row["join"]["axis"].as_u64().unwrap_or(0) as usize;
    let joined = match row["join"]["op"].as_str() {
        None => pieces[0].clone(),
        Some("stack") => View::stack(&pieces, axis)?,
        Some("concat") => View::concat(&pieces, axis)?,
        Some("concat_groups") => {
            let groups = pieces.chunks(number(&row["join"]["group"]) as usize);
            let groups: Vec<View> =
                groups.map(|group| View::concat(group, axis)).collect::<Result<_, _>>()?;
            View::stack(&groups, 0)?
        }
        Some(other) => panic!("{other} is no join"),
    };
    list(&row["ops"]).iter().try_fold(joined, |view, op| apply(&view, op))
}

/// The values of a tensor, in parts of a prime length.
fn decode(model: &Model, tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0; tensor.numel() as usize];
    let (mut scratch, mut start) = (Scratch::default(), 0);
    for part in values.chunks_mut(9973) {
        let range = start..start + part.len() as u64;
        start = range.end;
        tensor.decode(&model.files, range, &mut scratch, part).unwrap();
    }
    values
}

/// Units in the last place between two numbers.
fn ulps(a: f32, b: f32) -> u64 {
    let ordered = |value: f32| {
        let bits = i64::from(value.to_bits() as i32);
        if bits < 0 { i64::from(i32::MIN) - bits } else { bits }
    };
    ordered(a).abs_diff(ordered(b))
}

/// How far a row may be off: as many units as `verified` states of the pair's own check, once more,
/// because that check rounds as well; else none.
fn allowed(row: &Value) -> u64 {
    let verified = row["verified"].as_str().unwrap();
    let stated = verified.strip_prefix("within ").and_then(|rest| rest.split(' ').next());
    2 * stated.and_then(|units| units.parse().ok()).unwrap_or(0)
}

/// Compares the rows of a pair; returns how many there are.
fn pair(directory: &Path) -> usize {
    let expected = std::fs::read(directory.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let checkpoint = model::open(directory).unwrap();
    let converted = model::open(&directory.join("model-f.gguf")).unwrap();
    for row in list(&expected["tensors"]) {
        let name = row["gguf"].as_str().unwrap();
        let case = format!("{}: {name}", directory.display());
        let view = view(&checkpoint, row).unwrap_or_else(|error| panic!("{case}: {error}"));
        let stored = find(&converted, name);
        assert_eq!(view.shape(), stored.shape, "{case}");
        let ty = TensorType::from_name(stored.qtype()).unwrap();
        let view = match ty {
            TensorType::F32 => view,
            TensorType::F16 | TensorType::BF16 => view.cast(ty).unwrap(),
            _ => view.round_trip(ty, Quantizer::Flat).unwrap(),
        };
        let values = decode(&checkpoint, &view.into_tensor(name));
        let allowed = allowed(row);
        for (at, (own, other)) in values.iter().zip(decode(&converted, stored)).enumerate() {
            let off = ulps(*own, other);
            assert!(off <= allowed, "{case}: element {at} is {own}, {other} expected ({off} ulp)");
        }
    }
    list(&expected["tensors"]).len()
}

#[test]
fn operations_give_the_bits_that_the_converter_wrote() {
    let mut rows = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let directory = entry.unwrap().path();
        if directory.join("expected.json").is_file() {
            rows += pair(&directory);
        }
    }
    assert!(rows > 100, "{rows} rows");
}
