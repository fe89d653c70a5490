#!/usr/bin/env bash
# Builds helm (3 and 4) and kustomize, with which the tests render the chart and the kustomizations: the versions of
# tools/go.mod, once, into the user's cache; minutes. Needs Go 1.26 or newer. Prints the folder that they are in, for
# KERF_MANIFEST_TOOLS.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/tools"

# the name says what was built, so another version is another folder
folder=${XDG_CACHE_HOME:-$HOME/.cache}/kerf-manifests/$(cat go.mod go.sum "../$(basename "$0")" | sha256sum | cut -c 1-16)
if [ ! -d "$folder" ]; then
    command -v go >/dev/null || { echo "Go is needed: https://go.dev/dl/" >&2; exit 1; }
    mkdir -p "$(dirname "$folder")"
    staging=$(mktemp -d "$folder.XXXXXX")
    trap 'rm -rf "$staging"' EXIT
    build() {
        CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$staging/$1" "$2" >&2
    }
    build helm3 helm.sh/helm/v3/cmd/helm
    build helm4 helm.sh/helm/v4/cmd/helm
    build kustomize sigs.k8s.io/kustomize/kustomize/v5
    chmod 755 "$staging"
    # another one may have been faster; its folder is the same
    mv --no-target-directory "$staging" "$folder" 2>/dev/null || [ -d "$folder" ]
fi
echo "$folder"
