//! The table against pairs that the converter itself made.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::map::Map;
use super::{Facts, Table};
use crate::model;

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
