#!/usr/bin/env bash
# Gets a Rust compiler with the standard library of both architectures from the machine's Debian mirror, for machines where
# rustup has no aarch64 target and can get none. Nothing is installed. Prints the path of its rustc, for RUSTC:
#   RUSTC=$(release/rust-arm64.sh) ./release.sh
set -euo pipefail

cache=${XDG_CACHE_HOME:-$HOME/.cache}/kerf-rust-arm64-1
if [ ! -d "$cache" ]; then
    [ "$(uname -m)" = x86_64 ] || { echo "$(uname -m): only for x86_64, whose packages it gets" >&2; exit 1; }
    mkdir -p "$(dirname "$cache")"
    staging=$(mktemp -d "$cache.XXXXXX")
    trap 'rm -rf "$staging"' EXIT

    # the machine's own sources and keys, for both architectures; its list of packages stays as it is
    apt=$staging/apt
    mkdir -p "$apt"/{lists,archives}/partial
    touch "$apt/status"
    get=(apt-get -q -o APT::Architectures=amd64,arm64 -o "Dir::State::Lists=$apt/lists" -o "Dir::State::status=$apt/status"
        -o "Dir::Cache=$apt" -o APT::Sandbox::User=)
    "${get[@]}" update >&2
    # Debian keeps this compiler current in its releases, for browsers; what it is linked with is asked of apt
    "${get[@]}" install --yes --no-install-recommends --download-only rustc-web libstd-rust-web-dev:arm64 >&2
    mkdir "$staging/root"
    for package in "$apt"/archives/*.deb; do
        # of the target only the library; of the host what the compiler itself is linked with, but not the C library
        case ${package##*/} in
            libstd-rust-web-dev_*_arm64.deb) dpkg -x "$package" "$staging/root" ;;
            *_arm64.deb | libc6* | libgcc* | libcrypt*) ;;
            rustc-web_* | libstd-rust-web-*_amd64.deb) dpkg -x "$package" "$staging/root" ;;
            *-dev_*) ;;
            lib*) dpkg -x "$package" "$staging/root" ;;
        esac
    done
    rm -rf "$apt"
    cat >"$staging/rustc" <<'RUSTC'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")/root/usr
export LD_LIBRARY_PATH=$here/lib/x86_64-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
exec "$here/bin/rustc" "$@"
RUSTC
    chmod 755 "$staging/rustc" "$staging"
    # another one may have been faster; its folder is the same
    mv --no-target-directory "$staging" "$cache" 2>/dev/null || [ -d "$cache" ]
fi
echo "$cache/rustc"
