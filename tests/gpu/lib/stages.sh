# The stages: what is checked. Each takes less than four minutes on a card, and keeps its part of the result as it goes.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of run.sh and of the files beside this one

# the longest that a stage takes; what does not fit is said not to have been run
STAGE_SECONDS=240
# how long each share is measured, and how long programs pause
measure=5 rest=5 captures=4
if [ -n "$standin" ]; then
    measure=2 captures=1
fi

# A check: its name, then a command whose status decides: 0, 3 where this machine cannot do it, all else is a failure.
check() {
    local what=$1 status=0
    shift
    limit=$((stage_ends - SECONDS < 60 ? stage_ends - SECONDS : 60))
    if [ "$limit" -lt 5 ]; then
        not_run "$what" "there is no time left"
        return
    fi
    "$@" >"$work/said" 2>&1 </dev/null || status=$?
    case $status in
    0) say "ok       $what" && count_ok=$((count_ok + 1)) ;;
    3) not_run "$what" "$(tail -n 1 "$work/said")" && return ;;
    124 | 137) fail "$what: not done after $limit s" ;;
    *) fail "$what" ;;
    esac
    details
}
# what a command has said
details() { sed 's/^/             /' "$work/said" | tee -a "$part"; }
fail() {
    say "FAILED   $1"
    count_failed=$((count_failed + 1)) failed=1
}
not_run() {
    say "NOT RUN  $1: $2"
    count_not_run=$((count_not_run + 1))
}

# $1: stage
run_stage() {
    local began=$SECONDS status=0
    stage_ends=$((SECONDS + STAGE_SECONDS < minutes * 60 ? SECONDS + STAGE_SECONDS : minutes * 60)) clocked=0
    begin_part "$1"
    container "$cap" 100 100
    limit=60
    inside "$program" info "$cap" >"$work/said" 2>&1 </dev/null || status=$?
    # 4: the driver does not even initialise, and every check would say the same
    if [ "$stage_ends" -le "$SECONDS" ]; then
        not_run "all of it" "there is no time left"
    elif [ "$status" = 4 ] && [ "$1" != machine ]; then
        fail "no program can use the card in a container"
        details
    else
        "stage_$1"
    fi
    end_part "$1" $((SECONDS - began))
}

stage_machine() {
    say "kernel   $(uname -sr), $(getconf GNU_LIBC_VERSION 2>/dev/null || echo 'no glibc')"
    say "nvcc     $(version "$nvcc" --version)"
    say "python   $(version "$python" --version)"
    check "the kernel shows what the limiter asks for" outside "$program" place
    container "$cap" 100 100
    check "a program in a container sees its share as the card's memory" inside "$program" info "$cap"
    if [ -x "$plugin_test" ]; then
        check "the driver tells all that the plugin asks" outside "$plugin_test" --ignored --nocapture
    else
        not_run "the driver tells all that the plugin asks" "$plugin_test is missing"
    fi
}

# the last line that a tool says about its version
version() { { "$@" 2>/dev/null || echo none; } | tail -n 1; }

stage_memory() {
    local way
    say "a context takes $context MiB of the card; the cap is $cap MiB"
    for way in alloc managed pitch array create async pool graph; do
        container "$cap" 100 100
        check "$way: the cap holds" inside "$program" memory "$way" "$cap" "$context"
    done
    container "$cap" 100 100
    check "8 racing processes stay below the cap and use it" inside "$program" race "$cap" "$context"
    container "$cap" 100 100
    check "a killed process gives back" inside "$program" killed "$cap"
    if [ "$mounts" = 1 ]; then
        check "two containers at a time have a cap each" two_containers "$context"
    else
        not_run "two containers at a time have a cap each" "needs mounts"
    fi
    container "$cap" 100 100
    check "what counts is what the card gives: in all" seen "$program" held "$cap"
    container "$cap" 100 100
    check "what counts is what the card gives: pieces of all sizes" seen "$program" sizes
    container "$cap" 100 100
    check "what counts is what the card gives: shared by IPC" seen "$program" ipc
    container "$cap" 100 100
    check "what counts is what the card gives: exported" seen "$program" export
    container "$cap" 100 100
    check "memory that nobody allocates (told)" seen "$program" local
}

# $1: MiB of a context
two_containers() {
    local first status=0 half=$((cap / 2))
    root=$work/second
    container "$half" 100 100
    inside "$program" memory alloc "$half" "$1" &
    first=$!
    root=$work/root
    container "$cap" 100 100
    inside "$program" memory alloc "$cap" "$1" || status=$?
    wait "$first" || status=$?
    return "$status"
}

stage_compute() {
    local how share
    clocked=1
    for how in small large graph; do
        for share in 10 30 50 90; do
            container "$cap" "$share" "$share"
            check "$how kernels at $share %, within 3 points" seen "$program" share "$how" "$share" "$measure"
        done
    done
    container "$cap" 30 30
    check "two contexts, and streams that are destroyed, at 30 %" seen "$program" share contexts 30 "$measure"
    container "$cap" 30 30
    check "a green context, which has half of the card, at 30 %" seen "$program" share green 30 "$measure"
}

stage_pacing() {
    local way mode
    check "the driver's own behaviour (told)" outside "$program" facts
    clocked=1
    for way in event stream copy; do
        container "$cap" 50 50
        check "a pause is not charged: waits by $way" inside "$program" idle "$way" "$rest"
    done
    clocked=0
    for mode in 0 1 2; do
        container "$cap" 10 10
        check "a capture beside a thread in debt, mode $mode" compared "$program" capture "$mode" "$captures"
    done
}

# in the container; where that fails, whether it does without the limiter as well
compared() {
    local status=0
    inside "$@" || status=$?
    [ "$status" = 1 ] || return "$status"
    outside "$@" && return 1
    echo "it fails without the limiter as well"
    return 3
}

stage_cost() {
    local what loop
    [ -z "$standin" ] || export STANDIN_INSTANT=1
    say "nanoseconds of the program's time for a call: without the limiter; with it and the whole card; with a share of 90 %"
    for what in launch graph alloc; do
        cost "$what"
    done
    say "nanoseconds for a launch in a loop of launches of so many nanoseconds each, likewise"
    for loop in 0 2000 10000 50000; do
        cost loop "$loop"
    done
    unset STANDIN_INSTANT
}

# $@: what to measure
cost() {
    local without whole paced
    if without=$(outside "$program" cost "$@" 2>&1) && container "$cap" 100 100 && whole=$(inside "$program" cost "$@" 2>&1) &&
        container "$cap" 90 90 && paced=$(inside "$program" cost "$@" 2>&1); then
        say "ok       $*: $without; $whole; $paced"
        count_ok=$((count_ok + 1))
    else
        fail "$*: ${without:-}; ${whole:-}; ${paced:-}"
    fi
}
