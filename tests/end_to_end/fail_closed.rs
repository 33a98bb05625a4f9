/*!
Whatever cannot be judged, or is not there, or is not what it should be, fails, and is named: in `diff`
and in `run`.
*/

use crate::program::*;

struct Case {
    what: &'static str,
    reference: Vec<Stored<'static>>,
    quantized: Vec<Stored<'static>>,
    /// Exit codes of `diff` and `run`.
    codes: (i32, i32),
    /// What both must say.
    says: &'static [&'static str],
}

const A: &[u64] = &[4, 32];

fn weights() -> Vec<f32> {
    Random(5).normals(128)
}

fn with(at: usize, value: f32) -> Vec<u8> {
    let mut values = weights();
    values[at] = value;
    f32s(&values)
}

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    let a = |bytes: Vec<u8>| ("a", "F32", A, bytes);
    let sound = || a(f32s(&weights()));
    let stored = || ("a", "BF16", A, bf16s(&weights()));
    let b = || ("b", "F32", &[2][..], f32s(&[1.0, 2.0]));
    let index = |last| ("i", "I32", &[3][..], i32s(&[1, 2, last]));
    let case = |what, reference, quantized, codes, says| Case {
        what,
        reference,
        quantized,
        codes,
        says,
    };
    let bad = (5, 101);
    vec![
        case("healthy", vec![sound()], vec![stored()], (0, 0), &[]),
        case("NaN in the quantized", vec![sound()], vec![("a", "BF16", A, bf16s(&[f32::NAN; 128]))], bad, &["128 NaN or infinite values", "a"]),
        case("one NaN in the reference", vec![a(with(77, f32::NAN))], vec![stored()], bad, &["1 NaN or infinite values"]),
        case("one infinity in the reference", vec![a(with(0, f32::INFINITY))], vec![stored()], bad, &["1 NaN or infinite values"]),
        case("the same infinity on both sides", vec![a(with(0, f32::INFINITY))], vec![a(with(0, f32::INFINITY))], bad, &["NaN or infinite values"]),
        case("a tensor is missing", vec![sound(), b()], vec![stored()], bad, &["F32 [2] is missing from the quantized model"]),
        case("a tensor is extra", vec![sound()], vec![stored(), b()], bad, &["F32 [2] is in the quantized model alone"]),
        case("equal count, other shape", vec![sound()], vec![("a", "BF16", &[32, 4], bf16s(&weights()))], bad, &["its shape is [32, 4], the reference's [4, 32]"]),
        case("equal count, other rank", vec![sound()], vec![("a", "BF16", &[128], bf16s(&weights()))], bad, &["its shape is [128], the reference's [4, 32]"]),
        case("another order of names", vec![sound(), b()], vec![b(), stored()], (0, 0), &[]),
        case("nothing in common", vec![sound()], vec![b()], (5, 6), &["no tensor is in both models: there is nothing to compare"]),
        case("no tensor at all", vec![sound()], vec![], (5, 6), &["the quantized model holds no tensor"]),
        case("both all zero", vec![a(vec![0; 512])], vec![("a", "BF16", A, vec![0; 256])], (0, 0), &[]),
        case("zero in the quantized alone", vec![sound()], vec![("a", "BF16", A, vec![0; 256])], bad, &["cosine 0.000000"]),
        case("zero in the reference alone", vec![a(vec![0; 512])], vec![stored()], bad, &["cosine 0.000000"]),
        case("empty tensors", vec![("e", "F32", &[0, 4], vec![]), sound()], vec![("e", "F32", &[0, 4], vec![]), stored()], (0, 0), &[]),
        case("integers that differ", vec![sound(), index(3)], vec![stored(), index(4)], bad, &["element 2 differs"]),
        case("integers that are equal", vec![sound(), index(3)], vec![stored(), index(3)], (0, 0), &[]),
        case("an integer for a float", vec![sound(), b()], vec![stored(), ("b", "I32", &[2], i32s(&[1, 2]))], bad, &["its type is I32, the reference's F32"]),
        case("a type that nobody knows", vec![sound(), b()], vec![stored(), ("b", "X9", &[2], vec![0; 8])], (6, 6), &["X9"]),
        case("codes without a scale", vec![("l.weight", "F32", A, f32s(&weights()))], vec![("l.qweight", "I32", &[4, 4], vec![1; 64])], bad, &["l.weight", "l.scales is missing"]),
    ]
}

#[test]
fn every_case_has_its_code_and_names_what_is_wrong() {
    for case in cases() {
        let suite = Suite::new();
        suite.models(&case.reference, &case.quantized);
        suite.spec("thresholds.tensor.cosine = 0.95");
        let diff = suite.qualm(&["diff", "r.safetensors", "q.safetensors"]);
        let run = suite.qualm(&["run", "--no-baseline"]);
        for (ran, code) in [(&diff, case.codes.0), (&run, case.codes.1)] {
            assert_eq!(ran.code, code, "{}: {ran}", case.what);
            for text in case.says {
                let said = ran.out.contains(text) || ran.err.contains(text);
                assert!(said, "{}: no {text:?} in {ran}", case.what);
            }
        }
        let passed = run.out.contains("test result: ok.");
        assert_eq!(passed, case.codes.1 == 0, "{}: {run}", case.what);
        let verdict = suite.contract()["verdict"].as_str().unwrap().to_owned();
        let expected = match case.codes.1 {
            0 => "passed",
            6 => "error",
            _ => "failed",
        };
        assert_eq!(verdict, expected, "{}", case.what);
        if case.what == "nothing in common" || case.what == "no tensor at all" {
            suite.qualm(&["diff", "r.safetensors", "q.safetensors", "--allow-missing"]).exits(5);
        }
        if case.what.starts_with("NaN") {
            suite.qualm(&["diff", "r.safetensors", "q.safetensors", "--no-threshold"]).exits(5);
        }
        if case.what == "both all zero" {
            let json = suite.qualm(&["diff", "r.safetensors", "q.safetensors", "--json"]).json();
            assert_eq!(json["tensors"][0]["cosine"], 1.0);
            assert_eq!(json["tensors"][0]["rmse"], 0.0);
        }
        if case.what == "empty tensors" {
            let json = suite.qualm(&["diff", "r.safetensors", "q.safetensors", "--json"]).json();
            let rows = json["tensors"].as_array().unwrap();
            let empty = rows.iter().find(|row| row["tensor"] == "e").unwrap();
            assert_eq!(empty["numel"], 0);
        }
        if case.what == "a tensor is missing" || case.what == "a tensor is extra" {
            suite.qualm(&["diff", "r.safetensors", "q.safetensors", "--allow-missing"]).exits(0);
            suite.spec("allow_missing = \"b\"\nallow_extra = \"b\"");
            // One of the two globs matches nothing in each case: it protects nothing.
            suite.qualm(&["run", "--no-baseline"]).exits(3).says("matches no tensor");
            let key = if case.what.ends_with("extra") { "allow_extra" } else { "allow_missing" };
            suite.spec(&format!("{key} = \"b\""));
            suite.qualm(&["run", "--no-baseline"]).exits(0);
        }
    }
}

#[test]
fn a_filter_of_a_spec_that_matches_nothing_is_an_error_of_the_spec() {
    let tables = "reason = \"x\"\ncosine = 0.5\n";
    for (lines, glob) in [
        (format!("[[pair.rule]]\ntensors = \"nope.*\"\n{tables}"), "nope.*"),
        (format!("[[pair.waive]]\ntensors = \"nope\"\nuntil = 2999-01-01\n{tables}"), "nope"),
        ("skip = { tensors = \"nope\", reason = \"x\" }".into(), "nope"),
        ("allow_missing = [\"a\", \"nope\"]".into(), "nope"),
        ("allow_extra = \"nope\"".into(), "nope"),
        ("rename = { from = \"nope\", to = \"x\" }".into(), "nope"),
        ("qtype = { tensors = \"nope\", is = \"BF16\" }".into(), "nope"),
        ("nonzero = \"nope\"".into(), "nope"),
        ("metadata_equal = \"nope.*\"".into(), "nope.*"),
        (
            "[[pair.group]]\ntensors = \"nope\"\ncosine = 0.5\nmin_pass_fraction = 0.5".into(),
            "nope",
        ),
    ] {
        let suite = Suite::new();
        let weights = weights();
        suite.models(
            &[("a", "F32", A, f32s(&weights)), ("b", "F32", A, f32s(&weights))],
            &[("a", "BF16", A, bf16s(&weights)), ("b", "BF16", A, bf16s(&weights))],
        );
        suite.spec(&format!("thresholds.tensor.cosine = 0.9\n{lines}"));
        let ran = suite.qualm(&["run", "--no-baseline"]).exits(3);
        let named = format!("`{glob}` matches no");
        assert!(ran.out.contains(&named), "{lines}: {ran}");
        assert!(ran.out.contains("specs/s.toml:"), "{lines} is placed: {ran}");
    }
    // A default of the file must be of use to one pair at least.
    let suite = Suite::new();
    let weights = weights();
    let (r, q) = ([("a", "F32", A, f32s(&weights))], [("a", "BF16", A, bf16s(&weights))]);
    suite.models(&r, &q);
    let pair = |name| {
        format!(
            "[[pair]]\nname = \"{name}\"\nreference = \"../r.safetensors\"\nquantized = \"../q.safetensors\"\n"
        )
    };
    let spec = |glob: &str| {
        let (first, second) = (pair("one"), pair("two"));
        format!("schema = 1\nallow_missing = \"{glob}\"\n{first}{second}")
    };
    suite.write("specs/s.toml", spec("nope"));
    suite.qualm(&["run", "--no-baseline"]).exits(3).says("`nope` matches no tensor of any pair");
    suite.write("specs/s.toml", spec("a"));
    suite.qualm(&["run", "--no-baseline"]).exits(0);
}

#[test]
fn a_filter_on_the_command_line_that_selects_nothing_is_not_a_success() {
    let suite = Suite::new();
    suite.models(&[("a", "F32", A, f32s(&weights()))], &[("a", "BF16", A, bf16s(&weights()))]);
    suite.spec("");
    suite.qualm(&["run", "--no-baseline", "nope"]).exits(4).says("no tests selected");
    suite.qualm(&["run", "--no-baseline", "--tag", "nope"]).exits(4);
    suite.qualm(&["run", "--no-baseline", "--spec", "nowhere"]).exits(3);
    std::fs::remove_file(suite.path().join("specs/s.toml")).unwrap();
    suite.qualm(&["run"]).exits(4);
}

#[test]
fn a_model_that_is_not_there_is_an_input_error_and_the_others_go_on() {
    let suite = Suite::new();
    suite.models(&[("a", "F32", A, f32s(&weights()))], &[("a", "BF16", A, bf16s(&weights()))]);
    suite.spec(
        "[[pair]]\nname = \"gone\"\nreference = \"../r.safetensors\"\nquantized = \"../gone.gguf\"",
    );
    let ran = suite.qualm(&["run", "--no-baseline"]).exits(6);
    assert!(ran.out.contains("test s::p::a ... ok"), "{ran}");
    assert!(ran.out.contains("gone.gguf: cannot open it"), "{ran}");
    suite.qualm(&["diff", "r.safetensors", "gone"]).exits(6).says("gone: cannot open it");
    suite.qualm(&["inspect", "gone"]).exits(6).says("gone: cannot open it");
    suite.qualm(&["stats", "gone"]).exits(6).says("gone: cannot open it");
}
