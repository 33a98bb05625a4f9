/*!
The same files give the same bits in `contract.json`, with any number of threads and at every level of
instructions that this processor has.
*/

use std::path::Path;
use std::process::Command;

use qualm::codec::simd::{Level, VARIABLE};
use serde_json::Value;

/// A run of two specs of this repository, with the clock stopped.
fn contract(level: &str, threads: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = tempfile::tempdir().expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_qualm"))
        .current_dir(root)
        .env(VARIABLE, level)
        .env_remove("RUST_TEST_THREADS")
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .args([
            "run",
            "--spec",
            "specs/minilm-attention.toml",
            "--spec",
            "specs/minilm-block0.toml",
        ])
        .args(["--test-threads", threads, "--out-dir"])
        .arg(directory.path())
        .output()
        .expect("runs");
    let code = output.status.code();
    assert_eq!(code, Some(0), "{level}, {threads}: {}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(directory.path().join("contract.json")).expect("a record");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn threads_and_instructions_change_no_bit() {
    let expected = contract("scalar", "1");
    for threads in ["1", "2", "3", "8"] {
        // Unset and empty ask for the best level.
        assert!(contract("", threads) == expected, "{threads} threads");
    }
    for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
        assert!(contract(level.name(), "2") == expected, "{level}");
    }
}

#[test]
fn an_unknown_level_is_a_usage_error() {
    for arguments in [&["run", "--list"][..], &["diff", "a", "b"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_qualm"))
            .env(VARIABLE, "sse9")
            .args(arguments)
            .output()
            .expect("runs");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.contains("QUALM_SIMD=\"sse9\" is not an instruction set"), "{message}");
    }
}
