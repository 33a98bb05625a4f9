"""The module against the program's own words. `QUALM_MODELS` is the folder of the repository's models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import qualm

MODELS = Path(os.environ["QUALM_MODELS"])
F16 = MODELS / "minilm-block0-f16.gguf"
Q8_0 = MODELS / "minilm-block0-q8_0.gguf"
Q2_K = MODELS / "minilm-block0-q2_k.gguf"


def printed(*arguments: object) -> dict[str, object]:
    """What the program prints, read without the module."""
    done = subprocess.run([str(qualm.find_program()), *map(str, arguments)], capture_output=True, text=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def damaged(to: Path) -> Path:
    """The Q8_0 file with 4 KiB of its largest tensor overwritten."""
    stored = bytearray(Q8_0.read_bytes())
    stored[1_000_000:1_004_096] = b"\x55" * 4096
    to.write_bytes(stored)
    return to


def test_check_is_what_the_program_prints() -> None:
    found = qualm.check(F16, Q8_0, threads=1)
    said = printed("check", "--json", F16, Q8_0)
    assert found and found.healthy is True and found.verdict == "healthy" and found.findings == []
    assert found.json == said
    assert found.global_ is not None and found.global_.cosine == found.json["global"]["cosine"]
    assert [each.tensor for each in found.tensors] == [row["tensor"] for row in found.json["tensors"]]
    assert found.tensors[0].shape == found.json["tensors"][0]["shape"]
    assert found.gates.held > 0 and found.gates.violated == 0


def test_damage_is_an_answer_not_an_error(tmp_path: Path) -> None:
    found = qualm.check(F16, damaged(tmp_path / "damaged.gguf"))
    assert not found and found.healthy is False and found.exit_code == 5
    assert found.findings and found.tensors_at_fault
    assert all(isinstance(each, qualm.Finding) and each.message in str(each) for each in found.findings)


def test_types_asked_for() -> None:
    assert qualm.check(F16, Q8_0, qtype={"*.attn_q.weight": ["Q4_K", "Q8_0"]})
    found = qualm.check(F16, Q8_0, qtype={"*.attn_q.weight": "Q4_K"})
    assert [each.gate for each in found.findings] == ["qtype"]


@pytest.mark.parametrize("name", ["missing.gguf", "--help", "a b.gguf"])
def test_a_missing_model_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for call in (lambda: qualm.check(F16, name), lambda: qualm.diff(F16, name), lambda: qualm.inspect(name)):
        with pytest.raises(qualm.InputError, match="cannot open") as caught:
            call()
        assert caught.value.exit_code == 6 and name in str(caught.value)


def test_a_truncated_model_is_an_input_error_with_its_report(tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(Q8_0.read_bytes()[:200_000])
    with pytest.raises(qualm.InputError, match="truncated") as caught:
        qualm.check(F16, cut)
    assert caught.value.report.verdict == "unreadable" and caught.value.report.tensors_at_fault


def test_a_wrong_argument_is_a_usage_error() -> None:
    with pytest.raises(qualm.UsageError, match="threshold|cosine|-1"):
        qualm.diff(F16, Q8_0, threshold=float("nan"))
    with pytest.raises(qualm.UsageError):
        qualm.check(F16, Q8_0, qtype={"*": "Q99"})


def test_diff_is_what_the_program_prints() -> None:
    found = qualm.diff(F16, Q2_K, threshold=0.99)
    said = printed("diff", "--json", "--threshold", "0.99", F16, Q2_K)
    assert found.json == said and found.threshold == 0.99
    assert bool(found) == (not found.any_below_threshold)
    rmse = [each.rmse for each in found.tensors if each.rmse is not None]
    assert rmse == sorted(rmse, reverse=True)
    strict = qualm.diff(F16, Q2_K, threshold=1.0)
    assert not strict and strict.exit_code == 5 and strict.any_below_threshold
    assert qualm.diff(F16, Q2_K, threshold=None).exit_code == 0


def test_tensors_on_one_side_fail_a_diff_unless_allowed() -> None:
    other = MODELS / "minilm-attn0-f32.safetensors"
    found = qualm.diff(F16, other, map="none", threshold=None)
    assert not found and {each.kind for each in found.findings} >= {"missing", "extra"}


def test_inspect_is_what_the_program_prints() -> None:
    found = qualm.inspect(Q2_K, digest=True)
    assert found.json == printed("inspect", "--json", "--digest", Q2_K)
    assert found.format == "gguf" and found.metadata["general.architecture"] == "bert"
    assert found.files[0].size == Q2_K.stat().st_size
    assert all(len(each.decoded_sha256 or "") == 64 for each in found.tensors)


def needs(command: str) -> None:
    """Skips a test of a command that an older program does not have."""
    commands = subprocess.run([str(qualm.find_program()), "--help"], capture_output=True, text=True).stdout
    if f"\n  {command} " not in commands:
        pytest.skip(f"this program has no command {command}")


def test_rank_is_what_the_program_prints(tmp_path: Path) -> None:
    needs("rank")
    bad = damaged(tmp_path / "damaged.gguf")
    found = qualm.rank(F16, Q2_K, Q8_0, bad)
    assert found.json == printed("rank", "--json", F16, Q2_K, Q8_0, bad)
    assert not found and found.exit_code == 5
    assert [each.rank for each in found.models] == [1, 2, 3]
    by_name = {each.name: each for each in found.models}
    best = by_name["minilm-block0-q8_0"]
    assert best.rank < by_name["minilm-block0-q2_k"].rank
    assert best.check and not by_name["damaged"].check and best.check.json["name"] == best.name
    assert best.score is not None and best.score.value > 0 and best.size_bytes == Q8_0.stat().st_size
    assert best.types[0].qtype == "Q8_0" and best.worst_tensor is not None
    assert isinstance(found.orders[0], qualm.Order) and best.name in found.markdown
    assert qualm.rank(F16, Q8_0, anchor=("minilm-block0-q8_0", 0.02))
    with pytest.raises(qualm.InputError, match="cannot open"):
        qualm.rank(tmp_path / "missing.gguf", Q8_0, Q2_K)
    partly = qualm.rank(F16, Q8_0, tmp_path / "missing.gguf")
    assert not partly and partly.exit_code == 6 and len(partly.models) == 2


def test_verify_is_what_the_program_prints(tmp_path: Path) -> None:
    needs("verify")
    found = qualm.verify(Q8_0)
    assert found and found.json == printed("verify", "--json", Q8_0) and found.findings == []
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(Q8_0.read_bytes()[:200_000])
    with pytest.raises(qualm.InputError, match="truncated") as caught:
        qualm.verify(cut)
    assert caught.value.report.verdict == "unreadable"


def test_the_scripts_are_the_program(tmp_path: Path) -> None:
    wanted = subprocess.run([str(qualm.find_program()), "--version"], capture_output=True, text=True).stdout
    assert wanted.split() == ["qualm", qualm.__version__]
    for script in ([sys.executable, "-m", "qualm"], [str(qualm.find_program().with_name("qualm-quant"))]):
        assert subprocess.run([*script, "--version"], capture_output=True, text=True).stdout == wanted
        assert subprocess.run([*script, "diff"], capture_output=True).returncode == 2


def test_a_program_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUALM", "/no/such/program")
    with pytest.raises(qualm.QualmError, match="QUALM names /no/such/program"):
        qualm.inspect(Q2_K)
