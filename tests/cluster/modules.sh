#!/usr/bin/env bash
# Writes the Go modules in tools/ anew, one for each program of the file `versions`. They have no code of their own: their
# go.mod and go.sum fix what the programs are built of. Needs Go and a module proxy.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
rm -rf tools

# module FOLDER PACKAGE...: begins the module of a line of `versions`, of these main packages, and enters its folder
module() {
    mkdir -p "tools/$1" && cd "tools/$1"
    shift
    {
        echo "// $line: written by tests/cluster/modules.sh"
        printf 'module kerf.invalid/cluster-tools\n\ngo 1.26.8\n\ntool (\n'
        printf '\t%s\n' "$@"
        echo ')'
    } >go.mod
}

kubernetes() {
    local own=k8s.io/kubernetes requirements part
    module "kubernetes-${version%.*}" $own/cmd/{kube-apiserver,kube-controller-manager,kube-scheduler,kubectl,kubelet}
    go mod edit -require="$own@v$version"
    # Kubernetes' own go.mod names these at v0.0.0, because they live in its repository
    requirements=$(go mod download -json "$own@v$version" | sed -n 's/^\t"GoMod": "\(.*\)",*$/\1/p')
    for part in $(awk '$1 ~ /^k8s.io\// && $2 == "v0.0.0" {print $1}' "$requirements" | sort -u); do
        go mod edit -replace="$part=$part@v0.${version#*.}"
    done
}

containerd() {
    local own=github.com/containerd/containerd/v2
    module containerd $own/cmd/{containerd,containerd-shim-runc-v2,ctr}
    go mod edit -require="$own@v$version"
}

etcd() {
    local own=go.etcd.io/etcd/server/v3
    module etcd $own
    go mod edit -require="$own@v$version"
}

mapfile -t lines < <(grep -v '^#' versions)
for line in "${lines[@]}"; do
    read -r program version <<<"$line"
    case $program in
        kubernetes | containerd | etcd) ;;
        *) echo "versions: unknown program in the line: $line" >&2 && exit 2 ;;
    esac
    (
        "$program"
        go mod tidy
    )
done
