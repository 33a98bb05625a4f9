#!/usr/bin/env bash
# Step "install" of the action: the program of the version that was asked for, kept in the runner's tool
# cache, and put on the PATH of the steps that follow. A version of `preinstalled` takes the qualm that is
# there; without one, the version is the action's own.
set -euo pipefail
packaging=$(cd "$(dirname "$0")/.." && pwd)
own=$(sed -n 's/^version = "\(.*\)"/\1/p' "$packaging/../Cargo.toml" | head -n 1)
version=${QUALM_VERSION:-$own}
if [ "$version" = preinstalled ]; then
    command -v qualm >/dev/null || { echo "::error::version is preinstalled, but there is no qualm on the PATH"; exit 2; }
else
    folder=${RUNNER_TOOL_CACHE:?}/qualm/$version
    # The latest release today is another one tomorrow: only a version that says which is kept.
    if [ "$version" = latest ] || ! "$folder/qualm" --version >/dev/null 2>&1; then
        QUALM_VERSION=$version QUALM_INSTALL_DIR=$folder sh "$packaging/install.sh"
    fi
    echo "$folder" >>"$GITHUB_PATH"
    PATH=$folder:$PATH
fi
echo "version=$(qualm --version | cut -d ' ' -f 2)" >>"$GITHUB_OUTPUT"
