/*!
Spec files as a whole: what they come to, and what is said about broken ones.
*/

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use toml::de::DeTable;

use super::keys::{Kind, SPEC, Shape};
use super::*;
use crate::codec::TensorType;
use crate::metrics::Metric;

const DESIGN: &str = include_str!("tests/design.toml");

fn options() -> LoadOptions<'static> {
    LoadOptions {
        profile: None,
        today: Date { year: 2026, month: 6, day: 1 },
        env: &|name| match name {
            "MODELS" => Some("/models".to_owned()),
            "BUILD" => Some("b7".to_owned()),
            _ => None,
        },
        encodes: |ty, weighted| ty == TensorType::Q4_0 || weighted && ty == TensorType::IQ2_XS,
        ..LoadOptions::default()
    }
}

fn read_with(text: &str, options: &LoadOptions) -> Result<Spec, SpecErrors> {
    parse(text.as_bytes(), Path::new("specs/tiny/a.toml"), Path::new("specs"), options)
}

fn read(text: &str) -> Spec {
    read_with(text, &options()).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A spec with one pair, and these lines after it.
fn with_pair(lines: &str) -> String {
    format!("schema = 1\n[[pair]]\nname = \"p\"\nreference = \"r\"\nquantized = \"q\"\n{lines}\n")
}

/// Message, `line:column` and help of every finding.
fn findings(text: &str) -> Vec<(String, String, String)> {
    let diagnostics = match read_with(text, &options()) {
        Ok(spec) => spec.warnings,
        Err(errors) => errors.diagnostics,
    };
    diagnostics
        .into_iter()
        .map(|it| {
            let place = format!("{}:{}", it.location.line, it.location.column);
            (it.message, place, it.help.unwrap_or_default())
        })
        .collect()
}

#[test]
fn the_example_of_the_design_in_full() {
    let spec = read(DESIGN);
    assert_eq!(spec.name, "tiny/a");
    assert_eq!(spec.tags, ["release", "gguf"]);
    assert_eq!(
        spec.baseline.at.as_ref().map(ToString::to_string).unwrap(),
        "specs/tiny/a.toml:10:1"
    );
    // Expected value: sha256sum
    assert_eq!(spec.sha256, "735889a32d62a0cdbfaddfab43b2a9750e2556c701c47c723adb6c8e21479e2f");
    assert!(spec.warnings.is_empty());
    let [file, roundtrip] = &spec.pairs[..] else { panic!("two pairs") };
    assert_eq!((file.name.as_str(), file.tags.as_slice()), ("q8_0", &spec.tags[..]));
    assert_eq!(
        file.reference.path,
        PathBuf::from("specs/tiny/models/minilm-block0-f16.gguf"),
        "relative to the spec"
    );
    let Quantized::Roundtrip { ty: TensorType::Q4_0, imatrix: None, .. } = &roundtrip.quantized
    else {
        panic!("{:?}", roundtrip.quantized)
    };
    let resolver = spec.resolver(file).unwrap();
    for (tensor, metric, bound, place, why) in [
        ("blk.0.ffn_up.weight", Metric::Cosine, 0.9999, "18:28", "the pair's over the file's"),
        ("blk.0.ffn_up.weight", Metric::Rmse, 1e-3, "19:28", "the pair's"),
        ("blk.0.attn_k.weight", Metric::Cosine, 0.998, "23:11", "the rule"),
        ("blk.0.attn_k.weight", Metric::Rmse, 1e-3, "19:28", "the rule says nothing of rmse"),
    ] {
        let effective = resolver.bound_for(metric, tensor).unwrap();
        assert_eq!(effective.bound.fail, Some(bound), "{why}");
        let at = &effective.bound.at;
        assert_eq!(format!("{}:{}", at.line, at.column), place, "{why}");
    }
    let global = resolver.global_bound(Metric::Cosine).unwrap();
    assert_eq!((global.bound.fail, global.bound.warn), (Some(0.98), Some(0.99)));
    let waived = resolver.bound_for(Metric::Cosine, "token_embd.weight").unwrap();
    for (value, expected) in [
        (0.99995, Judgement::Pass),
        (0.95, Judgement::Waived(0)),
        (0.90, Judgement::Waived(0)),
        (0.89, Judgement::Fail),
        (f64::NAN, Judgement::Fail),
    ] {
        assert_eq!(waived.judge(value), expected, "{value}");
    }
    assert!(resolver.bound_for(Metric::SqnrDb, "token_embd.weight").is_none());
}

#[test]
fn a_rendered_report_of_several_problems() {
    let text = "\
schema = 1

[thresholds]
tensor.cosin = 0.95
tensor.rmse = nan

[[pair]]
name = \"q8\"
reference = \"${NOWHERE}/r.gguf\"
quantized = \"q.gguf\"

[[pair.waive]]
tensors = \"blk.[0-9.weight\"
cosine = 0.9

[[pair]]
name = \"q8\"
reference = \"r\"
quantized = \"q\"
";
    let expected = "\
error: unknown metric `cosin`
 --> specs/tiny/a.toml:4:8
  |
4 | tensor.cosin = 0.95
  |        ^^^^^
  |
  = help: did you mean `cosine`?

error: `rmse` is NaN, which every comparison passes over
 --> specs/tiny/a.toml:5:15
  |
5 | tensor.rmse = nan
  |               ^^^
  |
  = help: it must be a finite number of at least 0

error: the environment variable `NOWHERE` is not set
 --> specs/tiny/a.toml:9:13
  |
9 | reference = \"${NOWHERE}/r.gguf\"
  |             ^^^^^^^^^^^^^^^^^^^
  |
  = help: set it: NOWHERE=… qualm

error: `reason` is missing from `pair.waive`
  --> specs/tiny/a.toml:12:1
   |
12 | [[pair.waive]]
   | ^^^^^^^^^^^^^^
   |
   = help: `reason` is a string: why; an issue number is a good reason

error: `until` is missing from `pair.waive`
  --> specs/tiny/a.toml:12:1
   |
12 | [[pair.waive]]
   | ^^^^^^^^^^^^^^
   |
   = help: `until` is a date like 2027-01-31, without quotes: the last day, UTC, on which the waiver holds

error: bad glob: `[` without `]`
  --> specs/tiny/a.toml:13:11
   |
13 | tensors = \"blk.[0-9.weight\"
   |           ^^^^^^^^^^^^^^^^^
   |
   = help: close the set, or write `\\[` for a literal bracket";
    let errors = read_with(text, &options()).unwrap_err();
    assert_eq!(errors.to_string(), expected);
}

#[test]
fn syntax_errors_are_all_reported_with_their_places() {
    let errors = read_with("schema = \n[[pair]\nname == 1\n", &options()).unwrap_err();
    let places: Vec<_> =
        errors.diagnostics.iter().map(|it| (it.location.line, it.location.column)).collect();
    assert_eq!(places, [(1, 10), (2, 8), (3, 7), (3, 9)], "{errors}");
}

/// One broken thing each: the lines after the pair, the message, its place, the help.
#[test]
#[allow(clippy::too_many_lines)]
fn broken_pairs() {
    for (lines, message, place, help) in [
        (
            "thresholds.tensor.cosine = 1.5",
            "`cosine` is out of range",
            "6:28",
            "it must lie in [-1, 1]",
        ),
        (
            "thresholds.tensor.cosine = inf",
            "`cosine` is infinite",
            "6:28",
            "it must lie in [-1, 1]",
        ),
        (
            "thresholds.global.sqnr_db = 1e999",
            "`sqnr_db` is infinite",
            "6:29",
            "it must be a finite number",
        ),
        (
            "thresholds.tensor.gain = -0.1",
            "`gain` is out of range",
            "6:26",
            "it must be a finite number of at least 0",
        ),
        (
            "thresholds.tensor.rmse = { fail = 1, warn = 2 }",
            "the warning bound of `rmse` is laxer than the failing one",
            "6:26",
            "a value that fails would not even warn: swap them, or write `rmse = 1`",
        ),
        (
            "thresholds.tensor.rmse = {}",
            "`rmse` bounds nothing",
            "6:26",
            "give `fail`, `warn` or both",
        ),
        (
            "thresholds.tensor.rmse = { fial = 1 }",
            "unknown key `fial` in the bound `rmse`",
            "6:28",
            "it has `fail` and `warn`",
        ),
        (
            "thresholds.tensor.rmse = { fail = true }",
            "`fail` must be a number, not true",
            "6:35",
            "",
        ),
        (
            "thresholds.tensor.rmse = [1]",
            "`rmse` must be a number or { fail = …, warn = … }, not an array",
            "6:26",
            "",
        ),
        (
            "baseline.toleranse = 1",
            "unknown key `toleranse`",
            "6:10",
            "known here: abs, rel, ratchet",
        ),
        ("abs = 1", "unknown key `abs`", "6:1", "`abs` belongs in `baseline`"),
        (
            "allow-missing = \"x\"",
            "unknown key `allow-missing`",
            "6:1",
            "did you mean `allow_missing`?",
        ),
        (
            "baseline.rel = -1",
            "`rel` is out of range",
            "6:16",
            "it must be a finite number of at least 0",
        ),
        ("allow_missing = [\"\"]", "`allow_missing` holds an empty string", "6:18", ""),
        ("allow_extra = [1]", "`allow_extra` must hold strings, not the integer 1", "6:16", ""),
        (
            "skip = { tensors = \"x\" }",
            "`reason` is missing from `skip`",
            "6:8",
            "`reason` is a string: why they are not compared",
        ),
        ("skip = { tensors = \"x\", reason = \" \" }", "`reason` is empty", "6:34", ""),
        (
            "skip = { tensors = [], reason = \"x\" }",
            "`tensors` is an empty list",
            "6:10",
            "an empty list selects nothing; name a tensor or write `*`",
        ),
        (
            "rename = { from = \"(\", to = \"\" }",
            "bad regular expression: unclosed group",
            "6:19",
            "",
        ),
        (
            "rename = { from = \"(a)\", to = \"$1_b\" }",
            "the regular expression has no group `1_b`",
            "6:31",
            "write ${1} before a letter, digit or _",
        ),
        (
            "rename = { from = \"(?<layer>a)\", to = \"${layr}\" }",
            "the regular expression has no group `layr`",
            "6:39",
            "did you mean `layer`?",
        ),
        (
            "rule = { tensors = \"x\", cosine = 1 }",
            "`rule` must be an array of tables, not a table",
            "6:8",
            "write [[pair.rule]]",
        ),
        (
            "[[pair.rule]]\ntensors = \"x\"",
            "the rule bounds nothing",
            "6:1",
            "bound a metric: cosine, sqnr_db, rmse, rel_rmse, max_abs, gain",
        ),
        (
            "[[pair.waive]]\ntensors = \"x\"\nuntil = 2027-01-01\nreason = \"x\"",
            "the waiver waives nothing",
            "6:1",
            "bound a metric: cosine, sqnr_db, rmse, rel_rmse, max_abs, gain",
        ),
        (
            "thresholds.tensor.cosine = 0.99\n[[pair.waive]]\ntensors = \"x\"\ncosine = 0.9\nuntil = 2027-01-01T00:00:00\nreason = \"x\"",
            "`until` must be a date alone, without a time",
            "10:9",
            "write it like 2027-01-31",
        ),
        (
            "thresholds.tensor.cosine = 0.99\n[[pair.waive]]\ntensors = \"x\"\ncosine = { fail = 0.9, warn = 0.95 }\nuntil = 2027-01-01\nreason = \"x\"",
            "a waiver's floor does not warn",
            "9:10",
            "write a number: cosine = …",
        ),
        (
            "[[pair.group]]\ntensors = \"x\"\ncosine = 0.9\nmin_pass_fraction = 0",
            "a fraction of 0 holds whatever the values",
            "9:21",
            "it must be above 0, and at most 1",
        ),
        (
            "integrity.gain = \"off\"",
            "`gain` is off without a reason",
            "6:18",
            "say why, in the same table: reason = \"…\"",
        ),
        (
            "integrity.finite = 1",
            "`finite` must be \"on\" or \"off\", not the integer 1",
            "6:20",
            "",
        ),
        (
            "integrity.gain = \"of\"",
            "`gain` must be a number, { fail = …, warn = … }, \"on\" or \"off\", not the string \"of\"",
            "6:18",
            "",
        ),
        (
            "integrity.worst_block = 0.5",
            "`worst_block` is out of range",
            "6:25",
            "it must be a finite number of at least 1",
        ),
        ("integrity.gian = 1", "unknown key `gian`", "6:11", "did you mean `gain`?"),
        (
            "qtype = { tensors = \"x\" }",
            "neither `is` nor `not` names a type",
            "6:9",
            "write is = \"Q4_K\", or a list",
        ),
        (
            "min_quantized = 0",
            "`min_quantized` must be an integer of at least 1, not the integer 0",
            "6:17",
            "",
        ),
        (
            "bits_per_weight = { min = 5, max = 4 }",
            "no value of `bits_per_weight` can hold both bounds",
            "6:19",
            "min must not be above max",
        ),
        (
            "transform = { tensors = \"x\", apply = \"plus_one\" }",
            "`apply` must be \"plus-one\" or \"rope-permute\" or \"fold\", not \"plus_one\"",
            "6:38",
            "did you mean \"plus-one\"?",
        ),
        (
            "transform = { tensors = \"x\", apply = \"rope-permute\" }",
            "`rope-permute` needs `heads`",
            "6:13",
            "",
        ),
        (
            "transform = { tensors = \"x\", apply = \"plus-one\", heads = 2 }",
            "`heads` says nothing about `plus-one`",
            "6:50",
            "it belongs to `rope-permute`",
        ),
        (
            "companions = { tensors = \"x\", suffixes = [] }",
            "`suffixes` is an empty list",
            "6:31",
            "name a plane, such as \"weight_scale\"",
        ),
        (
            "imatrix = \"x\"",
            "`imatrix` without `roundtrip`",
            "6:1",
            "an importance matrix only serves to quantize in memory",
        ),
        ("unfold = 1", "`unfold` must be true or false, not the integer 1", "6:10", ""),
        (
            "[[pair]]\nname = \"p\"\nreference = \"r\"\nquantized = \"q\"",
            "two pairs are called `p`",
            "7:8",
            "names are parts of test ids and must be unique in a file",
        ),
        ("[profile.a]\ninherits = \"b\"", "no profile is called `b`", "7:12", "did you mean `a`?"),
        ("[profile.a]\ninherits = \"a\"", "the profile `a` inherits from itself", "7:12", ""),
        (
            "[matrix]\nbits = []",
            "the axis `bits` has no values",
            "7:8",
            "pairs that use it would vanish",
        ),
    ] {
        let mut found = findings(&with_pair(lines));
        found.retain(|it| !it.0.starts_with("no pair uses the axis"));
        assert_eq!(found, [(message.to_owned(), place.to_owned(), help.to_owned())], "{lines}");
    }
}

/// What is wrong outside of a pair's parts: the file, the message, the help.
#[test]
fn broken_files() {
    let pair = |lines: &str| format!("schema = 1\n[[pair]]\n{lines}\n");
    for (text, message, help) in [
        (String::new(), "`schema` is missing", "`schema` is an integer: version of the format: 1"),
        ("schema = 1".into(), "`pair` is missing", "`pair` is an array of tables: the pairs of models"),
        ("schema = 1\npair = []".into(), "a spec without pairs tests nothing", "write [[pair]]"),
        ("schema = 2\nfuture = 1".into(), "`schema` must be 1, not the integer 2", "this file is written for a later qualm; update qualm"),
        ("schema = \"1\"".into(), "`schema` must be 1, not the string \"1\"", "this qualm reads version 1 of the format: schema = 1"),
        ("schema = 1\nrequires = \">=99\"\nfuture = 1".into(), "this spec requires qualm >=99, and this is 0.1.0", "install such a version of qualm"),
        (with_pair("").replace("\n[[", "\nrequires = \"new\"\n[["), "`new` requires no version: unexpected character 'n' while parsing major version number", "write it like \">=0.1, <2\""),
        (pair("name = \"p\"\nquantized = \"q\""), "`reference` is missing from `pair`", "`reference` is a string: path of the float model, relative to the spec: a file, a directory, or a *.safetensors.index.json"),
        (pair("name = \"p\"\nreference = \"r\""), "a pair needs `quantized`, `roundtrip` or `verify`", "name the quantized model, the type to quantize the reference to in memory, or a model to judge alone"),
        (pair("name = \"p\"\nreference = \"r\"\nverify = \"v\""), "`reference` in a pair with `verify`", "`verify` judges one model; beside it go name, verify, ignore, description, tags, skip, integrity, qtype, bits_per_weight"),
        (pair("name = \"p\"\nverify = \"v\"\nthresholds.tensor.cosine = 0.9"), "`thresholds` in a pair with `verify`", "`verify` judges one model; beside it go name, verify, ignore, description, tags, skip, integrity, qtype, bits_per_weight"),
        (pair("name = \"p\"\nverify = \"v\"\nintegrity.gain = 0.1"), "`gain` compares with a reference, and `verify` has none", "remove it"),
        (pair("name = \"p\"\nreference = \"r\"\nquantized = \"q\"\nroundtrip = \"q4_0\""), "a pair has `quantized` or `roundtrip`, not both", "write two pairs"),
        (pair("name = \"p\"\nreference = \"r\"\nroundtrip = \"q4_x\""), "no type is called `q4_x`", "did you mean `Q4_0`?"),
        (pair("name = \"p\"\nreference = \"r\"\nroundtrip = \"q8_0\""), "Q8_0 cannot be quantized to", "these can: Q4_0"),
        (pair("name = \"p\"\nreference = \"r\"\nroundtrip = \"iq2_xs\""), "IQ2_XS cannot be quantized to", "IQ2_XS needs an importance matrix: imatrix = \"…\""),
        (pair("name = \"\"\nreference = \"r\"\nquantized = \"q\""), "`name` is empty", ""),
        (pair("name = \"a::b\"\nreference = \"r\"\nquantized = \"q\""), "a name must not hold `::`, which separates the parts of a test id", ""),
        (pair("name = \"a:\"\nreference = \"r\"\nquantized = \"q\""), "a name must not begin or end with `:`, which test ids put around it", ""),
        (pair("name = \"a\\nb\"\nreference = \"r\"\nquantized = \"q\""), "a name must not hold control characters", ""),
        (pair("name = \"a \"\nreference = \"r\"\nquantized = \"q\""), "a name must not begin or end with a space", ""),
        (pair("name = \"a\"\nreference = \"r{bits}\"\nquantized = \"q\""), "no axis of the matrix is called \"bits\"", "define it in [matrix], or write `{{` for a literal brace"),
        (pair("name = \"${A}\"\nreference = \"r\"\nquantized = \"q\""), "the environment variable `A` is not set", "set it: A=… qualm"),
        (pair("name = \"p\"\ntags = [\"${A}\"]\nreference = \"r\"\nquantized = \"q\""), "the environment variable `A` is not set", "set it: A=… qualm"),
        (pair("name = \"p\"\nreference = \"r\"\nroundtrip = \"${A}\""), "${A} stands where no variable is filled in", "environment variables belong in paths, names and tags"),
        (pair("name = \"a\"\nreference = \"r\\u0000\"\nquantized = \"q\""), "a path must not hold NUL", ""),
        ("schema = 1\n[matrix]\nb = [4, 8]\n[[pair]]\nname = \"a\"\nreference = \"r\"\nquantized = \"q{b}\"".into(), "the name lacks the axis `b`", "its pairs would share a name: write {b} in it"),
    ] {
        let found = findings(&text);
        assert_eq!((found[0].0.as_str(), found[0].2.as_str()), (message, help), "{text}\n{found:#?}");
    }
}

#[test]
fn files_that_are_no_text() {
    let read = |bytes: &[u8], path: &str| {
        parse(bytes, Path::new(path), Path::new(""), &options()).unwrap_err().to_string()
    };
    let broken = read(b"schema = 1\nname = \"\xff\"", "a.toml");
    assert!(broken.starts_with("error: not valid UTF-8\n --> a.toml:2:9\n"), "{broken}");
    let large = read(&vec![b'\n'; Source::MAX_BYTES + 1], "a.toml");
    assert!(large.starts_with("error: the file is larger than 16 MiB"), "{large}");
    let name = read(b"", "a::b.toml");
    assert!(name.starts_with("error: \"a::b\" cannot be the name of a spec"), "{name}");
    let absent = load(Path::new("absent.toml"), Path::new(""), &options()).unwrap_err();
    assert!(absent.to_string().starts_with("error: cannot read absent.toml: "), "{absent}");
}

#[test]
fn deep_nesting_is_an_error_not_a_crash() {
    for text in [
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{a=".repeat(100_000)),
        format!("{}a = 1", "a.".repeat(100_000)),
        format!("[{}a]", "a.".repeat(100_000)),
        format!("[[{}a]]", "a.".repeat(100_000)),
        "[[pair]]\n[[pair.rule]]\n".repeat(20_000),
    ] {
        assert!(read_with(&text, &options()).is_err());
    }
}

#[test]
fn a_file_that_is_wrong_throughout_is_reported_briefly() {
    let lines: Vec<String> = (0..5_000).map(|n| format!("unknown{n} = 1")).collect();
    let report = read_with(&lines.join("\n"), &options()).unwrap_err().to_string();
    assert!(report.len() < 50_000 && report.ends_with("… and 4902 more"), "{}", report.len());
}

#[test]
fn suspicious_specs_are_valid_with_warnings() {
    for (lines, message) in [
        (
            "thresholds.tensor.cosine = 0.99\n[[pair.waive]]\ntensors = \"x\"\ncosine = 0.9\nreason = \"x\"\nuntil = 2026-05-31",
            "the waiver expired on 2026-05-31",
        ),
        (
            "[[pair.waive]]\ntensors = \"x\"\ncosine = 0.9\nreason = \"x\"\nuntil = 2026-06-01",
            "nothing bounds `cosine`, so there is nothing to waive",
        ),
        ("qtype = { tensors = \"x\", not = \"Q4K\" }", "no type or scheme is known as `Q4K`"),
        (
            "[[pair]]\nname = \"same\"\nreference = \"r\"\nquantized = \"r\"",
            "the pair `same` compares a model with itself",
        ),
        ("[matrix]\nbits = [4]", "no pair uses the axis `bits`"),
    ] {
        let spec = read(&with_pair(lines));
        let messages: Vec<_> = spec.warnings.iter().map(|it| it.message.as_str()).collect();
        assert_eq!(messages, [message]);
    }
}

#[test]
fn a_matrix_makes_pairs() {
    let spec = read(
        "schema = 1\n[matrix]\nmethod = ['rtn', 'gptq']\nbits = [4, 8]\n\
         [[pair]]\nname = 'q{bits}-{method}'\nreference = '${MODELS}/r'\nquantized = '{method}/{bits}'\n\
         tags = ['b{bits}']\nqtype = { tensors = 'x', is = 'Q{bits}_K' }\nallow_missing = 'a'\n\
         [[pair]]\nname = 'plain'\nreference = 'r'\nquantized = 'q'\nallow_missing = 'a'\n",
    );
    let pairs: Vec<_> = spec
        .pairs
        .iter()
        .map(|pair| match &pair.quantized {
            Quantized::File(model) => (pair.name.as_str(), model.written.as_str()),
            Quantized::Roundtrip { .. } | Quantized::Alone => panic!(),
        })
        .collect();
    assert_eq!(
        pairs,
        [
            ("q4-rtn", "rtn/4"),
            ("q8-rtn", "rtn/8"),
            ("q4-gptq", "gptq/4"),
            ("q8-gptq", "gptq/8"),
            ("plain", "q"),
        ]
    );
    let first = &spec.pairs[0];
    assert_eq!(first.reference.path, Path::new("/models/r"));
    assert_eq!(first.reference.written, "${MODELS}/r", "the same on every machine");
    assert_eq!((first.tags[0].as_str(), first.qtype[0].is[0].as_str()), ("b4", "Q4_K"));
    let shared: Vec<_> = spec.pairs.iter().map(|pair| pair.allow_missing[0].shared).collect();
    assert_eq!(shared, [true, true, true, true, false]);
}

#[test]
fn levels_override_and_lists_add_up() {
    let text = "\
schema = 1
granularity = 'tensor'
allow_missing = 'file'
tags = ['a']
rename = { from = '^f', to = 'F' }
thresholds.tensor = { cosine = 0.9, rmse = 1 }
baseline = { abs = 1, rel = 2 }
integrity = { gain = 0.1, offset = 0.2 }
[profile.base.thresholds]
tensor.rmse = 3
tensor.gain = 0.3
[profile.strict]
inherits = 'base'
thresholds.tensor.rmse = 4
baseline.ratchet = true
[[pair]]
name = 'p'
reference = 'r'
quantized = 'q'
allow_missing = ['own']
tags = ['a', 'b']
rename = [{ from = 'F', to = 'G' }]
thresholds.tensor.cosine = 0.99
baseline.rel = 3
integrity.gain = 0.2
integrity.zero = 'off'
integrity.reason = 'why'
[[pair.rule]]
tensors = 'x'
integrity.gain = 'off'
reason = 'because'
";
    for (profile, rmse, gain, ratchet) in [
        (None, Some(1.0), None, false),
        (Some("base"), Some(3.0), Some(0.3), false),
        (Some("strict"), Some(4.0), Some(0.3), true),
        (Some("elsewhere"), Some(1.0), None, false),
    ] {
        let options = LoadOptions { profile: profile.map(str::to_owned), ..options() };
        let spec = read_with(text, &options).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(spec.profiles, ["base", "strict"]);
        assert_eq!(spec.granularity, Some(Granularity::Tensor));
        let pair = &spec.pairs[0];
        let bound = |metric| pair.thresholds.tensor.get(metric).and_then(|bound| bound.fail);
        assert_eq!(bound(Metric::Cosine), Some(0.99), "{profile:?}: the pair's own");
        assert_eq!((bound(Metric::Rmse), bound(Metric::Gain)), (rmse, gain), "{profile:?}");
        let Tolerance { abs, rel, ratchet: ratchets, .. } = pair.baseline;
        assert_eq!((abs, rel, ratchets), (1.0, 3.0, ratchet), "{profile:?}");
        assert_eq!(pair.tags, ["a", "b"]);
        let globs: Vec<_> = pair.allow_missing.iter().map(|it| it.text.as_str()).collect();
        assert_eq!(globs, ["own", "file"]);
        let resolver = spec.resolver(pair).unwrap();
        assert_eq!(resolver.rename("f.f"), "G.f", "the file's first, then the pair's");
        let fails = |setting: Option<&Setting>| match setting {
            Some(Setting::Bound(bound)) => bound.fail,
            _ => None,
        };
        assert_eq!(fails(resolver.tensor("y").integrity(Gate::Gain)), Some(0.2));
        assert_eq!(fails(resolver.tensor("y").integrity(Gate::Offset)), Some(0.2));
        let off = |tensor, gate| match resolver.tensor(tensor).integrity(gate) {
            Some(Setting::Off { reason, .. }) => reason.clone(),
            other => format!("{other:?}"),
        };
        assert_eq!(off("x", Gate::Gain), "because", "the rule's reason serves");
        assert_eq!(off("y", Gate::Zero), "why");
        assert!(resolver.tensor("y").integrity(Gate::Finite).is_none());
    }
}

#[test]
fn what_a_pair_demands_of_tensors() {
    let spec = read(&with_pair(
        r#"min_quantized = 2
bits_per_weight = 4.6
nonzero = "*.mlp.*"
metadata_equal = ["tokenizer.*"]
unfold = true
skip = { tensors = "rope*", reason = "a constant" }
qtype = [{ tensors = "*.k", is = "F16" }, { tensors = "*", not = ["Q2_K"] }]
transform = [{ tensors = "*.q", apply = "rope-permute", heads = 2 }, { tensors = "*", apply = "fold", norm = "n" }]
scheme = { tensors = "*_proj", is = "fp8-plain-cast" }
companions = { tensors = "*.experts.*", suffixes = "input_scale" }
[[pair.group]]
tensors = "*"
cosine = 0.99
min_pass_fraction = 0.9"#,
    ));
    let pair = &spec.pairs[0];
    assert_eq!(pair.min_quantized.as_ref().map(|it| it.value), Some(2));
    let bits = pair.bits_per_weight.as_ref().unwrap();
    assert_eq!((bits.min, bits.max, pair.unfold), (None, Some(4.6), true));
    let resolver = spec.resolver(pair).unwrap();
    let tensor = resolver.tensor("a.mlp.q");
    assert_eq!(tensor.nonzero().unwrap().text, "*.mlp.*");
    assert_eq!(tensor.transform().unwrap().apply, Apply::RopePermute { heads: 2 });
    assert!(tensor.scheme().is_none() && tensor.skip().is_none());
    assert_eq!(tensor.qtypes().map(|(index, _)| index).collect::<Vec<_>>(), [1]);
    assert_eq!(resolver.tensor("rope_freqs").skip().unwrap().reason, "a constant");
    let expert = resolver.tensor("a.experts.1");
    assert_eq!(expert.companions().next().unwrap().suffixes, ["input_scale"]);
    assert_eq!(expert.transform().unwrap().apply, Apply::Fold { norm: "n".into() });
    assert!(
        resolver.metadata_equal("tokenizer.ggml.pre") && !resolver.metadata_equal("general.name")
    );
    let (_, group) = expert.groups().next().unwrap();
    assert!(group.holds(|_| 0.99) && !group.holds(|_| 0.98) && !group.holds(|_| f64::NAN));
}

#[test]
fn waivers_end_and_are_found_out() {
    let text = with_pair(
        r#"thresholds.tensor.cosine = { fail = 0.99, warn = 0.995 }
[[pair.waive]]
tensors = "a*"
cosine = 0.9
reason = "x"
until = 2026-06-01
[[pair.waive]]
tensors = "ab"
cosine = 0.8
reason = "y"
until = 2026-06-02"#,
    );
    for (day, tensor, value, expected, why) in [
        (1, "a", 0.95, Judgement::Waived(0), "the last day counts"),
        (2, "a", 0.95, Judgement::Fail, "expired"),
        (1, "ab", 0.85, Judgement::Waived(1), "the lowest floor serves"),
        (3, "ab", 0.85, Judgement::Fail, "both expired"),
        (1, "a", 0.993, Judgement::Warn, "a warning needs no waiver"),
        (1, "b", 0.95, Judgement::Fail, "not waived"),
    ] {
        let options = LoadOptions { today: Date { year: 2026, month: 6, day }, ..options() };
        let spec = read_with(&text, &options).unwrap();
        let resolver = spec.resolver(&spec.pairs[0]).unwrap();
        let effective = resolver.bound_for(Metric::Cosine, tensor).unwrap();
        assert_eq!(effective.judge(value), expected, "{why}");
        assert_eq!(effective.expired.is_some(), expected == Judgement::Fail && tensor != "b");
    }
    let spec = read(&text);
    let resolver = spec.resolver(&spec.pairs[0]).unwrap();
    let unused = |used: &[usize]| {
        resolver.unused_waivers(used).iter().map(|it| it.location.line).collect::<Vec<_>>()
    };
    assert_eq!((unused(&[]), unused(&[1]), unused(&[0, 1])), (vec![7, 12], vec![7], vec![]));
}

#[test]
fn what_matches_nothing_is_found_out() {
    let text = "\
schema = 1
allow_missing = ['gone', 'a']
skip = { tensors = 'nowhere', reason = 'x' }
[[pair]]
name = 'p'
reference = 'r'
quantized = 'q'
allow_extra = ['extra', 'a', 'b']
metadata_equal = ['tokenizer.*', 'llama.*']
rename = [{ from = '^q\\.', to = '' }, { from = '^never', to = '' }]
thresholds.tensor.cosine = 0.9
[[pair.rule]]
tensors = 'a'
cosine = 0.8
[[pair.rule]]
tensors = ['a', 'zzz']
cosine = 0.8
[[pair.rule]]
tensors = 'a'
rmse = 0.8
[[pair]]
name = 's'
reference = 'r'
quantized = 'q'
";
    let spec = read(text);
    let resolver = spec.resolver(&spec.pairs[0]).unwrap();
    let usage = resolver.usage(["a"], ["q.a", "extra"], [], ["llama.x"]);
    let place = |it: &Diagnostic| (it.location.line, it.location.column, it.message.clone());
    let unmatched: Vec<_> = resolver.unmatched(&usage).iter().map(place).collect();
    assert_eq!(
        unmatched,
        [
            (8, 30, "`b` matches no tensor".to_owned()),
            (9, 19, "`tokenizer.*` matches no metadata key".to_owned()),
            (10, 48, "`^never` matches no tensor".to_owned()),
            (16, 17, "`zzz` matches no tensor".to_owned()),
        ]
    );
    let shadowed: Vec<_> =
        resolver.shadowed_rules(["a"]).iter().map(|it| it.location.line).collect();
    assert_eq!(shadowed, [15], "the third rule decides rmse");
    // Defaults of the file: judged when every pair has been seen.
    let other = spec.resolver(&spec.pairs[1]).unwrap();
    let none = other.usage(["x"], ["x"], [], []);
    let partial = [(&spec.pairs[0], usage.clone())];
    assert!(spec.unmatched_shared(&partial).is_empty());
    let all = [(&spec.pairs[0], usage), (&spec.pairs[1], none)];
    let shared: Vec<_> = spec.unmatched_shared(&all).iter().map(place).collect();
    assert_eq!(
        shared,
        [
            (2, 18, "`gone` matches no tensor of any pair".to_owned()),
            (3, 20, "`nowhere` matches no tensor of any pair".to_owned()),
        ]
    );
}

/// Every key is really read: a value that fits no key is found wanting wherever it stands.
#[test]
fn no_key_is_accepted_and_ignored() {
    let way_to = |shape: &'static Shape| -> String {
        match shape.heading {
            "" => String::new(),
            "pair" => "[[pair]]\n".to_owned(),
            "bounds" => "[thresholds.tensor]\n".to_owned(),
            "thresholds" | "baseline" | "integrity" => format!("[{}]\n", shape.heading),
            heading => match heading.strip_prefix("pair.") {
                Some(part) => format!("[[pair]]\n[[pair.{part}]]\n"),
                None if heading == "profile.NAME" => "[profile.x]\n".to_owned(),
                None => format!("[[{heading}]]\n"),
            },
        }
    };
    for shape in SPEC.family() {
        for key in shape.all() {
            // A time of day is the value of no key.
            let way = way_to(shape);
            let version = if key.name == "schema" { "" } else { "schema = 1\n" };
            let text = format!("{version}{way}{} = 07:32:00\n", key.name);
            let found = findings(&text);
            let named = format!("`{}` must be ", key.name);
            assert!(found.iter().any(|it| it.0.starts_with(&named)), "{text}{found:#?}");
        }
    }
}

/// The reference of the format names every key, and its examples are valid specs.
#[test]
fn the_documentation_is_complete_and_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/spec.md");
    let text = std::fs::read_to_string(path).unwrap();
    for shape in SPEC.family() {
        for key in shape.all() {
            assert!(text.contains(&format!("`{}`", key.name)), "{} is not documented", key.name);
        }
    }
    let examples: Vec<_> =
        text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() > 4);
    for example in examples {
        let spec = read_with(example, &options()).unwrap_or_else(|it| panic!("{example}\n{it}"));
        assert!(spec.warnings.is_empty(), "{:?}", spec.warnings);
    }
}

/// Values of every type, for keys that exist and keys that do not.
fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?[0-9]{1,20}(\\.[0-9]{1,3})?",
        Just("nan".to_owned()),
        Just("-inf".to_owned()),
        Just("true".to_owned()),
        Just("2027-01-31".to_owned()),
        "'[a-z*{}\\[\\]$\\\\^().:]{0,8}'",
        Just("{ fail = 1, warn = 0.5 }".to_owned()),
        Just("['a', 1]".to_owned()),
        Just("{ tensors = '*', reason = 'x', cosine = 0.5 }".to_owned()),
        Just("[{ from = 'a', to = '$1' }, { tensors = 'a', is = 'Q4_0' }]".to_owned()),
        Just("'off'".to_owned()),
    ]
}

fn any_lines() -> impl Strategy<Value = String> {
    let mut keys: Vec<String> = vec!["x".into(), "'a b'".into(), "thresholds.tensor.cosine".into()];
    let mut headings: Vec<String> = vec!["[matrix]".into(), "[profile.x]".into()];
    for shape in SPEC.family() {
        keys.extend(shape.all().map(|key| key.name.to_owned()));
        headings.push(format!("[[{}]]", shape.heading));
    }
    let line = prop_oneof![
        4 => (prop::sample::select(keys), any_value()).prop_map(|(key, value)| format!("{key} = {value}")),
        1 => prop::sample::select(headings),
    ];
    prop::collection::vec(line, 0..24).prop_map(|lines| format!("schema = 1\n{}", lines.join("\n")))
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(errors) = parse(&bytes, Path::new("a.toml"), Path::new(""), &options()) {
            prop_assert!(!errors.to_string().is_empty());
        }
    }

    #[test]
    fn no_toml_makes_it_panic(text in any_lines()) {
        match read_with(&text, &options()) {
            Ok(spec) => for pair in &spec.pairs {
                let resolver = spec.resolver(pair).unwrap();
                let usage = resolver.usage(["a", "blk.0.w"], ["a"], [], ["k"]);
                resolver.unmatched(&usage);
                for metric in Metric::ALL {
                    if let Some(effective) = resolver.bound_for(metric, "a") {
                        prop_assert_eq!(effective.judge(f64::NAN), Judgement::Fail);
                    }
                }
            },
            Err(errors) => {
                prop_assert!(errors.diagnostics.iter().any(|it| it.severity == Severity::Error));
                prop_assert!(errors.to_string().starts_with(['e', 'w']));
            }
        }
    }

    #[test]
    fn cut_off_files_do_not_panic(cut in 0..DESIGN.len()) {
        if DESIGN.is_char_boundary(cut) {
            let _ = read_with(&DESIGN[..cut], &options());
            prop_assert!(DeTable::parse_recoverable(&DESIGN[..cut]).0.get_ref().len() < 10);
        }
    }
}

#[test]
fn bound_kinds_are_metrics() {
    for shape in SPEC.family() {
        for key in shape.all() {
            if let Kind::Bound(metric) = key.kind {
                assert_eq!(key.name, metric.name());
            }
        }
    }
}
