#!/usr/bin/env bash
# The limiter against NVIDIA's own driver, on one card of this machine. See README.md beside this file.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

STAGES=(machine memory compute pacing cost pytorch programs)

usage() {
    cat <<EOF
usage: run.sh [OPTION...] [STAGE...]   the checks; STAGES: ${STAGES[*]}; all of them unless given
       run.sh bundle FOLDER            on a machine with cargo: makes all that is to be carried to the one with the card
       run.sh report FOLDER            without a card: puts the parts of each FOLDER/<card>-<driver>, which runs with
                                       '--out FOLDER' left, together into FOLDER/<card>-<driver>.txt

  --card INDEX         another card than the first
  --minutes COUNT      stop after so long, 12 unless given; what was not run by then is said to be so
  --out FOLDER         where the result goes: FOLDER/<card>-<driver>/<stage>.txt; results, beside this file, unless given
  --bundle FOLDER      what 'bundle' made, or single files of it: --limiter, --container, --program, --plugin-test FILE.
                       The folder of this file unless given
  --python FILE        another Python than python3
  --nvcc FILE          another nvcc than the one on the PATH
  --no-mounts          as on machines that refuse mount namespaces
  --standin FOLDER     on the stand-ins for the driver, which are in FOLDER: to test this script

Ends with 0 where no check failed, 1 where one did, 2 after wrong usage, where something is missing, or where no check
could be run at all.
EOF
}

# $1: what is wrong with the arguments
wrong() {
    printf "%s\n'run.sh --help' says how it is used\n" "$1" >&2
    exit 2
}

# $1: option, $2: its value. Prints the number, without zeros before it
number() {
    [[ $2 =~ ^[0-9]{1,6}$ ]] || wrong "$1 takes a number, and not '$2'"
    echo $((10#$2))
}

# shellcheck source=tests/gpu/lib/bundle.sh
. "$here/lib/bundle.sh"
# shellcheck source=tests/gpu/lib/report.sh
. "$here/lib/report.sh"
case ${1:-} in
bundle | report)
    [ $# = 2 ] || wrong "$1 takes one folder"
    "make_$1" "$2"
    exit
    ;;
esac

card=0 minutes=12 out=$here/results python=python3 nvcc=nvcc mounts=1 standin=""
folder=$here limiter="" container="" program="" plugin_test=""
chosen=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit 0 ;;
    --no-mounts) mounts=0 && shift && continue ;;
    --card | --minutes | --out | --bundle | --limiter | --container | --program | --plugin-test | --python | --nvcc | --standin)
        [ $# -ge 2 ] || wrong "$1 needs a value"
        ;;
    -*) wrong "unknown option $1" ;;
    *)
        [[ " ${STAGES[*]} " = *" $1 "* ]] || wrong "unknown stage $1; stages: ${STAGES[*]}"
        chosen+=("$1") && shift && continue
        ;;
    esac
    case $1 in
    --card) card=$(number "$1" "$2") ;;
    --minutes) minutes=$(number "$1" "$2") ;;
    --out) out=$2 ;;
    --bundle) folder=$2 ;;
    --limiter) limiter=$2 ;;
    --container) container=$2 ;;
    --program) program=$2 ;;
    --plugin-test) plugin_test=$2 ;;
    --python) python=$2 ;;
    --nvcc) nvcc=$2 ;;
    --standin) standin=$2 ;;
    esac
    shift 2
done
[ "${#chosen[@]}" -gt 0 ] || chosen=("${STAGES[@]}")
limiter=$(realpath -m "${limiter:-$folder/libkerf_limiter.so}")
container=$(realpath -m "${container:-$folder/container}")
program=$(realpath -m "${program:-$folder/checks}")
plugin_test=$(realpath -m "${plugin_test:-$folder/plugin-test}")

work=$(mktemp -d)
trap 'leave_places; rm -rf "$work"' EXIT
# shellcheck source=tests/gpu/lib/container.sh
. "$here/lib/container.sh"
# shellcheck source=tests/gpu/lib/stages.sh
. "$here/lib/stages.sh"
# shellcheck source=tests/gpu/lib/programs.sh
. "$here/lib/programs.sh"

need_files
find_card
choose_way
failed=0 ran=0
export PYTHONDONTWRITEBYTECODE=1
for stage in "${chosen[@]}"; do
    run_stage "$stage"
done
report "$parts"
[ "$ran" -gt 0 ] || { echo "no check was run: the parts say why" >&2 && exit 2; }
exit "$failed"
