#!/usr/bin/env bash
# Lets the tools behind TOML editors check the specs by the schema that their first line names: they
# have to accept what qualm accepts, and to refuse a misspelt key.
#
# usage: tests/editors.sh
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/target/ci-tools
[ -x "$tools/bin/pip" ] || python3 -m venv "$tools"
"$tools/bin/pip" install --quiet taplo tombi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/specs" "$work/schema"
cp specs/*.toml "$work/specs/"
cp schema/spec.schema.json "$work/schema/"
cd "$work"
# A pair that is one model, and no two.
alone() { printf '#:schema ../schema/spec.schema.json\nschema = 1\nbaseline = "off"\n[[pair]]\nname = "p"\nverify = "m.gguf"\n'; }
alone >specs/alone.toml
for lint in "$tools/bin/taplo lint" "$tools/bin/tombi lint --offline"; do
    $lint specs/*.toml >log 2>&1 || { echo "not ok - $lint"; cat log; exit 1; }
    for file in specs/*.toml; do
        # Editors find the schema by the first line alone.
        head -1 "$file" | grep -qx '#:schema ../schema/spec.schema.json'
    done
    sed 's/^cosine = /cosin = /; s/\.cosine = /.cosin = /' specs/minilm-attention.toml >specs/bad.toml
    if $lint specs/bad.toml >log 2>&1; then echo "not ok - $lint accepts a misspelt key"; exit 1; fi
    grep -q cosin log || { cat log; exit 1; }
    { alone; echo 'reference = "r.gguf"'; } >specs/bad.toml
    if $lint specs/bad.toml >log 2>&1; then echo "not ok - $lint accepts a reference beside verify"; exit 1; fi
    rm specs/bad.toml
    echo "ok - ${lint##*/}"
done
