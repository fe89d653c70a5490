#!/usr/bin/env bash
# Makes a machine able to run the tests on real Kubernetes. Debian or Ubuntu, root or sudo, Go 1.26 or newer.
#
#   setup.sh          installs what is missing, and builds Kubernetes, etcd and containerd (minutes, each version once)
#   setup.sh where    prints the directories of the built programs as a search path, whether or not they are there yet
#
# KERF_KUBERNETES says which Kubernetes of the file `versions`: its minor version such as 1.35, or oldest, or newest, which
# is what is taken without it.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
fail() {
    echo "$*" >&2
    exit 2
}
case ${1:-} in
    "" | where) ;;
    *) fail "unknown argument $1: expected where or none" ;;
esac

mapfile -t offered < <(sed -n 's/^kubernetes //p' "$here/versions")
chosen=${KERF_KUBERNETES:-newest}
case $chosen in
    oldest) chosen=${offered[0]%.*} ;;
    newest) chosen=${offered[-1]%.*} ;;
esac
kubernetes=""
for version in "${offered[@]}"; do
    [ "${version%.*}" != "$chosen" ] || kubernetes=$version
done
[ -n "$kubernetes" ] || fail "KERF_KUBERNETES=$chosen: expected oldest, newest or one of ${offered[*]%.*}"

# A directory's name says what was built, so another version is another directory and an old one is never taken for it.
# Raise the number where only the way of building changes.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kerf-cluster
modules=()
targets=()
mapfile -t lines < <(grep -vE '^(#|kubernetes )' "$here/versions")
for line in "kubernetes $kubernetes" "${lines[@]}"; do
    module=$here/tools/${line%% *}
    [ "${line%% *}" != kubernetes ] || module+=-$chosen
    grep -q "^// $line:" "$module/go.mod" || fail "$module is not of $line, as the file versions says: run tests/cluster/modules.sh"
    modules+=("$module")
    targets+=("$cache/${line/ /-}-$({ echo 2; cat "$module/go.mod" "$module/go.sum"; } | sha256sum | cut -c1-16)")
done
if [ "${1:-}" = where ]; then
    (IFS=: && echo "${targets[*]}")
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

# without a version Kubernetes' components believe that they are v0.0.0 and refuse each other
IFS=. read -r major minor _ <<<"$kubernetes"
stamp=k8s.io/component-base/version
flags="-s -w -X $stamp.gitVersion=v$kubernetes -X $stamp.gitMajor=$major -X $stamp.gitMinor=$minor"
mkdir -p "$cache"
# Built aside and renamed at the end, so that a build that was interrupted is not taken for a finished one. What the compiler
# leaves, about 4 GB for each Kubernetes, is of no use afterwards.
aside=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$aside"' EXIT
export GOCACHE=$aside/cache
for index in "${!modules[@]}"; do
    target=${targets[index]}
    if [ -d "$target" ]; then
        echo "built already: $target"
        continue
    fi
    command -v go >/dev/null || fail "Go is needed: https://go.dev/dl/"
    cd "${modules[index]}"
    mkdir "$aside/built"
    env CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -tags no_btrfs,no_devmapper,no_zfs -o "$aside/built/" tool
    # etcd's program is called server
    [ ! -e "$aside/built/server" ] || mv "$aside/built/server" "$aside/built/etcd"
    mv "$aside/built" "$target"
    echo "built: $target"
done
