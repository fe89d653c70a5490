# Part of release.sh: what is asked before anything is built.
# shellcheck shell=bash disable=SC2154 # its variables

help() {
    sed -n '/^# usage:/,/^#$/s/^# \?//p' release.sh
}

usage() {
    printf 'release.sh: %s\n' "$1" >&2
    help >&2
    exit 2
}

from_caller() {
    (cd "$called_in" && realpath -m -- "$1")
}

fail() {
    printf 'release.sh: %s\n' "$1" >&2
    [ $# = 1 ] || printf '  %s\n' "${@:2}" >&2
    exit 1
}

version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
# why this is no release; a dry run goes on
refused=()

machine() {
    case $1 in
        amd64) echo x86_64 ;;
        arm64) echo aarch64 ;;
        *) usage "--architectures: $1 is neither amd64 nor arm64" ;;
    esac
}

# whether the compiler has Rust's standard library for a target
has_target() {
    compgen -G "$("${RUSTC:-rustc}" --print target-libdir --target "$1")/libstd-*.rlib" >/dev/null
}

# Whether a folder has what a release consists of, and nothing else: only such a one is replaced
is_release() {
    local names=(-name 'kerf-*' -o -name RELEASE-NOTES.md -o -name SHA256SUMS)
    [ -f "$1/SHA256SUMS" ] && [ -z "$(find "$1" -mindepth 1 \( ! -type f -o ! \( "${names[@]}" \) \) -print -quit)" ]
}

check_arguments() {
    local architecture tool target
    [ -z "$(printf '%s\n' "${architectures[@]}" | sort | uniq -d)" ] || usage "--architectures: one is named twice"
    for architecture in "${architectures[@]}"; do
        machine "$architecture" >/dev/null
        [ -z "$stand_in" ] || [ -f "$stand_in/$architecture.tar" ] ||
            fail "--stand-in-base: $stand_in/$architecture.tar is missing: release/base.sh $stand_in $architecture makes it"
    done
    [ ! -e "$to" ] || [ -d "$to" ] || fail "--to: $to is no folder"
    [ ! -d "$to" ] || [ -z "$(ls -A "$to")" ] || is_release "$to" ||
        fail "--to: $to has other files than those of a release, and would be replaced"
    grep -qxF "[profile.$profile]" Cargo.toml || [ "$profile" = dev ] || [ "$profile" = release ] ||
        fail "--profile: Cargo.toml has no profile $profile"
    for tool in git cargo buildah; do
        command -v "$tool" >/dev/null || fail "$tool is missing"
    done
    [ "$(id -u)" = 0 ] || fail "the images' files need root: buildah unshare ./release.sh, or sudo"
    for architecture in "${architectures[@]}"; do
        target=$(machine "$architecture")-unknown-linux
        has_target "$target-gnu" ||
            fail "Rust's standard library for $target-gnu is missing: rustup target add $target-gnu, or on Debian RUSTC=\$(release/rust-arm64.sh)"
        has_target "$target-musl" ||
            refused+=("kerf-extender for $architecture is not static: rustup target add $target-musl")
    done
}

# Every version in the tree is that of Cargo.toml; a difference is a mistake, in a dry run as well
check_versions() {
    local wrong=() found line
    for line in version appVersion; do
        found=$(sed -n "s/^$line: *//p" charts/kerf/Chart.yaml)
        [ "$found" = "$version" ] || wrong+=("charts/kerf/Chart.yaml: $line: $found")
    done
    while read -r line; do
        wrong+=("$line")
    # images, and the names of a release's files
    done < <(grep -rnoE 'kerf-(extender|plugin):[0-9][0-9A-Za-z.+-]*|kerf(-[a-z]+)?-[0-9]+[.][0-9]+[.][0-9]+(-[a-z]+[.][0-9]+)?' \
        manifests images README.md docs charts/kerf --include=*.yaml --include=*.md --include=*.Dockerfile | grep -v "[:-]$version\$")
    found=$(sed -n 's/^## \[\([0-9][^]]*\)\].*/\1/p' CHANGELOG.md | head -1)
    [ "$found" = "$version" ] || wrong+=("CHANGELOG.md: the last section is of ${found:-nothing}")
    [ "${#wrong[@]}" = 0 ] || fail "Cargo.toml has version $version, and not:" "${wrong[@]}"
}

check_release() {
    local last=${base##*/} changes
    check_versions
    # also where another user owns the tree, whom git does not trust
    changes=$(git status --porcelain) || fail "git status fails, so nobody knows what would be released"
    [ -z "$changes" ] || refused+=("the tree has changes that are not committed: git status")
    grep -qE "^## \[${version//./\\.}\] - [0-9]{4}-[0-9]{2}-[0-9]{2}\$" CHANGELOG.md ||
        refused+=("CHANGELOG.md: the section of $version has no date: ## [$version] - YYYY-MM-DD")
    if [ -n "$stand_in" ]; then
        refused+=("kerf-plugin is on a stand-in for its base image: --base IMAGE@sha256:DIGEST")
    elif ! [[ $base =~ @sha256:[0-9a-f]{64}$ ]]; then
        refused+=("$base has no digest, and may be another image tomorrow: --base ${base%"$last"}${last%%[:@]*}@sha256:DIGEST")
    fi
    [ "$profile" = dist ] || refused+=("built with the profile $profile: a release is built with dist")
}
