/*!
Checkpoints whose configuration agrees with their planes, or contradicts them: every variant of
`tests/data/configuration/cases.json`, written to a folder and opened.

The gravity is that of the cases, too, but for settings that some engines have dropped, and for scales of activations
of which the configuration says nothing: the weights are sound, so that those are warnings here.
*/

use std::collections::BTreeSet;
use std::path::Path;

use qualm::model::configuration::Severity;
use serde_json::Value;

/// Applies a JSON merge patch (RFC 7386).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

/// Bytes of a tensor: what the case says of its values, else zeros.
fn bytes(tensor: &Value) -> Vec<u8> {
    let numel: u64 =
        tensor["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product();
    let dtype = tensor["dtype"].as_str().unwrap();
    let width = match dtype {
        "I64" | "F64" => 8,
        "I32" | "U32" | "F32" => 4,
        "F16" | "BF16" | "I16" => 2,
        _ => 1,
    };
    if let Some(word) = tensor["all_words"].as_str() {
        let word = u32::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
        return word.to_le_bytes().repeat(numel as usize);
    }
    if let Some(order) = tensor["order"].as_str() {
        let group = |c: u64| if order == "trivial" { c / 128 } else { c % 2 };
        return (0..numel).flat_map(|c| (group(c) as u32).to_le_bytes()).collect();
    }
    if let Some(values) = tensor["values"].as_array() {
        let stored = |value: &Value| match dtype {
            "F32" => (value.as_f64().unwrap() as f32).to_le_bytes().to_vec(),
            "I64" => value.as_i64().unwrap().to_le_bytes().to_vec(),
            other => panic!("values of {other}"),
        };
        return values.iter().flat_map(stored).collect();
    }
    vec![0; (numel * width) as usize]
}

/// Writes a safetensors file.
fn write(path: &Path, tensors: &[Value]) {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for tensor in tensors {
        let start = data.len();
        data.extend(bytes(tensor));
        let entry = serde_json::json!({
            "dtype": tensor["dtype"], "shape": tensor["shape"], "data_offsets": [start, data.len()]
        });
        header.insert(tensor["name"].as_str().unwrap().to_owned(), entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    std::fs::write(path, file).unwrap();
}

#[test]
fn configurations_that_contradict_the_planes() {
    let cases = std::fs::read("tests/data/configuration/cases.json").unwrap();
    let cases: Value = serde_json::from_slice(&cases).unwrap();
    let mut wrong = Vec::new();
    let mut count = 0;
    for case in cases["cases"].as_array().unwrap() {
        for variant in case["variants"].as_array().unwrap() {
            let (case_id, id) = (case["id"].as_str().unwrap(), variant["id"].as_str().unwrap());
            let folder = tempfile::tempdir().unwrap();
            let mut files = case["files"].clone();
            merge(&mut files, variant.get("files_patch").unwrap_or(&serde_json::json!({})));
            for (name, content) in files.as_object().unwrap() {
                std::fs::write(folder.path().join(name), content.to_string()).unwrap();
            }
            write(&folder.path().join("model.safetensors"), variant["tensors"].as_array().unwrap());
            let model = qualm::model::open(folder.path()).unwrap();
            let found: BTreeSet<(String, String, bool)> = model
                .configuration
                .iter()
                .flatten()
                .map(|it| {
                    let fails = it.severity == Severity::Error;
                    (it.code.name().to_owned(), it.module.clone(), fails)
                })
                .collect();
            let expected: BTreeSet<(String, String, bool)> = variant["findings"]
                .as_array()
                .unwrap()
                .iter()
                .map(|it| {
                    let text = |key: &str| it[key].as_str().unwrap().to_owned();
                    let fails = text("severity") == "error"
                        && text("code") != "engine-dropped"
                        && !(case_id == "ct-nvfp4" && text("code") == "input-scale-unexpected");
                    (text("code"), text("module"), fails)
                })
                .collect();
            count += 1;
            if found != expected {
                wrong.push(format!(
                    "{case_id}/{id}: expected {expected:?}\n   found {:#?}",
                    model.configuration
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}
