#!/usr/bin/env python3
"""Checks pairs of a Hugging Face checkpoint and what a converter made of it.

    python3 tests/hf_gguf.py FOLDER --qualm target/debug/qualm [--only NAME] [--verbose]

Each folder below FOLDER holds a checkpoint, model-f.gguf, model-q.gguf and expected.json. Both files must
be healthy, every tensor must be made of the tensors that expected.json names, and every row of model-q must
have the numbers that expected.json gives, to the digits that it gives. Exits with 1 if anything falls short.
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys

# Exponentials, sums in another order and arithmetic in F16 agree to a few units in the last place of a
# single-precision value; errors of that size are no numbers to compare.
LOOSE_OPS = {"neg_exp", "div_col_l2norm", "ternary_absmean"}
LOOSE = 2.0**-20


def run(qualm, *args):
    done = subprocess.run([qualm, *map(str, args)], capture_output=True, text=True)
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError:
        return done.returncode, {"error": done.stdout[-400:] + done.stderr[-400:]}


def ops_of(row):
    """Names of all operations of a row of expected.json."""
    ops = list(row.get("ops", []))
    for piece in row["pieces"]:
        ops += piece["ops"]
    return {op["op"] for op in ops} | {"f16" for op in ops if op.get("dtype")}


# expected.json gives nine digits, of a cosine twelve.
DIGITS = {"cosine": 6e-12}
OTHERWISE = 6e-9


def agrees(key, expected, found, slack):
    """Equal to the digits given; `slack` is what errors may differ by as well."""
    if key == "sqnr_db" and slack:
        return True  # the rmse says it
    if expected is None or found is None:
        return expected == found
    return math.isclose(expected, found, rel_tol=DIGITS.get(key, OTHERWISE), abs_tol=max(slack, 1e-15))


def sources(made_of):
    if "pieces" in made_of:
        return [name for piece in made_of["pieces"] for name in sources(piece)]
    return [made_of["source"]] if made_of["source"] else []


def expected_sources(row):
    """Names of the reference's tensors; a scheme's planes count as their weight."""
    names = []
    for name in row["from"]:
        for suffix in ("_blocks", "_scales"):
            name = name.removesuffix(suffix)
        for suffix in (".qweight", ".qzeros", ".scales", ".g_idx", ".weight_packed", ".weight_scale",
                       ".weight_shape", ".weight_scale_inv"):
            if name.endswith(suffix):
                name = name.removesuffix(suffix) + ".weight"
        names.append(name)
    return set(names)


def check_case(qualm, folder):
    expected = json.loads((folder / "expected.json").read_text())
    problems = []
    rules = {row["gguf"]: row for row in expected["tensors"]}
    only = {row["gguf"] for row in expected["gguf_only"]}

    code, found = run(qualm, "map", folder, folder / "model-f.gguf", "--json")
    if code != 0:
        return [f"map exits with {code}: {found.get('error')}"]
    for row in found["tensors"]:
        name = row["tensor"]
        if row["problem"]:
            problems.append(f"{name}: {row['problem']}")
        elif name in rules:
            want, have = expected_sources(rules[name]), set(sources(row["made_of"] or {"source": name}))
            if want != have:
                problems.append(f"{name}: made of {sorted(have)}, not of {sorted(want)}")
    for name in found["only_quantized"]:
        problems.append(f"{name}: nothing says what it is made of")
    for name in found["only_reference"]:
        problems.append(f"{name}: nothing says why it is left out")

    for model in ("model-f.gguf", "model-q.gguf"):
        code, found = run(qualm, "check", folder, folder / model, "--json")
        if code != 0:
            what = [f"{f['tensor']} {f['gate']}: {f['message']}" for f in found.get("findings", [])]
            problems.append(f"check {model} exits with {code}: {(what or [found.get('error')])[:4]}")
        rows = {row["tensor"]: row for row in found.get("tensors", [])}
        missing = (set(rules) | only) - set(rows)
        if missing:
            problems.append(f"{model}: no row for {sorted(missing)[:4]}")
        if model == "model-f.gguf":
            continue
        for want in expected["quant"]:
            have = rows.get(want["gguf"])
            if not have:
                continue
            rule = rules.get(want["gguf"])
            loose = rule is None or bool(ops_of(rule) & (LOOSE_OPS | {"f16"}))
            sums, numel = have["sums"], have["numel"]
            slack = LOOSE * math.sqrt(sums["rr"] / numel) if loose and sums and numel else 0.0
            for key in ("rmse", "cosine", "max_abs", "sqnr_db"):
                if key in want and not agrees(key, want[key], have[key], slack):
                    problems.append(f"{want['gguf']}: {key} is {have[key]}, not {want[key]}")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--qualm", required=True)
    parser.add_argument("--only")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    cases = sorted(path.parent for path in args.folder.glob("*/expected.json"))
    cases = [case for case in cases if not args.only or args.only == case.name]
    if not cases:
        sys.exit(f"{args.folder} holds no pairs")
    failed = 0
    for case in cases:
        problems = check_case(args.qualm, case)
        failed += bool(problems)
        if problems:
            print(f"{case.name}: FAILED")
            for problem in problems if args.verbose else problems[:6]:
                print(f"  {problem}")
    print(f"{len(cases) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
