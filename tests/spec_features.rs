/*!
What a spec may ask for, end to end: levels, profiles, tags, a matrix, groups, required versions. Each
case writes a suite over a small generated model, runs the program, and looks at its exit code, its
output and its reports.
*/

mod forge;

use std::fs;
use std::path::Path;
use std::process::Command;

use forge::safetensors_raw;
use tempfile::TempDir;

/// A case: the spec, the arguments, and what must come out.
struct Case<'a> {
    why: &'a str,
    spec: &'a str,
    args: &'static [&'static str],
    code: i32,
    /// File below the suite, or `stdout` and `stderr`; text that it must hold, or must not after `!`.
    shows: &'static [(&'static str, &'static str)],
}

const OUT: &str = "target/qualm";

/// F32 tensors whose round trip through Q4_0 keeps a cosine between 0.99 and 0.999, and ten more
/// among which one is much worse: a single weight is far larger than the others of its block.
fn model() -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    let names = ["a.weight", "b.weight"].map(str::to_owned).into_iter();
    let names: Vec<String> = names.chain((0..10).map(|n| format!("many.{n}.weight"))).collect();
    let (mut header, mut data) = (Vec::new(), Vec::new());
    for name in &names {
        let from = data.len();
        for at in 0..256 {
            let outlier = name == "many.3.weight" && at % 32 == 0;
            let value: f32 = if outlier { 6.0 } else { next() };
            data.extend(value.to_le_bytes());
        }
        let place = format!("[{from},{}]", data.len());
        header.push(format!(r#""{name}":{{"dtype":"F32","shape":[4,64],"data_offsets":{place}}}"#));
    }
    let header = format!("{{{}}}", header.join(","));
    safetensors_raw(header.len() as u64, header.as_bytes(), &data)
}

fn suite(spec: &str) -> TempDir {
    let suite = tempfile::tempdir().unwrap();
    fs::create_dir(suite.path().join("specs")).unwrap();
    fs::write(suite.path().join("specs/s.toml"), format!("schema = 1\n{spec}")).unwrap();
    fs::write(suite.path().join("r.safetensors"), model()).unwrap();
    suite
}

/// Runs the program in a suite: exit code, standard output, standard error.
fn qualm(suite: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qualm"));
    command.current_dir(suite).args(args);
    for name in ["GITHUB_ACTIONS", "NEXTEST", "QUALM_PROFILE", "CI", "NO_COLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    let summary = suite.join("summary.md");
    command.env("GITHUB_ACTIONS", "true").env("GITHUB_STEP_SUMMARY", summary);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn check(case: &Case) {
    let suite = suite(case.spec);
    let args = [&["run", "--no-baseline"], case.args].concat();
    let (code, stdout, stderr) = qualm(suite.path(), &args);
    let why = case.why;
    assert_eq!(code, case.code, "{why}\n{stdout}\n{stderr}");
    for (place, expected) in case.shows {
        let text = match *place {
            "stdout" => stdout.clone(),
            "stderr" => stderr.clone(),
            "summary.md" => fs::read_to_string(suite.path().join(place)).unwrap(),
            file => fs::read_to_string(suite.path().join(OUT).join(file)).unwrap(),
        };
        match expected.strip_prefix('!') {
            Some(unwanted) => {
                assert!(!text.contains(unwanted), "{why}: {place} has {unwanted:?}\n{text}");
            }
            None => assert!(text.contains(expected), "{why}: {place} lacks {expected:?}\n{text}"),
        }
    }
}

/// One pair with these keys.
macro_rules! pair {
    ($keys:literal) => {
        concat!(
            "[[pair]]\nname = \"p\"\nreference = \"../r.safetensors\"\nroundtrip = \"q4_0\"\n",
            $keys
        )
    };
}

const WARNED: &str = pair!("thresholds.tensor.cosine = { fail = 0.5, warn = 0.9999 }\n");
const FAILED: &str = pair!("thresholds.tensor.cosine = { fail = 0.9999, warn = 0.99999 }\n");

#[test]
fn levels_go_through_every_report() {
    for case in [
        Case {
            why: "a warning passes, and everybody hears of it",
            spec: WARNED,
            args: &[],
            code: 0,
            shows: &[
                ("stdout", "test s::p::a.weight ... ok"),
                ("stdout", "\nwarnings:\n"),
                ("stdout", "warning: cosine 0.99"),
                ("stdout", "test result: ok."),
                ("stdout", "::warning file=specs/s.toml,line=6,col="),
                ("stdout", "!::error"),
                ("stdout", "::warning title=qualm::+3 more"),
                ("summary.md", "## Warnings"),
                ("contract.json", "\"level\": \"warn\""),
                ("contract.json", "\"warnings\": 12"),
                ("contract.md", "12 warned"),
                ("contract.md", "## Warnings"),
                ("report.html", "<h2 id=\"warnings\">Warnings</h2>"),
                ("report.html", "with 12 warnings"),
                ("junit.xml", "failures=\"0\""),
                ("junit.xml", "warning: cosine 0.99"),
                ("report.tsv", "s::p::a.weight\tQ4_0\t256\t"),
            ],
        },
        Case {
            why: "--fail-level warn makes warnings fail",
            spec: WARNED,
            args: &["--fail-level", "warn"],
            code: 101,
            shows: &[
                ("stdout", "test s::p::a.weight ... FAILED"),
                ("stdout", "(warning) cosine 0.99"),
                ("stdout", "::error file=specs/s.toml,line=6,col="),
                ("contract.json", "\"verdict\": \"failed\""),
                ("contract.md", "## Failures"),
                ("report.html", "<h2 id=\"failures\">"),
                ("junit.xml", "failures=\"12\""),
            ],
        },
        Case {
            why: "a failing bound fails, whatever is warned of",
            spec: FAILED,
            args: &["--fail-level", "error"],
            code: 101,
            shows: &[
                ("stdout", "---- s::p::a.weight ----\ncosine 0.99"),
                ("stdout", "bound: specs/s.toml:6:"),
                ("stdout", "::error title=qualm::+3 more"),
                ("summary.md", "# ❌ qualm: FAILED"),
                ("junit.xml", "type=\"threshold.cosine\""),
            ],
        },
        Case {
            why: "no warning, no section",
            spec: pair!("thresholds.tensor.cosine = 0.5\n"),
            args: &[],
            code: 0,
            shows: &[
                ("stdout", "!warnings:"),
                ("stdout", "!\n::"),
                ("contract.md", "!## Warnings"),
            ],
        },
    ] {
        check(&case);
    }
}

const PROFILES: &str = concat!(
    "[profile.nightly]\nthresholds.tensor.cosine = 0.9999\n",
    "[profile.release]\ninherits = \"nightly\"\nthresholds.global.gain = 0.5\n",
    pair!("thresholds.tensor.cosine = 0.5\n")
);

#[test]
fn profiles() {
    for case in [
        Case {
            why: "without a profile the pair's own bound",
            spec: PROFILES,
            args: &[],
            code: 0,
            shows: &[],
        },
        Case {
            why: "a profile's bound wins, and is named",
            spec: PROFILES,
            args: &["--profile", "nightly"],
            code: 101,
            shows: &[("stdout", "bound: specs/s.toml:3:"), ("contract.json", "\"bound\": 0.9999")],
        },
        Case {
            why: "a profile has what it inherits, and its own",
            spec: PROFILES,
            args: &["--profile", "release"],
            code: 101,
            shows: &[("stdout", "bound: specs/s.toml:3:"), ("contract.json", "\"bound\": 0.5")],
        },
        Case {
            why: "a profile that inherits itself",
            spec: "[profile.a]\ninherits = \"b\"\n[profile.b]\ninherits = \"a\"\n[[pair]]\nname = \"p\"\n\
                   reference = \"../r.safetensors\"\nroundtrip = \"q4_0\"\n",
            args: &["--profile", "a"],
            code: 3,
            shows: &[("stderr", "specs/s.toml:")],
        },
        Case {
            why: "a profile that no spec defines",
            spec: PROFILES,
            args: &["--profile", "nightli"],
            code: 2,
            shows: &[(
                "stderr",
                "no spec defines the profile \"nightli\"; there are: nightly, release",
            )],
        },
    ] {
        check(&case);
    }
}

const TAGGED: &str = "tags = [\"all\"]\n[[pair]]\nname = \"x\"\ntags = [\"fast\"]\n\
    reference = \"../r.safetensors\"\nroundtrip = \"q4_0\"\n[[pair]]\nname = \"y\"\n\
    reference = \"../r.safetensors\"\nroundtrip = \"q8_0\"\n";

#[test]
fn tags() {
    for case in [
        Case {
            why: "a pair's tag",
            spec: TAGGED,
            args: &["--tag", "fast"],
            code: 0,
            shows: &[
                ("contract.json", "\"s::x\""),
                ("contract.json", "!\"s::y\""),
                ("report.html", "fast"),
            ],
        },
        Case {
            why: "the file's tag is every pair's",
            spec: TAGGED,
            args: &["--tag", "all"],
            code: 0,
            shows: &[("contract.json", "\"s::x\""), ("contract.json", "\"s::y\"")],
        },
        Case {
            why: "a tag that nothing has selects nothing",
            spec: TAGGED,
            args: &["--tag", "slow"],
            code: 4,
            shows: &[("stderr", "no tests selected")],
        },
    ] {
        check(&case);
    }
}

#[test]
fn a_matrix_is_a_pair_for_each_combination() {
    const SPEC: &str = "[matrix]\nbits = [4, 8]\nkind = [\"_0\"]\n[[pair]]\nname = \"q{bits}{kind}\"\n\
        reference = \"../r.safetensors\"\nroundtrip = \"q{bits}{kind}\"\ntags = [\"b{bits}\"]\n";
    for case in [
        Case {
            why: "both run, each with its name",
            spec: SPEC,
            args: &[],
            code: 0,
            shows: &[
                ("stdout", "test s::q4_0::a.weight ... ok"),
                ("stdout", "test s::q8_0::a.weight ... ok"),
                ("contract.json", "\"roundtrip\": \"Q8_0\""),
                ("report.html", "s::q8_0"),
            ],
        },
        Case {
            why: "tags are filled in, too",
            spec: SPEC,
            args: &["--tag", "b8"],
            code: 0,
            shows: &[("stdout", "s::q8_0::a.weight"), ("stdout", "!s::q4_0")],
        },
        Case {
            why: "an axis that the name lacks would make twins",
            spec: "[matrix]\nbits = [4, 8]\n[[pair]]\nname = \"q\"\nreference = \"../r.safetensors\"\n\
                   roundtrip = \"q{bits}_0\"\n",
            args: &[],
            code: 3,
            shows: &[("stderr", "bits")],
        },
    ] {
        check(&case);
    }
}

#[test]
fn a_fraction_of_a_group() {
    const GROUP: &str = "integrity = { sqnr_expected = \"off\", worst_row = \"off\", worst_block = \"off\", \
        zero = \"off\", reason = \"one tensor is odd on purpose\" }\n\
        [[pair.group]]\ntensors = \"many.*\"\nsqnr_db = 18.5\n";
    let spec = |least: &str| format!("{}{GROUP}min_pass_fraction = {least}\n", pair!(""));
    for (least, code, why) in [
        ("0.9", 0, "nine of ten are enough"),
        ("0.95", 101, "nine of ten are not"),
        ("1.0", 101, "all of them"),
    ] {
        let spec = spec(least);
        check(&Case {
            why,
            spec: &spec,
            args: &[],
            code,
            shows: if code == 0 {
                &[("stdout", "test s::p::(global) ... ok")]
            } else {
                &[
                    ("stdout", "test s::p::(global) ... FAILED"),
                    ("stdout", "---- s::p::(global) ----\n9 of 10 tensors"),
                    ("stdout", "test s::p::many.3.weight ... ok"),
                    ("report.html", "9 of 10 tensors"),
                    ("junit.xml", "9 of 10 tensors"),
                ]
            },
        });
    }
}

#[test]
fn required_versions() {
    for (requires, code) in [(">=0.1, <2", 0), (">=99", 3), ("=0.0.1", 3), ("no version", 3)] {
        let spec = format!("requires = \"{requires}\"\n{}", pair!(""));
        let shows: &[_] =
            if code == 0 { &[] } else { &[("stderr", "requires"), ("stderr", "specs/s.toml:2:")] };
        check(&Case { why: requires, spec: &spec, args: &[], code, shows });
    }
}

#[test]
fn init_drafts_a_spec_that_passes_and_that_damage_breaks() {
    let suite = suite("");
    let dir = suite.path();
    fs::remove_file(dir.join("specs/s.toml")).unwrap();
    let reference = model();
    // The same weights in F16: another type, with a little noise.
    fs::write(dir.join("f16.safetensors"), half_precision(&reference)).unwrap();
    let (code, stdout, stderr) = qualm(dir, &["init", "r.safetensors", "f16.safetensors"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stdout.contains("wrote specs/f16.toml"), "{stdout}");
    let spec = fs::read_to_string(dir.join("specs/f16.toml")).unwrap();
    assert!(
        spec.contains("reference = \"../r.safetensors\"\nquantized = \"../f16.safetensors\""),
        "{spec}"
    );
    let (code, stdout, stderr) = qualm(dir, &["run", "--no-baseline", "--fail-level", "warn"]);
    assert_eq!(code, 0, "{spec}\n{stdout}{stderr}");

    let (code, _, stderr) = qualm(dir, &["init", "r.safetensors", "f16.safetensors"]);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("specs/f16.toml exists; --force overwrites it"), "{stderr}");
    fs::write(dir.join("specs/f16.toml"), "schema = 1").unwrap();
    let force = ["init", "r.safetensors", "f16.safetensors", "--force", "--name", "half"];
    assert_eq!(qualm(dir, &force).0, 0);
    let (code, drafted, _) =
        qualm(dir, &["init", "r.safetensors", "f16.safetensors", "--out", "-"]);
    assert_eq!(code, 0);
    assert_eq!(drafted, spec, "the same to standard output");

    // Coarser weights are beyond the bounds; broken ones get no spec.
    let mut file = fs::read(dir.join("f16.safetensors")).unwrap();
    let from = file.len() - 12 * 256 * 2;
    for value in file[from..].chunks_mut(2) {
        value[0] = 0;
    }
    fs::write(dir.join("f16.safetensors"), &file).unwrap();
    let (code, stdout, _) = qualm(dir, &["run", "--no-baseline"]);
    assert_eq!(code, 101, "{stdout}");
    for value in file[from..].chunks_mut(2).take(64) {
        value.copy_from_slice(&[0, 0x7e]);
    }
    fs::write(dir.join("f16.safetensors"), &file).unwrap();
    let (code, _, stderr) = qualm(dir, &["init", "r.safetensors", "f16.safetensors", "--out", "-"]);
    assert_eq!(code, 5, "{stderr}");
    let (code, _, stderr) = qualm(dir, &["init", "r.safetensors", "none.gguf", "--out", "-"]);
    assert_eq!(code, 6, "{stderr}");
}

/// The model with its values in F16.
fn half_precision(model: &[u8]) -> Vec<u8> {
    let length = u64::from_le_bytes(model[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&model[8..8 + length]).unwrap();
    for tensor in header.as_object_mut().unwrap().values_mut() {
        tensor["dtype"] = "F16".into();
        for end in tensor["data_offsets"].as_array_mut().unwrap() {
            *end = (end.as_u64().unwrap() / 2).into();
        }
    }
    let data = model[8 + length..].chunks(4).flat_map(|value| {
        half::f16::from_f32(f32::from_le_bytes(value.try_into().unwrap())).to_le_bytes()
    });
    let header = header.to_string();
    safetensors_raw(header.len() as u64, header.as_bytes(), &data.collect::<Vec<u8>>())
}

#[test]
fn compare_tells_what_fails_anew() {
    let suite = suite(FAILED);
    let dir = suite.path();
    assert_eq!(qualm(dir, &["run", "--no-baseline", "--out-dir", "bad"]).0, 101);
    fs::write(dir.join("specs/s.toml"), format!("schema = 1\n{WARNED}")).unwrap();
    assert_eq!(qualm(dir, &["run", "--no-baseline", "--out-dir", "good"]).0, 0);
    for (old, new, code, shows) in [
        ("good", "bad", 101, "12 newly failing, 0 still failing, 0 fixed"),
        ("bad", "good", 0, "0 newly failing, 0 still failing, 12 fixed"),
        ("bad", "bad", 0, "0 newly failing, 12 still failing, 0 fixed"),
    ] {
        let [old, new] = [old, new].map(|it| format!("{it}/contract.json"));
        for style in [&[][..], &["--markdown", "--max-bytes", "4096"]] {
            let (found, stdout, _) = qualm(dir, &[&["compare", &old, &new], style].concat());
            assert_eq!(found, code, "{old} {new}");
            assert!(stdout.contains(shows) && stdout.len() <= 60_000, "{stdout}");
        }
    }
    let (code, _, stderr) = qualm(dir, &["compare", "good/contract.json", "none.json"]);
    assert!(code == 6 && stderr.contains("none.json"), "{stderr}");
    assert_eq!(qualm(dir, &["compare", "a", "b", "--max-bytes", "10"]).0, 2);
}

#[test]
fn every_command_has_a_manual_page_and_every_shell_a_completion() {
    let suite = suite(WARNED);
    let dir = suite.path();
    assert_eq!(qualm(dir, &["man", "--dir", "man"]).0, 0);
    let (_, help, _) = qualm(dir, &["--help"]);
    let commands = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    // Descriptions that are wrapped are indented further.
    let lines = commands.lines().filter_map(|line| line.strip_prefix("  "));
    let lines = lines.filter(|line| !line.starts_with(' '));
    let names = lines.filter_map(|line| line.split_whitespace().next());
    let mut pages = 0;
    for name in names.filter(|name| *name != "help") {
        let page = fs::read_to_string(dir.join(format!("man/qualm-{name}.1"))).unwrap_or_default();
        assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "qualm-{name}.1");
        pages += 1;
    }
    assert!(pages > 15, "{help}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish", "nushell"] {
        let (code, script, _) = qualm(dir, &["completions", shell]);
        assert!(code == 0 && script.contains("compare") && script.contains("init"), "{shell}");
    }
}
