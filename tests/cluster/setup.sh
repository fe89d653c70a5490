#!/usr/bin/env bash
# Makes a machine able to run the tests on real Kubernetes. Debian or Ubuntu, root or sudo, Go 1.26 or newer.
#
#   setup.sh          installs what is missing and builds Kubernetes, etcd and containerd (minutes, once)
#   setup.sh where    prints the directory of the built programs, whether or not they are there yet
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=$here/tools

# The name says what was built, so another version is another directory and an old one is never taken for it. Raise
# the number where only the way of building changes.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kerf-cluster
target=$cache/$({ echo 1; cat "$tools/go.mod" "$tools/go.sum"; } | sha256sum | cut -c1-16)
if [ "${1:-}" = where ]; then
    echo "$target"
    exit
fi

# program and the Debian package that has it
wanted=(
    runc:runc
    busybox:busybox-static
    /usr/lib/cni/bridge:containernetworking-plugins
    openssl:openssl
    prometheus:prometheus
    unshare:util-linux
)
missing=()
for pair in "${wanted[@]}"; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
    sudo=""
    [ "$(id -u)" = 0 ] || sudo=sudo
    # a daemon that starts with its package is not wanted: the tests start their own
    printf '#!/bin/sh\nexit 101\n' >/tmp/kerf-policy-rc.d && chmod 755 /tmp/kerf-policy-rc.d
    kept=0
    [ -e /usr/sbin/policy-rc.d ] && kept=1 || $sudo mv /tmp/kerf-policy-rc.d /usr/sbin/policy-rc.d
    $sudo apt-get update -q
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install --yes -q --no-install-recommends "${missing[@]}"
    [ "$kept" = 1 ] || $sudo rm -f /usr/sbin/policy-rc.d
    rm -f /tmp/kerf-policy-rc.d
fi

if [ -d "$target" ]; then
    echo "built already: $target"
    exit
fi
command -v go >/dev/null || { echo "Go is needed: https://go.dev/dl/" >&2; exit 1; }

# Built aside and renamed at the end, so that a build that was interrupted is not taken for a finished one.
mkdir -p "$cache"
staging=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$staging"' EXIT
cd "$tools"
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
IFS=. read -r major minor _ <<<"${version#v}"
stamp=k8s.io/component-base/version
# without a version the components believe that they are v0.0.0 and refuse each other
flags="-s -w -X $stamp.gitVersion=$version -X $stamp.gitMajor=$major -X $stamp.gitMinor=$minor"
mapfile -t commands < <(go list -f '{{.ImportPath}}' tool | grep -v '^go.etcd.io/')
build=(env CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -tags no_btrfs,no_devmapper,no_zfs)
"${build[@]}" -o "$staging/" "${commands[@]}"
"${build[@]}" -o "$staging/etcd" go.etcd.io/etcd/server/v3
chmod 755 "$staging"
mv "$staging" "$target"
trap - EXIT
echo "built: $target"
