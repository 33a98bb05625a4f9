#!/usr/bin/env python3
"""Runs the suite on a pseudo-terminal: progress is drawn there, on standard error alone, and is gone
before results are printed; where no terminal is, nothing is drawn. And the colour rules.

usage: tests/terminal.py QUALM   (in the repository's root)
"""
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios

QUALM = os.path.realpath(sys.argv[1])
PLAIN = {k: v for k, v in os.environ.items()
         if k not in {"CI", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CARGO_TERM_COLOR", "GITHUB_ACTIONS"}}
PLAIN["TERM"] = "xterm-256color"
REST = ["--no-baseline", "--test-threads", "1", "--out-dir", "target/qualm-terminal"]
SMALL = [QUALM, "run", "minilm-attention::bf16", *REST]
PROGRESS = re.compile(rb"\r\x1b\[K(?:\d+/\d+  )?\d+%  [\d.]+ [KMG]?i?B/s  (?:\? |[\d hmins]+)left  [^\r]+")


def slow_spec(directory):
    """A run that lasts long enough to have progress: round trips through types that are slow to encode."""
    model = os.path.realpath("specs/models/minilm-block0-f16.gguf")
    path = os.path.join(directory, "slow.toml")
    with open(path, "w", encoding="utf-8") as spec:
        spec.write("schema = 1\n[matrix]\npass = [1, 2, 3, 4]\ntype = ['iq3_s', 'iq3_xxs']\n")
        spec.write(f"[[pair]]\nname = '{{type}}-{{pass}}'\nreference = '{model}'\nroundtrip = '{{type}}'\n")
    return path


def large_model(directory):
    """A model that takes a while to read and no room on the disk: all of its values are zero."""
    path = os.path.join(directory, "large.safetensors")
    rows, columns = 128 * 1024, 4096
    size = 4 * rows * columns
    header = json.dumps({"w": {"dtype": "F32", "shape": [rows, columns], "data_offsets": [0, size]}}).encode()
    with open(path, "wb") as model:
        model.write(struct.pack("<Q", len(header)) + header)
        model.truncate(8 + len(header) + size)
    return path


def check(holds, what):
    if not holds:
        sys.exit(f"not ok - {what}")
    print(f"ok - {what}")


def on_terminal(command, env, stdout_too=True, columns=80):
    """What a terminal of so many columns gets, and what a pipe on standard output gets."""
    terminal, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(command, stdin=side, stderr=side, env=env,
                               stdout=side if stdout_too else subprocess.PIPE)
    os.close(side)
    shown = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
        if not stdout_too and process.poll() is not None:
            break
    piped = b"" if stdout_too else process.stdout.read()
    process.wait()
    return process.returncode, shown, piped


def piped(command, env):
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    return done.returncode, done.stdout, done.stderr


directory = tempfile.TemporaryDirectory()
RUN = [QUALM, "run", "--spec", slow_spec(directory.name), *REST]
code, shown, _ = on_terminal(RUN, PLAIN)
check(code == 0, "the suite passes on a terminal")
drawn = PROGRESS.findall(shown)
check(len(drawn) > 3, f"progress is drawn: {len(drawn)} times, such as {drawn[-1:]!r}")
check(not re.search(rb"left  [^\r\n]*\r?\n", shown), "and never left standing")
check(b"\x1b[32mok\x1b[0m" in shown, "results are coloured")

code, out, err = piped(RUN, PLAIN)
check(code == 0 and b"\x1b" not in out and err == b"", "no terminal: no progress, no colour")

model = large_model(directory.name)
FLOATS = os.path.realpath("specs/models/minilm-block0-f16.gguf")
for command in [
    ["diff", model, model, "--threads", "1"],
    ["check", model, model, "--threads", "1"],
    ["inspect", model, "--threads", "1"],
    ["verify", model, model, "--threads", "1"],
    ["stats", FLOATS, "--type", "all", "--include", "attn_q", "--threads", "1"],
    ["falsify", slow_spec(directory.name), "--no-baseline", "--filter", "iq3_s-1", "--test-threads", "1",
     "--out-dir", "target/qualm-terminal"],
]:
    _, shown, _ = on_terminal([QUALM, *command], PLAIN)
    drawn = PROGRESS.findall(shown)
    check(drawn != [], f"{command[0]} draws its progress: {len(drawn)} times, such as {drawn[-1:]!r}")
    check(not re.search(rb"left  [^\r\n]*\r?\n", shown), f"and {command[0]} never leaves it standing")

_, shown, _ = on_terminal([QUALM, "inspect", model, "--threads", "1"], PLAIN | {"COLUMNS": "200"}, columns=33)
lines = re.findall(rb"\r\x1b\[K(\d+%[^\r\n\x1b]*)", shown)
check(lines != [] and max(map(len, lines)) == 32, f"the line is as long as the terminal is wide: {lines[-1:]!r}")

for env, coloured, why in [
    ({"CLICOLOR_FORCE": "1"}, True, "CLICOLOR_FORCE"),
    ({"CARGO_TERM_COLOR": "always"}, True, "CARGO_TERM_COLOR=always"),
    ({"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}, False, "NO_COLOR wins"),
]:
    _, out, _ = piped(SMALL, PLAIN | env)
    check((b"\x1b[32m" in out) == coloured, why)
for env, why in [({"NO_COLOR": "1"}, "NO_COLOR"), ({"TERM": "dumb"}, "TERM=dumb"), ({"CARGO_TERM_COLOR": "never"}, "CARGO_TERM_COLOR=never")]:
    _, shown, _ = on_terminal(SMALL, PLAIN | env)
    check(b"\x1b[32m" not in shown, f"{why} on a terminal")
_, out, _ = piped(SMALL + ["--color", "always"], PLAIN | {"NO_COLOR": "1"})
check(b"\x1b[32m" in out, "--color always beats NO_COLOR")
_, shown, _ = on_terminal(RUN, PLAIN | {"CI": "true"})
check(not PROGRESS.search(shown), "no progress in CI")
