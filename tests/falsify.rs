/*!
`qualm falsify` as a process: exit codes, survivors and allowances, evidence, and the embedded suite.
*/

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

mod forge;

/// A suite of one pair in a directory of its own: F32 against F16, 64 rows of 64, and a vector.
struct Suite(TempDir);

impl Suite {
    fn new(spec: &str) -> Self {
        let suite = Self(tempfile::tempdir().unwrap());
        fs::create_dir(suite.path("specs")).unwrap();
        suite.write("F32", |value| value.to_le_bytes().to_vec(), "r");
        suite.write("F16", |value| half::f16::from_f32(value).to_le_bytes().to_vec(), "q");
        suite.spec(spec);
        suite
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn spec(&self, more: &str) {
        let text = format!(
            "schema = 1\n{more}\n[[pair]]\nname = \"p\"\nreference = \"r.safetensors\"\n\
             quantized = \"q.safetensors\"\nqtype = {{ tensors = \"*\", is = \"F16\" }}\n"
        );
        fs::write(self.path("specs/s.toml"), text).unwrap();
    }

    fn write(&self, ty: &str, encode: impl Fn(f32) -> Vec<u8>, name: &str) {
        // A linear congruence, so that every value is another.
        let mut state = 1u64;
        let mut values = |count: usize, scale: f32| -> Vec<u8> {
            let mut bytes = Vec::new();
            for _ in 0..count {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let unit = (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
                bytes.extend(encode(unit * scale));
            }
            bytes
        };
        let (m, v) = (values(64 * 64, 0.2), values(64, 2.0));
        let zero: Vec<u8> = (0..64).flat_map(|_| encode(0.0)).collect();
        let (a, b) = (m.len(), m.len() + v.len());
        let header = format!(
            "{{\"m\":{{\"dtype\":\"{ty}\",\"shape\":[64,64],\"data_offsets\":[0,{a}]}},\
             \"v\":{{\"dtype\":\"{ty}\",\"shape\":[64],\"data_offsets\":[{a},{b}]}},\
             \"z\":{{\"dtype\":\"{ty}\",\"shape\":[8,8],\"data_offsets\":[{b},{}]}}}}",
            b + zero.len()
        );
        let data = [m, v, zero].concat();
        let bytes = forge::safetensors_raw(header.len() as u64, header.as_bytes(), &data);
        fs::write(self.path(&format!("specs/{name}.safetensors")), bytes).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_qualm"))
            .args(arguments)
            .current_dir(self.0.path())
            .env_remove("CI")
            .output()
            .unwrap()
    }

    fn falsify(&self) -> Value {
        json(&fs::read(self.path("target/qualm/falsify.json")).unwrap())
    }
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

/// Allows what this suite does not notice: `z` is zero in the reference, which nothing forbids.
const ALLOWED: &str = "nonzero = [\"m\", \"v\"]\n[[allow_survivor]]\n\
                       fault = \"zero-both\"\ntensors = \"v\"\nreason = \"for the test\"";

#[test]
fn survivors_fail_until_they_are_seen_or_allowed() {
    for (spec, expected, survived, allowed, why) in [
        ("", 101, 2, 0, "zero on both sides goes unnoticed: in a matrix, in a vector"),
        ("nonzero = [\"m\", \"v\"]", 0, 0, 0, "the spec states the fact"),
        (
            "[[allow_survivor]]\nfault = [\"zero-both\"]\nreason = \"for the test\"",
            0,
            0,
            2,
            "allowed everywhere",
        ),
        (
            "[[allow_survivor]]\nfault = [\"zero-both\"]\ntensors = \"m\"\nreason = \"test\"",
            101,
            1,
            1,
            "allowed for one of the two",
        ),
    ] {
        let suite = Suite::new(spec);
        // The class of matrices is stood for by its smallest tensor: leave the zero one out.
        suite.spec(&format!("{spec}\n[[skip]]\ntensors = \"z\"\nreason = \"zero\""));
        let output = suite.run(&["falsify"]);
        assert_eq!(code(&output), expected, "{why}: {}", text(&output));
        let counts = &suite.falsify()["counts"];
        assert_eq!(counts["survived"], survived, "{why}");
        assert_eq!(counts["allowed"], allowed, "{why}");
        assert!(counts["killed"].as_u64().unwrap() > 45, "{counts}");
        assert_eq!(counts["by_baseline_alone"], 0, "there is no baseline");
        let listed = text(&output).contains("survivors:") && text(&output).contains("`nonzero`");
        assert_eq!(listed, survived > 0, "{}", text(&output));
    }
}

#[test]
fn a_fault_without_effect_is_not_killed() {
    let suite = Suite::new("[[skip]]\ntensors = \"m\"\nreason = \"only the zero matrix\"");
    let output = suite.run(&["falsify"]);
    let found = suite.falsify();
    let mutants = found["pairs"][0]["mutants"].as_array().unwrap();
    let outcome = |fault: &str| {
        let mutant = mutants.iter().find(|it| it["fault"] == fault && it["tensor"] == "z");
        mutant.map(|it| it["outcome"].as_str().unwrap().to_owned())
    };
    for fault in ["zero", "doubled", "block-negated", "bytes-swapped", "tail-zero", "zero-both"] {
        assert_eq!(outcome(fault).as_deref(), Some("no_effect"), "{fault}: {}", text(&output));
    }
    for fault in ["value-nan", "row-cut", "tensor-missing", "truncated"] {
        assert_eq!(outcome(fault).as_deref(), Some("killed"), "{fault}");
    }
    assert_eq!(outcome("nibbles-swapped"), None, "there are no nibbles");
    let not = found["pairs"][0]["not_applicable"].as_array().unwrap();
    assert!(not.contains(&Value::from("nibbles-swapped")), "{not:?}");
}

#[test]
fn exit_codes() {
    let suite = Suite::new(ALLOWED);
    for (arguments, expected, says, why) in [
        (&["falsify", "--filter", "nothing"][..], 4, "no pairs selected", "no pair"),
        (&["falsify", "--tag", "nothing"], 4, "no pairs selected", "no pair with the tag"),
        (&["falsify", "no/such.toml"], 3, "no/such.toml", "no spec"),
        (&["falsify", "--threads", "1"], 2, "--threads", "an argument that there is not"),
        (&["falsify", "--list"], 0, "needs `metadata_equal`", "the table of faults"),
    ] {
        let output = suite.run(arguments);
        assert_eq!(code(&output), expected, "{why}: {}", text(&output));
        assert!(text(&output).contains(says), "{why}: {}", text(&output));
    }
    suite.spec("[[allow_survivor]]\nfault = \"zero-bot\"\nreason = \"x\"");
    let output = suite.run(&["falsify"]);
    assert_eq!(code(&output), 3);
    assert!(text(&output).contains("did you mean `zero-both`?"), "{}", text(&output));

    suite.spec("[thresholds]\ntensor.cosine = 1\ntensor.rmse = 0");
    let output = suite.run(&["falsify"]);
    assert_eq!(code(&output), 101, "{}", text(&output));
    assert!(text(&output).contains("UNSOUND"), "{}", text(&output));
    assert_eq!(suite.falsify()["counts"]["mutants"], 0);

    suite.spec("");
    fs::remove_file(suite.path("specs/q.safetensors")).unwrap();
    let output = suite.run(&["falsify"]);
    assert_eq!(code(&output), 6, "{}", text(&output));
}

#[test]
fn an_allowance_that_nothing_needs_is_warned_of() {
    let spec = "nonzero = [\"m\", \"v\"]\n[[allow_survivor]]\nfault = \"transposed\"\n\
                reason = \"for the test\"";
    let suite = Suite::new(&format!("{spec}\n[[skip]]\ntensors = \"z\"\nreason = \"zero\""));
    let output = suite.run(&["falsify"]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    let message = "the allowance is not needed";
    assert!(text(&output).contains(message), "{}", text(&output));
    assert!(text(&output).contains("specs/s.toml:3"), "{}", text(&output));
}

#[test]
fn the_same_suite_gives_the_same_bytes_and_nothing_else_is_written() {
    let suite = Suite::new(ALLOWED);
    let mut all = Vec::new();
    for threads in ["1", "4"] {
        let output = suite.run(&["falsify", "--json", "--test-threads", threads]);
        assert_eq!(output.stdout, fs::read(suite.path("target/qualm/falsify.json")).unwrap());
        all.push(output.stdout);
    }
    assert!(all[0] == all[1]);
    let names = |below: &str| {
        let entries = fs::read_dir(suite.path(below)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names("target/qualm"), ["falsify.json"]);
    assert_eq!(names(""), ["specs", "target"], "no snapshots");
}

/// `falsify` leaves evidence; a run over the same files reports it, a run over others does not.
#[test]
fn evidence_enters_the_contract_report_while_it_is_current() {
    let suite =
        Suite::new("nonzero = [\"m\", \"v\"]\n[[skip]]\ntensors = \"z\"\nreason = \"zero\"");
    let obligation = || {
        let output = suite.run(&["run", "--no-baseline"]);
        assert_eq!(code(&output), 0, "{}", text(&output));
        let contract = json(&fs::read(suite.path("target/qualm/contract.json")).unwrap());
        let obligations = contract["obligations"].as_array().unwrap();
        let found = obligations.iter().find(|it| it["id"] == "falsifiable").unwrap().clone();
        let falsified = contract["specs"][0]["pairs"][0]["falsified"].clone();
        (found["status"].as_str().unwrap().to_owned(), falsified)
    };
    assert_eq!(obligation(), ("not_exercised".to_owned(), Value::Null));
    assert_eq!(code(&suite.run(&["falsify", "--no-baseline"])), 0);
    let (status, falsified) = obligation();
    assert_eq!(status, "held");
    assert_eq!(falsified["counts"]["survived"], 0);
    assert!(falsified["counts"]["killed"].as_u64().unwrap() > 45);
    let report = fs::read_to_string(suite.path("target/qualm/contract.md")).unwrap();
    assert!(report.contains("Falsified: "), "{report}");

    suite.spec("[[skip]]\ntensors = \"z\"\nreason = \"zero\"");
    assert_eq!(obligation(), ("not_exercised".to_owned(), Value::Null), "another spec");
    assert_eq!(code(&suite.run(&["falsify", "--no-baseline"])), 101);
    assert_eq!(obligation().0, "violated", "survivors");

    fs::write(suite.path("target/qualm/falsify.json"), "{}").unwrap();
    let output = suite.run(&["run", "--no-baseline"]);
    assert!(text(&output).contains("run `qualm falsify` again"), "{}", text(&output));
}

/// The product's own suite notices everything that can be put into it.
#[test]
fn the_embedded_suite_kills_every_mutant() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_qualm"))
        .args(["falsify", "--json", "--out-dir"])
        .arg(out.path())
        .current_dir(root)
        .output()
        .unwrap();
    let found = json(&output.stdout);
    let mutants = || {
        let pairs = found["pairs"].as_array().unwrap().iter();
        pairs.flat_map(|pair| pair["mutants"].as_array().unwrap())
    };
    let bad: Vec<_> = mutants().filter(|it| it["outcome"] != "killed").collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert_eq!(code(&output), 0);
    let mut kinds: Vec<_> = mutants().map(|it| it["fault"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert!(kinds.len() >= 45, "{} kinds: {kinds:?}", kinds.len());
    // Without its snapshots the suite still notices nearly everything.
    let alone = mutants().filter(|it| it["gates"] == serde_json::json!(["baseline"])).count();
    assert!(alone * 25 < mutants().count(), "{alone} by the baseline alone");
}
