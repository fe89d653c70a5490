# What is built on a machine with cargo and carried to the one with the card, and what is missing of it there.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of run.sh and of the files beside this one

# $1: what is missing
missing() { echo "missing: $1" >&2; }

# names all that a bundle needs and this machine lacks
need_tools() {
    local missing=0
    command -v cargo >/dev/null || { missing "cargo (the limiter and the test of the plugin are in Rust)" && missing=1; }
    command -v cc >/dev/null || { missing "cc (a C compiler)" && missing=1; }
    command -v strip >/dev/null || { missing "strip (binutils)" && missing=1; }
    if [ -n "${KERF_ZIG:-}" ]; then
        [ -x "$KERF_ZIG/ziglang/zig" ] ||
            { missing "$KERF_ZIG/ziglang/zig (KERF_ZIG names the folder that limiter/zig.sh makes)" && missing=1; }
    elif ! python3 -m pip --version >/dev/null 2>&1; then
        missing "python3 with pip (gets the limiter's linker from PyPI; or KERF_ZIG, a folder with that linker)"
        missing=1
    fi
    [ "$missing" = 0 ]
}

# makes a folder that run.sh runs in. $1: the folder
make_bundle() {
    local to root limiter built test
    to=$(realpath -m "$1")
    root=$(cd "$here/../.." && pwd)
    [ -e "$root/limiter/build.sh" ] || { missing "$root/limiter (a bundle is made in kerf's sources)" && return 2; }
    need_tools || return 2
    mkdir -p "$to"
    cd "$root" || return
    built=${CARGO_TARGET_DIR:-$root/target}
    limiter=$(limiter/build.sh)
    cargo build --locked --package kerf-limiter-contract --example container
    cp "$limiter" "$to/libkerf_limiter.so"
    cp "$built/debug/examples/container" "$to/container"
    test=$(cargo test --locked --package kerf-plugin --test gpu --no-run --message-format=short 2>&1 | tee /dev/stderr |
        sed -n 's/^ *Executable .*(\(.*\))$/\1/p')
    cp "$test" "$to/plugin-test"
    strip --strip-debug "$to/container" "$to/plugin-test"
    build_program "$to/checks"
    cp -r "$here/run.sh" "$here/lib" "$here/program" "$here/python" "$to"
    # what is not committed is part of what is carried
    git describe --always --dirty --abbrev=12 --exclude '*' >"$to/commit" 2>/dev/null || echo unknown >"$to/commit"
    du -sh "$to"
}

# $1: where the program goes
build_program() { cc -std=gnu17 -O2 -Wall -Wextra -pthread -o "$1" "$here"/program/*.c -ldl; }

# ends with 2 where something is missing that nothing can be checked without, and names all of it
need_files() {
    local missing=0 tool file
    for tool in timeout realpath mktemp; do
        command -v "$tool" >/dev/null || { missing "$tool (coreutils)" && missing=1; }
    done
    if [ ! -x "$program" ] && [ -z "$standin" ] && command -v cc >/dev/null && [ -d "$here/program" ]; then
        program=$work/checks
        build_program "$program"
    fi
    if [ -d "$folder" ]; then
        for file in "$limiter" "$container" "$program"; do
            [ -r "$file" ] && continue
            missing "$file ('run.sh bundle FOLDER' makes it, where kerf is built; --bundle FOLDER says where it is)"
            missing=1
        done
    else
        missing "folder $folder (--bundle names what 'run.sh bundle FOLDER' made)"
        missing=1
    fi
    if [ -z "$standin" ] && [ "$(id -u)" != 0 ]; then
        missing "root (the limiter's files are put where a container has them)"
        missing=1
    fi
    [ "$missing" = 0 ] || exit 2
    # files that were built elsewhere may need a newer C library than there is here
    # both answer a call without arguments with their usage, and 2
    for file in "$container" "$program"; do
        starts 2 "$file" || missing=1
    done
    # without it one check is not run
    [ ! -e "$plugin_test" ] || starts 0 "$plugin_test" --list || missing=1
    loads "$limiter" || missing=1
    [ "$missing" = 0 ] || exit 2
}

# $1: the status that it ends with, then a program and its arguments
starts() {
    local wanted=$1 status=0 said
    shift
    said=$("$@" 2>&1 </dev/null) || status=$?
    [ "$status" = "$wanted" ] && return
    echo "$1 does not start on this machine: ${said:-it ends with status $status and says nothing}" >&2
    return 1
}

# $1: a library. Where the loader cannot take it, it says so and starts the program without
loads() {
    local status=0 said
    said=$(LD_PRELOAD=$1 /bin/true 2>&1) || status=$?
    [ "$status$said" = 0 ] && return
    echo "$1 cannot be loaded on this machine: ${said:-/bin/true ends with status $status}" >&2
    return 1
}
