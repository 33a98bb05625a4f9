"""The plugin as users have it: real pytest, real xdist, the real program."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

MODELS = Path(os.environ["QUALM_MODELS"])

SUITE = f"""
schema = 1

[[pair]]
name = "good"
reference = '{MODELS}/minilm-block0-f16.gguf'
quantized = '{MODELS}/minilm-block0-q8_0.gguf'

[[pair]]
name = "bad"
reference = '{MODELS}/minilm-block0-f16.gguf'
quantized = '{MODELS}/minilm-block0-q2_k.gguf'
thresholds.tensor.cosine = 0.9999

[[pair]]
name = "later"
ignore = "only before a release"
reference = '{MODELS}/minilm-block0-f16.gguf'
quantized = '{MODELS}/minilm-block0-q2_k.gguf'
"""

GOOD, BAD = "specs/moe/a.toml::good", "specs/moe/a.toml::bad"


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with one spec, in a folder of the suite."""
    for name in ("CI", "GITHUB_ACTIONS", "TF_BUILD", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeini("[pytest]\n")
    spec = pytester.path / "specs/moe/a.toml"
    spec.parent.mkdir(parents=True)
    spec.write_text(SUITE)
    return pytester


def run(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """pytest, with the baselines out of the way."""
    return suite.runpytest("--qualm-no-baseline", *arguments)


def test_one_item_a_pair(suite: pytest.Pytester) -> None:
    found = run(suite, "--collect-only", "-q")
    assert found.outlines[:3] == [GOOD, BAD, "specs/moe/a.toml::later"]


def test_one_item_a_tensor(suite: pytest.Pytester) -> None:
    for asked in (run(suite, "--collect-only", "-q", "--qualm-tensors"), configured(suite)):
        ids = [line for line in asked.outlines if "::" in line]
        assert f"{GOOD}::blk.0.attn_k.weight" in ids and f"{GOOD}::(structure)" in ids
        assert len(ids) == len(set(ids)) == 3 * 19


def configured(suite: pytest.Pytester) -> pytest.RunResult:
    suite.makeini("[pytest]\nqualm_granularity = tensor\n")
    return run(suite, "--collect-only", "-q")


def test_failures_say_value_bound_and_place(suite: pytest.Pytester) -> None:
    found = run(suite)
    found.assert_outcomes(passed=1, failed=1, skipped=1)
    found.stdout.fnmatch_lines(["cosine 0.9* < 0.999900 (blk.0.*.weight, *); 6 of 18 tests do not pass"])
    found.stdout.fnmatch_lines([
        "---- moe/a::bad::blk.0.attn_k.weight ----",
        "cosine 0.997060 < 0.999900 (blk.0.attn_k.weight, IQ4_NL)",
        "  bound: specs/moe/a.toml:13:28",
    ])
    found.stdout.no_fnmatch_line("*Traceback*")
    assert found.ret == pytest.ExitCode.TESTS_FAILED


def test_a_green_suite_is_green(suite: pytest.Pytester) -> None:
    found = run(suite, "-k", "good")
    found.assert_outcomes(passed=1, deselected=2)
    assert found.ret == 0


def test_selection(suite: pytest.Pytester) -> None:
    run(suite, "-x").assert_outcomes(passed=1, failed=1)
    run(suite, "--lf").assert_outcomes(failed=1)
    run(suite, BAD).assert_outcomes(failed=1)
    run(suite, f"{BAD}::blk.0.attn_k.weight", "--qualm-tensors").assert_outcomes(failed=1)
    run(suite, "--qualm-include-ignored", "-k", "later").assert_outcomes(passed=1, deselected=2)
    run(suite, "-m", "not qualm").assert_outcomes(deselected=3)


def test_tensors_that_are_selected_are_all_that_is_measured(suite: pytest.Pytester) -> None:
    run(suite, "--qualm-tensors", "-k", "bad and attn_k.weight").assert_outcomes(failed=1, deselected=56)
    report = suite.path / "target/qualm/pytest/moe__a__bad/report.tsv"
    assert [line.split("\t")[0] for line in report.read_text().splitlines()[1:]] == ["moe/a::bad::blk.0.attn_k.weight"]


@pytest.mark.parametrize("more", [[], ["--qualm-tensors"], ["--qualm-tensors", "--dist", "loadgroup"]])
def test_xdist_gives_what_one_process_gives(suite: pytest.Pytester, more: list[str]) -> None:
    alone = run(suite, *more)
    spread = suite.runpytest_subprocess("--qualm-no-baseline", *more, "-n", "2")
    assert alone.parseoutcomes() == spread.parseoutcomes()
    assert spread.parseoutcomes()["failed"] > 0 and spread.parseoutcomes()["passed"] > 0


def test_junit_of_pytest(suite: pytest.Pytester) -> None:
    run(suite, "--junit-xml", "out.xml")
    cases = {case.get("name"): case for case in ET.parse(suite.path / "out.xml").iter("testcase")}
    assert set(cases) == {"good", "bad", "later"}
    failure = cases["bad"].find("failure")
    assert failure is not None and "cosine 0.997060 < 0.999900" in (failure.text or "")
    skipped = cases["later"].find("skipped")
    assert skipped is not None and skipped.get("message") == "only before a release"
    properties = {each.get("name"): each.get("value") for each in cases["good"].iter("property")}
    assert 0.9999 < float(properties["qualm.cosine"] or 0) < 1


def test_a_new_baseline_fails_until_it_is_accepted(suite: pytest.Pytester) -> None:
    found = suite.runpytest("-k", "good")
    found.assert_outcomes(failed=1, deselected=2)
    found.stdout.fnmatch_lines(["*no baseline yet*qualm review*"])
    new = suite.path / "snapshots/moe__a__good.snap.new"
    new.rename(new.with_suffix(""))
    suite.runpytest("-k", "good").assert_outcomes(passed=1, deselected=2)


def test_a_warning_passes_and_is_told(suite: pytest.Pytester) -> None:
    spec = suite.path / "specs/moe/a.toml"
    spec.write_text(spec.read_text().replace("= 0.9999", "= { warn = 0.9999 }"))
    found = run(suite, "-k", "bad")
    found.assert_outcomes(passed=1, deselected=2, warnings=6)
    found.stdout.fnmatch_lines(["*cosine 0.997060 < 0.999900 (blk.0.attn_k.weight, IQ4_NL)*"])


def test_a_missing_model_fails(suite: pytest.Pytester) -> None:
    spec = suite.path / "specs/moe/a.toml"
    spec.write_text(SUITE.replace("q8_0.gguf", "gone.gguf"))
    found = run(suite, "-k", "good")
    found.assert_outcomes(failed=1, deselected=2)
    found.stdout.fnmatch_lines(["*minilm-block0-gone.gguf: cannot open it*"])


@pytest.mark.parametrize(
    ("text", "said"),
    [("x = [", "*unclosed array*"), ("schema = 1", "*`pair` is missing*"), ("schema = 1\n[[pairs]]", "*pairs*")],
)
def test_an_invalid_spec_is_an_error_of_its_own(suite: pytest.Pytester, text: str, said: str) -> None:
    (suite.path / "specs/broken.toml").write_text(text)
    found = run(suite)
    found.assert_outcomes(errors=1)
    found.stdout.fnmatch_lines([said])
    found.stdout.no_fnmatch_line("*Traceback*")
    # The others can be judged all the same.
    run(suite, "--continue-on-collection-errors").assert_outcomes(passed=1, failed=1, skipped=1, errors=1)


def test_only_folders_of_specs_are_collected(suite: pytest.Pytester) -> None:
    suite.makefile(".toml", other="x = [")
    (suite.path / "quality/b.toml").parent.mkdir()
    (suite.path / "specs/moe/a.toml").rename(suite.path / "quality/b.toml")
    assert run(suite).ret == pytest.ExitCode.NO_TESTS_COLLECTED
    suite.makeini("[pytest]\nqualm_specs = quality\n")
    found = run(suite, "--collect-only", "-q")
    assert found.outlines[0] == "quality/b.toml::good"


def test_a_granularity_that_does_not_exist(suite: pytest.Pytester) -> None:
    suite.makeini("[pytest]\nqualm_granularity = tensors\n")
    found = run(suite)
    assert found.ret == pytest.ExitCode.USAGE_ERROR
    found.stderr.fnmatch_lines(["*qualm_granularity is pair or tensor, not 'tensors'*"])


def test_a_long_name_and_an_odd_one(suite: pytest.Pytester) -> None:
    spec = suite.path / "specs/moe/a.toml"
    spec.write_text(SUITE.replace('"good"', f'"{"long" * 60}"').replace('"later"', '"[odd] näme"'))
    run(suite, "-k", "long").assert_outcomes(passed=1, deselected=2)
    run(suite, "--qualm-include-ignored", "-k", "odd").assert_outcomes(passed=1, deselected=2)


def test_pending_baselines_in_ci(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    suite.runpytest("-k", "good").assert_outcomes(failed=1, deselected=2)
    assert not (suite.path / "snapshots").exists()
    pending = suite.path / "target/qualm/pytest/moe__a__good/pending"
    assert [path.name for path in pending.rglob("*.snap.new")] == ["moe__a__good.snap.new"]
