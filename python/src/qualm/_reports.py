"""The program's JSON reports as dataclasses.

Fields are named as the keys are (`global` is a keyword, hence `global_`); docs/check.md and docs/reports.md
say what they mean. A number that is NaN or infinite is `None`, as it is in JSON. A key that this module
does not know is left in `json`, the report as the program printed it.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Optional, TypeVar

from ._program import QualmError

T = TypeVar("T")

# Marks a field that takes the object as a whole, not the value of a key.
WHOLE = {"whole": True}


@dataclass(frozen=True)
class Metrics:
    """How far the quantized values are from the reference's; of one tensor, or of all as one vector."""

    numel: int
    rmse: Optional[float]
    cosine: Optional[float]
    max_abs: Optional[float]
    sqnr_db: Optional[float]
    rel_rmse: Optional[float]
    gain: Optional[float]
    mean_error: Optional[float]
    bits_per_weight: Optional[float]
    rd_gap_db: Optional[float]
    wasted_bits: Optional[float]
    nonfinite: int


@dataclass(frozen=True)
class Global(Metrics):
    """All float tensors of a pair as one vector."""

    tensors: int


@dataclass(frozen=True)
class Tensor(Metrics):
    """One tensor of a pair."""

    tensor: str
    qtype: str
    reference_qtype: str
    shape: list[int]
    verdict: str
    stored_bytes: int
    expected_sqnr_db: Optional[float] = None
    least_cosine: Optional[float] = None
    recovered: Optional[str] = None
    first_difference: Optional[int] = None
    error: Optional[str] = None


@dataclass(frozen=True)
class Diagnosis:
    """A cause of damage, how sure it is (`likely` or `certain`), and what speaks for it."""

    cause: str
    certainty: str
    evidence: str


@dataclass(frozen=True)
class Finding:
    """Something that is wrong; `tensor` is `None` if it is about the model as a whole."""

    tensor: Optional[str]
    gate: str
    value: Optional[float]
    bound: Optional[float]
    message: str
    diagnosis: Optional[Diagnosis]

    def __str__(self) -> str:
        return self.message if self.diagnosis is None else f"{self.message}\ncause: {self.diagnosis.evidence}"


@dataclass(frozen=True)
class Gates:
    """How many gates held, did not hold, and could not judge."""

    held: int
    violated: int
    not_judged: int


@dataclass(frozen=True)
class Check:
    """What `qualm check` found: the verdict on a pair. It is true if the pair is healthy."""

    reference: str
    quantized: str
    verdict: str
    healthy: Optional[bool]
    exit_code: int
    tensors_at_fault: list[str]
    findings: list[Finding]
    warnings: list[Finding]
    global_: Optional[Global]
    tensors: list[Tensor]
    gates: Gates
    notes: list[str]
    json: dict[str, Any] = field(default_factory=dict, repr=False, compare=False, metadata=WHOLE)

    def __bool__(self) -> bool:
        return self.exit_code == 0


@dataclass(frozen=True)
class Difference:
    """A tensor that one model lacks or holds in another shape."""

    tensor: str
    kind: str
    message: str
    allowed: bool = False


@dataclass(frozen=True)
class Diff:
    """What `qualm diff` measured, worst tensor first. It is true if the comparison passes."""

    reference: str
    quantized: str
    threshold: Optional[float]
    any_below_threshold: bool
    global_: Optional[Global]
    tensors: list[Tensor]
    findings: list[Difference]
    notes: list[str]
    exit_code: int = 0
    json: dict[str, Any] = field(default_factory=dict, repr=False, compare=False, metadata=WHOLE)

    def __bool__(self) -> bool:
        return self.exit_code == 0


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a model stores it."""

    name: str
    type: str
    shape: list[int]
    numel: int
    stored_bytes: int
    bits_per_weight: Optional[float]
    nonfinite: Optional[int] = None
    decoded_sha256: Optional[str] = None


@dataclass(frozen=True)
class StoredFile:
    """A file of a model."""

    path: str
    size: int
    header_sha256: str


@dataclass(frozen=True)
class Model:
    """What `qualm inspect` says of a model."""

    path: str
    format: str
    files: list[StoredFile]
    metadata: dict[str, Any]
    tensors: list[StoredTensor]
    notes: list[str]
    json: dict[str, Any] = field(default_factory=dict, repr=False, compare=False, metadata=WHOLE)


@dataclass(frozen=True)
class TypeShare:
    """What is stored in one type."""

    qtype: str
    tensors: int
    bytes: int


@dataclass(frozen=True)
class WorstTensor:
    """The tensor with the lowest SQNR."""

    tensor: str
    qtype: str
    sqnr_db: Optional[float]


@dataclass(frozen=True)
class Role:
    """What the tensors of one role add to a score."""

    role: str
    tensors: int
    contribution: float
    share: float


@dataclass(frozen=True)
class Kld:
    """The band of the KLD to expect, in nats; `from_` is `anchor` or `typical`."""

    from_: str
    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Score:
    """The damage that the weights let expect: docs/rank.md."""

    value: float
    zone: str
    basis: str
    evidence: bool
    layers: int
    roles: list[Role]
    kld: Optional[Kld]


@dataclass(frozen=True)
class Ranked:
    """One model's place among the others; `check` is the verdict on it."""

    rank: int
    name: str
    check: Check = field(metadata=WHOLE)
    size_bytes: Optional[int]
    bits_per_weight: Optional[float]
    sqnr_db: Optional[float]
    rd_gap_db: Optional[float]
    imatrix: bool
    types: list[TypeShare]
    worst_tensor: Optional[WorstTensor]
    score: Optional[Score]
    no_score: Optional[str]


@dataclass(frozen=True)
class Order:
    """How sure it is that one model is better than another: `clear`, `likely`, `not separable`, …"""

    better: str
    worse: str
    ratio: Optional[float]
    confidence: str
    reason: Optional[str]


@dataclass(frozen=True)
class Outlier:
    """Something about a model that does not fit the others."""

    model: str
    message: str


@dataclass(frozen=True)
class Rank:
    """What `qualm rank` says of several quants of one reference, the least expected damage first. It is true
    if all of them are healthy."""

    reference: str
    models: list[Ranked]
    front: list[str]
    orders: list[Order]
    outliers: list[Outlier]
    notes: list[str]
    markdown: str
    exit_code: int = 0
    json: dict[str, Any] = field(default_factory=dict, repr=False, compare=False, metadata=WHOLE)

    def __bool__(self) -> bool:
        return self.exit_code == 0


@dataclass(frozen=True)
class Verified:
    """What `qualm verify` found in a model without a reference. It is true if the model is healthy."""

    model: str
    verdict: str
    healthy: Optional[bool]
    exit_code: int
    tensors_at_fault: list[str]
    findings: list[Finding]
    warnings: list[Finding]
    bits_per_weight: Optional[float]
    types: list[TypeShare]
    gates: Gates
    notes: list[str]
    json: dict[str, Any] = field(default_factory=dict, repr=False, compare=False, metadata=WHOLE)

    def __bool__(self) -> bool:
        return self.exit_code == 0


def decoded(kind: type[T], report: dict[str, Any], **known: Any) -> T:
    """A report as `kind`, with the whole report kept in its `json`."""
    return typing.cast(T, _object(kind, report, known))


def _object(kind: type, found: Any, known: dict[str, Any]) -> Any:
    values = dict(known)
    hints = _hints(kind)
    for about in dataclasses.fields(kind):
        key = about.name.rstrip("_")
        if about.metadata == WHOLE:
            values[about.name] = _value(hints[about.name], found)
        elif about.name not in values and isinstance(found, dict) and key in found:
            values[about.name] = _value(hints[about.name], found[key])
    try:
        return kind(**values)
    except TypeError as error:
        raise QualmError(f"the program's report is not one that this module knows: {error}") from error


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _value(hint: Any, found: Any) -> Any:
    """A value of JSON as what a field is declared to hold: a dataclass, a list of them, or itself."""
    of = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return None if found is None else _value(of[0], found)
    if typing.get_origin(hint) is list:
        return [_value(of[0], each) for each in found]
    return _object(hint, found, {}) if isinstance(hint, type) and dataclasses.is_dataclass(hint) else found
