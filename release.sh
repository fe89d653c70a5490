#!/usr/bin/env bash
# Makes what a release consists of, from a clean tree: images as OCI archives, the chart, the manifests, the kerf command,
# an SBOM for each, the notes from CHANGELOG.md, and checksums of all. Publishes nothing: docs/develop.md says how.
#
# usage: ./release.sh [--dry-run] [--base IMAGE@sha256:DIGEST] [--stand-in-base FOLDER] [--architectures LIST] [--profile PROFILE] [--to FOLDER] [--help]
#   --dry-run        makes everything, and only says for which reasons a release would be refused
#   --base           the image that kerf-plugin's is on, with its digest; docker.io/library/debian:bookworm-slim in a dry run
#   --stand-in-base  what release/base.sh made, in place of --base, where no registry is reached; in a dry run alone
#   --architectures  amd64,arm64 unless given
#   --profile        of Cargo.toml; dist unless given, another one in a dry run alone
#   --to             target/release-files of the tree unless given; the files of an earlier release in it are replaced
#
# Needs root or `buildah unshare`, for the images' files; buildah, git, Go or KERF_MANIFEST_TOOLS, and python3 with pip or both
# KERF_ZIG and KERF_RELEASE_TOOLS. RUSTC names another compiler than rustup's.
set -euo pipefail
# folders are named from where this was called
called_in=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"
source release/checks.sh
source release/parts.sh

dry_run=false
base=docker.io/library/debian:bookworm-slim
stand_in=""
architectures=amd64,arm64
profile=dist
to=target/release-files
while [ $# -gt 0 ]; do
    case $1 in
        --dry-run) dry_run=true ;;
        -h | --help) help && exit ;;
        --base | --stand-in-base | --architectures | --profile | --to)
            [ -n "${2:-}" ] || usage "$1 needs a value"
            case $1 in
                --base) base=$2 ;;
                --stand-in-base) stand_in=$(from_caller "$2") ;;
                --architectures) architectures=$2 ;;
                --profile) profile=$2 ;;
                --to) to=$(from_caller "$2") ;;
            esac
            shift
            ;;
        *) usage "unknown argument $1" ;;
    esac
    shift
done
IFS=, read -r -a architectures <<<"$architectures"
to=$(realpath -m "$to")

check_arguments
check_release
$dry_run || [ "${#refused[@]}" = 0 ] || fail "no release of $version:" "${refused[@]}"

# at one place at its end, whole
work=$(mkdir -p "$(dirname "$to")" && mktemp -d "$to.XXXXXX") || fail "--to: $to cannot be made"
trap 'rm -rf "$work"' EXIT
files=$work/files
mkdir "$files"

# every time in what is made is that of the commit, so that the same tree makes the same files
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
zig=${KERF_ZIG:-$(limiter/zig.sh)}
tools=${KERF_RELEASE_TOOLS:-$(release/tools.sh)}
helm=${KERF_MANIFEST_TOOLS:-$(tests/manifests/setup.sh)}/helm4

for architecture in "${architectures[@]}"; do
    programs "$architecture"
    command_archive "$architecture"
done
for image in extender plugin; do
    image "$image"
done
release/krew.sh "$version" "$files" "${architectures[@]}" >"$files/kerf-krew.yaml"
chart
manifests
notes
(cd "$files" && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
rm -rf "$to"
mv "$files" "$to"
printf '%s\n' "$to:" && ls -lh "$to" | awk 'NR > 1 { printf "%8s  %s\n", $5, $9 }'
if [ "${#refused[@]}" -gt 0 ]; then
    printf 'this is no release of %s:\n' "$version"
    printf '  %s\n' "${refused[@]}"
fi
