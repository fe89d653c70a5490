#!/usr/bin/env bash
# Gets zig, whose linker can link for glibc 2.17, and cargo-zigbuild, which lets cargo use it: the two versions of zig.txt, from
# PyPI, into the user's cache. Prints the folder that they are in, for KERF_ZIG. Needs python3 with pip.
set -euo pipefail
cd "$(dirname "$0")"

tools=${XDG_CACHE_HOME:-$HOME/.cache}/kerf-zig/$(sha256sum zig.txt | cut -c 1-16)
if [ ! -d "$tools" ]; then
    mkdir -p "$(dirname "$tools")"
    staging=$(mktemp -d "$tools.XXXXXX")
    trap 'rm -rf "$staging"' EXIT
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --only-binary :all: --require-hashes --requirement zig.txt --target "$staging" >&2
    chmod 755 "$staging"
    # another one may have been faster; its folder is the same
    mv --no-target-directory "$staging" "$tools" 2>/dev/null || [ -d "$tools" ]
fi
echo "$tools"
