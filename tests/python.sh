#!/usr/bin/env bash
# The Python package: a wheel that carries QUALM, installed in a fresh environment, and its tests with the
# real pytest and pytest-xdist. Types are checked by mypy.
# usage: python.sh QUALM   (the binary)
set -euo pipefail
cd "$(dirname "$0")/.."
qualm=$(realpath "$1")
models=$PWD/specs/models
pair=("$models/minilm-block0-f16.gguf" "$models/minilm-block0-q8_0.gguf")

tools=$PWD/target/ci-tools
[ -x "$tools/bin/pip" ] || python3 -m venv "$tools"
if ! "$tools/bin/pip" install --quiet --disable-pip-version-check hatchling mypy pipx pytest pytest-xdist uv; then
    echo "python: the package registry cannot be reached, nothing was checked"
    exit 0
fi
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
grep -q "^version = \"$version\" " python/pyproject.toml ||
    { echo "python/pyproject.toml has another version than Cargo.toml ($version)"; exit 1; }
for licence in LICENSE-MIT LICENSE-APACHE; do cmp "$licence" "python/$licence"; done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Both distributions; the wheel is made of the source distribution, as pip makes it.
(cd python && "$tools/bin/hatchling" build --target sdist --directory "$work/dist")
mkdir "$work/sdist"
tar -xzf "$work"/dist/qualm_quant-*.tar.gz -C "$work/sdist" --strip-components 1
cargo metadata --locked --offline --no-deps --format-version 1 --manifest-path "$work/sdist/crate/Cargo.toml" >/dev/null
(cd "$work/sdist" && QUALM_BINARY=$qualm "$tools/bin/hatchling" build --target wheel --directory "$work/dist")
(cd "$work/dist" && ls -sh -- *)

# Without QUALM_BINARY, cargo builds the program: nothing is left to build if QUALM is its release build.
if [ "$qualm" = "$PWD/target/release/qualm" ]; then
    (cd python && QUALM_FEATURES="" "$tools/bin/hatchling" build --target wheel --directory "$work/by-cargo")
    python3 -m zipfile -e "$work"/by-cargo/*.whl "$work/by-cargo/"
    cmp "$qualm" "$work"/by-cargo/qualm_quant-*.data/scripts/qualm
fi

# A fresh environment, and nothing but the wheel. How long it takes until the first verdict is said, not
# judged, as machines differ.
python3 -m venv "$work/fresh"
began=$(date +%s%N)
"$work/fresh/bin/pip" install --quiet --disable-pip-version-check --no-index "$work"/dist/qualm_quant-*.whl
"$work/fresh/bin/qualm" check "${pair[@]}" >/dev/null
echo "installed, and judged a first pair, in $((($(date +%s%N) - began) / 1000000)) ms"
cmp "$qualm" "$work/fresh/bin/qualm"
(cd "$work" && fresh/bin/python -c "
import sys, qualm
assert qualm.check(*sys.argv[1:]), 'damaged'
" "${pair[@]}")

# Without an installation; and into a folder.
wheel=$(echo "$work"/dist/qualm_quant-*.whl)
UV_CACHE_DIR=$work/uv "$tools/bin/uv" --quiet tool run --offline --python "$work/fresh/bin/python" --from "$wheel" \
    qualm-quant check "${pair[@]}" >/dev/null
PIPX_HOME=$work/pipx "$tools/bin/pipx" run --spec "$wheel" qualm-quant check "${pair[@]}" >/dev/null 2>&1
"$work/fresh/bin/pip" install --quiet --disable-pip-version-check --no-index --target "$work/target" "$wheel"
found=$(cd "$work" && PYTHONPATH=$work/target python3 -c 'import qualm; print(qualm.find_program())')
[ "$found" = "$work/target/bin/qualm" ] || { echo "the module in a folder has found $found"; exit 1; }

# With the real pytest and xdist.
"$work/fresh/bin/pip" install --quiet --disable-pip-version-check pytest pytest-xdist
(cd python && "$tools/bin/mypy" --cache-dir "$tools/mypy" src hatch_build.py tests)
# examples/pytest, green, and red once somebody ships two bits for four.
mkdir -p "$work/examples" "$work/specs"
cp -r examples/pytest "$work/examples/"
cp -r specs/models "$work/specs/"
(cd "$work/examples/pytest" && "$work/fresh/bin/pytest" -q -n 2)
cp specs/models/minilm-block0-q2_k.gguf "$work/specs/models/minilm-block0-q4_k_m.gguf"
code=0
(cd "$work/examples/pytest" && CI=true "$work/fresh/bin/pytest" -q >"$work/red") || code=$?
if [ "$code" != 1 ] || ! grep -q '^1 failed, 1 passed' "$work/red"; then
    cat "$work/red"
    exit 1
fi

cp -r python/tests python/pyproject.toml "$work/"
cd "$work"
QUALM_MODELS=$models fresh/bin/pytest -q -n 4 --durations 3 tests
