/*! What a run writes: valid, parsable, the same every time, whole, and nowhere else. */

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::Value;

use crate::program::*;

const A: &[u64] = &[4, 32];

/// Every file below a directory with its bytes, by relative path.
pub fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_owned();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// A report without the fields that say when it was made, and how long that took.
pub fn timeless(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).expect("reports are UTF-8");
    let patterns = [
        (r#""started": "[^"]*""#, "\"started\": \"\""),
        (r#""seconds": [0-9.e+-]+"#, "\"seconds\": 0"),
        (r#" timestamp="[^"]*""#, ""),
        (r#" time="[^"]*""#, ""),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "T"),
        (r"\d+\.\d+ s\b", "0 s"),
    ];
    patterns.iter().fold(text, |text, (pattern, by)| {
        Regex::new(pattern).unwrap().replace_all(&text, *by).into_owned()
    })
}

/// A suite of one pair of two tensors, one of which fails.
fn suite() -> Suite {
    let suite = Suite::new();
    let mut random = Random(21);
    let (r, noise) = (random.normals(128), random.normals(128));
    let q: Vec<f32> = r.iter().zip(&noise).map(|(r, noise)| r + 0.5 * noise).collect();
    suite.models(
        &[("good", "F32", A, f32s(&r)), ("bad", "F32", A, f32s(&r))],
        &[("good", "BF16", A, bf16s(&r)), ("bad", "BF16", A, bf16s(&q))],
    );
    suite.spec("thresholds.tensor.cosine = { fail = 0.99, warn = 0.999999 }");
    suite
}

fn validates(schema: &str, value: &Value) -> Result<(), String> {
    let mut schemas = boon::Schemas::new();
    let mut compiler = boon::Compiler::new();
    compiler.add_resource("schema.json", serde_json::from_str(schema).unwrap()).unwrap();
    let schema = compiler.compile("schema.json", &mut schemas).unwrap();
    schemas.validate(value, schema).map_err(|error| error.to_string())
}

#[test]
fn the_contract_validates_against_the_schema_that_the_program_prints() {
    let schema = qualm(&repository(""), &["schema", "contract"]).exits(0).out;
    assert_eq!(schema, fs::read_to_string(repository("schema/contract.schema.json")).unwrap());
    let suite = suite();
    for arguments in
        [&["run"][..], &["run", "--no-baseline", "good"], &["run", "--fail-level", "warn"]]
    {
        suite.qualm(arguments);
        validates(&schema, &suite.contract()).unwrap();
    }
    let mut contract = suite.contract();
    contract["verdict"] = "perhaps".into();
    assert!(validates(&schema, &contract).is_err());
    suite.write("q.safetensors", "");
    suite.qualm(&["run"]).exits(6);
    validates(&schema, &suite.contract()).unwrap();
    let out = suite.path().join("out");
    let embedded = ["run", "minilm-attention", "--no-baseline", "--out-dir", arg(&out)];
    qualm(&repository(""), &embedded).exits(0);
    let contract: Value =
        serde_json::from_slice(&fs::read(out.join("contract.json")).unwrap()).unwrap();
    validates(&schema, &contract).unwrap();
}

#[test]
fn the_schema_of_specs_is_the_committed_one_and_accepts_the_embedded_specs() {
    let schema = qualm(&repository(""), &["schema"]).exits(0).out;
    assert_eq!(schema, fs::read_to_string(repository("schema/spec.schema.json")).unwrap());
    for entry in fs::read_dir(repository("specs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let spec: Value = toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            validates(&schema, &spec).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
    let bad: Value = toml::from_str("schema = 1\ntresholds = 1\n[[pair]]\nname = \"p\"").unwrap();
    assert!(validates(&schema, &bad).is_err());
}

#[test]
fn two_runs_write_the_same_bytes_but_for_the_time_with_any_number_of_threads() {
    let suite = suite();
    let run = |threads: &str| {
        let arguments = ["run", "--no-baseline", "--test-threads", threads];
        suite.qualm(&arguments).exits(101);
        tree(&suite.path().join("target/qualm"))
    };
    let first = run("1");
    for name in ["contract.json", "contract.md", "junit.xml", "report.tsv"] {
        assert!(first.contains_key(Path::new(name)), "{name} is written");
    }
    for threads in ["1", "2", "7", "64"] {
        let again = run(threads);
        assert_eq!(first.keys().collect::<Vec<_>>(), again.keys().collect::<Vec<_>>());
        for (name, bytes) in &first {
            let (a, b) = (timeless(bytes), timeless(&again[name]));
            assert_eq!(a, b, "{} with {threads} threads", name.display());
        }
    }
}

#[test]
fn reports_are_made_again_from_the_contract() {
    let suite = suite();
    suite.qualm(&["run", "--no-baseline"]).exits(101);
    let written = tree(&suite.path().join("target/qualm"));
    suite.qualm(&["report", "target/qualm/contract.json", "--out-dir", "again"]).exits(0);
    for (name, bytes) in tree(&suite.path().join("again")) {
        assert_eq!(bytes, written[&name], "{}", name.display());
    }
    suite.qualm(&["report", "target/qualm/contract.json", "--junit", "j.xml"]).exits(0);
    assert_eq!(suite.read("j.xml").as_bytes(), written[Path::new("junit.xml")]);
}

/// Names that break careless writers of XML, Markdown and terminals.
const HOSTILE: [&str; 12] = [
    "plain",
    "quote\"and'apostrophe",
    "<tag attribute=\"x\">&amp;</tag>",
    "cdata]]>end",
    "escape\u{1b}[31mred",
    "nul\0byte",
    "not a character\u{FFFE}\u{FFFF}",
    "emoji \u{1F980} and \u{1F469}\u{200D}\u{1F4BB}",
    "new\nline\r\nand\ttab",
    "del\u{7F}c1\u{85}",
    "pipe|back`tick*star*",
    "\u{202E}right to left",
];

#[test]
fn hostile_names_pass_through_every_report() {
    let suite = Suite::new();
    let mut random = Random(8);
    let r = random.normals(128);
    let q = random.normals(128);
    let tensors = |dtype, bytes: Vec<u8>| -> Vec<Stored> {
        HOSTILE.iter().map(|name| (*name, dtype, A, bytes.clone())).collect()
    };
    suite.models(&tensors("F32", f32s(&r)), &tensors("BF16", bf16s(&q)));
    suite.spec("thresholds.tensor.cosine = 0.99");
    let ran = suite.qualm(&["run", "--no-baseline"]).exits(101);
    let controls = |text: &str| text.chars().any(|c| c.is_control() && c != '\n');
    assert!(!controls(&ran.out) && !controls(&ran.err), "the terminal is safe");
    for dialect in [&[][..], &["--junit-dialect", "strict"], &["--junit-cases", "failed"]] {
        let arguments = [&["run", "--no-baseline"][..], dialect].concat();
        suite.qualm(&arguments).exits(101);
        let xml = suite.read("target/qualm/junit.xml");
        let document = roxmltree::Document::parse(&xml).expect("well-formed");
        let cases = document.descendants().filter(|node| node.has_tag_name("testcase")).count();
        assert!(cases >= HOSTILE.len(), "{cases} cases");
        let failures = document.descendants().filter(|node| node.has_tag_name("failure")).count();
        assert!(failures >= HOSTILE.len(), "{failures} failures");
        let report = quick_junit::Report::deserialize_from_str(&xml).expect("a JUnit report");
        let cases: usize = report.test_suites.iter().map(|suite| suite.test_cases.len()).sum();
        assert!(cases >= HOSTILE.len());
    }
    let contract = suite.contract();
    let rows = contract["specs"][0]["pairs"][0]["tensors"].as_array().unwrap();
    let mut names: Vec<&str> = rows.iter().map(|row| row["tensor"].as_str().unwrap()).collect();
    names.sort_unstable();
    let mut expected = HOSTILE.to_vec();
    expected.sort_unstable();
    assert_eq!(names, expected, "the record keeps names as they are");
    let tsv = suite.read("target/qualm/report.tsv");
    assert_eq!(tsv.lines().count(), 1 + HOSTILE.len());
    assert!(tsv.lines().all(|line| line.split('\t').count() == 7));
    let list = suite.qualm(&["run", "--no-baseline", "--list", "--format", "terse"]).exits(0).out;
    assert_eq!(list.lines().count(), HOSTILE.len() + 2);
}

#[test]
fn in_ci_nothing_is_written_but_the_output_directory() {
    let suite = suite();
    suite.spec("");
    let before = tree(suite.path());
    let ran = run(command(suite.path()).arg("run").env("CI", "true"));
    assert!(matches!(ran.code, 8 | 101), "{ran}");
    let mut after = tree(suite.path());
    let out = Path::new("target/qualm");
    let pending: Vec<PathBuf> =
        after.keys().filter(|path| path.starts_with(out.join("pending"))).cloned().collect();
    assert!(!pending.is_empty(), "the baseline waits in the output directory");
    after.retain(|path, _| !path.starts_with(out));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    assert_eq!(before, after, "and no file has changed");
    // At one's own desk it waits beside the snapshots.
    suite.qualm(&["run"]);
    assert!(suite.path().join("snapshots/s__p.snap.new").exists());
}
