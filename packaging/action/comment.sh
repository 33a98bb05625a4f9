#!/usr/bin/env bash
# Step "comment" of the action: what has changed since the base branch, in the job's summary and, on a pull
# request, in a comment that each run rewrites. A token that may not write comments (a fork's) is no failure.
set -euo pipefail
new=$OUT_DIR/contract.json
[ -f "$new" ] || { echo "::notice::there is no $new to compare"; exit 0; }
marker="<!-- qualm: $ARTIFACT -->"
body=${RUNNER_TEMP:?}/qualm-comment.md
code=0
{
    echo "$marker"
    qualm compare "$BASELINE" "$new" --markdown --max-bytes 60000
} >"$body" || code=$?
# 0: nothing fails anew; 101: something does, which is for the last step to say.
[ "$code" = 0 ] || [ "$code" = 101 ] || { echo "::warning::the reports cannot be compared (exit code $code)"; exit 0; }
grep -v -F -- "$marker" "$body" >>"$GITHUB_STEP_SUMMARY"
[ -n "${PULL_REQUEST:-}" ] || exit 0
comments=repos/$GITHUB_REPOSITORY/issues
old=$(gh api --paginate "$comments/$PULL_REQUEST/comments" \
    --jq ".[] | select(.body | startswith(\"$marker\")) | .id" | head -n 1) || old=
if [ -n "$old" ]; then
    gh api --method PATCH "$comments/comments/$old" --field "body=@$body" >/dev/null
else
    gh api --method POST "$comments/$PULL_REQUEST/comments" --field "body=@$body" >/dev/null
fi || echo "::notice::the token may not write comments here (permissions: pull-requests: write)"
