#!/usr/bin/env bash
# Opens report.html in headless Chromium: nothing on the console, nothing asked of the network, below
# a megabyte, and the tables, the search, the keyboard and the theme do what they should.
#
# usage: tests/report_html.sh QUALM [SCREENSHOT-DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
qualm=$(realpath "$1")
shots=${2:-}

chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$chromium" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update && apt-get install -y --no-install-recommends chromium; } >/dev/null 2>&1 || true
    chromium=$(command -v chromium || true)
fi
if [ -z "$chromium" ]; then
    echo "report.html: no Chromium on this machine and none to be had, NOT checked in a browser"
    exit 0
fi

tools=target/ci-tools
[ -x $tools/bin/pip ] || python3 -m venv $tools
$tools/bin/pip install --quiet playwright

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 tests/odd_suite.py "$work"
code=0
(cd "$work" && "$qualm" run --format terse) >/dev/null 2>&1 || code=$?
[ "$code" = 6 ] || { echo "the odd suite ended with $code, expected 6"; exit 1; }
cp -r specs snapshots "$work/" 2>/dev/null
(cd "$work" && rm specs/hostile.toml specs/thousand.toml && "$qualm" run --format terse --out-dir good) >/dev/null
for suite in many:101 one:101 deep:8; do
    code=0
    (cd "$work/${suite%:*}" && "$qualm" run --format terse) >/dev/null 2>&1 || code=$?
    [ "$code" = "${suite#*:}" ] || { echo "the suite ${suite%:*} ended with $code"; exit 1; }
done
$tools/bin/python tests/report_html.py "$chromium" "$work" ${shots:+"$shots"}
