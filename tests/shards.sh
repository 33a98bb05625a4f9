#!/usr/bin/env bash
# qualm's own suite in 1 to 16 shards and every mode: the merged reports equal those of one run, byte
# for byte.
# usage: shards.sh QUALM   (the binary)
set -euo pipefail
qualm=$(realpath "$1")
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SOURCE_DATE_EPOCH=1700000000 CI=true
"$qualm" run --quiet --out-dir "$work/whole" > /dev/null
for total in $(seq 16); do
  for mode in slice hash size; do
    for index in $(seq "$total"); do
      "$qualm" run --quiet --partition "$mode:$index/$total" --out-dir "$work/parts" > /dev/null
    done
    "$qualm" merge "$work/parts" --out-dir "$work/merged" > /dev/null
    diff -r "$work/whole" "$work/merged" || { echo "$mode, $total shards: other reports"; exit 1; }
    rm -r "$work/parts" "$work/merged"
  done
  echo "ok - $total shards by slice, hash and size"
done
