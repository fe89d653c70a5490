#!/usr/bin/env bash
# The limiter against NVIDIA's own driver, on one card of this machine. See README.md beside this file.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

STAGES=(machine memory compute pacing cost pytorch programs)

usage() {
    cat <<EOF
usage: run.sh [OPTION...] [STAGE...]   the checks; STAGES: ${STAGES[*]}; all of them unless given
       run.sh bundle FOLDER            on a machine with cargo: makes all that is to be carried to the one with the card
       run.sh report FOLDER            puts the parts in FOLDER/<card>-<driver> together, without a card

  --card INDEX         another card than the first
  --minutes COUNT      stop after so long, 12 unless given; what was not run by then is said to be so
  --out FOLDER         where the result goes: FOLDER/<card>-<driver>/<stage>.txt; results, beside this file, unless given
  --bundle FOLDER      what 'bundle' made, or single files of it: --limiter, --container, --program, --plugin-test FILE.
                       The folder of this file unless given
  --python FILE        another Python than python3
  --nvcc FILE          another nvcc than the one on the PATH
  --no-mounts          as on machines that refuse mount namespaces
  --standin FOLDER     on the stand-ins for the driver, which are in FOLDER: to test this script

Ends with 1 where a check failed.
EOF
}

# shellcheck source=tests/gpu/lib/bundle.sh
. "$here/lib/bundle.sh"
# shellcheck source=tests/gpu/lib/report.sh
. "$here/lib/report.sh"
case ${1:-} in
bundle) [ $# = 2 ] || { usage >&2 && exit 2; } && bundle "$2" && exit ;;
report) [ $# = 2 ] || { usage >&2 && exit 2; } && report_all "$2" && exit ;;
esac

card=0 minutes=12 out=$here/results python=python3 nvcc=nvcc mounts=1 standin=""
folder=$here limiter="" container="" program="" plugin_test=""
chosen=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit 0 ;;
    --no-mounts) mounts=0 && shift && continue ;;
    --*) [ $# -ge 2 ] || { echo "$1 needs a value" >&2 && exit 2; } ;;
    *)
        [[ " ${STAGES[*]} " = *" $1 "* ]] || { usage >&2 && exit 2; }
        chosen+=("$1") && shift && continue
        ;;
    esac
    case $1 in
    --card) card=$2 ;;
    --minutes) minutes=$2 ;;
    --out) out=$2 ;;
    --bundle) folder=$2 ;;
    --limiter) limiter=$2 ;;
    --container) container=$2 ;;
    --program) program=$2 ;;
    --plugin-test) plugin_test=$2 ;;
    --python) python=$2 ;;
    --nvcc) nvcc=$2 ;;
    --standin) standin=$2 ;;
    *) usage >&2 && exit 2 ;;
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
failed=0
export PYTHONDONTWRITEBYTECODE=1
for stage in "${chosen[@]}"; do
    run_stage "$stage"
done
report "$parts"
exit "$failed"
