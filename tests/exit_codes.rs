//! Every documented exit code, by the commands that give it.

use std::fs;
use std::path::Path;
use std::process::Command;

use qualm::suite::exit::Exit;
use tiny::write_model;

mod tiny;

/// A suite whose one pair `q` is good, with specs that are not, each in a directory of its own.
fn lay_out(directory: &Path) {
    let pair = |name: &str, quantized: &str| {
        format!(
            "[[pair]]\nname = \"{name}\"\nreference = \"../models/r.safetensors\"\nquantized = \
             \"../models/{quantized}.safetensors\"\n"
        )
    };
    fs::create_dir_all(directory.join("models")).unwrap();
    for (spec, text) in [
        ("good", format!("schema = 1\n{}", pair("q", "q"))),
        ("strict", format!("schema = 1\nthresholds.tensor.rmse = 0\n{}", pair("q", "q"))),
        ("misspelt", format!("schema = 1\ncosin = 1\n{}", pair("q", "q"))),
        ("absent", format!("schema = 1\n{}", pair("q", "absent"))),
        ("doubled", format!("schema = 1\n{0}{0}", pair("q", "q"))),
        ("empty", String::new()),
    ] {
        fs::create_dir_all(directory.join(spec)).unwrap();
        if !text.is_empty() {
            fs::write(directory.join(spec).join("s.toml"), text).unwrap();
        }
    }
    write_model(&directory.join("models/r.safetensors"), false, &|_, _| true);
    write_model(&directory.join("models/q.safetensors"), true, &|_, _| true);
    write_model(&directory.join("models/damaged.safetensors"), true, &|_, data| {
        data.reverse();
        true
    });
    fs::write(directory.join("models/text.safetensors"), "no model").unwrap();
    fs::write(directory.join("file"), "").unwrap();
}

#[test]
fn each_code_by_what_gives_it() {
    let directory = tempfile::tempdir().unwrap();
    lay_out(directory.path());
    let table = [
        ("run --spec good --no-baseline", Exit::Ok),
        ("run --spec good --list", Exit::Ok),
        ("diff models/r.safetensors models/q.safetensors", Exit::Ok),
        ("check models/r.safetensors models/q.safetensors", Exit::Ok),
        ("schema", Exit::Ok),
        ("run --spec good --no-baseline --out-dir file/below", Exit::Internal),
        ("run --no-such-argument", Exit::Usage),
        ("diff models/r.safetensors", Exit::Usage),
        ("diff models/r.safetensors models/q.safetensors --threshold nan", Exit::Usage),
        ("run --spec good --shard-from-env", Exit::Usage),
        ("run --spec misspelt", Exit::SpecInvalid),
        ("run --spec doubled", Exit::SpecInvalid),
        ("run --spec good --spec good", Exit::SpecInvalid),
        ("run --spec nowhere", Exit::SpecInvalid),
        ("run --spec good no::such::test", Exit::NoTests),
        ("run --spec empty", Exit::NoTests),
        ("diff models/r.safetensors models/damaged.safetensors", Exit::ValidationFailed),
        ("check models/r.safetensors models/damaged.safetensors", Exit::ValidationFailed),
        ("run --spec absent --no-baseline", Exit::InputError),
        ("diff models/r.safetensors models/text.safetensors", Exit::InputError),
        ("report models/text.safetensors", Exit::InputError),
        ("merge models", Exit::MergeIncomplete),
        ("merge nowhere", Exit::MergeIncomplete),
        ("run --spec good", Exit::BaselinesPending),
        ("pending", Exit::BaselinesPending),
        ("review", Exit::BaselinesPending),
        ("run --spec strict --no-baseline", Exit::TestFailed),
        ("rerun --spec strict --no-baseline --out-dir target/qualm", Exit::TestFailed),
    ];
    for (arguments, expected) in table {
        let output = Command::new(env!("CARGO_BIN_EXE_qualm"))
            .args(arguments.split_whitespace())
            .current_dir(directory.path())
            .env_clear()
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(expected.code().into()), "{arguments}: {error}");
    }
    for (exit, what) in Exit::ALL {
        assert!(table.iter().any(|(_, tested)| *tested == exit), "no test gives {what}");
    }
}

/// Each row of the threat table names tests that are there.
#[test]
fn the_threat_table_names_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.contains(".rs::")).collect();
    assert!(rows.len() >= 15, "{} rows", rows.len());
    for row in table.lines().filter(|line| line.starts_with("| ") && line.matches('|').count() == 4)
    {
        let head = row.contains("what happens");
        assert!(head || row.contains(".rs::"), "no test: {row}");
    }
    for name in rows.iter().flat_map(|row| row.split('`')).filter(|name| name.contains(".rs::")) {
        let (file, test) = name.split_once("::").unwrap();
        let text = fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        let made_by_macro = file == "tests/fuzz_corpus.rs" && text.contains(&format!("    {test}"));
        assert!(text.contains(&format!("fn {test}()")) || made_by_macro, "{name} is not there");
    }
}
