#!/usr/bin/env bash
# Step "baseline" of the action: the reports of the last good run of the base branch, to compare with. That
# there are none yet is no failure.
set -euo pipefail
into=${RUNNER_TEMP:?}/qualm-baseline
rm -rf "$into"
branch=${BASE_BRANCH:-$DEFAULT_BRANCH}
run=$(gh run list --repo "$GITHUB_REPOSITORY" --workflow "$WORKFLOW" --branch "$branch" --status success \
    --limit 1 --json databaseId --jq '.[0].databaseId // empty') || run=
if [ -z "$run" ]; then
    echo "::notice::$branch has no successful run of this workflow yet: nothing to compare with"
elif ! gh run download "$run" --repo "$GITHUB_REPOSITORY" --name "$ARTIFACT" --dir "$into"; then
    echo "::notice::run $run of $branch has no artefact $ARTIFACT any more: nothing to compare with"
else
    contract=$(find "$into" -name contract.json | head -n 1)
    [ -n "$contract" ] || { echo "::notice::the artefact $ARTIFACT of run $run holds no contract.json"; exit 0; }
    echo "contract=$contract" >>"$GITHUB_OUTPUT"
fi
