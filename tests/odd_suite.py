#!/usr/bin/env python3
"""Writes a suite that reports and their readers find hard: names with everything that breaks
parsers, and a thousand tensors.

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


def main():
    root = Path(sys.argv[1])
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
