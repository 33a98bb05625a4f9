"""qualm: a regression harness for quantized neural-network weights.

    import qualm

    verdict = qualm.check("model-bf16", "model-Q4_K_M.gguf")
    assert verdict, "\\n".join(map(str, verdict.findings))

The functions call the program that is installed with this module and give its JSON reports as dataclasses.
A pair that is damaged is an answer; a model that cannot be read is an error, `InputError`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, Union

from ._program import InputError, QualmError, StrPath, UsageError, find_program, report
from ._reports import (
    Check,
    Diagnosis,
    Diff,
    Difference,
    Finding,
    Gates,
    Global,
    Kld,
    Metrics,
    Model,
    Order,
    Outlier,
    Rank,
    Ranked,
    Role,
    Score,
    StoredFile,
    StoredTensor,
    Tensor,
    TypeShare,
    Verified,
    WorstTensor,
    decoded,
)

__all__ = [
    "Check",
    "Diagnosis",
    "Diff",
    "Difference",
    "Finding",
    "Gates",
    "Global",
    "InputError",
    "Kld",
    "Metrics",
    "Model",
    "Order",
    "Outlier",
    "QualmError",
    "Rank",
    "Ranked",
    "Role",
    "Score",
    "StoredFile",
    "StoredTensor",
    "Tensor",
    "TypeShare",
    "UsageError",
    "Verified",
    "WorstTensor",
    "check",
    "diff",
    "find_program",
    "inspect",
    "rank",
    "verify",
]

try:
    __version__ = version("qualm-quant")
except PackageNotFoundError:  # a folder on the path, not an installed package
    __version__ = "0"

Rules = Union[StrPath, Literal["none"], None]
Types = Union[Mapping[str, Union[str, Sequence[str]]], None]


def check(
    reference: StrPath,
    quantized: StrPath,
    *,
    qtype: Types = None,
    map: Rules = None,
    threads: int | None = None,
) -> Check:
    """Judges a quantized model: `qualm check`.

    `qtype` maps a glob of tensor names to the type, or the types, that these tensors must be stored in.
    `map` is a file of rules for converted tensors, or `"none"` for no rules at all.

    Raises `InputError` if a model is missing or corrupt, `UsageError` if an argument is wrong.
    """
    asked = ["check", "--json", *_types(qtype), *_shared(map, threads), "--", *_paths(reference, quantized)]
    code, printed = report(asked, answers=(0, 5, 6))
    found = decoded(Check, printed)
    if code == 6:
        raise InputError("\n".join(each.message for each in found.findings), code, found)
    return found


def diff(
    reference: StrPath,
    quantized: StrPath,
    *,
    threshold: float | None = 0.95,
    allow_missing: bool = False,
    map: Rules = None,
    threads: int | None = None,
) -> Diff:
    """Compares two models tensor by tensor: `qualm diff`.

    `threshold` is the least cosine that passes; `None` measures without a gate. A tensor that only one
    model holds does not pass, unless `allow_missing` is set.

    Raises `InputError` if a model is missing or corrupt, `UsageError` if an argument is wrong.
    """
    gate = ["--no-threshold"] if threshold is None else ["--threshold", repr(float(threshold))]
    missing = ["--allow-missing"] if allow_missing else []
    asked = ["diff", "--json", *gate, *missing, *_shared(map, threads), "--", *_paths(reference, quantized)]
    code, printed = report(asked, answers=(0, 5))
    return decoded(Diff, printed, exit_code=code)


def inspect(model: StrPath, *, digest: bool = False, threads: int | None = None) -> Model:
    """Says what a model holds: `qualm inspect`. `digest` adds the SHA-256 of each tensor's decoded values.

    Raises `InputError` if the model is missing or corrupt.
    """
    digests = ["--digest"] if digest else []
    asked = ["inspect", "--json", *digests, *_shared(None, threads), "--", *_paths(model)]
    return decoded(Model, report(asked, answers=(0,))[1])


def rank(
    reference: StrPath,
    *quantized: StrPath,
    qtype: Types = None,
    anchor: tuple[str, float] | None = None,
    map: Rules = None,
    threads: int | None = None,
) -> Rank:
    """Judges several quants of one reference and ranks them: `qualm rank`.

    `anchor` is the name of one of the models and its measured KLD in nats. A quant that cannot be read has what
    is wrong in its `check`.

    Raises `InputError` if none can be read, or the reference cannot; `UsageError` if an argument is wrong.
    """
    known = [] if anchor is None else ["--anchor", f"{anchor[0]}={float(anchor[1])!r}"]
    asked = ["rank", "--json", *known, *_types(qtype), *_shared(map, threads), "--", *_paths(reference, *quantized)]
    code, printed = report(asked, answers=(0, 5, 6))
    found = decoded(Rank, printed, exit_code=code)
    if all(each.check.exit_code == 6 for each in found.models):
        said = dict.fromkeys(finding.message for each in found.models for finding in each.check.findings)
        raise InputError("\n".join(said), code, found)
    return found


def verify(model: StrPath, *, threads: int | None = None) -> Verified:
    """Judges a model without a reference: `qualm verify`.

    Raises `InputError` if the model is missing or corrupt.
    """
    code, printed = report(["verify", "--json", *_shared(None, threads), "--", *_paths(model)], answers=(0, 5, 6))
    found = decoded(Verified, printed)
    if code == 6:
        raise InputError("\n".join(each.message for each in found.findings), code, found)
    return found


def _types(qtype: Types) -> list[str]:
    """`--qtype` for each glob."""
    rules = (f"{glob}={types if isinstance(types, str) else ','.join(types)}" for glob, types in (qtype or {}).items())
    return [word for rule in rules for word in ("--qtype", rule)]


def _shared(map: Rules, threads: int | None) -> list[str]:
    """Options that several commands take."""
    rules = [] if map is None else ["--map", os.fspath(map)]
    return rules if threads is None else [*rules, "--threads", str(threads)]


def _paths(*models: StrPath) -> list[str]:
    return [os.fspath(model) for model in models]
