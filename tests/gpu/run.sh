#!/usr/bin/env bash
# The limiter against NVIDIA's own driver, on one card of this machine. See README.md beside this file.
set -euo pipefail
cd "$(dirname "$0")/../.."

usage() {
    cat <<'EOF'
usage: tests/gpu/run.sh [--card INDEX] [--out FOLDER]

Builds the limiter and a CUDA program, and runs both of them, and PyTorch where it is there, on one card with limits of
their own. Writes FOLDER/<card>-<driver>.txt; FOLDER is tests/gpu/results unless given. Ends with 1 where a check failed.
EOF
}

card=0
out=tests/gpu/results
while [ $# -gt 0 ]; do
    case $1 in
    --card) card=$2 && shift 2 ;;
    --out) out=$2 && shift 2 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac
done

missing=0
need() {
    if ! command -v "$1" >/dev/null; then
        echo "missing: $1 ($2)" >&2
        missing=1
    fi
}
need nvidia-smi "NVIDIA's driver, and a card"
need nvcc "NVIDIA's CUDA toolkit, 11.4 or later"
need cargo "Rust 1.90 or later"
need unshare "util-linux"
[ "$(id -u)" = 0 ] || { echo "missing: root (to mount the limiter's files in a namespace of its own)" >&2 && missing=1; }
[ "$missing" = 0 ] || exit 2

query() { nvidia-smi --id="$card" --query-gpu="$1" --format=csv,noheader,nounits; }
name=$(query name)
driver=$(query driver_version)
uuid=$(query uuid)
total=$(query memory.total)
mkdir -p "$out"
result=$out/$(printf '%s-%s' "$name" "$driver" | tr 'A-Z /' 'a-z--').txt

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "building"
cargo build --quiet --release --package kerf-limiter
cargo build --quiet --release --package kerf-limiter-contract --example container
arch=$(query compute_cap | tr -d .)
nvcc -O2 -cudart shared -gencode "arch=compute_$arch,code=sm_$arch" -o "$work/program" tests/gpu/program.cu -lcuda
limiter=$PWD/target/release/libkerf_limiter.so

# the files that the plugin would mount. $1: memory in MiB, $2: core, $3: ceiling
container() {
    rm -rf "$work/root"
    mkdir -p "$work/root"
    target/release/examples/container "$work/root" "$uuid" "$1" "$2" "$3"
    echo "$limiter" >"$work/root/preload"
}

# what `inside` does in a namespace of its own, before the program takes its place
# shellcheck disable=SC2016 # for the other shell to expand
mount_and_run='
    set -e
    root=$1 && shift
    mount -t tmpfs none /run && mkdir /run/kerf && touch /run/kerf/state
    mount --bind "$root/state" /run/kerf/state
    cp -a /etc "$root/etc" && mkdir -p "$root/etc/kerf"
    cp "$root/limits" "$root/allowance" "$root/etc/kerf/"
    cp "$root/preload" "$root/etc/ld.so.preload"
    mount --bind "$root/etc" /etc && mount -o remount,bind,ro /etc
    exec "$@"'
# runs its arguments in that container
inside() { env CUDA_VISIBLE_DEVICES="$uuid" unshare --mount bash -c "$mount_and_run" -- "$work/root" "$@"; }
outside() { env CUDA_VISIBLE_DEVICES="$uuid" "$@"; }

failed=0
say() { printf '%s\n' "$*" | tee -a "$result"; }
# a check: its name, then a command whose status decides
check() {
    local what=$1
    shift
    if "$@" >>"$result" 2>&1; then
        say "ok      $what"
    else
        say "FAILED  $what"
        failed=1
    fi
}

: >"$result"
say "card     $name, $total MiB, $uuid"
say "driver   $driver"
say "kernel   $(uname -r)"
say "commit   $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
say "date     $(date -u +%Y-%m-%d)"
say ""

cap=$((total * 30 / 100))
say "== memory: a cap of $cap MiB"
for way in alloc managed pitch array create async pool graph; do
    container "$cap" 100 100
    check "$way: the cap holds" inside "$work/program" memory "$way" "$cap"
done
container "$cap" 100 100
check "8 racing processes stay below the cap and use it" inside "$work/program" race "$cap"
container "$cap" 100 100
check "a killed process gives back" inside "$work/program" killed "$cap"
container "$cap" 100 100
check "memory queries show the share" inside "$work/program" info "$cap"
container "$cap" 100 100
check "what the account and the driver say differs by the context alone" inside "$work/program" account "$cap"

say ""
say "== compute: share of the card over 10 s, within 3 points"
for how in small large graph; do
    for share in 10 30 50 90; do
        container "$cap" "$share" "$share"
        check "$how kernels at $share %" inside "$work/program" share "$how" "$share"
    done
done

say ""
say "== overhead (nanoseconds a call; without and with)"
for what in launch graphlaunch alloc; do
    container "$cap" 100 100
    without=$(outside "$work/program" overhead "$what")
    with=$(inside "$work/program" overhead "$what")
    container "$cap" 90 90
    paced=$(inside "$work/program" overhead "$what")
    say "$what: $without without, $with with (whole card), $paced with a share of 90"
done

say ""
python=$(command -v python3 || true)
if [ -n "$python" ] && "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
    say "== PyTorch $("$python" -c 'import torch; print(torch.__version__)')"
    for segments in False True; do
        container "$cap" 100 100
        PYTORCH_CUDA_ALLOC_CONF=expandable_segments:$segments \
            check "PyTorch, expandable segments $segments: the cap holds" inside "$python" tests/gpu/program.py memory "$cap"
    done
    for share in 30 90; do
        container "$cap" "$share" "$share"
        check "PyTorch, eager, at $share %" inside "$python" tests/gpu/program.py share eager "$share"
        container "$cap" "$share" "$share"
        check "PyTorch, CUDA graph, at $share %" inside "$python" tests/gpu/program.py share graph "$share"
    done
    container "$cap" 100 100
    say "steps a second without: $(outside "$python" tests/gpu/program.py speed)"
    say "steps a second with:    $(inside "$python" tests/gpu/program.py speed)"
else
    say "== PyTorch: NOT RUN, python3 has no torch that sees a card"
fi

say ""
say "== the plugin's own questions to the driver"
check "cargo test -p kerf-plugin --test gpu" cargo test --quiet --package kerf-plugin --test gpu -- --ignored

say ""
if [ "$failed" = 0 ]; then say "all checks passed"; else say "some checks FAILED"; fi
echo "result: $result"
exit "$failed"
