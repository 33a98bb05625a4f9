#!/usr/bin/env bash
# Runs the blocks of shell commands in README.md, as they are written, one after another
# in one shell: the path of somebody who has never seen qualm.
#
# usage: tests/newcomer.sh [QUALM]
#
# With QUALM, that program is used and nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work CARGO_INSTALL_ROOT=$work/installed
mkdir -p "$CARGO_INSTALL_ROOT/bin"
export PATH=$CARGO_INSTALL_ROOT/bin:$PATH
awk '/^```sh$/ { on = 1; blocks++; next } /^```$/ { on = 0 } on { print }
     END { if (blocks < 5) exit 1 }' README.md >"$work/steps" ||
    { echo "README.md has lost its blocks"; exit 1; }
if [ -n "${1:-}" ]; then
    cp "$1" "$CARGO_INSTALL_ROOT/bin/qualm"
    sed -i '/^cargo install /d' "$work/steps"
fi
# A developer's machine, not a CI's.
unset CI TF_BUILD GITHUB_ACTIONS INSTA_UPDATE INSTA_FORCE_PASS INSTA_PENDING_DIR
while IFS= read -r line; do
    printf 'echo %q\n%s\n' "\$ $line" "$line"
done <"$work/steps" >"$work/script"
if bash -euo pipefail "$work/script" </dev/null >"$work/log" 2>&1; then
    grep '^\$ ' "$work/log"
else
    code=$?
    tail -60 "$work/log"
    echo "the last step above ended with $code"
    exit 1
fi
