"""Runs of qualm at addresses, compared with runs over the same files on the disk.

For `remote.py` and `buckets.py`: the program is their first argument. Needs Python 3.11 alone.
"""

import json
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

QUALM = os.path.abspath(sys.argv[1])
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SUITE = os.path.join(ROOT, "specs/models")
CHECKPOINT = os.path.join(ROOT, "tests/data/hf-gguf/deepseek3")
# What qualm is told, HOME among it.
ENVIRONMENT = {}
FAILED = []


def check(what, holds, detail=""):
    print(("ok      " if holds else "FAILED  ") + what)
    if not holds:
        FAILED.append(what)
        print(detail)


def qualm(*arguments, cwd=None, **variables):
    environment = {"PATH": os.environ.get("PATH", ""), "CI": "1", "NO_PROXY": "127.0.0.1"} | ENVIRONMENT
    return subprocess.run(
        [QUALM, *arguments], env=environment | variables, cwd=cwd, capture_output=True, text=True, timeout=300
    )


def record(reference, quantized, **variables):
    """The record of a run of one pair, without what depends on where and when."""
    folder = tempfile.mkdtemp(dir=ENVIRONMENT["HOME"])
    with open(os.path.join(folder, "s.toml"), "w") as spec:
        spec.write(f'schema = 1\n[[pair]]\nname = "p"\nreference = "{reference}"\nquantized = "{quantized}"\n')
    ran = qualm("run", "--spec", "s.toml", "--no-baseline", "--out-dir", "out", cwd=folder, **variables)
    path = os.path.join(folder, "out/contract.json")
    if not os.path.exists(path):
        return ran, None
    with open(path) as file:
        contract = json.load(file)
    revisions = set()
    contract.pop("time", None)
    for spec in contract["specs"]:
        spec.pop("sha256")
        for pair in spec["pairs"]:
            pair.pop("seconds", None)
            for side in ["reference", "quantized"]:
                model = pair[side] or {"files": []}
                model["path"] = ""
                for file in model["files"]:
                    revisions.add(file.pop("revision", None))
    shutil.rmtree(folder)
    text = json.dumps(contract, sort_keys=True)
    return ran, (text.replace(reference, "REF").replace(quantized, "QUANT"), revisions)


def same(what, local, remote, revisions, **variables):
    (_, at_home), (ran, far) = record(*local), record(*remote, **variables)
    if far is None:
        return check(what, False, ran.stderr)
    check(what, at_home[0] == far[0], difference(at_home[0], far[0]) + ran.stderr)
    check(f"{what}: pinned", far[1] == revisions, str(far[1]))


def difference(a, b):
    at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), 0)
    return f"local  {a[max(0, at - 200) : at + 200]}\nremote {b[max(0, at - 200) : at + 200]}\n"


def refused(what, ran, *words, code=6):
    said = ran.stdout + ran.stderr
    missing = [word for word in words if word not in said]
    check(what, ran.returncode == code and not missing, f"exit {ran.returncode}, without {missing}: {said}")
    check(f"{what}: no secrets", not any(word in said for word in ["secret", "Signature=", "sig="]), said)


def without_revisions(text):
    def clean(value):
        if isinstance(value, dict):
            return {key: clean(it) for key, it in value.items() if key != "revision"}
        return [clean(it) for it in value] if isinstance(value, list) else value

    return clean(json.loads(text))


def peak_of(*arguments, **variables):
    """The most memory that a process of its own had, in bytes."""
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, QUALM, *arguments],
        env=dict(os.environ) | variables, capture_output=True, text=True, check=True,
    )
    return int(ran.stdout) << 10


# --- A pair of the size of a small language model


def half(value):
    return struct.unpack("<H", struct.pack("<e", value))[0]


def large_pair(folder):
    """The shapes of a model of 135 million parameters, in F16 and Q8_0."""
    numbers = random.Random(1)
    blocks = [[numbers.gauss(0, 0.02) for _ in range(32)] for _ in range(4096)]
    floats, quants = bytearray(), bytearray()
    for block in blocks:
        scale = max(map(abs, block)) / 127
        scale = struct.unpack("<e", struct.pack("<e", scale))[0]
        floats += struct.pack("<32e", *block)
        quants += struct.pack("<e32b", scale, *(max(-127, min(127, round(v / scale))) for v in block))
    shapes = [("token_embd.weight", [49152, 576])]
    for layer in range(30):
        for name, shape in [
            ("attn_q", [576, 576]), ("attn_k", [192, 576]), ("attn_v", [192, 576]), ("attn_output", [576, 576]),
            ("ffn_gate", [1536, 576]), ("ffn_up", [1536, 576]), ("ffn_down", [576, 1536]),
        ]:
            shapes.append((f"blk.{layer}.{name}.weight", shape))
    paths = []
    for kind, ty, width, bank in [("f16", 1, 64, floats), ("q8_0", 8, 34, quants)]:
        infos, offset = b"", 0
        for name, shape in shapes:
            infos += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", len(shape))
            infos += struct.pack(f"<{len(shape)}Q", *reversed(shape)) + struct.pack("<IQ", ty, offset)
            offset += math.prod(shape) // 32 * width
        key = b"general.architecture"
        header = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), 1)
        header += struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, 5) + b"other"
        header += infos
        path = os.path.join(folder, f"large-{kind}.gguf")
        with open(path, "wb") as file:
            file.write(header + bytes(-len(header) % 32))
            for number, (_, shape) in enumerate(shapes):
                left, start = math.prod(shape) // 32, number * 97 % 4096
                while left:
                    take = min(left, 4096 - start)
                    file.write(bank[start * width : (start + take) * width])
                    left, start = left - take, (start + take) % 4096
        paths.append(path)
    return paths


def done():
    if FAILED:
        sys.exit(f"{len(FAILED)} checks failed: " + "; ".join(FAILED))
