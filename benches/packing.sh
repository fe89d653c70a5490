#!/usr/bin/env bash
# The published protocol on Alibaba's GPU trace, every variant and seed, judged by a program that shares no code with
# kerf; then the same trace with pods that leave, and with a demand for memory. Neither the trace nor the judge is part of
# this project. TRACE is the folder of the trace's CSV files (packed with gzip); JUDGE is a folder with two programs:
#   gen_workload.py  --variant NAME --seed N --rng go --out FOLDER   writes pods.csv, nodes.csv and trace.csv
#   check.py         FOLDER LOG.csv --json                           judges a placement log
# KERF is target/release/kerf, from `cargo build --release -p kerf-cli`. usage:
#        benches/packing.sh judge JUDGE KERF > packing.csv
#        benches/packing.sh table packing.csv [PUBLISHED] > packing.txt
#        benches/packing.sh departures TRACE KERF [VARIANT...] > packing_departures.csv
#        benches/packing.sh departures-table packing_departures.csv > packing_departures.txt
#        benches/packing.sh memory TRACE KERF [VARIANT...] > packing_memory.txt
# VARIANT: of those that the command takes, these alone. SEEDS: what `departures` runs in place of 1-2.
# PUBLISHED is analysis_allo_discrete.csv.gz of the simulator behind the published figures: what fgd allocated there.
set -euo pipefail

variants=(default cpu050 cpu100 cpu200 cpu250 gpushare40 gpushare60 gpushare80 gpushare100
    gpuspec10 gpuspec20 gpuspec25 gpuspec33 multigpu20 multigpu30 multigpu40 multigpu50)

judge() {
    local judge=$1 kerf=$2
    folder=$(mktemp -d)
    trap 'rm -r "$folder"' EXIT
    echo "variant,seed,policy,valid,u95,u100,u130"
    for variant in "${variants[@]}"; do
        for seed in {42..51}; do
            python3 "$judge/gen_workload.py" --variant "$variant" --seed "$seed" --rng go --out "$folder/drawn"
            for policy in fgd fragmentation; do
                "$kerf" replay --nodes "$folder/drawn/nodes.csv" --pods "$folder/drawn/pods.csv" \
                    --known "$folder/drawn/trace.csv" --policy "$policy" --threads 1 --log "$folder/log" >"$folder/said"
                # a log that the judge refuses stands in the table as not valid
                python3 "$judge/check.py" "$folder/drawn" "$folder/log/$policy-in-order.csv" --json >"$folder/verdict" || true
                python3 - "$folder/verdict" "$variant,$seed,$policy" <<'PY'
import json, sys
verdict = json.load(open(sys.argv[1]))
print(sys.argv[2], verdict["valid"], verdict["u95"], verdict["u100"], verdict["u130"], sep=",", flush=True)
PY
            done
        done
    done
}

table() {
    python3 - "$@" <<'PY'
import csv, gzip, statistics, sys
runs, published = {}, {}
for row in csv.DictReader(open(sys.argv[1])):
    runs.setdefault(row["variant"], {}).setdefault(row["policy"], {})[row["seed"]] = row
if len(sys.argv) > 2:
    for row in csv.DictReader(gzip.open(sys.argv[2], "rt")):
        if row["sc_policy"] == "06-FGD":
            published[row["workload"].removeprefix("openb_pod_list_"), row["seed"]] = 100 - float(row["100"])
def mean(rows, key):
    return statistics.mean(float(row[key]) for row in rows)
def both(rows):
    values = [float(row["u100"]) for row in rows]
    return "%.2f+-%.2f" % (statistics.mean(values), statistics.stdev(values))
print("unallocated GPU in % of the cluster, seeds 42 to 51; fgd knows the demand in advance, fragmentation nothing")
print("%-12s %-6s | %-12s %6s %6s %8s | %-12s %6s %6s %6s" % ("trace", "valid", "fgd 100 %", "95 %", "130 %", "off by",
    "frag. 100 %", "95 %", "130 %", "better"))
for variant, policies in runs.items():
    frag, fgd = policies["fragmentation"], policies["fgd"]
    logs = [*frag.values(), *fgd.values()]
    valid = sum(row["valid"] == "True" for row in logs)
    off = [abs(float(row["u100"]) - published[variant, seed]) for seed, row in fgd.items() if (variant, seed) in published]
    better = sum(float(frag[seed]["u100"]) < float(fgd[seed]["u100"]) for seed in frag)
    print("%-12s %2d/%2d  | %-12s %6.2f %6.2f %8s | %-12s %6.2f %6.2f %3d/%2d" % (variant, valid, len(logs),
        both(fgd.values()), mean(fgd.values(), "u95"), mean(fgd.values(), "u130"), "%.4f" % max(off) if off else "-",
        both(frag.values()), mean(frag.values(), "u95"), mean(frag.values(), "u130"), better, len(frag)))
print("valid: logs that the judge accepts; off by: the largest difference of one seed's fgd from what was published for it,")
print("at 100 %, where that is rounded to 0.01; better: seeds with less unallocated than fgd at 100 %")
PY
}

departures() {
    local trace=$1 kerf=$2
    shift 2
    [ $# -gt 0 ] || set -- "${variants[@]}"
    echo "variant,load,seed,policy,unallocated,lost"
    for variant; do
        for load in 0.95 1.0 1.1; do
            "$kerf" replay --nodes "$trace/openb_node_list_gpu_node.csv.gz" --pods "$trace/openb_pod_list_$variant.csv.gz" \
                --seeds "${SEEDS:-1-2}" --load "$load" --policy best-fit,fgd,fragmentation --threads 1 --json |
                python3 -c '
import json, sys
for policy, runs in json.load(sys.stdin)["policies"].items():
    for run in runs:
        print(sys.argv[1], run["seed"], policy, "%.3f" % run["unallocated_over_time"], "%.3f" % run["lost_demand"], sep=",", flush=True)
' "$variant,$load"
        done
    done
}

departures_table() {
    python3 - "$1" <<'PY'
import csv, statistics, sys
runs = {}
for row in csv.DictReader(open(sys.argv[1])):
    policies = runs.setdefault((row["variant"], row["load"]), {})
    policies.setdefault(row["policy"], []).append((float(row["unallocated"]), float(row["lost"])))
print("unallocated GPU in % of the cluster, an average over time, and lost demand in %; fgd knows the demand in advance,")
print("fragmentation nothing; pods come at random and stay for a random time, and those present ask for load x the cluster")
print("%-12s %5s  %-13s %-13s %-13s %10s" % ("trace", "load", "best-fit", "fgd", "fragmentation", "against fgd"))
changes = []
for (variant, load), policies in runs.items():
    mean = {policy: [statistics.mean(column) for column in zip(*values)] for policy, values in policies.items()}
    changes.append(mean["fragmentation"][0] - mean["fgd"][0])
    cells = ["%5.2f/%5.2f" % tuple(mean[policy]) for policy in ("best-fit", "fgd", "fragmentation")]
    print("%-12s %5s  %-13s %-13s %-13s %+10.2f" % (variant, load, *cells, changes[-1]))
print("better than fgd in %d of %d, at worst %+.2f" % (sum(change < 0 for change in changes), len(changes), max(changes)))
PY
}

memory() {
    local trace=$1 kerf=$2
    shift 2
    [ $# -gt 0 ] || set -- default gpushare60 multigpu30 cpu200 gpuspec20
    for variant; do
        for sizes in 16384 16384,G2=32768,V100M32=32768,T4=15360,A10=24576; do
            echo "== $variant, --derive-memory $sizes"
            "$kerf" replay --nodes "$trace/openb_node_list_gpu_node.csv.gz" --pods "$trace/openb_pod_list_$variant.csv.gz" \
                --seeds 1-5 --derive-memory "$sizes" --policy binpack,best-fit,fgd,fragmentation --threads 1
        done
    done
}

case ${1-} in
judge | table | departures | memory) "$@" ;;
departures-table) departures_table "$2" ;;
*)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
    exit 2
    ;;
esac
