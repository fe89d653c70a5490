# The parts of a result, and putting them together.
# shellcheck shell=bash disable=SC2034,SC2154 # variables of run.sh and of the files beside this one

# prints a line and keeps it in the part
say() { printf '%s\n' "$*" | tee -a "$part"; }

commit() {
    if [ -e "$folder/commit" ]; then
        cat "$folder/commit"
    else
        git -C "$here" describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null || echo unknown
    fi
}

# $1: stage
begin_part() {
    part=$parts/$1.txt
    : >"$part"
    count_ok=0 count_failed=0 count_not_run=0
    say "stage    $1"
    say "card     $name, $total MiB, $used MiB in use before"
    say "driver   $driver"
    say "commit   $(commit)"
    say "date     $(date -u +%Y-%m-%dT%H:%MZ)"
    if [ "$mounts" = 1 ]; then
        say "held by  a mounted /etc/ld.so.preload, with the files mounted"
    else
        say "held by  LD_PRELOAD, with the files at their places on this machine"
        say "         not covered: that the loader takes the library whatever the environment is, that the mounted files can"
        say "         be neither written, removed nor renamed, two containers with limits of their own at a time"
        say "         mounts were refused: $refused"
    fi
    say ""
}

end_part() {
    ran=$((ran + count_ok + count_failed))
    say ""
    say "end      $1: $count_ok ok, $count_failed failed, $count_not_run not run, $2 s"
}

# Puts the parts of one card together. $1: their folder
report() {
    local parts=$1 stage commits result=$1.txt new=$1.txt.new
    {
        for stage in "${STAGES[@]}"; do
            part=$parts/$stage.txt
            if [ ! -s "$part" ]; then
                echo "missing  $stage was not run"
            elif ! tail -n 1 "$part" | grep -q '^end '; then
                echo "missing  the end of $stage: the run broke off"
            fi
        done
        commits=$(cat "$parts"/*.txt | grep '^commit ' | sort -u)
        [ "$(wc -l <<<"$commits")" -le 1 ] || printf 'careful  the parts are of several commits\n%s\n' "$commits"
        cat "$parts"/*.txt | grep -h '^\(FAILED\|end\) ' || true
        for stage in "${STAGES[@]}"; do
            [ ! -s "$parts/$stage.txt" ] || { printf '\n----\n' && cat "$parts/$stage.txt"; }
        done
    } >"$new"
    mv "$new" "$result"
    echo "result: $result"
}

# $1: the folder of all cards
make_report() {
    local parts found any=0
    [ -d "$1" ] || { echo "missing: folder $1" >&2 && return 2; }
    for parts in "$1"/*/; do
        found=("$parts"*.txt)
        [ -e "${found[0]}" ] || continue
        report "${parts%/}"
        any=1
    done
    [ "$any" = 1 ] || { echo "$1: no folders <card>-<driver> in it" >&2 && return 2; }
}
