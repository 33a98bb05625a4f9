"""Puts the program into the wheel.

`QUALM_BINARY` names a program that is there already; without it, cargo builds one from the crate: that of
the checkout, or the one inside the source distribution. `QUALM_WHEEL_PLATFORM` is the platform tag for a
program of another system than this one, or one that runs on more systems than this
(`manylinux_2_17_x86_64`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ProgramHook(BuildHookInterface[Any]):
    """One wheel for every Python of a platform, with the program among its scripts."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it writes a wheel."""
        given = os.environ.get("QUALM_BINARY")
        program = Path(given).resolve() if given else built(Path(self.root))
        if not program.is_file():
            raise FileNotFoundError(f"QUALM_BINARY: {program} is no file")
        tag = os.environ.get("QUALM_WHEEL_PLATFORM") or sysconfig.get_platform().translate({ord(c): "_" for c in "-."})
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{tag}"
        build_data["shared_scripts"][str(program)] = f"qualm{'.exe' if program.suffix == '.exe' else ''}"


def built(root: Path) -> Path:
    """Builds the program, and says where cargo put it."""
    crate = next((folder for folder in (root / "crate", root.parent) if (folder / "Cargo.toml").is_file()), None)
    if crate is None:
        raise FileNotFoundError("there is neither a crate to build qualm from, nor QUALM_BINARY, a program to carry")
    cargo = [os.environ.get("CARGO", "cargo"), "build", "--release", "--locked", "--bin", "qualm"]
    cargo += ["--features", os.environ.get("QUALM_FEATURES", "cloud")]
    try:
        told = subprocess.run(
            [*cargo, "--message-format=json-render-diagnostics"], cwd=crate, check=True, stdout=subprocess.PIPE, text=True
        )
    except FileNotFoundError as error:
        raise FileNotFoundError(
            "there is no wheel of qualm for this system, and no cargo to build it with: see https://rustup.rs"
        ) from error
    artefacts = [json.loads(line) for line in told.stdout.splitlines() if line.startswith("{")]
    return next(Path(found["executable"]) for found in artefacts if found.get("executable"))
