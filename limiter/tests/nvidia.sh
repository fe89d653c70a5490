#!/usr/bin/env bash
# Gets NVIDIA's own libraries (libcuda.so.1, libnvidia-ml.so.1) from the machine's Debian mirror, section non-free, for the
# tests of which functions the limiter must know: of the machine's release, and the newest of later ones. Nothing is installed,
# and neither a card nor a driver is needed. Prints the folders they are in, for KERF_NVIDIA_LIBRARIES.
set -euo pipefail

cache=${XDG_CACHE_HOME:-$HOME/.cache}/kerf-nvidia-1
if [ ! -d "$cache" ]; then
    # the mirror that this machine uses, and its release; only what Debian has signed
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    # shellcheck disable=SC2016 # apt's own placeholders
    read -r mirror release < <(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
        awk '$3 == "main" && $1 ~ /debian\/?$/ && $2 !~ /-/ { print $1, $2; exit }') || true
    [ -n "${mirror:-}" ] || { echo "no Debian mirror in this machine's list of sources" >&2; exit 1; }
    mkdir -p "$(dirname "$cache")"
    staging=$(mktemp -d "$cache.XXXXXX")
    trap 'rm -rf "$staging" "$staging".apt-*' EXIT

    fetch() {
        local suite=$1 apt=$staging.apt-$1 name found
        mkdir -p "$apt/lists/partial" "$apt/archives/partial"
        echo "deb [signed-by=$keys] $mirror $suite non-free" >"$apt/sources.list"
        local get=(apt-get -q -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
            -o "Dir::State::Lists=$apt/lists" -o Dir::State::status=/dev/null -o "Dir::Cache=$apt" -o APT::Sandbox::User=)
        "${get[@]}" -o APT::Update::Error-Mode=any update >&2 || return 1
        (cd "$apt" && "${get[@]}" download libcuda1 libnvidia-ml1 >&2) || return 1
        for package in "$apt"/*.deb; do
            dpkg -x "$package" "$apt/files"
        done
        mkdir "$apt/libraries"
        for name in libcuda.so.1 libnvidia-ml.so.1; do
            found=$(find "$apt/files" -name "${name%.1}.[1-9]*.*" | head -n 1)
            [ -n "$found" ] || { echo "no $name in the packages of $suite" >&2; return 1; }
            # under its full name, which is the driver's version, and the one that programs ask for
            cp "$found" "$apt/libraries/"
            ln -s "$(basename "$found")" "$apt/libraries/$name"
        done
        # two suites may have the same driver
        found=$(basename "$(readlink "$apt/libraries/libcuda.so.1")")
        mv --no-target-directory "$apt/libraries" "$staging/${found#libcuda.so.}" 2>/dev/null || true
    }
    fetch "$release"
    for suite in sid experimental; do
        fetch "$suite" || echo "without the driver of Debian's $suite" >&2
    done
    chmod 755 "$staging"
    # another one may have been faster; its folder is the same
    mv --no-target-directory "$staging" "$cache" 2>/dev/null || [ -d "$cache" ]
fi
folders=("$cache"/*/)
IFS=:
echo "${folders[*]%/}"
