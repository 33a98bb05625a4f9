//! The table against pairs that the converter itself made.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::infer::infer;
use super::map::Map;
use super::{Facts, Table};
use crate::model;
use crate::model::view::Recipe;

/// Folders with pairs: those in the repository, and more if a variable names a folder.
fn pairs() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hf-gguf");
    let more = std::env::var_os("QUALM_HF_GGUF").map(PathBuf::from);
    let folders = [Some(own), more];
    let mut pairs: Vec<PathBuf> = folders
        .iter()
        .flatten()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flat_map(|entries| entries.map(|entry| entry.unwrap().path()))
        .filter(|path| path.join("expected.json").exists())
        .collect();
    pairs.sort();
    pairs
}

#[test]
fn every_tensor_is_made_of_what_the_converter_made_it_of() {
    let mut problems = Vec::new();
    for path in pairs() {
        let text = std::fs::read_to_string(path.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        let case = expected["case"].as_str().unwrap();
        let checkpoint = model::open(&path).unwrap_or_else(|_| panic!("{case}"));
        let converted = model::open(&path.join("model-f.gguf")).unwrap();
        let facts = Facts::of(&checkpoint, &converted);
        let Some(rules) = Table::built_in().rules(&facts) else {
            problems.push(format!("{case}: no rules"));
            continue;
        };
        let map = Map::new(Table::built_in(), &rules, &facts, &checkpoint, &converted);
        for at in &map.unknown {
            problems.push(format!("{case}: {} unknown", converted.tensors[*at].name));
        }
        for at in &map.unused {
            problems.push(format!("{case}: {} unused", checkpoint.tensors[*at].name));
        }
        for entry in &map.entries {
            let tensor = &converted.tensors[entry.tensor];
            match &entry.views {
                Err(problem) => problems.push(format!("{case}: {}: {problem}", tensor.name)),
                Ok(views) if views[0].shape() != tensor.shape => problems.push(format!(
                    "{case}: {}: {:?} instead of {:?}",
                    tensor.name,
                    views[0].shape(),
                    tensor.shape
                )),
                Ok(_) => {}
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Sources and order of heads of a row whose rule moves whole rows of one tensor at most; the values of a
/// quantized source are its weight's.
fn simple(row: &Value) -> Option<(String, Option<u64>)> {
    let [piece] = &row["pieces"].as_array()?[..] else { return None };
    let source = piece["hf"].as_str()?.replace("qweight", "weight").replace("_packed", "");
    let ops = piece["ops"].as_array()?.iter().filter(|op| op["op"] != "gptq_dequant");
    match ops.collect::<Vec<_>>()[..] {
        [] => Some((source, None)),
        [op] if op["op"] == "permute_qk" => Some((source, op["n_head"].as_u64())),
        _ => None,
    }
}

#[test]
fn what_values_tell_without_a_rule_is_what_the_converter_did() {
    let (mut right, mut possible) = (0, 0);
    for path in pairs() {
        let text = std::fs::read_to_string(path.join("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        let checkpoint = model::open(&path).unwrap();
        let converted = model::open(&path.join("model-q.gguf")).unwrap();
        let found = infer(&checkpoint, &converted);
        for row in expected["tensors"].as_array().unwrap() {
            let name = row["gguf"].as_str().unwrap();
            let case = format!("{}: {name}", path.display());
            let is_matrix = row["shape"].as_array().unwrap().len() == 2;
            let view = found.views.get(name);
            assert!(is_matrix || view.is_none(), "{case}: vectors and stacks are not told apart");
            let Some((source, heads)) = simple(row).filter(|_| is_matrix) else { continue };
            possible += 1;
            let Some(view) = view else { continue };
            let names: Vec<&str> = view.sources().map(|tensor| tensor.name.as_str()).collect();
            assert_eq!(names, [source], "{case}");
            let own = match view.recipe() {
                Recipe::Single { ops, .. } => ops.first().map(|step| step.args[0].1.as_u64()),
                Recipe::Joined { .. } => None,
            };
            assert_eq!(own.flatten(), heads, "{case}");
            right += 1;
        }
    }
    assert!(right * 10 > possible * 9, "{right} of {possible}");
}
