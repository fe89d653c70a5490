# What is built on a machine with cargo and carried to the one with the card, and what is missing of it there.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of run.sh and of the files beside this one

# makes a folder that run.sh runs in. $1: the folder
bundle() {
    local to root limiter built
    to=$(realpath -m "$1")
    root=$(cd "$here/../.." && pwd)
    command -v cargo >/dev/null || { echo "missing: cargo (the limiter and the test of the plugin are written in Rust)" >&2 && return 2; }
    command -v cc >/dev/null || { echo "missing: cc (a C compiler)" >&2 && return 2; }
    mkdir -p "$to"
    cd "$root" || return
    built=${CARGO_TARGET_DIR:-$root/target}
    if [ -x limiter/build.sh ]; then
        limiter=$(limiter/build.sh)
    else
        cargo build --locked --release --package kerf-limiter
        limiter=$built/release/libkerf_limiter.so
    fi
    cargo build --locked --package kerf-limiter-contract --example container
    cp "$limiter" "$to/libkerf_limiter.so"
    cp "$built/debug/examples/container" "$to/container"
    cp "$(cargo test --locked --package kerf-plugin --test gpu --no-run --message-format=short 2>&1 |
        sed -n 's/^ *Executable .*(\(.*\))$/\1/p')" "$to/plugin-test"
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
        command -v "$tool" >/dev/null || { echo "missing: $tool (coreutils)" >&2 && missing=1; }
    done
    if [ ! -x "$program" ] && [ -z "$standin" ] && command -v cc >/dev/null && [ -d "$here/program" ]; then
        program=$work/checks
        build_program "$program"
    fi
    for file in "$limiter" "$container" "$program"; do
        [ -r "$file" ] || { echo "missing: $file ('run.sh bundle FOLDER' makes it, on a machine with cargo)" >&2 && missing=1; }
    done
    if [ -z "$standin" ] && [ "$(id -u)" != 0 ]; then
        echo "missing: root (the limiter's files are put where a container has them)" >&2
        missing=1
    fi
    [ "$missing" = 0 ] || exit 2
    # files that were built elsewhere may need a newer C library than there is here
    # both answer a call without arguments with their usage, and 2
    for file in "$container" "$program"; do
        starts "$file" || missing=1
    done
    [ "$missing" = 0 ] || exit 2
}

# $1: a program
starts() {
    local status=0 said
    said=$("$1" 2>&1 </dev/null) || status=$?
    [ "$status" = 2 ] || { printf '%s does not start on this machine: %s\n' "$1" "$said" >&2 && return 1; }
}
