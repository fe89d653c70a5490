#!/usr/bin/env bash
# Gets NVIDIA's own libraries (libcuda.so.1, libnvidia-ml.so.1) from the machine's Debian mirror, section non-free, for the
# tests of which functions the limiter must know. Nothing is installed, and neither a card nor a driver is needed. Prints the
# folder they are in, for KERF_NVIDIA_LIBRARIES.
set -euo pipefail

cache=${XDG_CACHE_HOME:-$HOME/.cache}/kerf-nvidia
if [ ! -e "$cache/libcuda.so.1" ] || [ ! -e "$cache/libnvidia-ml.so.1" ]; then
    # the mirror that this machine uses, and its release; only what Debian has signed
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    # shellcheck disable=SC2016 # apt's own placeholders
    source=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
        awk -v keys="$keys" '$3 == "main" && $1 ~ /debian\/?$/ && $2 !~ /-/ { print "deb [signed-by=" keys "] " $1 " " $2 " non-free"; exit }')
    [ -n "$source" ] || { echo "no Debian mirror in this machine's list of sources" >&2; exit 1; }
    mkdir -p "$cache"
    staging=$(mktemp -d "$cache/getting.XXXXXX")
    trap 'rm -rf "$staging"' EXIT
    mkdir -p "$staging/lists/partial" "$staging/archives/partial"
    echo "$source" >"$staging/sources.list"
    apt=(apt-get -q -o "Dir::Etc::sourcelist=$staging/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::Lists=$staging/lists" -o "Dir::Cache=$staging" -o APT::Sandbox::User=)
    "${apt[@]}" update >&2
    (cd "$staging" && "${apt[@]}" download libcuda1 libnvidia-ml1 >&2)
    for package in "$staging"/*.deb; do
        dpkg -x "$package" "$staging/files"
    done
    for name in libcuda.so.1 libnvidia-ml.so.1; do
        found=$(find "$staging/files" -name "$name.*" -o -name "${name%.1}.[1-9]*.*" | head -n 1)
        [ -n "$found" ] || { echo "no $name in the packages" >&2; exit 1; }
        # under its full name, which is the driver's version, and the one that programs ask for
        cp "$found" "$cache/"
        ln -sf "$(basename "$found")" "$cache/$name"
    done
fi
echo "$cache"
