/*!
Shards and `qualm merge`: whatever the number of shards, the mode and the order, the merged reports
are those of one run, to the byte; and what does not make a whole is refused.

The suite is made to have every kind of outcome: passed, warned, failed, not finite, ignored, missing
and extra tensors, models that are missing or broken, and baselines that are new, held and changed.
*/

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use qualm::suite::blob::Blob;
use tempfile::TempDir;
use tiny::write_model;

mod tiny;

const SPECS: [(&str, &str); 2] = [
    (
        "one.toml",
        r#"schema = 1
thresholds.tensor.cosine = { fail = 0.99, warn = 0.999999 }
thresholds.global.cosine = 0.99

[[pair]]
name = "good"
reference = "models/reference.safetensors"
quantized = "models/good.safetensors"
skip = { tensors = "*.ids", reason = "not weights" }

[[pair]]
name = "bad"
reference = "models/reference.safetensors"
quantized = "models/bad.safetensors"
allow_missing = "blk.3.*"

[[pair]]
name = "swapped"
reference = "models/good.safetensors"
quantized = "models/reference.safetensors"

[[pair]]
name = "gone"
reference = "models/reference.safetensors"
quantized = "models/gone.safetensors"

[[pair]]
name = "alone-${BUILD}"
tags = ["${BUILD}"]
verify = "models/good.safetensors"
skip = { tensors = "*.ids", reason = "not weights" }

[[pair]]
name = "alone not finite"
verify = "models/not-finite.safetensors"

[[pair]]
name = "alone gone"
verify = "models/gone.safetensors"
"#,
    ),
    (
        "below/two.toml",
        r#"schema = 1

[[pair]]
name = "q8_0"
reference = "../models/reference.safetensors"
roundtrip = "q8_0"

[[pair]]
name = "q4_0"
reference = "../models/reference.safetensors"
roundtrip = "q4_0"
thresholds.global.sqnr_db = 60

[[pair]]
name = "broken"
reference = "../models/reference.safetensors"
quantized = "../models/broken.safetensors"

[[pair]]
name = "not finite"
reference = "../models/not-finite.safetensors"
quantized = "../models/not-finite-f16.safetensors"
"#,
    ),
];

/// A suite in a directory of its own.
struct Suite {
    directory: TempDir,
}

impl Suite {
    fn new() -> Self {
        let suite = Self { directory: tempfile::tempdir().unwrap() };
        let models = suite.path("specs/models");
        fs::create_dir_all(&models).unwrap();
        fs::create_dir_all(suite.path("specs/below")).unwrap();
        for (name, text) in SPECS {
            fs::write(suite.path("specs").join(name), text).unwrap();
        }
        let model = |name: &str| models.join(format!("{name}.safetensors"));
        write_model(&model("reference"), false, &|_, _| true);
        write_model(&model("good"), true, &|_, _| true);
        write_model(&model("bad"), true, &|name, data| {
            if name.starts_with("blk.1.attn") {
                data.reverse();
            }
            !name.starts_with("blk.3.attn") && name != "blk.2.norm.weight"
        });
        let poison = |name: &str, data: &mut Vec<f32>| {
            match name {
                "blk.0.attn.weight" => data[5] = f32::NAN,
                "blk.1.attn.weight" => data[6] = f32::INFINITY,
                "blk.2.ffn.weight" => data[7] = f32::NEG_INFINITY,
                _ => {}
            }
            true
        };
        write_model(&model("not-finite"), false, &poison);
        write_model(&model("not-finite-f16"), true, &poison);
        let good = fs::read(model("good")).unwrap();
        fs::write(model("broken"), &good[..good.len() - 100]).unwrap();
        suite.baselines();
        suite
    }

    /// Baselines: held for most pairs, changed for one round trip, none for the other.
    fn baselines(&self) {
        self.run(&["run", "--out-dir", "first"], &[("CI", "0")]);
        self.run(&["accept"], &[("CI", "0")]);
        let snapshots = self.path("snapshots");
        let of = |pair: &str| {
            let entries = fs::read_dir(&snapshots).unwrap().map(|entry| entry.unwrap().path());
            let mut found = entries.filter(|path| path.to_string_lossy().contains(pair));
            found.next().unwrap_or_else(|| panic!("no snapshot of {pair}"))
        };
        fs::remove_file(of("q4_0")).unwrap();
        let text = fs::read_to_string(of("q8_0")).unwrap();
        let (head, rest) = text.split_once("cosine = 0.9").unwrap();
        let changed = format!("{head}cosine = 0.99999999999{}", &rest[rest.find('\n').unwrap()..]);
        fs::write(of("q8_0"), changed).unwrap();
    }

    fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qualm"));
        command.current_dir(self.directory.path()).args(arguments);
        command.env_clear().env("SOURCE_DATE_EPOCH", "1700000000").env("CI", "true");
        if arguments.first() != Some(&"merge") {
            // Names and tags are those of the shards, wherever they are merged.
            command.env("BUILD", "b7");
        }
        command.envs(variables.iter().copied());
        command.output().unwrap()
    }

    fn exit(&self, arguments: &[&str]) -> i32 {
        self.run(arguments, &[]).status.code().unwrap()
    }

    /// Runs all shards; their exit codes.
    fn shards(&self, mode: &str, total: u64, more: &[&str]) -> Vec<i32> {
        let run = |index: u64| {
            let partition = format!("{mode}:{index}/{total}");
            let mut arguments = vec!["run", "--partition", &partition, "--out-dir", "parts"];
            arguments.extend(more);
            self.exit(&arguments)
        };
        let _ = fs::remove_dir_all(self.path("parts"));
        (1..=total).map(run).collect()
    }

    fn blob(&self, index: u64, total: u64) -> PathBuf {
        self.path("parts").join(format!("blob-{index}-of-{total}.json"))
    }
}

/// Every report, and the pending baselines, by path below the output directory.
fn files(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut todo = vec![directory.to_path_buf()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(&next).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(directory).unwrap().to_path_buf();
                found.push((name, fs::read_to_string(entry.path()).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Standard output without the time that the run took.
fn printed(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.split("; finished in").next().unwrap().to_owned()
}

/// One run and the merge of so many shards: the same files, the same output, the same exit code.
fn assert_same(suite: &Suite, mode: &str, total: u64, more: &[&str]) {
    for directory in ["out", "whole", "merged"] {
        let _ = fs::remove_dir_all(suite.path(directory));
    }
    // One directory for both: the paths of pending baselines are in the reports.
    let mut arguments = vec!["run", "--out-dir", "out"];
    arguments.extend(more);
    let whole = suite.run(&arguments, &[]);
    fs::rename(suite.path("out"), suite.path("whole")).unwrap();
    suite.shards(mode, total, more);
    let merged = suite.run(&["merge", "parts", "--out-dir", "out"], &[]);
    let case = format!("{mode} {total} {more:?}: {}", String::from_utf8_lossy(&merged.stderr));
    assert_eq!(merged.status.code(), whole.status.code(), "{case}");
    assert_eq!(printed(&merged), printed(&whole), "{case}");
    let (whole, merged) = (files(&suite.path("whole")), files(&suite.path("out")));
    let names = |files: &[(PathBuf, String)]| -> Vec<PathBuf> {
        files.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&merged), names(&whole), "{case}");
    for ((name, merged), (_, whole)) in merged.iter().zip(&whole) {
        if merged != whole {
            let differs = merged.lines().zip(whole.lines()).find(|(a, b)| a != b);
            panic!("{case}: {} differs: {differs:?}", name.display());
        }
    }
}

#[test]
fn merged_reports_are_those_of_one_run() {
    let suite = Suite::new();
    let modes = ["slice", "hash", "size"];
    for total in 1..=16 {
        assert_same(&suite, modes[total as usize % 3], total, &[]);
    }
    for mode in modes {
        assert_same(&suite, mode, 3, &["--granularity", "pair"]);
    }
    assert_same(&suite, "hash", 2, &["--no-baseline", "--fail-level", "warn"]);
    assert_same(&suite, "slice", 4, &["--include-ignored"]);
    for filter in ["(global)", "(baseline)", "(structure)", "blk.1", "q8_0", "ids"] {
        assert_same(&suite, "slice", 3, &[filter]);
    }
}

#[test]
fn the_order_and_place_of_blobs_do_not_matter() {
    let suite = Suite::new();
    suite.shards("hash", 3, &[]);
    suite.exit(&["merge", "parts", "--out-dir", "out"]);
    let expected = files(&suite.path("out"));
    let blob = |index| suite.blob(index, 3).display().to_string();
    for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
        fs::remove_dir_all(suite.path("out")).unwrap();
        let [a, b, c] = order.map(blob);
        suite.exit(&["merge", &a, &b, &c, "--out-dir", "out"]);
        assert_eq!(files(&suite.path("out")), expected, "{order:?}");
    }
    // As actions that fetch artefacts leave them: each in a directory of its own.
    for index in 1..=3 {
        let below = suite.path(&format!("artefacts/job {index}/deep"));
        fs::create_dir_all(&below).unwrap();
        fs::copy(suite.blob(index, 3), below.join(format!("blob-{index}-of-3.json"))).unwrap();
    }
    fs::remove_dir_all(suite.path("out")).unwrap();
    suite.exit(&["merge", "artefacts", "--out-dir", "out"]);
    assert_eq!(files(&suite.path("out")), expected);
}

#[test]
fn a_shard_says_what_it_found() {
    let suite = Suite::new();
    // More shards than tests: most have nothing to do, which is no failure.
    let codes = suite.shards("slice", 40, &["q8_0", "--no-baseline"]);
    assert_eq!(codes, [0; 40]);
    assert_eq!(suite.exit(&["merge", "parts", "--out-dir", "out"]), 0);
    // A filter that matches nothing is a failure of every shard.
    assert_eq!(suite.shards("slice", 2, &["no such test"]), [4, 4]);
    // A failing bound fails the shard that holds it.
    let codes = suite.shards("hash", 2, &["one::bad::blk.1.attn.weight"]);
    assert_eq!(codes.iter().filter(|code| **code == 101).count(), 1, "{codes:?}");
}

#[test]
fn what_does_not_make_a_whole_is_refused() {
    let suite = Suite::new();
    suite.shards("slice", 3, &[]);
    let kept: Vec<Vec<u8>> = (1..=3).map(|index| fs::read(suite.blob(index, 3)).unwrap()).collect();
    let restore = || {
        fs::remove_dir_all(suite.path("parts")).unwrap();
        fs::create_dir_all(suite.path("parts")).unwrap();
        for (index, bytes) in (1..).zip(&kept) {
            fs::write(suite.blob(index, 3), bytes).unwrap();
        }
    };
    let refused = |expected: &str| {
        restore_check(&suite, expected);
        restore();
    };

    fs::remove_file(suite.blob(2, 3)).unwrap();
    refused("shard 2/3 is missing");

    fs::copy(suite.blob(2, 3), suite.path("parts/blob-again.json")).unwrap();
    refused("shard 2/3 is there twice: parts/blob-2-of-3.json and parts/blob-again.json");

    fs::write(suite.blob(1, 3), &kept[0][..kept[0].len() / 2]).unwrap();
    refused("parts/blob-1-of-3.json is no whole blob of a shard");

    for index in 1..=3 {
        fs::remove_file(suite.blob(index, 3)).unwrap();
    }
    refused("no shard was found");

    // A test that is taken out of the record, with the plan left alone.
    let text = String::from_utf8(kept[0].clone()).unwrap();
    let mut blob: Blob = serde_json::from_str(&text).unwrap();
    blob.contract.specs[0].pairs[0].tests.pop();
    fs::write(suite.blob(1, 3), serde_json::to_vec(&blob).unwrap()).unwrap();
    refused("was changed since its shard wrote it");
    fs::write(suite.blob(1, 3), blob.to_bytes().unwrap()).unwrap();
    refused("shard 1/3 (parts/blob-1-of-3.json) ended early: 1 tests did not run");

    // The plan changed, and with it what the fingerprint should be.
    let mut blob: Blob = serde_json::from_str(&text).unwrap();
    "hash".clone_into(&mut blob.plan.mode);
    fs::write(suite.blob(1, 3), blob.to_bytes().unwrap()).unwrap();
    refused("does not have the fingerprint");

    // A shard that stopped at its first failure.
    let stop = ["run", "--partition", "slice:1/3", "--out-dir", "parts", "--max-fail", "1"];
    suite.exit(&stop);
    refused("ended early");

    // Shards of other runs: another filter, profile level, number, spec, model.
    for (more, expected) in [
        (&["--partition", "slice:1/3", "blk"][..], "other tests were selected"),
        (
            &["--partition", "slice:1/3", "--fail-level", "warn"],
            "another --profile or --fail-level",
        ),
        (&["--partition", "hash:1/3"], "mode"),
    ] {
        let mut arguments = vec!["run", "--out-dir", "parts"];
        arguments.extend(more);
        suite.exit(&arguments);
        refused(expected);
    }
    suite.exit(&["run", "--partition", "slice:1/4", "--out-dir", "parts"]);
    refused("3 shards against 4");

    let model = suite.path("specs/models/good.safetensors");
    let bytes = fs::read(&model).unwrap();
    write_model(&model, true, &|name, _| name != "blk.0.norm.weight");
    suite.exit(&["run", "--partition", "slice:2/3", "--out-dir", "parts"]);
    refused("model models/good.safetensors is another there");
    fs::write(&model, bytes).unwrap();

    let spec = suite.path("specs/one.toml");
    fs::write(&spec, SPECS[0].1.replacen("fail = 0.99,", "fail = 0.98,", 1)).unwrap();
    suite.exit(&["run", "--partition", "slice:3/3", "--out-dir", "parts"]);
    refused("spec one is another there");
}

fn restore_check(suite: &Suite, expected: &str) {
    let output = suite.run(&["merge", "parts", "--out-dir", "refused"], &[]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{error}");
    assert!(error.contains(expected), "{expected:?} is not in: {error}");
    assert!(!suite.path("refused").exists(), "{expected}: nothing is reported");
}

#[test]
fn missing_shards_can_be_made_errors() {
    let suite = Suite::new();
    suite.shards("slice", 3, &[]);
    fs::remove_file(suite.blob(2, 3)).unwrap();
    let arguments = ["merge", "parts", "--allow-missing", "--out-dir", "out"];
    assert_eq!(suite.exit(&arguments), 6);
    let contract = fs::read_to_string(suite.path("out/contract.json")).unwrap();
    let contract: serde_json::Value = serde_json::from_str(&contract).unwrap();
    let all = suite.run(&["run", "--list", "--format", "terse"], &[]);
    let listed = String::from_utf8(all.stdout).unwrap().lines().count() as u64;
    assert_eq!(contract["summary"]["tests"].as_u64(), Some(listed), "no test is silent");
    let junit = fs::read_to_string(suite.path("out/junit.xml")).unwrap();
    assert!(junit.contains("shard 2/3 did not report"));
    // A pair of which no shard reported anything is there as well.
    suite.shards("size", 7, &[]);
    for index in 1..=6 {
        fs::remove_file(suite.blob(index, 7)).unwrap();
    }
    assert_eq!(suite.exit(&arguments), 6);
    let contract = fs::read_to_string(suite.path("out/contract.json")).unwrap();
    let contract: serde_json::Value = serde_json::from_str(&contract).unwrap();
    assert_eq!(contract["summary"]["tests"].as_u64(), Some(listed));
}

#[test]
fn shards_by_the_schedulers_variables() {
    let suite = Suite::new();
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut all = vec!["run", "--list", "--format", "terse"];
        all.extend(arguments);
        let output = suite.run(&all, variables);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let gitlab = [("CI_NODE_INDEX", "2"), ("CI_NODE_TOTAL", "3")];
    for (arguments, partition) in [
        (["--shard-from-env"], "size:2/3"),
        (["--shard-from-env=hash"], "hash:2/3"),
        (["--shard=2/3"], "size:2/3"),
    ] {
        let (code, listed) = run(&arguments, &gitlab);
        assert_eq!(code, Some(0));
        assert_eq!((code, listed), run(&["--partition", partition], &[]), "{arguments:?}");
    }
    assert_eq!(run(&["--shard-from-env"], &[]).0, Some(2), "no scheduler");
    let several = [gitlab[0], gitlab[1], ("TEST_SHARD_INDEX", "0")];
    assert_eq!(run(&["--shard-from-env"], &several).0, Some(2), "two schedulers");
    assert_eq!(run(&["--shard-from-env", "--shard=1/2"], &gitlab).0, Some(2), "said twice");
    assert_eq!(run(&["--partition", "hash:4/3"], &[]).0, Some(2), "no such shard");
}
