"""Kills every command that writes, at any moment, with every signal that ends a process.

    python3 tests/kills.py target/debug/qualm [KILLS] [SEED]

After each kill: no file is torn, no accepted baseline is lost, what was pending is pending or accepted;
after a signal that can be caught, no temporary file lies about; after the next run, none does at all.
Needs Python 3.11 alone.
"""

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree as xml

QUALM = os.path.abspath(sys.argv[1])
KILLS = int(sys.argv[2]) if len(sys.argv) > 2 else 60
RANDOM = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL]
ROWS, COLUMNS = 64, 128

ENVIRONMENT = {"PATH": os.environ.get("PATH", "")}


def safetensors(path, kind, width, tensors):
    header, data = {}, b""
    for name, values in tensors.items():
        header[name] = {
            "dtype": kind,
            "shape": [ROWS, COLUMNS],
            "data_offsets": [len(data), len(data) + len(values) * width],
        }
        words = [struct.unpack("<I", struct.pack("<f", value))[0] for value in values]
        if width == 2:
            data += b"".join(struct.pack("<H", min((w + 0x7FFF + (w >> 16 & 1)) >> 16, 0xFFFF)) for w in words)
        else:
            data += b"".join(struct.pack("<I", w) for w in words)
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def models(seed):
    numbers = random.Random(seed)
    tensors = {f"blk.{i}.w": [numbers.gauss(0, 1) for _ in range(ROWS * COLUMNS)] for i in range(3)}
    safetensors("r.safetensors", "F32", 4, tensors)
    safetensors("q.safetensors", "BF16", 2, tensors)


def call(*arguments):
    return subprocess.run(
        [QUALM, *arguments], env=ENVIRONMENT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def files():
    for folder, _, names in os.walk("."):
        for name in names:
            yield os.path.normpath(os.path.join(folder, name))


def check_whole(path):
    """Every file that others read is whole."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if path.endswith(".json"):
        json.loads(text)
    elif path.endswith(".xml"):
        xml.fromstring(text)
    elif path.endswith(".html"):
        assert text.rstrip().endswith("</html>"), path
    elif path.endswith((".snap", ".snap.new")):
        _, head, body = text.split("---\n", 2)
        assert head.startswith("source: "), path
        assert tomllib.loads(body), path
    elif path.endswith(".toml"):
        assert tomllib.loads(text)["pair"], path
    else:
        assert text.endswith("\n"), path


def temporary():
    return sorted(path for path in files() if ".qualm-" in path and path.endswith(".tmp"))


def snapshots():
    """What is accepted and what is pending, by pair."""
    names = os.listdir("snapshots") if os.path.isdir("snapshots") else []
    return {name for name in names if name.endswith((".snap", ".snap.new"))}


def commands():
    """Every command that writes, and what has to be there before."""
    out = "target/qualm"
    return [
        ("run", ["run"]),
        ("run, again", ["run"]),
        ("a shard", ["run", "--partition", "slice:1/2", "--out-dir", "shards"]),
        ("accept", ["accept"]),
        ("reject", ["reject"]),
        ("prune", ["prune"]),
        ("merge", ["merge", "whole", "--out-dir", "merged"]),
        ("report", ["report", "record.json", "--out-dir", "reports"]),
        ("report of one kind", ["report", "record.json", "--junit", "one/junit.xml"]),
        ("falsify", ["falsify", "--no-baseline", "--out-dir", out]),
        ("init", ["init", "r.safetensors", "q.safetensors", "--out", "made/i.toml", "--force"]),
        ("rerun", ["rerun", "--from", "record.json"]),
    ]


def main():
    spec = "schema = 1\n" + "".join(
        f'[[pair]]\nname = "p{i}"\nreference = "../r.safetensors"\nquantized = "../q.safetensors"\n'
        for i in range(3)
    )
    os.mkdir("specs")
    with open("specs/s.toml", "w") as file:
        file.write(spec)
    models(1)
    for part in "12":
        call("run", "--no-baseline", "--partition", f"slice:{part}/2", "--out-dir", "whole")
    assert call("run", "--no-baseline").returncode == 0
    shutil.copy("target/qualm/contract.json", "record.json")
    took = {}
    for name, arguments in commands():
        before = time.monotonic()
        call(*arguments)
        took[name] = time.monotonic() - before
    killed = written = 0
    for number in range(KILLS):
        name, arguments = commands()[number % len(commands())]
        models(1 + number % 2)
        if name in ("accept", "reject"):
            call("run")
        before, old = snapshots(), set(files())
        child = subprocess.Popen(
            [QUALM, *arguments], env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(took[name] * RANDOM.random())
        chosen = SIGNALS[RANDOM.randrange(len(SIGNALS))]
        child.send_signal(chosen)
        ended = child.wait() < 0
        killed += ended
        what = f"kill {number}: {name} with {chosen.name}"
        left = temporary()
        if ended and chosen != signal.SIGKILL:
            assert not left, f"{what} leaves {left}"
        for path in files():
            if ".qualm-" not in path and not path.endswith((".safetensors",)):
                try:
                    check_whole(path)
                except Exception as error:
                    sys.exit(f"{what}: {path} is torn: {error!r}")
        after = snapshots()
        written += set(files()) != old
        for snapshot in before:
            accepted = snapshot.removesuffix(".new")
            # What is accepted stays; what is pending stays, is accepted, or was rejected or overtaken.
            if snapshot.endswith(".snap") or name == "accept":
                assert snapshot in after or accepted in after, f"{what} loses {snapshot}"
        # The next run finds nothing in its way, and leaves nothing behind.
        again = call("run")
        assert again.returncode in (0, 8), f"after {what}: {again.stdout}{again.stderr}"
        call(*arguments)
        left = [path for path in files() if ".qualm-" in path]
        assert not left, f"after {what} and the next run there are {left}"
        if number % 7 == 0:
            call("reject")
    assert killed >= KILLS // 4, f"only {killed} of {KILLS} were killed"
    print(f"{KILLS} signals, {killed} ended a command, {written} after it had written; nothing torn, nothing lost")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        main()
