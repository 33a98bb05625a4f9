/*!
The score of expected damage against what others measured: every quantized model of `tests/data/kld`, scored
from the names and types of its tensors alone, and the order of the scores against the measured order.

A file more in that directory is tested like those that are there.
*/

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use qualm::codec::TensorType;
use qualm::rank::{Basis, Input, Zone, nominal_t2, score};
use serde_json::Value;

/// A model's tensors, as its recipe counts them: name and type.
fn tensors(groups: &[Value]) -> Vec<(String, String)> {
    let mut next: BTreeMap<&str, u64> = BTreeMap::new();
    let mut tensors = Vec::new();
    for group in groups {
        let [role, qtype, count] = [0, 1, 2].map(|at| &group[at]);
        let (role, qtype) = (role.as_str().unwrap(), qtype.as_str().unwrap().to_uppercase());
        for _ in 0..count.as_u64().unwrap() {
            let layer = next.entry(role).or_default();
            let name = match role {
                "output" => "output.weight".to_owned(),
                "token_embd" | "token_embd_tied" => "token_embd.weight".to_owned(),
                role => format!("blk.{layer}.{role}.weight"),
            };
            *layer += 1;
            tensors.push((name, qtype.clone()));
        }
    }
    tensors
}

/// The score of tensors that lose what their types lose.
fn scored(tensors: &[(String, String)], layers: u64, what: &str) -> f64 {
    let inputs: Vec<Input> = tensors
        .iter()
        .map(|(tensor, qtype)| {
            let ty = TensorType::from_name(qtype).unwrap_or_else(|| panic!("{what}: {qtype}"));
            let t2 =
                nominal_t2(ty).unwrap_or_else(|| panic!("{what}: {qtype} has no nominal error"));
            Input { tensor, qtype, shape: &[256, 256], sums: Some((t2, 1.0)) }
        })
        .collect();
    let score = score(&inputs).unwrap_or_else(|problem| panic!("{what}: {problem}"));
    assert_eq!(
        (score.layers, score.basis, score.evidence),
        (layers, Basis::Nominal, true),
        "{what}"
    );
    let shares: f64 = score.roles.iter().map(|it| it.share).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{what}: the roles' shares add up");
    score.value
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Kind, status, score and measured damage of each entry of a model that has a score.
type Entries = Vec<(String, String, f64, f64)>;

fn models() -> BTreeMap<String, Entries> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/kld");
    let mut models = BTreeMap::new();
    for file in fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        if path.file_stem().unwrap() == "expected" || path.extension().unwrap() != "json" {
            continue;
        }
        let model = json(&path);
        let layers = model["layers"].as_u64().unwrap();
        let mut entries = Vec::new();
        for entry in model["entries"].as_array().unwrap() {
            let (Some(groups), Some(expected)) =
                (entry["groups"].as_array(), entry["score"].as_f64())
            else {
                continue;
            };
            let what = format!("{} {}", model["model"], entry["id"]);
            let value = scored(&tensors(groups), layers, &what);
            assert!(
                (value / expected - 1.0).abs() <= 1e-4,
                "{what}: {value} instead of {expected}"
            );
            let text = |key: &str| entry[key].as_str().unwrap().to_owned();
            entries.push((
                text("kind"),
                text("status"),
                value,
                entry["measured"].as_f64().unwrap(),
            ));
        }
        models.insert(model["model"].as_str().unwrap().to_owned(), entries);
    }
    models
}

/// Ranks from 0; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let of = |value: f64| {
        let below = values.iter().filter(|other| **other < value).count();
        let equal = values.iter().filter(|other| **other == value).count();
        below as f64 + (equal as f64 - 1.0) / 2.0
    };
    values.iter().map(|value| of(*value)).collect()
}

fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let sum = |a: &[f64], b: &[f64]| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum()
    };
    sum(&a, &b) / (sum(&a, &a) * sum(&b, &b)).sqrt()
}

#[test]
fn scores_and_their_order_are_those_of_the_note() {
    let models = models();
    let all: usize = models.values().map(Vec::len).sum();
    assert!(all >= 827, "{all} scores");
    let expected =
        json(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/kld/expected.json"));
    for case in expected.as_array().unwrap() {
        let (model, kind) = (case["model"].as_str().unwrap(), case["kind"].as_str().unwrap());
        for (statuses, count, key) in [
            (&["ok"][..], "n", "spearman"),
            (&["ok", "outlier", "no_imatrix"][..], "n_with_outliers", "spearman_with_outliers"),
        ] {
            let chosen: Vec<_> = models[model]
                .iter()
                .filter(|it| it.0 == kind && statuses.contains(&it.1.as_str()))
                .collect();
            assert_eq!(Some(chosen.len() as u64), case[count].as_u64(), "{model} {kind}");
            let scores: Vec<f64> = chosen.iter().map(|it| it.2).collect();
            let measured: Vec<f64> = chosen.iter().map(|it| it.3).collect();
            let (found, stated) = (spearman(&scores, &measured), case[key].as_f64().unwrap());
            assert!(
                (found - stated).abs() < 1e-4,
                "{model} {kind} {key}: {found} instead of {stated}"
            );
        }
        assert!(case["spearman"].as_f64() >= case["min_spearman"].as_f64());
    }
}

#[test]
fn most_pure_types_of_models_are_ordered_as_measured() {
    for (model, entries) in models() {
        let pure: Vec<_> = entries.iter().filter(|it| it.0 == "pure" && it.1 == "ok").collect();
        if pure.len() < 5 {
            continue;
        }
        let (scores, measured): (Vec<f64>, Vec<f64>) = pure.iter().map(|it| (it.2, it.3)).unzip();
        let found = spearman(&scores, &measured);
        assert!(found >= 0.96, "{model}: {found}");
    }
}

#[test]
fn within_the_zone_the_measured_damage_follows_the_score() {
    // The stated level, 0.84 nats for one of the score, and its factor of three.
    let pairs = models().into_values().flatten();
    let zone = pairs.filter(|it| it.0 == "pure" && it.1 == "ok" && Zone::of(it.2) == Zone::Ok);
    let ratios: Vec<f64> = zone.map(|it| it.3 / (0.84 * it.2)).collect();
    let within = ratios.iter().filter(|ratio| (1.0 / 3.0..=3.0).contains(*ratio)).count();
    assert!(
        ratios.len() > 200 && within * 100 >= ratios.len() * 95,
        "{within} of {}",
        ratios.len()
    );
}
