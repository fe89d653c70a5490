#!/usr/bin/env bash
# Makes a stand-in for the base image of kerf-plugin, where no registry is reached: the C library and what it needs of the
# Debian release that this machine is, or the one named, from the machine's own mirror. There is no shell in it. Writes
# FOLDER/ARCHITECTURE.tar, for release.sh --stand-in-base. Needs mmdebstrap; nothing of the package is run, so any architecture goes.
#
# usage: release/base.sh FOLDER ARCHITECTURE...
#   ARCHITECTURE: amd64 or arm64
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: release/base.sh FOLDER ARCHITECTURE..., of amd64 and arm64" >&2; exit 2; }
command -v mmdebstrap >/dev/null || { echo "mmdebstrap is missing: apt-get install mmdebstrap" >&2; exit 1; }
folder=$1
shift

# shellcheck disable=SC2016 # apt's own placeholders
read -r mirror release < <(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
    awk '$3 == "main" && $1 ~ /debian\/?$/ && $2 !~ /-/ { print $1, $2; exit }')
[ -n "${mirror:-}" ] || { echo "no Debian mirror in this machine's list of sources" >&2; exit 1; }

mkdir -p "$folder"
for architecture in "$@"; do
    # what is only unpacked is in no list of installed packages, and an SBOM is made of that list
    # shellcheck disable=SC2016 # for mmdebstrap's own shell
    listed='for package in "$1"/var/cache/apt/archives/*.deb; do
        dpkg-deb --field "$package"
        printf "Status: install ok installed\n\n"
    done >"$1/var/lib/dpkg/status"'
    mmdebstrap --quiet --variant=extract --architectures="$architecture" --include=base-files,libc6,libgcc-s1 \
        --extract-hook="$listed" "$release" "$folder/$architecture.tar" "$mirror" >&2
done
