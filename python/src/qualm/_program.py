"""Where the program is, and how it is called."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Union

StrPath = Union[str, "os.PathLike[str]"]

PROGRAM = "qualm.exe" if sys.platform == "win32" else "qualm"


class QualmError(Exception):
    """The program could not do what it was asked.

    `exit_code` is the program's: 2 for an argument that it refuses, 3 for a spec that is not valid, 6 for a
    model that is missing or corrupt, 1 for a mistake of its own; `None` if it did not run at all. The
    message is what it said.
    """

    def __init__(self, message: str, exit_code: int | None = None, report: Any = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.report = report


class InputError(QualmError):
    """A model is missing, or corrupt (exit code 6). `report` is the `Check` that says so, if there is one."""


class UsageError(QualmError):
    """An argument is wrong (exit code 2)."""


_ERRORS: dict[int, type[QualmError]] = {2: UsageError, 6: InputError}


def find_program() -> Path:
    """The path of the program: `QUALM` if it is set, the one that was installed with this module, or the
    first on the `PATH`."""
    named = os.environ.get("QUALM")
    if named:
        found = shutil.which(named)
        if found is None:
            raise QualmError(f"QUALM names {named}, which is no program")
        return Path(found)
    for folder in _script_folders():
        if (folder / PROGRAM).is_file():
            return folder / PROGRAM
    found = shutil.which("qualm")
    if found is None:
        raise QualmError("the program qualm is not installed: `pip install --force-reinstall qualm-quant` puts it back")
    return Path(found)


def _script_folders() -> list[Path]:
    """Where installers put scripts: of this environment, of the user, and of `pip install --target`."""
    user = sysconfig.get_preferred_scheme("user")
    folders = [sysconfig.get_path("scripts"), sysconfig.get_path("scripts", scheme=user)]
    # `--target DIR` has the module in DIR/qualm and scripts in DIR/bin; `--prefix DIR` has DIR/bin, too.
    packages = Path(__file__).resolve().parent.parent
    beside = [packages / "bin", *(folder / "bin" for folder in packages.parents[:3])]
    return [*map(Path, folders), *beside]


def call(
    arguments: Sequence[str], *, cwd: StrPath | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the program to its end, whatever it ends with."""
    program = str(find_program())
    return subprocess.run(
        [program, *arguments], cwd=cwd, env=env, capture_output=True, text=True, encoding="utf-8", errors="replace"
    )


def error(done: subprocess.CompletedProcess[str]) -> QualmError:
    """What a program that gave no report has said, as an exception."""
    said = done.stderr.strip() or done.stdout.strip() or f"qualm ended with {done.returncode} and said nothing"
    return _ERRORS.get(done.returncode, QualmError)(said, done.returncode)


def report(arguments: Sequence[str], answers: Sequence[int]) -> tuple[int, Any]:
    """Runs a command with `--json`, and gives its exit code and what it printed. `answers` are the exit codes
    that come with a report; any other is raised as an error."""
    done = call(arguments)
    if done.returncode not in answers or not done.stdout.strip():
        raise error(done)
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError as trouble:
        raise QualmError(f"qualm printed no JSON: {trouble}", done.returncode) from trouble
