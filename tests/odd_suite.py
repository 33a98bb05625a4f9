#!/usr/bin/env python3
"""Writes suites that reports and their readers find hard: names with everything that breaks
parsers, a thousand tensors, and, in directories of their own, damage: `many` has a thousand tensors of long
names of which 200 are damaged in four ways, `one` has a single damaged tensor, `deep` 100 layers.

usage: odd_suite.py DIR
"""
import json
import random
import struct
import sys
from pathlib import Path

HOSTILE = [
    "quote\" and 'apostrophe'",
    "<script>alert(1)</script> & co",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "cdata ]]> end",
    "--><!-- comment",
    "\x1b[31mred\x1b[0m and bare \x1b",
    "nul \0 and bell \x07",
    "noncharacters \ufffe\uffff",
    "crab 🦀 and é",
    "tab\tline\nfeed\rreturn",
    "pipe | star * `tick` _under_ @mention #1",
    "\u202ereversed\u2028line",
    "../../etc/passwd; %0A::error::x",
    "skipped ]]> \0 <b>",
]
ROLES = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "attn_norm"]


def write(path, names):
    """A safetensors file of F32 tensors of 2 x 32, the norms of 32."""
    numbers = random.Random(1)
    header, data = {}, b""
    for name in names:
        shape = [32] if name.endswith("norm.weight") else [2, 32]
        count = 32 if len(shape) == 1 else 64
        values = struct.pack(f"<{count}f", *(numbers.gauss(0, 0.1) for _ in range(count)))
        header[name] = {
            "dtype": "F32",
            "shape": shape,
            "data_offsets": [len(data), len(data) + len(values)],
        }
        data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


LONG = "model.language_model.decoder.layers.{}.{}_of_a_model_with_names_that_are_far_too_long_for_a_phone.weight"


def q8_0(values):
    """Blocks of 32: a half-precision scale and 32 bytes."""
    blocks = b""
    for at in range(0, len(values), 32):
        block = values[at : at + 32]
        scale = struct.unpack("<e", struct.pack("<e", max(map(abs, block)) / 127))[0]
        codes = (round(value / scale) if scale else 0 for value in block)
        blocks += struct.pack("<e32b", scale, *(max(-127, min(127, code)) for code in codes))
    return blocks


def gguf(path, tensors):
    """A GGUF file of Q8_0 tensors: names, rows of 256, blocks."""
    text = lambda text: struct.pack("<Q", len(text)) + text.encode()
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), 2)
    header += text("general.architecture") + struct.pack("<I", 8) + text("llama")
    header += text("general.name") + struct.pack("<I", 8) + text("A model with a name that is rather long, too")
    data = b""
    for name, rows, blocks in tensors:
        header += text(name) + struct.pack("<IQQIQ", 2, 256, rows, 8, len(data))
        data += blocks + b"\0" * (-len(blocks) % 32)
    path.write_bytes(header + b"\0" * (-len(header) % 32) + data)


def damaged(root, names, damage):
    """A suite of one pair: `damage` changes the values of a tensor, by its number."""
    (root / "specs").mkdir(parents=True, exist_ok=True)
    numbers = random.Random(7)
    values = {name: [numbers.gauss(0, 0.1) for _ in range(8 * 256)] for name in names}
    header, data = {}, b""
    for name, numbers in values.items():
        stored = struct.pack(f"<{len(numbers)}f", *numbers)
        header[name] = {"dtype": "F32", "shape": [8, 256], "data_offsets": [len(data), len(data) + len(stored)]}
        data += stored
    text = json.dumps(header).encode()
    path = root / "a-reference-whose-file-has-a-name-that-does-not-end.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    made = [(name, 8, q8_0(damage(at, list(it)))) for at, (name, it) in enumerate(values.items())]
    gguf(root / "a-quantized-model-whose-file-has-a-name-that-does-not-end.Q8_0.gguf", made)
    (root / "specs/release-candidate.toml").write_text(f"""
schema = 1
[[pair]]
name = "q8_0-of-the-release-candidate"
reference = "../{path.name}"
quantized = "../a-quantized-model-whose-file-has-a-name-that-does-not-end.Q8_0.gguf"
""")


def four_ways(at, values):
    """Of 250 layers of four roles the first 50 are damaged, each role in its own way."""
    ways = [
        lambda values: [-value for value in values],
        lambda values: values[:1024] + [0.0] * 1024,
        lambda values: [value + 0.5 for value in values],
        lambda values: [value * 1.5 for value in values],
    ]
    return ways[at % 4](values) if at < 200 else values


def damaged_suites(root):
    roles = ["self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"]
    names = [LONG.format(layer, role) for layer in range(250) for role in roles]
    damaged(root / "many", names, four_ways)
    double = lambda at, values: [2 * value for value in values] if at == 5 else values
    damaged(root / "one", names[:12], double)
    deep = [f"blk.{layer}.{role}.weight" for layer in range(100) for role in ROLES[:7]]
    damaged(root / "deep", deep, lambda at, values: values)


def main():
    root = Path(sys.argv[1])
    damaged_suites(root)
    (root / "specs").mkdir(parents=True, exist_ok=True)
    write(root / "hostile.safetensors", HOSTILE)
    layers = [f"blk.{layer}.{role}.weight" for layer in range(125) for role in ROLES]
    write(root / "thousand.safetensors", layers)
    (root / "specs/hostile.toml").write_text(r"""
schema = 1
description = "names <b>that</b> ]]> no format likes 🦀"
[[pair]]
name = "q4_0 <i> ]]> & \"x\""
reference = "../hostile.safetensors"
roundtrip = "q4_0"
thresholds.tensor.cosine = 0.99999
skip = { tensors = "skipped*", reason = "because of ]]> \u0000 \u001b[1m <b>" }
[[pair.rule]]
tensors = "crab*"
cosine = { fail = 0.9, warn = 0.99999 }
reason = "& < ]]> \u001b[31m"
[[pair.waive]]
tensors = "pipe*"
cosine = 0.9
reason = "waived ]]> \u0007"
until = 2999-12-31
""")
    (root / "specs/thousand.toml").write_text("""
schema = 1
[[pair]]
name = "q4_0"
reference = "../thousand.safetensors"
roundtrip = "q4_0"
thresholds.tensor.sqnr_db = { fail = 21, warn = 21.5 }
[[pair]]
name = "gone"
reference = "../gone.safetensors"
roundtrip = "q4_0"
""")


main()
