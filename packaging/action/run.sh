#!/usr/bin/env bash
# Step "run" of the action: qualm with the given arguments. Its exit code becomes an output, so that reports
# are kept whatever it is; the action's last step ends with it.
set -euo pipefail
# Words as a shell would cut them, quotes and all, but nothing in them is expanded or run.
words=${RUNNER_TEMP:?}/qualm-words
xargs -r printf '%s\0' <<<"$QUALM_ARGS" >"$words" || { echo "::error::args cannot be cut into words: $QUALM_ARGS"; exit 2; }
arguments=()
while IFS= read -r -d '' word; do arguments+=("$word"); done <"$words"
# Other commands than `run` write no reports.
case ${arguments[0]:-run} in
run | -*) arguments+=(--out-dir "$OUT_DIR") ;;
esac
code=0
qualm "${arguments[@]}" || code=$?
echo "exit-code=$code" >>"$GITHUB_OUTPUT"
