#!/usr/bin/env bash
# Builds libkerf_limiter.so as it is shipped, and prints its path: linked for glibc 2.17 and without libgcc_s, since the loader
# starts no program at all in an image that lacks a version or a library that a preloaded library needs. Rust's standard
# library is made for glibc 2.17 as well, so the linker alone decides.
#
# usage: limiter/build.sh [ARCHITECTURE [PACKAGE...]]
#   ARCHITECTURE: x86_64 or aarch64; this machine's unless given. Rust's standard library for it must be there
#   PACKAGE: others of the workspace to build in the same way; the limiter unless given
# KERF_AUDITABLE names a cargo-auditable, which writes into the library what it was built of.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=${KERF_ZIG:-$(limiter/zig.sh)}
target=${1:-$(uname -m)}-unknown-linux-gnu
packages=()
for package in "${@:2}"; do
    packages+=(--package "$package")
done
[ "${#packages[@]}" -gt 0 ] || packages=(--package kerf-limiter)
export CARGO_ZIGBUILD_ZIG_PATH=$tools/ziglang/zig
zigbuild=("$tools/bin/cargo-zigbuild" zigbuild)
[ -z "${KERF_AUDITABLE:-}" ] || zigbuild=(env "PATH=$tools/bin:$PATH" "$KERF_AUDITABLE" auditable zigbuild)
"${zigbuild[@]}" --quiet --release --locked "${packages[@]}" --target "$target.2.17" >&2
echo "${CARGO_TARGET_DIR:-$PWD/target}/$target/release/libkerf_limiter.so"
