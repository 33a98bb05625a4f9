/*! Slips of the user: models that changed places are called that, by `run` as by `check`. */

use crate::made::*;
use crate::program::Suite;
use crate::table::Table;

/// A spec over the files `a` and `b`, with more lines.
fn spec(suite: &Suite, reference: &str, quantized: &str, lines: &str) {
    let text = format!(
        "schema = 1\n[[pair]]\nname = \"p\"\nreference = \"../{reference}.safetensors\"\n\
         quantized = \"../{quantized}.safetensors\"\n{lines}\n"
    );
    suite.write("specs/s.toml", text);
}

#[test]
fn swapped_models() {
    let mut table = Table::of("swapped models");
    // Scheme, what the spec asks for beside the models, what is put before the quantized model's names.
    for (scheme, lines, prefix) in [
        (Scheme::Int8Rows, "", ""),
        (Scheme::Fp8, "thresholds.tensor.cosine = 0.99", ""),
        (Scheme::Packed(4, 32), "thresholds.global.sqnr_db = 15", ""),
        (Scheme::Nvfp4, "min_quantized = 3", ""),
        (Scheme::Int8Rows, "rename = [{ from = '^q\\.', to = '' }]", "q."),
    ] {
        let what = format!("{scheme:?} {lines}");
        let names = ["up_proj", "down_proj", "gate_proj"];
        let matrices = (1..).zip(names).map(|(seed, part)| {
            Matrix::new(format!("model.layers.{seed}.mlp.{part}.weight"), &[64, 128], seed)
        });
        let matrices: Vec<Matrix> = matrices.collect();
        let plain: Vec<Owned> = matrices.iter().map(Matrix::plain).collect();
        let planes = |matrices: &[Matrix]| -> Vec<Owned> {
            let own = matrices.iter().map(|it| it.named(format!("{prefix}{}", it.name)));
            own.flat_map(|it| it.quantized(scheme)).collect()
        };
        let mut others = matrices.clone();
        others[1].values.reverse();
        let suite = Suite::new();
        suite.write("r.safetensors", file(&plain));
        suite.write("q.safetensors", file(&planes(&matrices)));
        suite.write("bad.safetensors", file(&planes(&others)));
        let run = ["run", "--no-baseline", "--granularity", "tensor"];
        let reports = ["junit.xml", "contract.json", "contract.md", "report.html"];
        let swapped = "the two models are swapped";
        for (reference, quantized, code, says) in [
            ("r", "q", 0, false),
            ("q", "r", 101, true),
            ("r", "bad", 101, false),
            // Names that are read the wrong way round have nothing in common.
            ("bad", "r", if prefix.is_empty() { 101 } else { 6 }, false),
        ] {
            spec(&suite, reference, quantized, lines);
            let ran = suite.qualm(&run);
            let (said, never) =
                if says { (&[swapped][..], &[][..]) } else { (&[][..], &[swapped][..]) };
            let what = format!("{what}: {reference} and {quantized}");
            table.expect(&what, &ran, &[code], said, never);
            for report in reports {
                let text = suite.read(&format!("target/qualm/{report}"));
                assert_eq!(text.contains(swapped), says, "{what}: {report}\n{ran}");
            }
            let contract = suite.contract();
            let tests = contract["specs"][0]["pairs"][0]["tests"].as_array().unwrap();
            for test in tests.iter().filter(|test| test["outcome"] == "failed" && says) {
                assert_eq!(test["diagnosis"]["cause"], "swapped", "{what}: {test}");
                assert_eq!(test["diagnosis"]["certainty"], "certain", "{what}: {test}");
            }
        }
        table.count(1, 3);
    }
}
