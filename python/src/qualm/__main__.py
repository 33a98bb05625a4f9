"""`python -m qualm`, and the script `qualm-quant`: the program itself, with its arguments and exit code."""

from __future__ import annotations

import os
import subprocess
import sys

from ._program import QualmError, find_program


def main() -> None:
    """Becomes the program; where a process cannot do that, runs it and ends as it does."""
    try:
        program = str(find_program())
    except QualmError as error:
        sys.exit(f"error: {error}")
    if sys.platform == "win32":
        try:
            sys.exit(subprocess.run([program, *sys.argv[1:]]).returncode)
        except KeyboardInterrupt:
            sys.exit(130)
    os.execv(program, [program, *sys.argv[1:]])


if __name__ == "__main__":
    main()
