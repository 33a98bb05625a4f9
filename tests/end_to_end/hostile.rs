/*! What files, names, disks and streams may do that nobody likes: nothing hangs, panics, or is lost. */

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::program::*;

const A: &[u64] = &[8, 64];

/// A sound pair with tensors of these names.
fn sound(suite: &Suite, names: &[&str]) {
    let values = Random(3).normals(512);
    let [reference, quantized] = [("F32", f32s(&values)), ("BF16", bf16s(&values))];
    let tensors = |(ty, bytes): (&'static str, Vec<u8>)| {
        let file: Vec<_> = names.iter().map(|name| (*name, ty, A, bytes.clone())).collect();
        safetensors(&file)
    };
    suite.write("r.safetensors", tensors(reference));
    suite.write("q.safetensors", tensors(quantized));
    suite.spec("");
}

fn started() -> Suite {
    let suite = Suite::new();
    sound(&suite, &["a", "b"]);
    suite
}

/// The names of all files in a directory, hidden ones too.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_configuration_that_is_no_object_is_not_used_and_said_so() {
    for file in ["config.json", "hf_quant_config.json", "quantize_config.json", "quanto_qmap.json"]
    {
        for text in ["[]", "\"x\"", "1", "true", "[{\"quantization\":1}]", "", "{"] {
            let suite = started();
            suite.write(
                "q/model.safetensors",
                fs::read(suite.path().join("q.safetensors")).unwrap(),
            );
            suite.write(&format!("q/{file}"), text);
            let ran = suite.qualm(&["check", "r.safetensors", "q"]).exits(0);
            assert!(ran.out.contains(file), "{text:?} in {file} is named: {ran}");
        }
        for (text, why) in [
            ("{\"quantization_config\": [1], \"quantization\": \"x\"}", "values of other types"),
            ("{\"text_config\": 1, \"compression_config\": null}", "nested ones"),
        ] {
            let suite = started();
            suite.write(
                "q/model.safetensors",
                fs::read(suite.path().join("q.safetensors")).unwrap(),
            );
            suite.write(&format!("q/{file}"), text);
            let ran = suite.qualm(&["check", "r.safetensors", "q"]);
            assert!([0, 6].contains(&ran.code), "{why} in {file}: {ran}");
        }
    }
}

#[test]
fn a_type_or_a_name_may_be_longer_than_any_table_is_wide() {
    let suite = Suite::new();
    let long = "Z".repeat(70_000);
    let header = format!("{{\"w\":{{\"dtype\":\"{long}\",\"shape\":[1],\"data_offsets\":[0,4]}}}}");
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat();
    suite.write("type.safetensors", bytes);
    suite.qualm(&["inspect", "type.safetensors"]).exits(6).says("ZZZ");
    let name = "\u{1}".repeat(14_000);
    suite.write("name.safetensors", safetensors(&[(&name, "F32", &[4], f32s(&[1.0; 4]))]));
    suite.qualm(&["inspect", "name.safetensors"]).exits(0).says("\\u{1}");
    let name = "n".repeat(200);
    suite.write("n.safetensors", safetensors(&[(&name, "F32", &[4], f32s(&[1.0; 4]))]));
    suite.qualm(&["inspect", "n.safetensors"]).exits(0).says(&name);
}

/// A pipe that nobody writes to.
#[cfg(unix)]
fn pipe(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_by_name_and_never_waited_for() {
    // where it lies, the command, exit codes, why
    for (place, arguments, codes, named, why) in [
        ("q/config.json", &["check", "r.safetensors", "q"][..], &[0][..], true, "beside a model"),
        ("q/hf_quant_config.json", &["inspect", "q"], &[0], true, "beside a model"),
        ("c.json", &["report", "c.json"], &[6], true, "a record"),
        ("target/qualm/contract.json", &["rerun"], &[6], true, "a record"),
        ("blobs/blob-1-of-1.json", &["merge", "blobs"], &[7], true, "a blob"),
        ("a.zip", &["accept", "--from", "a.zip"], &[6], true, "an archive"),
        ("snapshots/s__p.snap", &["run"], &[6], true, "a snapshot"),
        ("snapshots/s__x.snap", &["prune"], &[0], true, "a snapshot"),
        ("target/qualm/falsify.json", &["run", "--no-baseline"], &[0], true, "evidence"),
        ("specs/t.toml", &["run", "--no-baseline"], &[0], false, "a spec: left out"),
        ("x.toml", &["run", "--spec", "x.toml"], &[3], true, "a spec that is named"),
        ("x.gguf", &["inspect", "x.gguf"], &[6], true, "a model"),
    ] {
        for device in [false, true] {
            let suite = started();
            let model = fs::read(suite.path().join("q.safetensors")).unwrap();
            suite.write("q/model.safetensors", model);
            let path = suite.path().join(place);
            if device {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
            } else {
                pipe(&path);
            }
            let ran = suite.qualm(arguments);
            assert!(codes.contains(&ran.code), "{why}, {place}: {ran}");
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let said = ran.out.contains(&name) || ran.err.contains(&name);
            assert_eq!(said, named, "{why}, {place} is named: {ran}");
        }
    }
    let suite = started();
    pipe(&suite.path().join("summary"));
    let mut command = command(suite.path());
    command.args(["run", "--no-baseline"]).env("GITHUB_ACTIONS", "true");
    let ran = run(command.env("GITHUB_STEP_SUMMARY", suite.path().join("summary"))).exits(0);
    assert!(ran.err.contains("summary"), "{ran}");
}

#[test]
fn hostile_specs_are_refused_in_plain_words() {
    let pair = "schema = 1\n[[pair]]\nname = \"p\"\nreference = \"r\"\nquantized = \"q\"\n";
    let globs: Vec<String> = (0..20_000).map(|i| format!("\"zz{i}\"")).collect();
    let regexes = vec!["{from='(\\w{50}){9}',to='x'}"; 300].join(",\n");
    for (text, says, why) in [
        (format!("schema = 1\n{}", "=".repeat(150_000)), "equals", "many mistakes in a line"),
        (format!("schema = 1\n{}", "=".repeat(300_000)), "a line of 300000 bytes", "a long line"),
        (
            format!("{pair}allow_missing = [{}]", globs.join(",\n")),
            "more than 10000 globs",
            "globs",
        ),
        (format!("{pair}rename = [{regexes}]"), "needs more than", "large regular expressions"),
        (format!("schema = 1\nx = {}", "[".repeat(200_000)), "recursion", "nesting"),
    ] {
        let suite = Suite::new();
        suite.write("specs/s.toml", text);
        let ran = suite.qualm(&["run"]).exits(3);
        let said = if says == "equals" { !ran.err.is_empty() } else { ran.err.contains(says) };
        assert!(said, "{why}: no {says:?} in {:.2000}", ran.err);
        assert!(ran.err.len() < 8 << 20, "{why}: {} bytes of errors", ran.err.len());
    }
}

#[test]
fn what_is_left_over_goes_and_what_is_not_ours_stays() {
    let suite = started();
    suite.qualm(&["run"]).exits(8);
    let mine = ["snapshots/.notes.tmp", "snapshots/mine.tmp", "target/qualm/.editor.swp"];
    for file in mine {
        suite.write(file, "mine");
    }
    for arguments in [&["run"][..], &["accept"], &["run"], &["pending"], &["report", "x.json"]] {
        let left = ["target/qualm/.qualm-dead.tmp", "snapshots/.qualm-dead.tmp"];
        for file in left {
            suite.write(file, "half");
        }
        suite.qualm(arguments);
        let still = |file: &&str| suite.path().join(file).exists();
        if arguments[0] != "report" {
            assert!(!still(&left[1]), "{arguments:?}");
        }
        if arguments[0] == "run" {
            assert!(!still(&left[0]), "{arguments:?}");
        }
        assert!(mine.iter().all(still), "{arguments:?}");
    }
}

/// Nothing that drives a terminal, turns a direction, or is a command to a CI system.
#[track_caller]
fn assert_text(ran: &Ran) {
    for text in [&ran.out, &ran.err] {
        let drives = |c: char| {
            (c.is_control() && c != '\n' && c != '\t')
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        assert!(!text.contains(drives), "{ran}");
        let command = |line: &str| {
            let rest = line.trim_start().strip_prefix("::");
            rest.is_some_and(|it| it.starts_with(char::is_alphabetic)) || line.contains("##[")
        };
        assert!(!text.lines().any(command), "{ran}");
    }
}

#[test]
fn names_reach_a_terminal_or_a_log_as_text_alone() {
    let name = "blk\u{202e}.\u{1b}[2Jw\n::error::x";
    let suite = Suite::new();
    sound(&suite, &[name, "b"]);
    let reason = "harmless\\n::error::injected\\u001b]0;title\\u0007 ##[error]x \\u202e";
    suite.write(
        "specs/s.toml",
        format!(
            "schema = 1\ndescription = \"{reason}\"\n[[pair]]\nname = \"p\\u202e\"\n\
             reference = \"../r.safetensors\"\nquantized = \"../q.safetensors\"\n\
             [[pair.rule]]\ntensors = \"*\"\ncosine = 0.5\nreason = \"{reason}\"\n\
             [[pair.skip]]\ntensors = \"b\"\nreason = \"{reason}\"\n"
        ),
    );
    let id = "s::p\u{202e}::b";
    let wrong = "s::p::\u{1b}[2Jnothing\n::error::x";
    let absent = "absent\u{1b}[2J\n::error::x.gguf";
    for arguments in [
        &["run", "--show-output"][..],
        &["run", "--list"],
        &["run", "--list", "--format", "json"],
        &["run", "--format", "terse"],
        &["run", "--format", "json"],
        &["run", "--format", "junit"],
        &["run", "--no-baseline", wrong],
        &["explain", id],
        &["explain", wrong],
        &["check", "r.safetensors", "q.safetensors"],
        &["check", "--json", "r.safetensors", "q.safetensors"],
        &["check", "q.safetensors", "q.safetensors"],
        &["check", "r.safetensors", absent],
        &["diff", "r.safetensors", "q.safetensors"],
        &["diff", "r.safetensors", absent],
        &["inspect", "r.safetensors"],
        &["inspect", "--json", "r.safetensors"],
        &["stats", "r.safetensors"],
        &["stats", "r.safetensors", "--type", wrong],
        &["init", "r.safetensors", "q.safetensors", "--out", "-"],
        &["init", "r.safetensors", "q.safetensors", "--out", "-", "--name", wrong],
        &["pending"],
        &["review"],
        &["accept", wrong],
        &["accept"],
        &["falsify"],
        &["compare", "target/qualm/contract.json", "target/qualm/contract.json"],
        &["report", absent],
        &["merge", absent],
        &["prune", "--dry-run"],
        &["run", wrong, "--no-such-option\u{1b}[2J"],
        &["run", "--partition", wrong],
        &["run", "--spec", absent],
    ] {
        assert_text(&suite.qualm(arguments));
    }
    let json = suite.qualm(&["inspect", "--json", "r.safetensors"]).exits(0).json();
    assert_eq!(json["tensors"][1]["name"], name, "JSON means the same");
}

#[cfg(unix)]
#[test]
fn a_path_is_bytes() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let suite = started();
    let odd = OsStr::from_bytes(b"\xff.safetensors");
    if fs::copy(suite.path().join("q.safetensors"), suite.path().join(odd)).is_err() {
        // A file system of UTF-8 alone.
        return;
    }
    for arguments in [&["check", "r.safetensors"][..], &["diff", "r.safetensors"], &["inspect"]] {
        run(command(suite.path()).args(arguments).arg(odd)).exits(0);
    }
    let ran = run(command(suite.path()).args(["init", "r.safetensors"]).arg(odd)).exits(2);
    ran.says("UTF-8");
    let backslashes = "a\\b.safetensors";
    fs::copy(suite.path().join("q.safetensors"), suite.path().join(backslashes)).unwrap();
    suite
        .qualm(&["init", "r.safetensors", backslashes, "--out", "specs/s.toml", "--force"])
        .exits(0);
    suite.qualm(&["run", "--no-baseline"]).exits(0);
}

#[cfg(target_os = "linux")]
#[test]
fn streams_that_cannot_be_written_leave_the_exit_code_its_meaning() {
    let suite = started();
    suite.spec("integrity.quantized = \"off\"\nintegrity.reason = \"the same\"");
    suite.write("specs/broken.txt", "schema = 1\nx = = 1\n");
    // arguments, exit code with a full standard error, with a full standard output, why
    for (arguments, err, out, why) in [
        (&["run", "--no-baseline"][..], 0, 1, "a run that passes"),
        (&["check", "r.safetensors", "q.safetensors"], 0, 1, "a healthy pair"),
        (&["check", "r.safetensors", "absent"], 6, 6, "a file that is not there"),
        (&["inspect", "absent"], 6, 6, "a file that is not there"),
        (&["run", "--no-such-argument"], 2, 2, "an error of usage"),
        (&["run", "--spec", "specs/broken.txt"], 3, 3, "an invalid spec"),
        (&["run", "nothing"], 4, 4, "nothing selected"),
    ] {
        let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
        let code = |command: &mut Command| command.status().unwrap().code();
        let mut process = command(suite.path());
        process.args(arguments).stdout(Stdio::null());
        assert_eq!(code(process.stderr(full())), Some(err), "{why}: full standard error");
        let mut process = command(suite.path());
        process.args(arguments).stderr(Stdio::null());
        assert_eq!(code(process.stdout(full())), Some(out), "{why}: full standard output");
    }
}

#[test]
fn a_tensor_may_be_called_as_a_test_of_its_pair() {
    for name in ["(structure)", "(global)", "(baseline)", "\"(global)\""] {
        for mode in ["slice", "hash", "size"] {
            let suite = Suite::new();
            sound(&suite, &["a", name, "z"]);
            suite.qualm(&["run", "--no-baseline"]).exits(0);
            let tests = suite.contract();
            let tests = tests["specs"][0]["pairs"][0]["tests"].as_array().unwrap().clone();
            let mut ids: Vec<&str> = tests.iter().filter_map(|test| test["id"].as_str()).collect();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), 5, "{name}: each test has its id: {ids:?}");
            suite.qualm(&["explain", &format!("s::p::\"{name}\"")]).exits(0).says("NaN");
            for part in ["1/2", "2/2"] {
                let part = format!("{mode}:{part}");
                suite.qualm(&["run", "--no-baseline", "--partition", &part, "--out-dir", "b"]);
            }
            suite.qualm(&["merge", "b", "--out-dir", "m"]).exits(0);
        }
    }
}

#[test]
fn a_tensor_that_neither_model_can_read_names_its_file() {
    let suite = Suite::new();
    for file in ["old.safetensors", "new.safetensors"] {
        suite.write(file, safetensors(&[("odd", "X9", &[4], vec![0; 4])]));
    }
    for command in ["diff", "check"] {
        let ran = suite.qualm(&[command, "old.safetensors", "new.safetensors"]).exits(6);
        assert!(
            ran.to_string().contains("odd") && ran.to_string().contains(".safetensors:"),
            "{ran}"
        );
    }
}

#[test]
fn a_gate_is_off_only_with_a_reason() {
    for (line, code, says, why) in [
        ("worst_block = 1e308", 3, "worst_block", "nothing can break it"),
        ("gain = 1e9", 3, "gain", "the same"),
        ("worst_row = 2", 3, "worst_row", "cosines differ by at most 2"),
        ("sqnr_expected = { fail = 1e7, warn = 1 }", 3, "sqnr_expected", "the warning is none"),
        ("worst_block = \"off\"", 3, "reason", "off without a reason"),
        ("worst_block = \"off\"\nreason = \"noise\"", 0, "", "off with a reason"),
        ("worst_block = 6\nworst_row = 0.5", 0, "", "wide bounds that can be broken"),
    ] {
        let suite = started();
        suite.spec(&format!("[pair.integrity]\n{line}"));
        let ran = suite.qualm(&["run", "--no-baseline"]);
        assert_eq!(ran.code, code, "{why}: {ran}");
        assert!(ran.err.contains(says), "{why}: {ran}");
    }
}

#[test]
fn a_suite_of_which_all_is_ignored_has_not_passed() {
    let suite = started();
    suite.spec("ignore = \"slow\"");
    suite.qualm(&["run", "--no-baseline"]).exits(4).says("--include-ignored");
    assert_eq!(suite.contract()["verdict"], "failed");
    suite.qualm(&["run", "--no-baseline", "--no-tests", "pass"]).exits(0);
    suite.qualm(&["run", "--no-baseline", "--include-ignored"]).exits(0);
    suite.qualm(&["run", "--no-baseline", "--bench"]).exits(0);
    for part in ["slice:1/2", "slice:2/2"] {
        suite.qualm(&["run", "--no-baseline", "--partition", part, "--out-dir", "b"]).exits(0);
    }
    suite.qualm(&["merge", "b", "--out-dir", "m"]).exits(4);
}

/// Applies a change to the first value under a key, wherever it is.
fn change(value: &mut Value, key: &str, to: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter_mut().any(|(name, value)| {
            let here = name == key && !value.is_object() && !value.is_array();
            if here {
                *value = to.clone();
            }
            here || change(value, key, to)
        }),
        Value::Array(items) => items.iter_mut().any(|item| change(item, key, to)),
        _ => false,
    }
}

#[test]
fn a_blob_that_its_shard_did_not_write_is_refused() {
    let suite = started();
    for part in ["slice:1/2", "slice:2/2"] {
        suite.qualm(&["run", "--no-baseline", "--partition", part, "--out-dir", "b"]).exits(0);
    }
    suite.qualm(&["merge", "b", "--out-dir", "m"]).exits(0);
    let whole = suite.read("b/blob-1-of-2.json");
    for (key, to) in [
        ("n", json!(u64::MAX)),
        ("rr", json!(-1.0)),
        ("outcome", json!("passed")),
        ("message", json!("all is well")),
        ("today", json!("2020-01-01")),
        ("digest", json!("0".repeat(64))),
        ("format", json!(1)),
    ] {
        let mut blob: Value = serde_json::from_str(&whole).unwrap();
        assert!(change(&mut blob, key, &to), "{key} is in it");
        suite.write("b/blob-1-of-2.json", blob.to_string());
        let ran = suite.qualm(&["merge", "b", "--out-dir", "m"]).exits(7);
        assert!(ran.err.contains("blob-1-of-2.json"), "{key}: {ran}");
    }
    for text in [&whole[..whole.len() / 2], "", "{}", "[]"] {
        suite.write("b/blob-1-of-2.json", text);
        suite.qualm(&["merge", "b", "--out-dir", "m"]).exits(7);
    }
}

#[test]
fn reports_of_an_earlier_run_are_not_taken_for_those_of_one_that_failed() {
    let suite = started();
    let record = "target/qualm/contract.json";
    suite.qualm(&["run", "--no-baseline"]).exits(0);
    let sound = suite.read("specs/s.toml");
    suite.write("specs/s.toml", "schema = 1\nx = = 1\n");
    suite.qualm(&["run", "--no-baseline"]).exits(3);
    for arguments in [&["report", record][..], &["rerun"], &["compare", record, record]] {
        suite.qualm(arguments).exits(6).says("earlier run");
    }
    suite.write("specs/s.toml", sound);
    suite.qualm(&["run", "--no-baseline"]).exits(0);
    suite.qualm(&["compare", record, record]).exits(0);
    let left = names(&suite.path().join("target/qualm"));
    assert!(left.iter().all(|name| !name.starts_with('.')), "{left:?}");
    // A shard that fails leaves no blob of an earlier run.
    let shard = ["run", "--no-baseline", "--partition", "slice:1/1"];
    suite.qualm(&shard).exits(0);
    suite.write("specs/s.toml", "schema = 1\nx = = 1\n");
    suite.qualm(&shard).exits(3);
    suite.qualm(&["merge", "target/qualm", "--out-dir", "m"]).exits(7);
}

#[test]
fn names_that_differ_in_case_alone_do_not_share_a_snapshot() {
    let suite = started();
    let pair = |name: &str| {
        format!(
            "[[pair]]\nname = \"{name}\"\nreference = \"../r.safetensors\"\n\
             quantized = \"../q.safetensors\"\n"
        )
    };
    suite.write("specs/s.toml", format!("schema = 1\n{}{}", pair("p"), pair("P")));
    suite.qualm(&["run"]).exits(3).says("another case").says("s.toml");
    suite.qualm(&["run", "--no-baseline"]).exits(0);
}

#[test]
fn destructive_commands_say_what_they_would_do() {
    let suite = started();
    suite.qualm(&["run"]).exits(8);
    let before = names(&suite.path().join("snapshots"));
    suite.qualm(&["accept", "--dry-run"]).exits(0).says("would accept snapshots/s__p.snap");
    suite.qualm(&["reject", "--dry-run"]).exits(0).says("would reject snapshots/s__p.snap");
    assert_eq!(names(&suite.path().join("snapshots")), before);
    suite.qualm(&["accept"]).exits(0);
    // A part of the suite judges its own snapshots alone.
    let spec = suite.read("specs/s.toml");
    suite.write("specs/t.toml", spec);
    suite.qualm(&["prune", "--spec", "specs/t.toml"]).exits(0);
    assert_eq!(names(&suite.path().join("snapshots")), ["s__p.snap"]);
    fs::remove_file(suite.path().join("specs/s.toml")).unwrap();
    suite.qualm(&["prune", "--dry-run"]).exits(0).says("would remove snapshots/s__p.snap");
    suite.qualm(&["prune"]).exits(0).says("removed snapshots/s__p.snap");
    assert_eq!(names(&suite.path().join("snapshots")), [""; 0]);
}
