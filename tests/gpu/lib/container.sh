# Containers as the plugin would make them: in a mount namespace of their own or, where that is refused, with the files at
# their places on this machine.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of run.sh and of the files beside this one

# what the driver says about the card
find_card() {
    if [ -n "$standin" ]; then
        export LD_LIBRARY_PATH=$standin STANDIN_CARD=${STANDIN_CARD:-$work/card} STANDIN_CARD_MIB=16384
        [ -e "$STANDIN_CARD" ] || "$program" context "$card" >/dev/null || true
    fi
    local lines
    lines=$("$program" card "$card") || { printf '%s\nmissing: a card that NVIDIA'\''s driver shows\n' "$lines" >&2 && exit 2; }
    mapfile -t lines <<<"$lines"
    name=${lines[0]} driver=${lines[1]} uuid=${lines[2]} total=${lines[3]} used=${lines[4]}
    # what a context takes counts, as the plugin measures it and writes it for the limiter
    context=$(limit=60 && outside "$program" context "$card") || context=0
    cap=$((total * 30 / 100 < 8192 ? total * 30 / 100 : 8192))
    parts=$out/$(printf '%s-%s' "$name" "$driver" | tr 'A-Z /' 'a-z--')
    mkdir -p "$parts"
}

# where the files of a container without mounts go
places=""
taken=0

leave_places() {
    [ "${taken:-0}" = 0 ] || rm -rf "$places/etc/kerf" "$places/run/kerf"
    taken=0
}

take_places() {
    [ -z "$standin" ] || places=$work/places
    if [ -e "$places/etc/kerf" ] || [ -e "$places/run/kerf" ]; then
        echo "/etc/kerf or /run/kerf is there already: this machine is in use by the plugin, or by another run" >&2
        exit 2
    fi
    mkdir -p "$places/etc/kerf" "$places/run/kerf"
    taken=1
}

# what a container does in a namespace of its own, before the program takes its place
# shellcheck disable=SC2016 # for the other shell to expand
mount_and_run='
    set -e
    root=$1 && shift
    mount -t tmpfs none /run && mkdir /run/kerf && touch /run/kerf/state
    mount --bind "$root/state" /run/kerf/state
    [ -e "$root/etc/kerf" ] || { mkdir -p "$root/etc" && cp -a /etc/. "$root/etc" && mkdir -p "$root/etc/kerf"; }
    cp "$root/limits" "$root/allowance" "$root/etc/kerf/"
    cp "$root/preload" "$root/etc/ld.so.preload"
    mount --bind "$root/etc" /etc && mount -o remount,bind,ro /etc
    exec "$@"'

# Decides how containers are made; `refused` says why not with mounts.
choose_way() {
    root=$work/root
    refused="asked for by --no-mounts"
    if [ "$mounts" = 1 ]; then
        make_files "$cap" 100 100
        # shellcheck disable=SC2016 # for the other shell to expand
        refused=$(timeout 20 unshare --mount bash -c "$mount_and_run" -- "$root" \
            bash -c 'read -r line </etc/ld.so.preload && [ "$line" = "$1" ]' -- "$limiter" 2>&1) && return
        mounts=0
    fi
    take_places
}

# $1: memory in MiB, $2: core, $3: ceiling
make_files() {
    mkdir -p "$root" && rm -f "$root/state"
    "$container" "$root" "$uuid" "$1" "$2" "$3" "$context"
    echo "$limiter" >"$root/preload"
}

# a new container, with the same arguments
container() {
    make_files "$@"
    [ "$mounts" = 0 ] || return 0
    cp "$root/limits" "$root/allowance" "$places/etc/kerf/"
    # a state of its own, as each container has one
    rm -f "$places/run/kerf/state"
    cp "$root/state" "$places/run/kerf/state"
    chmod 666 "$places/run/kerf/state"
}

# Sets `command` to what runs its arguments in the container.
in_container() {
    local before=(env "CUDA_VISIBLE_DEVICES=$uuid") preload="" with=()
    if [ -n "$standin" ] && { [ "$mounts" = 0 ] || [ "${clocked:-0}" = 1 ]; }; then
        preload=$standin/libstandin_container.so
    fi
    if [ "${clocked:-0}" = 1 ] && [ -e "$standin/clock" ]; then
        # simulated time, for programs of one process and one thread, and a card that has lived in no other time
        cp "$standin/clock" "$work/clock"
        rm -f "$work/clocked-card"
        with+=("STANDIN_CLOCK=$work/clock" "STANDIN_CARD=$work/clocked-card")
    fi
    if [ "$mounts" = 0 ]; then
        [ -z "$standin" ] || with+=("STANDIN_ROOT=$places")
        preload=$limiter${preload:+:$preload}
    else
        before+=(unshare --mount bash -c "$mount_and_run" -- "$root")
    fi
    [ -z "$preload" ] || with+=("LD_PRELOAD=$preload")
    command=("${before[@]}" env "${with[@]}" "$@")
}

limit=60
# its arguments in the container; the same, compared with what the card says; and without a container
inside() {
    in_container "$@"
    timeout --kill-after=5 "$limit" "${command[@]}"
}
seen() {
    in_container "$@"
    timeout --kill-after=5 "$limit" "$program" seen "$card" "${command[@]}"
}
outside() { CUDA_VISIBLE_DEVICES=$uuid timeout --kill-after=5 "$limit" "$@"; }
