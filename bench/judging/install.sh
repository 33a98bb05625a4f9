#!/usr/bin/env bash
# The quantizers in a virtual environment: bash install.sh VENV. 7 GB with the CUDA libraries that torch brings along.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python3 -m venv "$1"
"$1/bin/pip" install -q -U pip wheel setuptools
"$1/bin/pip" install -q -r "$here/requirements.txt"
# GPTQModel asks for newer releases of torch and transformers than llm-compressor bears; it runs with these.
"$1/bin/pip" install -q --no-deps --no-build-isolation gptqmodel==7.7.0
