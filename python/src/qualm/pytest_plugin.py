"""Specs as pytest tests: `specs/**/*.toml` are collected, one item a pair, or one a tensor.

The program does the work. It lists the pairs of a spec; it runs a pair when the first of its items is
due; and its `contract.json` says what became of each test. Nothing is judged here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional
from urllib.parse import quote

import pytest

from ._program import QualmError, call, error

# More ids than this on one command line, and the whole pair is run: command lines have a limit.
SELECTED = 200

# The length of a folder's name that every file system takes.
LONGEST = 120

# Exit codes of a run that has judged: all passed, a model unreadable, baselines pending, a test failed.
# Code 4 is a run of which every test is ignored.
JUDGED = (0, 4, 6, 8, 101)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, each with a line in the configuration."""
    group = parser.getgroup("qualm", "specs of quantized models")
    group.addoption("--qualm-tensors", action="store_true", help="one test a tensor, not one a pair")
    group.addoption("--qualm-profile", metavar="NAME", help="apply this profile of the specs")
    group.addoption("--qualm-no-baseline", action="store_true", help="leave the baselines alone")
    group.addoption("--qualm-include-ignored", action="store_true", help="run what specs ignore or skip, too")
    group.addoption("--qualm-out-dir", metavar="DIR", help="where reports are written (default: target/qualm)")
    parser.addini("qualm_specs", "folders of specs, relative to the root (default: specs)", "linelist", ["specs"])
    parser.addini("qualm_snapshots", "folder of the accepted baselines (default: snapshots)", default="snapshots")
    parser.addini("qualm_granularity", "one test a `pair` or a `tensor` (default: pair)", default="pair")


def pytest_configure(config: pytest.Config) -> None:
    """Refuses a configuration that would silently mean something else."""
    granularity = config.getini("qualm_granularity")
    if granularity not in ("pair", "tensor"):
        raise pytest.UsageError(f"qualm_granularity is pair or tensor, not {granularity!r}")
    config.addinivalue_line("markers", "qualm: a test that a spec of qualm states")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Optional[SpecFile]:
    """A TOML file below a folder of specs is a spec."""
    if file_path.suffix != ".toml":
        return None
    for name in parent.config.getini("qualm_specs"):
        suite = parent.config.rootpath / name
        if suite in file_path.parents:
            spec: SpecFile = SpecFile.from_parent(parent, path=file_path, suite=suite)
            return spec
    return None


@dataclass(frozen=True)
class Listed:
    """A test as the program lists it."""

    id: str
    line: int
    ignored: Optional[str]


class SpecFile(pytest.File):
    """A spec; `suite` is the folder below which test ids begin."""

    def __init__(self, *, suite: Path, **known: Any) -> None:
        super().__init__(**known)
        self.suite = suite

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        """One item a pair, or a collector a pair with one item a tensor and gate."""
        tensors = self.config.getoption("qualm_tensors") or self.config.getini("qualm_granularity") == "tensor"
        pairs = [Pair(self, listed) for listed in self._list("pair")]
        if not tensors:
            for pair in pairs:
                yield SpecItem.from_parent(self, name=self._short(pair.id), pair=pair, listed=pair.listed)
            return
        tests: dict[str, list[Listed]] = {pair.id: [] for pair in pairs}
        # The longest id first: a pair may be called like the beginning of another.
        by_length = sorted(tests, key=len, reverse=True)
        for listed in self._list("tensor"):
            tests[next(id for id in by_length if listed.id.startswith(f"{id}::"))].append(listed)
        for pair in pairs:
            yield PairCollector.from_parent(self, name=self._short(pair.id), pair=pair, tests=tests[pair.id])

    def _list(self, granularity: str) -> list[Listed]:
        asked = ["run", "--list", "--format", "json", "--granularity", granularity, *profile(self.config)]
        done = call([*asked, "--spec", from_root(self.path, self.config)], cwd=self.config.rootpath)
        if done.returncode != 0:
            raise self.CollectError(str(error(done)))
        events = [json.loads(line) for line in done.stdout.splitlines()]
        found = [event for event in events if event.get("event") == "discovered"]
        return [
            Listed(self._full(test["name"]), test["start_line"], test["ignore_message"] if test["ignore"] else None)
            for test in found
        ]

    def _spec(self) -> str:
        return self.path.relative_to(self.suite).with_suffix("").as_posix()

    def _full(self, listed: str) -> str:
        """The id that a test has in the suite: of a spec that is listed alone, the folder is left out."""
        return f"{self._spec()}::{listed.removeprefix(f'{self.path.stem}::')}"

    def _short(self, full: str) -> str:
        return full.removeprefix(f"{self._spec()}::")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """A spec that is not valid: what the program said of it, with no traceback."""
        if isinstance(excinfo.value, QualmError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


class PairCollector(pytest.Collector):
    """A pair of which each test is an item."""

    def __init__(self, *, pair: Pair, tests: list[Listed], **known: Any) -> None:
        super().__init__(**known)
        self.pair = pair
        self.tests = tests

    def collect(self) -> Iterator[pytest.Item]:
        """The tests, in the program's order."""
        for listed in self.tests:
            name = listed.id.removeprefix(f"{self.pair.id}::")
            yield SpecItem.from_parent(self, name=name, pair=self.pair, listed=listed)


class Pair:
    """A pair of a spec, and what its run has found, once it was run."""

    def __init__(self, spec: SpecFile, listed: Listed) -> None:
        self.spec = spec
        self.listed = listed
        self._record: Optional[dict[str, Any]] = None

    @property
    def id(self) -> str:
        """`SPEC::PAIR`."""
        return self.listed.id

    def record(self, session: pytest.Session) -> dict[str, Any]:
        """The pair's part of `contract.json`; the pair is run the first time that it is asked for."""
        if self._record is None:
            self._record = self._run(session)
        return self._record

    def _run(self, session: pytest.Session) -> dict[str, Any]:
        config = self.spec.config
        out = self._out_dir()
        shutil.rmtree(out, ignore_errors=True)
        asked = ["run", "--color", "never", "--spec", from_root(self.spec.suite, config), "--out-dir", str(out), *profile(config)]
        asked += ["--snapshots", config.getini("qualm_snapshots")]
        asked += ["--no-baseline"] * config.getoption("qualm_no_baseline")
        asked += ["--include-ignored"] * config.getoption("qualm_include_ignored")
        granularity, ids = self._selected(session)
        done = call([*asked, "--granularity", granularity, "--exact", "--", *ids], cwd=config.rootpath, env=environment())
        if done.returncode not in JUDGED:
            raise error(done)
        try:
            contract = json.loads((out / "contract.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise error(done) from None
        pairs = [pair for spec in contract["specs"] for pair in spec["pairs"] if pair["id"] == self.id]
        if not pairs:
            raise QualmError(f"{self.id} is not among the pairs that were run")
        found: dict[str, Any] = pairs[0]
        return found

    def _selected(self, session: pytest.Session) -> tuple[str, list[str]]:
        """What of the pair is to be run: the tests that this session has selected, or all of it."""
        mine = [item.listed.id for item in session.items if isinstance(item, SpecItem) and item.pair is self]
        if self.id in mine or len(mine) > SELECTED or not mine:
            return "pair", [self.id]
        return "tensor", mine

    def _out_dir(self) -> Path:
        """A folder of the pair's own, and of the worker's, where there are several."""
        config = self.spec.config
        out = config.rootpath / (config.getoption("qualm_out_dir") or "target/qualm")
        name = quote(self.id.replace("::", "__").replace("/", "__"), safe="")
        if len(name) > LONGEST:
            name = f"{name[: LONGEST - 17]}-{hashlib.sha256(self.id.encode()).hexdigest()[:16]}"
        return out / "pytest" / os.environ.get("PYTEST_XDIST_WORKER", "") / name


class Failed(Exception):
    """A test that did not pass; the lines say why."""

    def __init__(self, lines: Iterable[str]) -> None:
        super().__init__("\n".join(lines))


class QualmWarning(pytest.PytestWarning):
    """A `warn` bound does not hold."""


class SpecItem(pytest.Item):
    """A pair, or one test of it."""

    def __init__(self, *, pair: Pair, listed: Listed, **known: Any) -> None:
        super().__init__(**known)
        self.pair = pair
        self.listed = listed
        self.add_marker(pytest.mark.qualm)
        if self.config.pluginmanager.hasplugin("xdist"):
            # `--dist loadgroup` keeps the tests of a pair on one worker, so that it is measured once.
            self.add_marker(pytest.mark.xdist_group(name=pair.id))
        if listed.ignored is not None and not self.config.getoption("qualm_include_ignored"):
            self.add_marker(pytest.mark.skip(reason=listed.ignored or "ignored by the spec"))

    def runtest(self) -> None:
        """Takes this item's verdict from the run of its pair."""
        record = self.pair.record(self.session)
        whole = self.listed.id == self.pair.id
        tests = [test for test in record["tests"] if whole or test["id"] == self.listed.id]
        for name in ("cosine", "sqnr_db", "bits_per_weight") if whole and record["global"] else ():
            self.user_properties.append((f"qualm.{name}", record["global"][name]))
        for line in record["notes"] if whole else ():
            self.add_report_section("call", "notes", f"{line}\n")
        bad = [test for test in tests if test["outcome"] in ("failed", "error")]
        judged = [test for test in tests if test["outcome"] != "ignored"]
        if bad and whole:
            first = next(failure_lines(bad[0]))
            blocks = (line for test in bad for line in (f"---- {test['id']} ----", *failure_lines(test)))
            raise Failed([f"{first}; {len(bad)} of {len(tests)} tests do not pass", *blocks])
        if bad:
            raise Failed(failure_lines(bad[0]))
        if not tests:
            raise Failed([f"{self.listed.id} is not among the tests that were run"])
        if not judged:
            pytest.skip(tests[0]["reason"] or "ignored by the spec")
        for check in (check for test in judged for check in test["checks"] if check["outcome"] == "violated"):
            self.warn(QualmWarning(check["message"]))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The lines of the failure, or what the program said; no traceback, as no Python code is at fault."""
        if isinstance(excinfo.value, (Failed, QualmError)):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """The line of the spec in which the pair begins."""
        return self.path, self.listed.line - 1, self.listed.id


def failure_lines(test: dict[str, Any]) -> Iterator[str]:
    """Why a test did not pass, in the words of the record: each check that does not hold, where its bound is
    written, how the value moved, and the likely cause."""
    violated = [check for check in test["checks"] if check["outcome"] == "violated"]
    for check in violated:
        yield check["message"]
        reason = f" ({check['reason']})" if check["reason"] else ""
        if check["source"]:
            yield "  bound: {file}:{line}:{column}".format(**check["source"]) + reason
        elif reason:
            yield f"  reason: {check['reason']}"
        if check["movement"]:
            yield "  baseline: was {old}, now {new}: {kind}".format(**check["movement"])
    if not violated:
        yield test["reason"] or "it did not pass"
    cause = test["diagnosis"]
    if cause:
        yield f"cause: {cause['cause']}: {cause['evidence']}"


def from_root(path: Path, config: pytest.Config) -> str:
    """A path as messages are to show it: relative to the root, where the program runs."""
    return os.path.relpath(path, config.rootpath)


def profile(config: pytest.Config) -> list[str]:
    """The profile's arguments, which listing and running have to agree on."""
    name = config.getoption("qualm_profile")
    return ["--profile", name] if name else []


def environment() -> dict[str, str]:
    """Workers share the processor: each run takes its part of the threads, unless somebody says how many."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    return {"RUST_TEST_THREADS": threads, **os.environ} if workers > 1 else dict(os.environ)
