#!/usr/bin/env bash
# The published protocol on Alibaba's GPU trace: every variant, every seed, judged by a program that shares no code with
# kerf. Neither the trace nor the judge is part of this project; PACKING is a folder with both programs:
#   gen_workload.py  --variant NAME --seed N --rng go --out FOLDER   writes pods.csv, nodes.csv and trace.csv
#   check.py         FOLDER LOG.csv --json                           judges a placement log
# usage: cargo build --release -p kerf && benches/packing.sh PACKING target/release/kerf > packing.csv
#        benches/packing.sh --table packing.csv
set -euo pipefail

variants=(default cpu050 cpu100 cpu200 cpu250 gpushare40 gpushare60 gpushare80 gpushare100
    gpuspec10 gpuspec20 gpuspec25 gpuspec33 multigpu20 multigpu30 multigpu40 multigpu50)

table() {
    python3 - "$1" <<'PY'
import csv, statistics, sys
runs = {}
for row in csv.DictReader(open(sys.argv[1])):
    runs.setdefault(row["variant"], {}).setdefault(row["policy"], []).append(row)
print("%-12s %5s  %-13s %-13s %6s %6s" % ("trace", "valid", "fgd 100 %", "frag. 100 %", "95 %", "130 %"))
for variant, policies in runs.items():
    frag, fgd = policies["fragmentation"], policies["fgd"]
    def mean(rows, key):
        return statistics.mean(float(row[key]) for row in rows)
    def both(rows):
        values = [float(row["u100"]) for row in rows]
        return "%.2f+-%.2f" % (statistics.mean(values), statistics.stdev(values))
    valid = sum(row["valid"] == "True" for row in frag)
    print("%-12s %2d/%2d  %-13s %-13s %6.2f %6.2f" % (variant, valid, len(frag), both(fgd), both(frag), mean(frag, "u95"), mean(frag, "u130")))
PY
}

if [ "${1-}" = --table ]; then
    table "$2"
    exit
fi

packing=$1 kerf=$2
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
echo "variant,seed,policy,valid,u95,u100,u130"
for variant in "${variants[@]}"; do
    for seed in {42..51}; do
        python3 "$packing/gen_workload.py" --variant "$variant" --seed "$seed" --rng go --out "$folder/drawn"
        for policy in fgd fragmentation; do
            "$kerf" replay --nodes "$folder/drawn/nodes.csv" --pods "$folder/drawn/pods.csv" \
                --known "$folder/drawn/trace.csv" --policy "$policy" --threads 1 --log "$folder/log" >"$folder/said"
            python3 "$packing/check.py" "$folder/drawn" "$folder/log/$policy-in-order.csv" --json >"$folder/verdict" || true
            python3 - "$folder/verdict" "$variant,$seed,$policy" <<'PY'
import json, sys
verdict = json.load(open(sys.argv[1]))
print(sys.argv[2], verdict["valid"], verdict["u95"], verdict["u100"], verdict["u130"], sep=",", flush=True)
PY
        done
    done
done
