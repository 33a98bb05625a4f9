/*!
The same arguments for a real libtest binary and for qualm: they select the same tests, end with the
same codes, and are refused alike.

Where they differ on purpose, the table says so: qualm takes libtest's unstable arguments without
`-Z unstable-options`, and a run without tests fails.
*/

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use tiny::write_model;

mod tiny;

const LIBTEST: &str = r#"
mod alpha {
    #[test] fn one() {}
    #[test] #[ignore = "large models"] fn slow() {}
    #[test] fn two() {}
}
mod beta {
    #[test] fn bad() { panic!("no") }
    #[test] fn one() {}
    #[test] fn ten() {}
}
"#;

/// The same tests as specs; a pair counts as a test.
const SPECS: [(&str, &str); 2] = [
    (
        "alpha",
        r#"schema = 1
[[pair]]
name = "one"
reference = "models/r.safetensors"
quantized = "models/q.safetensors"
[[pair]]
name = "slow"
ignore = "large models"
reference = "models/r.safetensors"
quantized = "models/q.safetensors"
[[pair]]
name = "two"
reference = "models/r.safetensors"
quantized = "models/q.safetensors"
"#,
    ),
    (
        "beta",
        r#"schema = 1
[[pair]]
name = "bad"
reference = "models/r.safetensors"
quantized = "models/q.safetensors"
thresholds.tensor.rmse = 0
[[pair]]
name = "one"
reference = "models/r.safetensors"
quantized = "models/q.safetensors"
[[pair]]
name = "ten"
reference = "models/r.safetensors"
quantized = "models/q.safetensors"
"#,
    ),
];

struct Both {
    directory: TempDir,
    libtest: PathBuf,
}

impl Both {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("twin.rs");
        let libtest = directory.path().join("twin");
        fs::write(&source, LIBTEST).unwrap();
        let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
        let compiled = Command::new(rustc)
            .args(["--test", "--edition", "2024", "-o"])
            .args([&libtest, &source])
            .output()
            .unwrap();
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let models = directory.path().join("specs/models");
        fs::create_dir_all(&models).unwrap();
        write_model(&models.join("r.safetensors"), false, &|_, _| true);
        write_model(&models.join("q.safetensors"), true, &|_, _| true);
        for (name, text) in SPECS {
            fs::write(directory.path().join(format!("specs/{name}.toml")), text).unwrap();
        }
        Self { directory, libtest }
    }

    /// What libtest and qualm make of the arguments.
    fn run(&self, arguments: &str, variables: &[(&str, &str)]) -> [Output; 2] {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let mut libtest = Command::new(&self.libtest);
        libtest.args(&arguments);
        let mut qualm = Command::new(env!("CARGO_BIN_EXE_qualm"));
        qualm.args(["run", "--no-baseline", "--granularity", "pair"]).args(&arguments);
        [libtest, qualm].map(|mut command| {
            command.current_dir(self.directory.path()).env_clear();
            command.envs(variables.iter().copied()).output().unwrap()
        })
    }
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// `test NAME ... OUTCOME` lines: tests run side by side, so that their order says nothing.
fn outcomes(output: &Output, arguments: &str) -> BTreeSet<String> {
    let text = text(output);
    let lines = text.lines().filter(|line| line.starts_with("test ")).map(untimed);
    // With exact names, specs that cannot hold them are not opened, so that their tests are not
    // counted.
    let uncounted = |line: String| line.split("; 0 measured").next().unwrap_or("").to_owned();
    if arguments.contains("--exact") { lines.map(uncounted).collect() } else { lines.collect() }
}

/// Without the time that the run took.
fn untimed(text: &str) -> String {
    text.split("; finished in").next().unwrap_or(text).to_owned()
}

/// Without the line that counts gates, which libtest has not.
fn without_gates(text: &str) -> String {
    let (before, after) = text.split_once("\ngates: ").expect("a line of gates");
    let (counts, after) = after.split_once('\n').expect("more lines");
    assert!(counts.ends_with(" not judged"), "{counts}");
    format!("{before}\n{after}")
}

/// The names below the last `failures:` or `successes:`.
fn names_below(output: &Output, title: &str) -> BTreeSet<String> {
    let text = text(output);
    let Some((_, below)) = text.rsplit_once(&format!("\n{title}:\n")) else {
        return BTreeSet::new();
    };
    below.lines().take_while(|line| line.starts_with("    ")).map(str::to_owned).collect()
}

#[test]
fn the_same_tests_are_selected() {
    let both = Both::new();
    for arguments in [
        "",
        "one",
        "one ten",
        "alpha::",
        "--exact alpha::one",
        "--exact alpha::one beta::ten",
        "alpha --skip two",
        "--skip alpha --skip ten",
        "--skip alpha::one --exact",
        "--skip=beta",
        "--ignored",
        "--include-ignored",
        "--ignored slow",
        "--include-ignored alpha",
        "--no-capture",
        "--nocapture one",
        "--show-output one",
        "--show-output",
        "--test-threads 1 one",
        "--test-threads=3",
        "--color never",
        "--color=auto one",
        "--format pretty one",
        "--format=pretty bad",
        "--quiet --format pretty one",
        "--test one",
        "--test --bench one",
        "-- one",
    ] {
        let outputs = both.run(arguments, &[]);
        let [libtest, qualm] = &outputs;
        let [ours, theirs] = [qualm, libtest].map(|output| outcomes(output, arguments));
        assert_eq!(ours, theirs, "{arguments}");
        assert_eq!(qualm.status.code(), libtest.status.code(), "{arguments}");
        for title in ["failures", "successes"] {
            let [libtest, qualm] = [libtest, qualm].map(|output| names_below(output, title));
            assert_eq!(qualm, libtest, "{arguments}: {title}");
        }
        let [libtest, qualm] = [libtest, qualm].map(text);
        let head = |text: &str| text.lines().take(2).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(head(&qualm), head(&libtest), "{arguments}");
        assert!(qualm.ends_with("s\n\n") && libtest.ends_with("s\n\n"), "{arguments}");
    }
}

#[test]
fn lists_are_equal() {
    let both = Both::new();
    for arguments in [
        "--list",
        "--list --format terse",
        "--list --format=pretty",
        "--list -q",
        "--list --format terse --ignored",
        "--list --ignored",
        "--list --include-ignored alpha",
        "--list one --skip alpha",
        "--list --exact beta::ten",
        "--list nosuch",
        "--list --format terse nosuch",
    ] {
        let [libtest, qualm] = both.run(arguments, &[]);
        assert_eq!(text(&qualm), text(&libtest), "{arguments}");
        assert_eq!((qualm.status.code(), libtest.status.code()), (Some(0), Some(0)), "{arguments}");
    }
}

#[test]
fn terse_output_has_a_mark_a_test() {
    let both = Both::new();
    for arguments in ["-q", "--quiet one", "--format terse", "-q --include-ignored alpha"] {
        // One thread, so that libtest keeps the order.
        let [libtest, qualm] = both.run(&format!("--test-threads 1 {arguments}"), &[]);
        let head = |text: &str| text.split("\nfailures:").next().map(untimed);
        let qualm = without_gates(&text(&qualm));
        assert_eq!(head(&qualm), head(&text(&libtest)), "{arguments}");
    }
}

#[test]
fn what_libtest_refuses_is_refused() {
    let both = Both::new();
    for (arguments, variables) in [
        ("--ignored --include-ignored", &[][..]),
        ("--test-threads 0", &[]),
        ("--test-threads=0", &[]),
        ("--test-threads x", &[]),
        ("--test-threads -1", &[]),
        ("--test-threads", &[]),
        ("--color sometimes", &[]),
        ("--format xml", &[]),
        ("--nosuch", &[]),
        ("-x", &[]),
        ("-Z nosuch", &[("RUSTC_BOOTSTRAP", "1")]),
        ("--skip", &[]),
        ("--shuffle-seed x -Z unstable-options", &[("RUSTC_BOOTSTRAP", "1")]),
        ("one", &[("RUST_TEST_THREADS", "0")]),
        ("one", &[("RUST_TEST_THREADS", "x")]),
    ] {
        let [libtest, qualm] = both.run(arguments, variables);
        assert_eq!(libtest.status.code(), Some(101), "{arguments}");
        assert_eq!(qualm.status.code(), Some(2), "{arguments}: a usage error");
        assert!(qualm.stdout.is_empty(), "{arguments}");
        let error = String::from_utf8(qualm.stderr).unwrap();
        assert!(error.starts_with("error: "), "{arguments}: {error}");
    }
}

#[test]
fn events_are_libtests() {
    let both = Both::new();
    for arguments in [
        "-Z unstable-options --format json",
        "-Z unstable-options --format=json --show-output one",
        "-Z unstable-options --format json --ignored",
        "-Z unstable-options --format json --list",
        "-Z unstable-options --format json --list --ignored",
    ] {
        let events = both.run(arguments, &[("RUSTC_BOOTSTRAP", "1")]).map(|output| {
            let mut events: Vec<String> = text(&output)
                .lines()
                .map(|line| {
                    let mut event: Value = serde_json::from_str(line).unwrap();
                    let event = event.as_object_mut().unwrap();
                    // What a test printed, how long it took, and where it is written.
                    for key in [
                        "stdout",
                        "exec_time",
                        "source_path",
                        "start_line",
                        "start_col",
                        "end_line",
                        "end_col",
                    ] {
                        let kind = event.remove(key).map(|value| value.is_string());
                        event.insert(format!("has {key}"), kind.into());
                    }
                    Value::from(event.clone()).to_string()
                })
                .collect();
            events.sort();
            (events, output.status.code())
        });
        assert_eq!(events[1], events[0], "{arguments}");
    }
}

/// libtest takes these only with `-Z unstable-options`, or does nothing of use with them; that they
/// are not refused is what `cargo test -- ARGUMENTS` over many test binaries needs.
#[test]
fn unstable_and_deprecated_arguments_are_accepted() {
    let both = Both::new();
    for arguments in [
        "one --fail-fast",
        "one --shuffle",
        "one --shuffle-seed 5",
        "one --report-time",
        "one --ensure-time",
        "one --exclude-should-panic",
        "one --force-run-in-process",
        "one --format json",
        "one --format junit",
        "one -Z unstable-options --format json",
        "one --logfile log",
    ] {
        let [_, qualm] = both.run(arguments, &[("RUST_TEST_SHUFFLE", "1")]);
        assert_eq!(qualm.status.code(), Some(0), "{arguments}");
        assert!(text(&qualm).contains("one"), "{arguments}");
    }
    let [libtest, qualm] = both.run("one --logfile log", &[]);
    for output in [libtest, qualm] {
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.starts_with("warning: `--logfile` is deprecated"), "{error}");
    }
    let [_, qualm] = both.run("one --format junit", &[]);
    assert!(text(&qualm).starts_with("<?xml"), "nothing before the declaration");
}

#[test]
fn benchmarks_are_none() {
    let both = Both::new();
    let [libtest, qualm] = both.run("--bench", &[]).map(|output| {
        let names = |line: String| line.split(" ... ignored").next().unwrap_or("").to_owned();
        (
            outcomes(&output, "").into_iter().map(names).collect::<BTreeSet<_>>(),
            output.status.code(),
        )
    });
    assert_eq!(qualm, libtest, "every test is ignored");
}

#[test]
fn a_run_without_tests_fails_unless_that_is_asked_for() {
    let both = Both::new();
    for (arguments, code) in [
        ("nosuch", 4),
        ("--exact one", 4),
        ("nosuch --no-tests fail", 4),
        ("nosuch --no-tests warn", 0),
        ("nosuch --no-tests pass", 0),
    ] {
        let [_, qualm] = both.run(arguments, &[]);
        assert_eq!(qualm.status.code(), Some(code), "{arguments}");
    }
    let [libtest, _] = both.run("nosuch", &[]);
    let [_, qualm] = both.run("nosuch --no-tests pass", &[]);
    assert_eq!(untimed(&text(&qualm)), untimed(&text(&libtest)));
}
