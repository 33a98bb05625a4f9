#!/usr/bin/env bash
# The crate as it is published: packaged, and everything in the package compiled there, unit tests too. What the
# registry asks of its description is checked by a publication that stops short of the upload; the build that
# this makes is left out, since the package has just been compiled.
# usage: crate.sh
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export CARGO_TARGET_DIR

cargo publish --dry-run --no-verify --locked --allow-dirty --quiet
cargo package --no-verify --locked --allow-dirty --quiet
rm -rf "$CARGO_TARGET_DIR/package/qualm-$version"
tar -xzf "$CARGO_TARGET_DIR/package/qualm-$version.crate" -C "$CARGO_TARGET_DIR/package"
cargo check --locked --tests --manifest-path "$CARGO_TARGET_DIR/package/qualm-$version/Cargo.toml"
