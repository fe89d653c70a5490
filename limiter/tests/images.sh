#!/usr/bin/env bash
# Gets the files of other systems' images from the machine's Debian mirror, for the tests of where the limiter loads: Debian 11
# (glibc 2.31, the oldest release that mirrors have) without libgcc_s, and musl's loader. Nothing is installed. Prints the folder
# that they are in, for KERF_IMAGES.
set -euo pipefail

cache=${XDG_CACHE_HOME:-$HOME/.cache}/kerf-images-1
if [ ! -d "$cache" ]; then
    # the mirror that this machine uses; only what Debian has signed
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    # shellcheck disable=SC2016 # apt's own placeholders
    read -r mirror release < <(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
        awk '$3 == "main" && $1 ~ /debian\/?$/ && $2 !~ /-/ { print $1, $2; exit }')
    [ -n "${mirror:-}" ] || { echo "no Debian mirror in this machine's list of sources" >&2; exit 1; }
    mkdir -p "$(dirname "$cache")"
    staging=$(mktemp -d "$cache.XXXXXX")
    trap 'rm -rf "$staging"' EXIT

    # the packages' files, without what they depend on: image release package...
    fetch() {
        local image=$staging/$1 apt=$staging/apt-$1
        mkdir -p "$image" "$apt/lists/partial" "$apt/archives/partial"
        echo "deb [signed-by=$keys] $mirror $2 main" >"$apt/sources.list"
        shift 2
        local get=(apt-get -q -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
            -o "Dir::State::Lists=$apt/lists" -o Dir::State::status=/dev/null -o "Dir::Cache=$apt" -o APT::Sandbox::User=)
        "${get[@]}" update >&2
        (cd "$apt" && "${get[@]}" download "$@" >&2)
        for package in "$apt"/*.deb; do
            dpkg -x "$package" "$image"
        done
        rm -rf "$apt"
    }
    fetch debian-11 bullseye libc6 coreutils libselinux1 libpcre2-8-0 libacl1 libattr1 libgmp10 dash bash libtinfo6 perl-base \
        libcrypt1 sed grep libpcre3
    fetch musl "$release" musl
    for image in debian-11 musl; do
        # where the tests mount
        mkdir -p "$staging/$image"/{etc/kerf,run/kerf,usr/lib/kerf,proc,dev,tmp,test,built}
        touch "$staging/$image"/{etc/ld.so.preload,run/kerf/state,usr/lib/kerf/libkerf_limiter.so}
    done
    chmod 755 "$staging"
    # another one may have been faster; its folder is the same
    mv --no-target-directory "$staging" "$cache" 2>/dev/null || [ -d "$cache" ]
fi
echo "$cache"
