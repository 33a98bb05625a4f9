#!/usr/bin/env bash
# Fills packaging/qualm.rb, the template of the Homebrew formula, with a version and the sums of its archives.
# usage: formula.sh VERSION SHA256SUMS
set -euo pipefail
version=$1
sums=$2
text=$(<"$(dirname "$0")/qualm.rb")
text=${text//@VERSION@/$version}
for target in {x86_64,aarch64}-{apple-darwin,unknown-linux-gnu}; do
    sum=$(sed -n "s/^\([0-9a-f]\{64\}\)  qualm-$target\.tgz\$/\1/p" "$sums")
    [ -n "$sum" ] || { echo "formula: $sums does not name qualm-$target.tgz" >&2; exit 1; }
    text=${text//@$target@/$sum}
done
printf '%s\n' "$text"
