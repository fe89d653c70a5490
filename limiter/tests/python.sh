#!/usr/bin/env bash
# Gets NVIDIA's libraries for Python (cuda-bindings, cuda-core, Numba with its compiler) and CUDA's runtime from PyPI, for the tests
# that run them on the simulated GPU: the versions of python/requirements.txt, 270 MB, into the user's cache. Nothing is
# installed, and neither a card nor a driver is needed. Prints the folder that they are in, for KERF_PYTHON. Needs python3 from
# 3.11 on with pip.
set -euo pipefail
cd "$(dirname "$0")"

release=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
folder=${XDG_CACHE_HOME:-$HOME/.cache}/kerf-python/$release-$(sha256sum python/requirements.txt | cut -c 1-16)
if [ ! -d "$folder" ]; then
    mkdir -p "$(dirname "$folder")"
    staging=$(mktemp -d "$folder.XXXXXX")
    trap 'rm -rf "$staging"' EXIT
    python3 -m venv --without-pip "$staging" >&2
    python3 -m pip --python "$staging/bin/python" install --quiet --disable-pip-version-check --root-user-action ignore --no-deps \
        --only-binary :all: --no-compile --requirement python/requirements.txt >&2
    chmod 755 "$staging"
    # another one may have been faster; its folder is the same
    mv --no-target-directory "$staging" "$folder" 2>/dev/null || [ -d "$folder" ]
fi
echo "$folder"
