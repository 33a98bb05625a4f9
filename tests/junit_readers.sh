#!/usr/bin/env bash
# Gives junit.xml to its readers: lxml with a schema, junitparser, xunitparser, junit2html,
# junit-to-ctrf. All of them have to read it and to count what contract.json counts.
#
# usage: tests/junit_readers.sh QUALM
set -euo pipefail
cd "$(dirname "$0")/.."
qualm=$(realpath "$1")

tools=$PWD/target/ci-tools
[ -x "$tools/bin/pip" ] || python3 -m venv "$tools"
"$tools/bin/pip" install --quiet junitparser xunitparser junit2html lxml
npm install --silent --no-fund --no-audit --prefix "$tools/npm" junit-to-ctrf >/dev/null

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 tests/odd_suite.py "$work"
cd "$work"
for dialect in rich strict; do
    for cases in all failed; do
        code=0
        "$qualm" run --format terse --junit-dialect $dialect --junit-cases $cases \
            --out-dir "out" >/dev/null 2>&1 || code=$?
        [ "$code" = 6 ] || { echo "the odd suite ended with $code, expected 6"; exit 1; }
        cp out/junit.xml "$dialect-$cases.xml"
        "$qualm" report out/contract.json --junit again.xml \
            --junit-dialect $dialect --junit-cases $cases
        cmp again.xml out/junit.xml
        "$tools/bin/junit2html" "$dialect-$cases.xml" "$dialect-$cases.html"
        test -s "$dialect-$cases.html"
        "$tools/npm/node_modules/.bin/junit-to-ctrf" "$dialect-$cases.xml" -o "$dialect-$cases.json" >/dev/null
    done
done
cd - >/dev/null
"$tools/bin/python" tests/junit_readers.py "$work" tests/data/junit-strict.xsd
