#!/usr/bin/env bash
# Reads models in buckets of emulators: moto (Amazon S3), gcp-storage-emulator and azurite.
#
# usage: tests/buckets.sh QUALM
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/target/ci-tools
[ -x "$tools/buckets/bin/pip" ] || python3 -m venv "$tools/buckets"
"$tools/buckets/bin/pip" install --quiet 'moto[server,s3]' gcp-storage-emulator boto3 azure-storage-blob cryptography
npm install --silent --no-fund --no-audit --prefix "$tools/azurite" azurite >/dev/null
"$tools/buckets/bin/python" tests/buckets.py "$1" "$tools/azurite/node_modules/.bin/azurite-blob"
