#!/usr/bin/env python3
"""Judge folders of pairs (see make.py) and count: per family, sound pairs alarmed; per fault, damaged ones missed.

    python3 score.py FOLDER... [--qualm PATH] [--list]

Intervals are Wilson's, 95 %. `--list` names each wrong verdict and the gate that spoke. A damaged pair counts as
found only if the tensor is named. Exit code: 0.
"""
import argparse, collections, glob, json, math, os, subprocess


def wilson(hits, n):
    if n == 0:
        return "-"
    z, p = 1.96, hits / n
    middle, half = (p + z * z / (2 * n)), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
    return f"{100 * p:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def main():
    args = argparse.ArgumentParser()
    args.add_argument("folders", nargs="+")
    args.add_argument("--qualm", default="target/debug/qualm")
    args.add_argument("--list", action="store_true")
    args = args.parse_args()
    qualm = os.path.abspath(args.qualm)
    families, kinds = collections.defaultdict(lambda: [0, 0]), collections.defaultdict(lambda: [0, 0])
    for folder in sorted(f for root in args.folders for f in glob.glob(os.path.join(root, "*", "pair.json"))):
        with open(folder) as file:
            pair = json.load(file)
        folder = os.path.dirname(folder)
        files = [next(f for f in sorted(os.listdir(folder)) if f.startswith(side) and not f.endswith(".json"))
                 for side in ("ref", "quant")]
        done = subprocess.run([qualm, "check", *files], cwd=folder, capture_output=True, text=True,
                              env=dict(os.environ, NO_COLOR="1"))
        damaged = pair["fault"] is not None
        found = done.returncode == 5 and pair["tensor"] in done.stdout
        wrong = (not found) if damaged else done.returncode != 0
        row = kinds[(pair["fault"], "2 bits" if pair["bits"] == 2 else "3 bits and more")] if damaged else families[pair["family"]]
        row[0] += wrong
        row[1] += 1
        if args.list and wrong:
            lines = (done.stdout + done.stderr).strip().splitlines()
            gates = [line.strip() for line in lines if line.strip().startswith(("integrity", "cosine", "error"))]
            print("   ", "missed " if damaged else "alarmed", os.path.basename(folder), "|", "; ".join(gates)[:400] or done.returncode)
    for title, table in (("sound pairs alarmed", families), ("damaged pairs missed", kinds)):
        print(f"\n| {title} | wrong | of | share (95 %) |\n|---|--:|--:|--:|")
        total = [0, 0]
        for key, (wrong, n) in sorted(table.items(), key=str):
            print(f"| {key if isinstance(key, str) else ', '.join(key)} | {wrong} | {n} | {wilson(wrong, n)} |")
            total = [total[0] + wrong, total[1] + n]
        print(f"| all | {total[0]} | {total[1]} | {wilson(*total)} |")


if __name__ == "__main__":
    main()
