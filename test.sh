#!/usr/bin/env bash
# Everything that must hold before a change is merged; needs cargo with rustfmt and clippy, and a C compiler. The tests
# on real Kubernetes need root and what tests/cluster/setup.sh gets, and say so where they are not run.
set -euo pipefail
cd "$(dirname "$0")"

# The limiter is tested as it is shipped, too, where its linker can be had: python3 with pip and a package of PyPI
if [ -z "${KERF_ZIG:-}" ] && zig=$(limiter/zig.sh); then
    export KERF_ZIG=$zig
fi

# Licences, sources and versions of what kerf is built of are checked, where these tools can be had: python3 with pip
if [ -z "${KERF_RELEASE_TOOLS:-}" ] && tools=$(release/tools.sh); then
    export KERF_RELEASE_TOOLS=$tools
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

# deny.toml says what for; an entry of it that is no longer needed fails as well
deny() {
    "$KERF_RELEASE_TOOLS/bin/cargo-deny" --locked --workspace check --deny unmatched-skip --deny unnecessary-skip \
        --deny license-not-encountered --deny license-exception-not-encountered licenses bans sources
}

# for this machine's architecture, on a stand-in for the base image, of programs that are built in a fraction of the time
release() {
    local architecture
    architecture=$(dpkg --print-architecture)
    release/base.sh "$1-base" "$architecture"
    ./release.sh --dry-run --profile demo --stand-in-base "$1-base" --architectures "$architecture" --to "$1"
}

stage "format" cargo fmt --all --check
stage "clippy" cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
# without the features for tests, so that what no program uses shows
stage "clippy of the programs" cargo clippy --locked -- -D warnings
if [ -n "${KERF_RELEASE_TOOLS:-}" ]; then
    stage "licences, sources, versions" deny
else
    echo "licences, sources and versions are not checked: release/tools.sh got no tools"
fi
stage "tests" env KERF_CLUSTER=off cargo test --locked --workspace --all-features
# its images are those that run on real Kubernetes
if [ "$(id -u)" = 0 ] && type buildah mmdebstrap >/dev/null 2>&1; then
    release=${CARGO_TARGET_DIR:-$PWD/target}/dry-run
    stage "release, dry run" release "$release"
    export KERF_RELEASE=$release
    stage "what a release consists of" cargo test --locked --workspace --all-features --test release
else
    echo "no dry run of a release: it needs root, buildah and mmdebstrap"
fi
stage "newest Kubernetes, all tests" env KERF_KUBERNETES=newest cargo test --locked --workspace --all-features --test real
# what differs most between versions: how pods come to the scheduler, policies, kubelet's calls and restarts
stage "oldest Kubernetes, a core of them" env KERF_KUBERNETES=oldest \
    cargo test --locked --workspace --all-features --test real -- burst:: faults:: policies:: routing:: invalid:: rights:: accepted:: chart::
stage "docs" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --all-features --no-deps
stage "demo" cargo demo --once
# each benchmark once, unmeasured: that they run
stage "benchmarks run" cargo test --locked --workspace --all-features --bench '*'

printf '\nall passed\n%s' "$summary"
