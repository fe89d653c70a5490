#!/usr/bin/env bash
# Everything that must hold before a change is merged; needs cargo with rustfmt and clippy, and a C compiler. The tests
# on real Kubernetes need root and what tests/cluster/setup.sh gets, and say so where they are not run.
set -euo pipefail
cd "$(dirname "$0")"

# The limiter is tested as it is shipped, too, where its linker can be had: python3 with pip and a package of PyPI
if [ -z "${KERF_ZIG:-}" ] && zig=$(limiter/zig.sh); then
    export KERF_ZIG=$zig
fi

# The chart and the kustomizations are rendered and compared, where helm and kustomize can be built: Go
if [ -z "${KERF_MANIFEST_TOOLS:-}" ] && tools=$(tests/manifests/setup.sh); then
    export KERF_MANIFEST_TOOLS=$tools
fi

summary=""
stage() {
    local name=$1 began=$SECONDS
    shift
    printf '\n=== %s\n' "$name"
    "$@"
    summary+=$(printf '%6s s  %s' "$((SECONDS - began))" "$name")$'\n'
}

stage "format" cargo fmt --all --check
stage "clippy" cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
# without the features for tests, so that what no program uses shows
stage "clippy of the programs" cargo clippy --locked -- -D warnings
stage "tests" env KERF_CLUSTER=off cargo test --locked --workspace --all-features
stage "newest Kubernetes, all tests" env KERF_KUBERNETES=newest cargo test --locked --workspace --all-features --test real
# what differs most between versions: how pods come to the scheduler, policies, kubelet's calls and restarts
stage "oldest Kubernetes, a core of them" env KERF_KUBERNETES=oldest \
    cargo test --locked --workspace --all-features --test real -- burst:: faults:: policies:: routing:: invalid:: rights::
stage "docs" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --all-features --no-deps
stage "demo" cargo demo --once
# each benchmark once, unmeasured: that they run
stage "benchmarks run" cargo test --locked --workspace --all-features --bench '*'

printf '\nall passed\n%s' "$summary"
