#!/usr/bin/env bash
# Packs a program into the archive that is released for TARGET, with manual pages, completions and licences:
# OUT/qualm-TARGET.tgz, or .zip for Windows. The same program gives the same bytes.
# usage: archive.sh BINARY TARGET OUT [QUALM]
# QUALM is a program of the same version that runs here, to print manual pages; BINARY itself, if it does.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
binary=$(realpath "$1")
target=$2
mkdir -p "$3"
out=$(realpath "$3")
qualm=$(realpath "${4:-$1}")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
name=qualm-$target
mkdir -p "$work/$name/man" "$work/$name/completions"
case $target in
*-windows-*) program=qualm.exe ;;
*) program=qualm ;;
esac
install -m 755 "$binary" "$work/$name/$program"
"$qualm" man --dir "$work/$name/man" >/dev/null
"$qualm" completions bash >"$work/$name/completions/qualm.bash"
"$qualm" completions zsh >"$work/$name/completions/_qualm"
"$qualm" completions fish >"$work/$name/completions/qualm.fish"
cp "$root"/README.md "$root"/CHANGELOG.md "$root"/LICENSE-* "$work/$name/"

cd "$work"
find "$name" -type f ! -name "$program" -exec chmod 644 {} +
find "$name" -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH:-0}" {} +
case $target in
*-windows-*)
    # Times in a zip begin in 1980, in the local zone.
    find "$name" -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH:-315532800}" {} +
    rm -f "$out/$name.zip"
    find "$name" -type f | LC_ALL=C sort | TZ=UTC zip --quiet --latest-time -X -@ "$out/$name.zip"
    ;;
*)
    tar --sort=name --owner=0 --group=0 --numeric-owner --format=ustar -cf - "$name" | gzip -9n >"$out/$name.tgz"
    ;;
esac
