#!/usr/bin/env python3
"""Judge folders of pairs (see make.py) and count: per family, sound files and tensors alarmed; per fault, damaged
tensors missed.

    python3 score.py FOLDER... [--qualm PATH] [--list] [--tools] [--kept]

Intervals are Wilson's, 95 %. `--list` names each wrong verdict and what was said. A damaged pair counts as found only
if the check fails and names the tensor. A sound file is alarmed if the check fails; its tensors are those that a
finding names. Matrices that are stored as floats (embeddings, norms, heads) are not counted. `--tools` sums families up by their
first word and their bits. What was said is kept as `verdict.json` in each folder, and `--kept` counts from that.
Exit code: 0.
"""
import argparse, collections, glob, json, math, os, subprocess, sys

FLOATS = {"F64", "F32", "F16", "BF16"}


def wilson(hits, n):
    if n == 0:
        return "-"
    z, p = 1.96, hits / n
    middle, half = (p + z * z / (2 * n)), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    return f"{100 * p:.1f} % ({100 * max(low, 0):.1f} to {100 * min(high, 1):.1f})"


def side(folder, name):
    """The file or directory of one side of a pair."""
    return next(f for f in sorted(os.listdir(folder)) if f.split(".")[0] == name)


def check(qualm, folder, kept):
    path = os.path.join(folder, "verdict.json")
    if kept and os.path.exists(path):
        with open(path) as file:
            return json.load(file)
    verdict = judge(qualm, folder)
    with open(path, "w") as file:
        json.dump(verdict, file)
    return verdict


def judge(qualm, folder):
    done = subprocess.run([qualm, "check", "--json", "-j1", side(folder, "ref"), side(folder, "quant")], cwd=folder,
                          capture_output=True, text=True, env=dict(os.environ, NO_COLOR="1"))
    try:
        report = json.loads(done.stdout)
    except ValueError:
        report = {"findings": [], "tensors": []}
    said = [(f["tensor"], f["gate"], f"{f['message']} [{(f.get('diagnosis') or {}).get('cause', '-')}]")
            for f in report["findings"]]
    if done.returncode not in (0, 5):
        said.append((None, "error", (done.stdout + done.stderr).strip()[-300:]))
    quantized = [t["tensor"] for t in report["tensors"]
                 if t["tensor"] != "" and len(t.get("shape") or []) > 1 and (t["qtype"] not in FLOATS or t.get("recovered"))]
    return done.returncode, said, quantized


def table(title, rows):
    print(f"\n| {title} | wrong | of | share (95 %) |\n|---|--:|--:|--:|")
    total = [0, 0]
    for key, (wrong, n) in sorted(rows.items(), key=str):
        print(f"| {key if isinstance(key, str) else ', '.join(key)} | {wrong} | {n} | {wilson(wrong, n)} |")
        total = [total[0] + wrong, total[1] + n]
    print(f"| all | {total[0]} | {total[1]} | {wilson(*total)} |")


def main():
    args = argparse.ArgumentParser()
    args.add_argument("folders", nargs="+")
    args.add_argument("--qualm", default="target/debug/qualm")
    for flag in ("--list", "--tools", "--kept"):
        args.add_argument(flag, action="store_true")
    args = args.parse_args()
    qualm = os.path.abspath(args.qualm)
    files, tensors, kinds, classes = (collections.defaultdict(lambda: [0, 0]) for _ in range(4))
    for name in sorted(f for root in args.folders for f in glob.glob(os.path.join(root, "*", "pair.json"))):
        with open(name) as file:
            pair = json.load(file)
        folder = os.path.dirname(name)
        code, said, quantized = check(qualm, folder, args.kept)
        named = {tensor for tensor, _, _ in said}
        done = sum(row[1] for row in [*files.values(), *kinds.values()])
        if done % 100 == 99:
            print(f"{done + 1} pairs", file=sys.stderr, flush=True)

        def count(rows, key, wrong, of=1):
            rows[key][0] += wrong
            rows[key][1] += of
        if pair["fault"] is not None:
            wrong = code != 5 or pair["tensor"] not in named
            count(kinds, (pair["fault"], "2 bits" if pair["bits"] == 2 else "3 bits and more"), wrong)
            count(classes, f"{pair['bits']} bits", wrong)
        else:
            wrong = code != 0
            family = f"{pair['family'].split()[0]}, {pair['bits']} bits" if args.tools else pair["family"]
            count(files, family, wrong)
            count(tensors, family, len(named & set(quantized)) if wrong else 0, len(quantized))
        if args.list and wrong:
            word = "missed " if pair["fault"] is not None else "alarmed"
            print("   ", word, os.path.basename(folder), pair["family"], "|",
                  "; ".join(f"{t}: {gate}: {message}" for t, gate, message in said[:4])[:700] or code)
    if files:
        table("sound files alarmed", files)
        table("sound tensors alarmed", tensors)
    if kinds:
        table("damaged tensors missed, by kind", kinds)
        table("damaged tensors missed, by class of bits", classes)


if __name__ == "__main__":
    main()
