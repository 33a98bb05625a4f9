/*!
Broken and healthy quants as they were published, and the verdict that each must get: `qualm check`
where the two files say it, `qualm run` with a spec that states what only a spec can know.

`QUALM_INCIDENTS` names another directory of such cases, with a `cases.json` of the same form.
*/

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

/// What came of a case.
#[derive(Debug, Default)]
struct Outcome {
    code: i32,
    /// Tensors that are named as being at fault.
    at_fault: BTreeSet<String>,
    /// Causes, and whether they are said to be certain.
    causes: Vec<(String, bool)>,
    text: String,
}

fn root() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/incidents");
    std::env::var_os("QUALM_INCIDENTS").map_or_else(own, PathBuf::from)
}

fn qualm(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qualm")).args(args).current_dir(dir).output().unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// A TOML string, or a list of them: JSON writes both alike.
fn toml(value: &Value) -> String {
    value.to_string()
}

/// The spec of a case, from the facts that it states.
fn spec(case: &Value, root: &Path) -> String {
    let facts = &case["needs_spec"];
    let path = |key: &str| toml(&Value::from(root.join(text(&case[key])).to_string_lossy()));
    let mut spec = format!(
        "schema = 1\n[[pair]]\nname = \"p\"\nreference = {}\nquantized = {}\n",
        path("reference"),
        path("quantized")
    );
    for (fact, key) in [
        ("optional", "allow_missing"),
        ("allow_extra", "allow_extra"),
        ("nonzero", "nonzero"),
        ("metadata_equal", "metadata_equal"),
        ("min_quantized_tensors", "min_quantized"),
    ] {
        if let Some(value) = facts.get(fact) {
            writeln!(spec, "{key} = {}", toml(value)).unwrap();
        }
    }
    for (fact, array, key) in [
        ("qtype", "qtype", "is"),
        ("companions", "companions", "suffixes"),
        ("scheme", "scheme", "is"),
        ("min_sqnr_db", "rule", "sqnr_db"),
    ] {
        for (tensors, value) in entries(&facts[fact]) {
            let tensors = toml(&Value::from(tensors.as_str()));
            writeln!(spec, "[[pair.{array}]]\ntensors = {tensors}\n{key} = {}", toml(value))
                .unwrap();
        }
    }
    for (reference, quantized) in entries(&facts["names"]) {
        let from = format!("^{}$", text(quantized).replace('.', "\\."));
        let (from, to) = (toml(&Value::from(from)), toml(&Value::from(reference.as_str())));
        writeln!(spec, "[[pair.rename]]\nfrom = {from}\nto = {to}").unwrap();
    }
    for (tensor, apply) in entries(&facts["transform"]) {
        // Transforms are named after the quantized file; specs after the reference.
        let renamed = entries(&facts["names"]).find(|(_, to)| text(to) == *tensor);
        let tensor = toml(&Value::from(renamed.map_or(tensor.as_str(), |(from, _)| from)));
        write!(spec, "[[pair.transform]]\ntensors = {tensor}\n").unwrap();
        let how = if let Some(heads) = apply.get("rope-permute") {
            format!("apply = \"rope-permute\"\nheads = {heads}")
        } else if let Some(norm) = apply.get("fold") {
            format!("apply = \"fold\"\nnorm = {}", toml(norm))
        } else {
            format!("apply = {}", toml(apply))
        };
        writeln!(spec, "{how}").unwrap();
    }
    spec
}

fn cause(diagnosis: &Value) -> Option<(String, bool)> {
    Some((diagnosis["cause"].as_str()?.to_owned(), diagnosis["certainty"] == "certain"))
}

/// The pair with no spec.
fn check(case: &Value, root: &Path) -> Outcome {
    let path = |key: &str| root.join(text(&case[key])).to_string_lossy().into_owned();
    let output = qualm(root, &["check", &path("reference"), &path("quantized"), "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let findings = report["findings"].as_array().into_iter().flatten();
    Outcome {
        code: output.status.code().unwrap_or(-1),
        at_fault: strings(&report["tensors_at_fault"]).into_iter().collect(),
        causes: findings.filter_map(|finding| cause(&finding["diagnosis"])).collect(),
        text: format!("{output:?}"),
    }
}

/// The pair with a spec that states its facts.
fn run(case: &Value, root: &Path) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("case.toml"), spec(case, root)).unwrap();
    let output =
        qualm(dir.path(), &["run", "--spec", "case.toml", "--no-baseline", "--out-dir", "out"]);
    let contract = std::fs::read(dir.path().join("out/contract.json")).unwrap_or_default();
    let contract: Value = serde_json::from_slice(&contract).unwrap_or_default();
    let mut outcome = Outcome {
        code: output.status.code().unwrap_or(-1),
        text: format!("{}\n{output:?}", spec(case, root)),
        ..Outcome::default()
    };
    let tests = contract["specs"][0]["pairs"][0]["tests"].as_array().into_iter().flatten();
    for test in tests.filter(|test| test["outcome"] == "failed" || test["outcome"] == "error") {
        let (id, words) = (text(&test["id"]), test["checks"].to_string());
        let own = id.strip_prefix("case::p::").unwrap_or_default().to_owned();
        let named =
            strings(&case["tensors_at_fault"]).into_iter().filter(|name| words.contains(name));
        outcome.at_fault.extend(named);
        outcome.at_fault.extend(Some(own).filter(|own| !own.starts_with('(')));
        outcome.causes.extend(cause(&test["diagnosis"]));
    }
    outcome
}

/// What is wrong with an outcome; nothing if it is as the case says.
fn judge(case: &Value, outcome: &Outcome, by_spec: bool) -> Option<String> {
    let expected = match (case["expect"].as_str()?, by_spec) {
        ("pass", _) => 0,
        ("fail", false) => 5,
        ("fail", true) => 101,
        _ => 6,
    };
    if outcome.code != expected {
        return Some(format!("exit code {}, {expected} expected\n{}", outcome.code, outcome.text));
    }
    let at_fault: BTreeSet<String> = strings(&case["tensors_at_fault"]).into_iter().collect();
    // A spec's globs may ask for more than the case is about.
    let named = if by_spec {
        outcome.at_fault.is_superset(&at_fault)
    } else {
        outcome.at_fault == at_fault
    };
    (!named).then(|| format!("names {:?}, {at_fault:?} are at fault", outcome.at_fault))
}

#[test]
fn every_case_gets_its_verdict_and_nine_in_ten_their_cause() {
    let root = root();
    let cases: Vec<Value> =
        serde_json::from_slice(&std::fs::read(root.join("cases.json")).unwrap()).unwrap();
    let next = AtomicUsize::new(0);
    let outcomes: Mutex<Vec<(usize, Outcome)>> = Mutex::default();
    let stated = |case: &Value| entries(&case["needs_spec"]).next().is_some();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some((at, case)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    cases.get(at).map(|case| (at, case))
                } {
                    let outcome = if stated(case) { run(case, &root) } else { check(case, &root) };
                    outcomes.lock().unwrap().push((at, outcome));
                }
            });
        }
    });
    let (mut wrong, mut known, mut found, mut misled) = (Vec::new(), 0, 0, Vec::new());
    for (at, outcome) in outcomes.into_inner().unwrap() {
        let case = &cases[at];
        let id = text(&case["id"]);
        wrong.extend(judge(case, &outcome, stated(case)).map(|why| format!("{id}: {why}")));
        if case["expect"] == "pass" {
            continue;
        }
        known += 1;
        let diagnosis = text(&case["diagnosis"]);
        let right = outcome.causes.iter().any(|(cause, _)| *cause == diagnosis);
        found += usize::from(right);
        if !right && outcome.causes.iter().any(|(_, certain)| *certain) {
            misled.push(format!("{id}: {diagnosis} is right, not {:?}", outcome.causes));
        }
    }
    assert!(cases.len() > 1 && known > 0 && known < cases.len());
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(misled.is_empty(), "wrong causes stated as certain:\n{}", misled.join("\n"));
    assert!(found * 10 >= known * 9, "{found} of {known} causes are right");
}
