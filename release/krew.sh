#!/usr/bin/env bash
# The manifest by which krew, kubectl's plugin manager, installs the command as `kubectl kerf`
# (krew.sigs.k8s.io/docs/developer-guide/plugin-manifest), of the archives in a folder.
#
# usage: release/krew.sh VERSION FOLDER ARCHITECTURE...
set -euo pipefail
version=$1
folder=$2
shift 2
repository=$(sed -n 's/^repository = "\(.*\)"$/\1/p' "$(dirname "${BASH_SOURCE[0]}")/../Cargo.toml")
cat <<EOF
apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: kerf
spec:
  version: v$version
  homepage: $repository
  shortDescription: See who holds which GPU and why pods wait
  description: |
    Shows nodes, GPUs and pods of a cluster that shares GPUs with kerf: who holds how much of which GPU, what is used of it, why a pod
    waits and what would help, and where a workload would go. It changes nothing.
  caveats: |
    It lists Nodes, and Pods of all namespaces. kerf's component "viewer" has the roles for this, and for what GPUs use.
  platforms:
EOF
for architecture in "$@"; do
    name=kerf-$version-linux-$architecture
    sum=$(sha256sum "$folder/$name.tar.gz")
    cat <<EOF
    - selector:
        matchLabels:
          os: linux
          arch: $architecture
      uri: $repository/releases/download/v$version/$name.tar.gz
      sha256: ${sum%% *}
      files:
        - from: $name/kerf
          to: .
        - from: $name/LICENSE
          to: .
      bin: kerf
EOF
done
