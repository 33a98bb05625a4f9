/*! Baselines from the first run to the last: pending, review, accept, reject, prune. */

use crate::program::*;

const A: &[u64] = &[8, 64];

/// Weights and the same with noise of a given size.
fn noisy(size: f32) -> (Vec<f32>, Vec<f32>) {
    let mut random = Random(31);
    let r = random.normals(512);
    let q = r.iter().map(|value| value + size * random.normal()).collect();
    (r, q)
}

fn set(suite: &Suite, size: f32) {
    let (r, q) = noisy(size);
    suite.models(&[("a", "F32", A, f32s(&r))], &[("a", "BF16", A, bf16s(&q))]);
}

const OFF: &str = "integrity = { conversion = \"off\", column = \"off\", gain = \"off\", offset = \"off\", sqnr_expected = \"off\", worst_row = \"off\", worst_block = \"off\", reason = \"noise\" }\n";

fn started() -> Suite {
    let suite = Suite::new();
    set(&suite, 0.3);
    suite.spec(&format!("{OFF}thresholds.tensor.cosine = 0.9"));
    suite
}

#[test]
fn a_spec_may_do_without_a_baseline() {
    let suite = Suite::new();
    set(&suite, 0.3);
    let lines = format!("baseline = \"off\"\n{OFF}thresholds.tensor.cosine = 0.9");
    suite.spec(&lines);
    let ran = suite.qualm(&["run"]).exits(0);
    assert!(!ran.out.contains("(baseline)"), "{ran}");
    assert!(!suite.path().join("snapshots").exists(), "nothing waits to be accepted");
    suite.qualm(&["explain", "s::p::a"]).exits(0).says("there is no baseline (specs/s.toml:6");
    suite.spec(&lines.replace("\"off\"", "\"of\""));
    suite.qualm(&["run"]).exits(3).says("a table or \"off\"");
    suite.spec(&lines.replace("baseline = \"off\"", "baseline.rel = 0.5"));
    suite.qualm(&["run"]).exits(8);
}

const SNAPSHOT: &str = "snapshots/s__p.snap";

#[test]
fn a_new_baseline_waits_until_it_is_accepted() {
    let suite = started();
    let new = suite.path().join("snapshots/s__p.snap.new");
    let ran = suite.qualm(&["run"]).exits(8).says("only 1 baseline is new").says(".gitignore");
    assert!(ran.out.contains("test s::p::a ... ok"), "the bounds hold: {ran}");
    assert!(new.exists());
    assert_eq!(suite.contract()["verdict"], "pending");
    suite.qualm(&["pending"]).exits(8).says("s__p");
    let json = suite.qualm(&["pending", "--json"]).exits(8).json();
    assert!(json.to_string().contains("s__p"), "{json}");
    suite.qualm(&["review"]).exits(8).says("not a terminal").says("qualm accept [FILTER]");
    suite.qualm(&["accept", "nope"]);
    assert!(new.exists(), "a filter that matches nothing accepts nothing");
    suite.qualm(&["accept", "--reason", "first"]).exits(0).says("accepted");
    assert!(!new.exists());
    let snapshot = suite.read(SNAPSHOT);
    assert!(snapshot.starts_with("---\nsource: specs/s.toml\n"), "{snapshot}");
    suite.qualm(&["pending"]).exits(0);
    suite.qualm(&["run"]).exits(0);
    assert_eq!(suite.read(SNAPSHOT), snapshot, "a held baseline is not written");
}

#[test]
fn worse_fails_better_passes_and_within_leaves_the_file_alone() {
    let suite = started();
    suite.qualm(&["run"]).exits(8);
    suite.qualm(&["accept"]).exits(0);
    let accepted = suite.read(SNAPSHOT);
    set(&suite, 0.35);
    let ran = suite.qualm(&["run"]).exits(8);
    assert!(ran.out.contains("test s::p::(baseline) ... FAILED"), "{ran}");
    let review = suite.qualm(&["review"]).exits(8);
    for text in ["a", "cosine", "worse"] {
        assert!(review.out.contains(text), "{text}: {review}");
    }
    assert_eq!(suite.read(SNAPSHOT), accepted, "nothing is overwritten unasked");
    suite.qualm(&["reject"]).exits(0).says("rejected");
    assert!(!suite.path().join("snapshots/s__p.snap.new").exists());
    suite.qualm(&["run"]).exits(8);
    suite.qualm(&["reject"]).exits(0);
    set(&suite, 0.01);
    let better = suite.qualm(&["run"]);
    assert!(better.out.contains("test s::p::(baseline) ... ok"), "{better}");
    assert!(matches!(better.code, 0 | 8), "{better}");
    // Within the tolerance.
    set(&suite, 0.3001);
    suite.spec(&format!("{OFF}thresholds.tensor.cosine = 0.9\nbaseline.rel = 0.05"));
    suite.qualm(&["run"]).exits(0);
    assert_eq!(suite.read(SNAPSHOT), accepted);
}

#[test]
fn no_tolerance_covers_tensors_that_come_go_or_change_their_type() {
    let (r, q) = noisy(0.3);
    let b = || ("b", "F32", &[2, 2][..], f32s(&[1.0, 2.0, 3.0, 4.0]));
    let a = || ("a", "F32", A, f32s(&r));
    let wide = format!("{OFF}baseline = {{ abs = 1e9, rel = 1e9 }}");
    for (what, reference, quantized) in [
        ("added", vec![a(), b()], vec![("a", "BF16", A, bf16s(&q)), b()]),
        ("re-typed", vec![a()], vec![("a", "F16", A, vec![0x3C; 1024])]),
        (
            "re-shaped",
            vec![("a", "F32", &[64, 8], f32s(&r))],
            vec![("a", "BF16", &[64, 8], bf16s(&q))],
        ),
    ] {
        let suite = started();
        suite.qualm(&["run"]).exits(8);
        suite.qualm(&["accept"]).exits(0);
        suite.spec(&wide);
        suite.qualm(&["run"]).exits(0);
        suite.models(&reference, &quantized);
        let ran = suite.qualm(&["run"]);
        assert!(ran.out.contains("test s::p::(baseline) ... FAILED"), "{what}: {ran}");
    }
}

#[test]
fn snapshots_that_no_pair_refers_to_are_pruned() {
    let suite = started();
    suite.qualm(&["run"]).exits(8);
    suite.qualm(&["accept"]).exits(0);
    let text = suite.read("specs/s.toml").replace("name = \"p\"", "name = \"other\"");
    suite.write("specs/s.toml", text);
    suite.qualm(&["prune", "--dry-run"]).exits(0).says("would remove").says("s__p.snap");
    assert!(suite.path().join(SNAPSHOT).exists());
    suite.qualm(&["prune"]).exits(0).says("removed");
    assert!(!suite.path().join(SNAPSHOT).exists());
}

#[test]
fn pending_files_of_a_ci_run_are_accepted_elsewhere() {
    let suite = started();
    let ran = run(command(suite.path()).arg("run").env("CI", "1"));
    assert_eq!(ran.code, 8, "{ran}");
    assert!(!suite.path().join("snapshots").exists());
    std::fs::rename(suite.path().join("target/qualm"), suite.path().join("artefact")).unwrap();
    suite.qualm(&["accept", "--from", "artefact"]).exits(0).says("accepted");
    suite.qualm(&["run"]).exits(0);
}
