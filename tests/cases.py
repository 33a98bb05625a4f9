#!/usr/bin/env python3
"""Run a set of cases against qualm and say which answers fall short.

    python3 tests/cases.py SETDIR [--qualm PATH] [--only TEXT] [--verbose]

Every folder of SETDIR that holds a `case.json` is a case. Its runs are made one after the other, in a
throw-away copy of the folder. A run is right if all of this holds:

  exit          the exit code is one of these
  must_say      each regular expression (Python's) is found in standard output and error together
  must_not_say  none of these is found there
  numbers       `diff REF QUANT --json --no-threshold --allow-missing` has a row of that tensor, with
                these values (`tol` is relative; 1e-6 unless given); REF and QUANT are the run's own
                two models, or `pair`
  by_exit       further demands of these four kinds, for the runs that end with that exit code

Exit code: 0 if every run is right, 1 if any falls short, 2 if there is nothing to run.
"""
import argparse, json, os, re, shutil, subprocess, sys, tempfile


def call(qualm, args, cwd):
    env = {k: v for k, v in os.environ.items() if k not in ("CI", "GITHUB_ACTIONS", "FORCE_COLOR")}
    env["NO_COLOR"] = "1"
    try:
        done = subprocess.run([qualm, *args], cwd=cwd, env=env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
    except subprocess.TimeoutExpired:
        return None, "", ""
    return (done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


def near(got, want, tol):
    return isinstance(got, (int, float)) and not isinstance(got, bool) and abs(got - want) <= tol * abs(want)


def check_numbers(qualm, pair, numbers, cwd):
    if not numbers:
        return []
    code, out, err = call(qualm, ["diff", *pair, "--json", "--no-threshold", "--allow-missing"], cwd)
    try:
        rows = {row["tensor"]: row for row in json.loads(out[out.index("{"):])["tensors"]}
    except (ValueError, KeyError, TypeError):
        first = (err or out).strip().splitlines()
        return ["diff gives no numbers (exit %s%s)" % (code, ": " + first[0][:120] if first else "")]
    short = []
    for want in numbers:
        row = rows.get(want["tensor"])
        if row is None:
            short.append("no row of %s" % want["tensor"])
            continue
        for key in ("sqnr_db", "cosine", "rmse", "gain"):
            if key in want and not near(row.get(key), want[key], want.get("tol", 1e-6)):
                short.append("%s: %s is %s, right is %s" % (want["tensor"], key, row.get(key), want[key]))
    return short


def demands(qualm, wanted, text, pair, cwd):
    short = ["does not say /%s/" % p for p in wanted.get("must_say", []) if not re.search(p, text)]
    short += ["says /%s/" % p for p in wanted.get("must_not_say", []) if re.search(p, text)]
    return short + check_numbers(qualm, pair, wanted.get("numbers", []), cwd)


def judge(qualm, run, cwd):
    """(what falls short, exit code, output) of one run."""
    code, out, err = call(qualm, run["args"], cwd)
    text = out + err
    if code is None:
        return ["does not end"], None, ""
    short = []
    if code not in run["exit"]:
        short.append("exit %s, right is %s" % (code, " or ".join(map(str, run["exit"]))))
    pair = run.get("pair") or (run["args"][1:3] if run["args"][0] in ("check", "diff") else None)
    short += demands(qualm, run, text, pair, cwd)
    if code in run["exit"]:
        short += demands(qualm, run.get("by_exit", {}).get(str(code), {}), text, pair, cwd)
    return short, code, text


def copy_of(folder, into, case):
    cwd = os.path.join(into, os.path.basename(folder))
    shutil.copytree(folder, cwd, symlinks=True)
    for link, target in case.get("links", {}).items():     # a transport may have dropped them
        path = os.path.join(cwd, link)
        if not os.path.islink(path):
            if os.path.exists(path):
                os.remove(path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(target, path)
    return cwd


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set")
    parser.add_argument("--qualm", default="qualm", help="the binary (default: from PATH)")
    parser.add_argument("--only", default="", help="only cases whose folder's name holds this text")
    parser.add_argument("--verbose", action="store_true", help="print the output of runs that fall short")
    options = parser.parse_args()
    qualm = options.qualm
    if os.path.sep in qualm:
        qualm = os.path.abspath(qualm)
    right = total = whole = cases = 0
    with tempfile.TemporaryDirectory() as scratch:
        for name in sorted(os.listdir(options.set)):
            folder = os.path.join(options.set, name)
            path = os.path.join(folder, "case.json")
            if options.only not in name or not os.path.isfile(path):
                continue
            with open(path, encoding="utf-8") as file:
                case = json.load(file)
            cases += 1
            failed = 0
            cwd = copy_of(folder, scratch, case)
            for number, run in enumerate(case["runs"], 1):
                total += 1
                short, code, text = judge(qualm, run, cwd)
                if short:
                    failed += 1
                    more = " (and %d more)" % (len(short) - 2) if len(short) > 2 else ""
                    print("%s run %d `%s`: %s%s" % (case["id"], number, " ".join(run["args"]), "; ".join(short[:2]), more))
                    if options.verbose:
                        print("    " + "\n    ".join([*short, "", *text.splitlines()[:30]]))
                else:
                    right += 1
            whole += not failed
            shutil.rmtree(cwd)
    print("%d of %d cases are right in all their runs" % (whole, cases))
    print("%d of %d runs right" % (right, total))
    return 2 if total == 0 else int(right < total)


if __name__ == "__main__":
    sys.exit(main())
