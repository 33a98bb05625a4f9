#!/usr/bin/env bash
# The crate as it is published: packaged, built from the package, and its unit tests compiled there.
# usage: crate.sh
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export CARGO_TARGET_DIR

cargo publish --dry-run --locked --allow-dirty
cargo check --locked --tests --manifest-path "$CARGO_TARGET_DIR/package/qualm-$version/Cargo.toml"
