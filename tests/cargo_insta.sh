#!/usr/bin/env bash
# Runs the real cargo-insta over the snapshots that qualm writes: pending-snapshots, review, accept,
# reject, test, test --unreferenced, INSTA_PENDING_DIR.
#
# usage: [QUALM=PATH] tests/cargo_insta.sh [CARGO_INSTA]
#
# With QUALM, the program itself goes the same way afterwards: run, review, accept, reject, prune, and
# artefacts of CI runs.
# CARGO_INSTA is the cargo-insta binary (1.49 or newer; default: the one in PATH, or one that is
# installed into target/ci-tools). MEASURE, if set, is
# the program that writes a baseline, called as `MEASURE WORKSPACE PAIR COSINE`; it has to exit with 0
# if the baseline passes. Default: the example `baseline`.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
if ! insta=$(command -v "${1:-cargo-insta}"); then
  python3 -m venv "$root/target/ci-tools"
  "$root/target/ci-tools/bin/pip" install --quiet astral-dev-toolchain-cargo-insta
  insta=$root/target/ci-tools/bin/cargo-insta
fi
if [ -z "${MEASURE:-}" ]; then
  cargo build --quiet --manifest-path "$root/Cargo.toml" --example baseline
  MEASURE=${CARGO_TARGET_DIR:-$root/target}/debug/examples/baseline
fi
export MEASURE
unset CI TF_BUILD INSTA_UPDATE INSTA_FORCE_PASS INSTA_PENDING_DIR INSTA_WORKSPACE_ROOT \
  INSTA_SNAPSHOT_REFERENCES_FILE CARGO_TARGET_DIR

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
project=$work/project
mkdir -p "$project/src" "$project/tests" "$project/specs"
cd "$project"
git init --quiet .
cat > Cargo.toml <<'TOML'
[package]
name = "sample"
version = "0.0.0"
edition = "2021"

[[test]]
name = "quality"
harness = false
TOML
: > src/lib.rs
echo 'schema = 1' > specs/sample.toml
# A user's test that hands over to the harness; the cosines stand in a file.
cat > tests/quality.rs <<'RUST'
fn main() {
    let mut failed = false;
    for line in std::fs::read_to_string("cosines").unwrap().lines() {
        let (pair, cosine) = line.rsplit_once(' ').unwrap();
        let measure = std::env::var_os("MEASURE").unwrap();
        let status = std::process::Command::new(measure).args([".", pair, cosine]).status();
        failed |= !status.unwrap().success();
    }
    std::process::exit(if failed { 101 } else { 0 });
}
RUST
printf 'target/\n*.snap.new\n' > .gitignore

step=0
# expect DESCRIPTION COMMAND...: the command has to succeed.
expect() {
  step=$((step + 1))
  local what=$1; shift
  if "$@" > "$work/log" 2>&1; then
    echo "ok $step - $what"
  else
    echo "not ok $step - $what: $*"; cat "$work/log"; exit 1
  fi
}
not() { ! "$@"; }
# shows TEXT COMMAND...: the command's output has to contain the text.
shows() {
  local text=$1; shift
  "$@" > "$work/out" 2>&1 || { cat "$work/out"; return 1; }
  grep -qF -- "$text" "$work/out" || { cat "$work/out"; return 1; }
}
measure() { "$MEASURE" . "$@"; }
a=snapshots/sample__a.snap
b=snapshots/sample__q4_k.m-x%20y.snap
named_b='q4_k.m-x y'

expect "a first run leaves a pending file" not measure a 0.9
expect "and one for a name with a dot and a space" not measure "$named_b" 0.8
expect "with assertion_line" grep -q '^assertion_line: 3$' $a.new
expect "pending-snapshots lists it" shows "$a" "$insta" pending-snapshots
expect "and the other" shows "$b" "$insta" pending-snapshots
expect "as JSON too" shows '"type":"file_snapshot"' "$insta" pending-snapshots --as-json
cp $a.new "$work/expected"
sed -i '/^assertion_line:/d' "$work/expected"
expect "accept takes one by its name" "$insta" accept --snapshot "$a"
expect "it moved the file" test ! -e $a.new -a -e $a
expect "to the bytes that qualm would have written" cmp $a "$work/expected"
expect "the other is still pending" test -e $b.new
expect "accept takes the rest" "$insta" accept
expect "also with such a name" test ! -e $b.new -a -e $b
expect "the next run holds" measure a 0.9
expect "for both" measure "$named_b" 0.8
expect "within the tolerance it holds, too" measure a 0.9004
expect "and does not touch the file" cmp $a "$work/expected"

expect "a worse run leaves a pending file" not measure a 0.85
expect "review shows the old line" shows 'cosine = 0.9,' bash -c "printf s | '$insta' review --snapshot $a || true"
expect "reject removes it" "$insta" reject
expect "and keeps the baseline" bash -c "test ! -e $a.new && cmp $a $work/expected"

printf 'a 0.85\n%s 0.8\n' "$named_b" > cosines
expect "cargo insta test runs the harness and says what is pending" \
  shows '1 snapshot to review' not "$insta" test
expect "the pending file is there" test -e $a.new
expect "cargo insta test --accept accepts it" "$insta" test --accept
expect "the baseline is new" grep -q 'cosine = 0.85,' $a
expect "cargo insta test --check passes now" "$insta" test --check
printf 'a 0.7\n%s 0.8\n' "$named_b" > cosines
expect "cargo insta test --check fails on another value" not "$insta" test --check
expect "and writes nothing" test ! -e $a.new
printf 'a 0.85\n%s 0.8\n' "$named_b" > cosines

cp $a snapshots/sample__unused.snap
expect "--unreferenced=warn names the unused snapshot" \
  shows 'sample__unused.snap' "$insta" test --unreferenced=warn
expect "and no other" bash -c "test \$(grep -c '^  /.*[.]snap$' $work/out) = 1"
expect "--unreferenced=reject fails" not "$insta" test --unreferenced=reject
expect "--unreferenced=delete deletes it" "$insta" test --unreferenced=delete
expect "and nothing else" bash -c 'test "$(ls snapshots | wc -l)" = 2'
expect "nothing is unreferenced now" "$insta" test --unreferenced=reject

expect "better passes" measure a 0.95
expect "and leaves no pending file" test ! -e $a.new
export INSTA_PENDING_DIR=$work/shard
expect "a worse value, into the directory" not measure a 0.5
expect "at its path within the workspace" test -e "$work/shard/$a.new" -a ! -e "$a.new"
expect "cargo insta lists it there" shows "$a" "$insta" pending-snapshots
expect "and accepts it from there" "$insta" accept
expect "into the work tree" grep -q 'cosine = 0.5,' $a
unset INSTA_PENDING_DIR

git add -A && git -c user.name=a -c user.email=a@b commit --quiet -m x
expect "in CI a changed baseline fails" not env CI=true "$MEASURE" . a 0.4
expect "the source tree is untouched" bash -c "test -z \"\$(git status --porcelain)\" -a ! -e $a.new"
expect "what is pending lies below the output directory" test -e "target/qualm/pending/$a.new"
expect "and cargo insta takes it from there" \
  env INSTA_PENDING_DIR="$PWD/target/qualm/pending" "$insta" accept
expect "into the work tree" grep -q 'cosine = 0.4,' $a

[ -n "${QUALM:-}" ] || { echo "1..$step"; exit 0; }
QUALM=$(cd "$root" && realpath "$QUALM")
export QUALM
mkdir "$work/suite" && cd "$work/suite"
git init --quiet .
mkdir src tests specs
cp "$project/Cargo.toml" "$project/.gitignore" .
: > src/lib.rs
cat > tests/quality.rs <<'RUST'
fn main() {
    let qualm = std::env::var_os("QUALM").unwrap();
    let status = std::process::Command::new(qualm).arg("run").status().unwrap();
    std::process::exit(status.code().unwrap_or(1));
}
RUST
ln -s "$root/specs/models" specs/models
cat > specs/sample.toml <<'TOML'
schema = 1

[[pair]]
name = "int8"
reference = "models/minilm-attn0-f32.safetensors"
quantized = "models/minilm-attn0-int8-f16.safetensors"

[[pair]]
name = "Q 3.x"
reference = "models/minilm-attn0-f32.safetensors"
quantized = "models/minilm-attn0-int3-f16.safetensors"

[pair.baseline]
ratchet = true
TOML
# exits CODE COMMAND...: the command has to exit with this code.
exits() {
  local code=$1 found=0; shift
  "$@" || found=$?
  test "$found" = "$code" || { echo "exit code $found, expected $code"; return 1; }
}
# moves FILE: makes the baseline better than what is measured.
moves() { sed -i 's/^cosine = 0[.][0-9]*$/cosine = 0.99999999999/' "$1"; }
int8=snapshots/sample__int8.snap
q3=snapshots/sample__Q%203.x.snap

expect "qualm run: only baselines are pending" exits 8 "$QUALM" run
expect "both are new" exits 8 "$QUALM" pending
expect "cargo insta lists them" shows "$q3" "$insta" pending-snapshots
expect "and accepts them" "$insta" accept
expect "qualm run passes" "$QUALM" run
expect "nothing is pending" "$QUALM" pending
expect "cargo insta finds both in use" "$insta" test --unreferenced=reject
git add -A && git -c user.name=a -c user.email=a@b commit --quiet -m x

moves $int8; moves $q3
expect "worse than the baseline: the run fails or is pending" not "$QUALM" run
expect "qualm review shows old and new without a terminal" \
  shows 'cosine  1.0  0.9' exits 8 "$QUALM" review
expect "qualm accept refuses what a ratchet forbids" not "$QUALM" accept
expect "and accepted nothing" test -e $int8.new -a -e $q3.new
expect "a reason alone does not do" not "$QUALM" accept --reason x
expect "with leave and a reason it does" "$QUALM" accept --allow-worse --reason 'rounding: #42'
expect "the reason stays with the baseline" grep -q '^  accepted_reason: "rounding: #42"$' $q3
expect "qualm run passes again" "$QUALM" run
expect "cargo insta has nothing to review" shows 'no snapshots to review' "$insta" review
git commit --quiet -am x 2>/dev/null || git -c user.name=a -c user.email=a@b commit --quiet -am x

moves $int8
git -c user.name=a -c user.email=a@b commit --quiet -am x
expect "in CI" not env CI=true "$QUALM" run
expect "the source tree is untouched" bash -c "test -z \"\$(git status --porcelain)\" -a ! -e $int8.new"
(cd target/qualm && python3 -m zipfile -c "$work/artefact.zip" pending)
expect "qualm accept --from takes the artefact" "$QUALM" accept --from "$work/artefact.zip"
expect "qualm run passes with it" "$QUALM" run
moves $int8
expect "a directory, too" bash -c "CI=true '$QUALM' run > /dev/null; '$QUALM' accept --from target/qualm/pending"
expect "and passes" "$QUALM" run

# In a terminal: ANSWERS... are typed, one at each prompt, and what is shown goes to $work/shown.
terminal() {
  python3 - "$work/shown" "$QUALM" "$@" <<'PY'
import os, pty, sys
shown, qualm, *answers = sys.argv[1:]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(qualm, [qualm, "review"])
text = ""
asked = 0
while True:
    try:
        part = os.read(terminal, 4096).decode()
    except OSError:
        break
    if not part:
        break
    text += part
    while answers and text.count(" > ") + text.count("pending): ") > asked:
        asked += 1
        os.write(terminal, (answers.pop(0) + "\n").encode())
open(shown, "w").write(text)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
sys.exit(90 if answers else code)
PY
}
moves $int8; moves $q3
git add -A && git -c user.name=a -c user.email=a@b commit --quiet -m x
expect "two baselines are worse than accepted" not "$QUALM" run
expect "review in a terminal: skip one, leave" exits 8 terminal s q
expect "both are pending still" test -e $int8.new -a -e $q3.new
expect "it showed the old value" grep -q 'cosine  1[.]0  0[.]9' "$work/shown"
expect "review: an unknown key asks again; a ratchet asks for a reason" exits 8 terminal x a "" s
expect "without a reason nothing was accepted" test -e $int8.new -a -e $q3.new
expect "review: accept one with a reason, reject the other" exits 0 terminal a 'new rounding' r
expect "nothing is pending" "$QUALM" pending
expect "the reason stays with the baseline" grep -q '^  accepted_reason: "\?new rounding' $q3
expect "the rejected one is as it was" git diff --quiet $int8
git checkout --quiet . && sed -i '/^cosine = 0.99999999999$/d' $int8
expect "INSTA_UPDATE=no writes nothing" bash -c "! INSTA_UPDATE=no '$QUALM' run && test ! -e $int8.new"
expect "INSTA_FORCE_PASS=1 passes" env INSTA_FORCE_PASS=1 "$QUALM" run
expect "and leaves it pending" test -e $int8.new
expect "INSTA_UPDATE=always writes the snapshot, but not what the ratchet forbids" \
  not env INSTA_UPDATE=always "$QUALM" run
expect "the one is written" test ! -e $int8.new
expect "the other is pending" test -e $q3.new
expect "it is accepted with leave" "$QUALM" accept --allow-worse --reason 'end'
expect "qualm run passes" "$QUALM" run

cp $int8 snapshots/sample__gone.snap
expect "qualm prune --dry-run names the unused snapshot" \
  shows 'sample__gone.snap' "$QUALM" prune --dry-run
expect "and leaves it" test -e snapshots/sample__gone.snap
expect "qualm prune removes it" "$QUALM" prune
expect "and nothing else" bash -c 'test "$(ls snapshots | wc -l)" = 2'
echo '<<<<<<< HEAD' >> $int8
expect "a conflict in a snapshot is an error with its line" \
  shows "sample__int8.snap:$(wc -l < $int8): a merge conflict" not "$QUALM" run
expect "INSTA_UPDATE=sometimes is a usage error" exits 2 env INSTA_UPDATE=sometimes "$QUALM" run
echo "1..$step"
