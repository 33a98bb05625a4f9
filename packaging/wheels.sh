#!/usr/bin/env bash
# A wheel for each program of a release, and the source distribution. Nothing is compiled: a wheel carries the
# program that the archive holds, so all of them can be made on one system.
# usage: wheels.sh PROGRAMS OUT   (PROGRAMS/TARGET/qualm or qualm.exe)
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
programs=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
cd "$root/python"

# What pip calls a target. The programs for glibc are linked against its version 2.17; those for musl are
# static, and run on any Linux.
platform() {
    case $1 in
    x86_64-unknown-linux-gnu) echo manylinux_2_17_x86_64.manylinux2014_x86_64 ;;
    aarch64-unknown-linux-gnu) echo manylinux_2_17_aarch64.manylinux2014_aarch64 ;;
    x86_64-unknown-linux-musl) echo musllinux_1_1_x86_64 ;;
    aarch64-unknown-linux-musl) echo musllinux_1_1_aarch64 ;;
    x86_64-apple-darwin) echo macosx_10_12_x86_64 ;;
    aarch64-apple-darwin) echo macosx_11_0_arm64 ;;
    x86_64-pc-windows-msvc) echo win_amd64 ;;
    *)
        echo "wheels: $1 has no platform tag" >&2
        return 1
        ;;
    esac
}

for folder in "$programs"/*/; do
    target=$(basename "$folder")
    tag=$(platform "$target")
    binary=$(find "$folder" -maxdepth 1 -name 'qualm*' -type f | head -n 1)
    QUALM_BINARY=$binary QUALM_WHEEL_PLATFORM=$tag "${HATCHLING:-hatchling}" build --target wheel --directory "$out"
done
"${HATCHLING:-hatchling}" build --target sdist --directory "$out"
