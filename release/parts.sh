# Part of release.sh: makes the parts, in $files.
# shellcheck shell=bash disable=SC2154 # its variables

# panics name files; where they were on this machine is nobody's business and would differ from machine to machine
flags="--remap-path-prefix=${CARGO_TARGET_DIR:-$PWD/target}=target --remap-path-prefix=$PWD=kerf --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"

build() {
    PATH=$zig/bin:$PATH CARGO_ZIGBUILD_ZIG_PATH=$zig/ziglang/zig RUSTFLAGS=$flags \
        "$tools/bin/cargo-auditable" auditable zigbuild --quiet --locked --profile "$profile" "$@"
}

# built DIRECTORY: where cargo puts what it builds of a target and profile
built() {
    echo "${CARGO_TARGET_DIR:-$PWD/target}/$1/$2"
}

# Builds the programs of an architecture into $work/programs: the plugin, the command and the limiter for glibc 2.17, the extender
# static where musl's library is there
programs() {
    local machine target folder=$work/programs/$1 directory=$profile
    machine=$(machine "$1")
    # the one profile whose directory has another name
    [ "$profile" != dev ] || directory=debug
    mkdir -p "$folder"
    printf 'programs for %s\n' "$1"
    target=$machine-unknown-linux-gnu
    local dynamic=(--package kerf-plugin --package kerf-cli)
    if has_target "$machine-unknown-linux-musl"; then
        build --package kerf-extender --target "$machine-unknown-linux-musl"
        cp "$(built "$machine-unknown-linux-musl" "$directory")/kerf-extender" "$folder"
        build "${dynamic[@]}" --target "$target.2.17"
    else
        build "${dynamic[@]}" --package kerf-extender --target "$target.2.17"
        cp "$(built "$target" "$directory")/kerf-extender" "$folder"
    fi
    cp "$(built "$target" "$directory")"/{kerf,kerf-plugin} "$folder"
    cp "$(KERF_ZIG=$zig KERF_AUDITABLE=$tools/bin/cargo-auditable RUSTFLAGS=$flags limiter/build.sh "$machine")" "$folder"
}

# A tar file that is the same for the same files: FILE FOLDER MEMBER...
packed() {
    tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=go-w -cf "$1" -C "${@:2}"
}

command_archive() {
    local name=kerf-$version-linux-$1
    mkdir "$work/$name"
    cp "$work/programs/$1/kerf" LICENSE "$work/$name"
    packed - "$work" "$name" | gzip -9n >"$files/$name.tar.gz"
    sbom "file:$work/programs/$1/kerf" kerf "$1"
}

# SOURCE NAME ARCHITECTURE: the crates that cargo-auditable wrote into programs, and the packages of a base image
sbom() {
    SYFT_CHECK_FOR_APP_UPDATE=false "$tools/bin/syft" scan --quiet "$1" --override-default-catalogers image \
        --source-name "$2" --source-version "$version" --output "cyclonedx-json=$files/$2-$version-linux-$3.cdx.json"
}

store() {
    buildah --root "$work/storage/root" --runroot "$work/storage/run" --storage-driver vfs "$@"
}

# The name that an image of the stand-in base has, made of its files once
stand_in_image() {
    local name=localhost/stand-in-base:$1 container
    if ! store inspect --type image "$name" >/dev/null 2>&1; then
        container=$(store from --arch "$1" scratch)
        store add --quiet "$container" "$(realpath "$stand_in/$1.tar")" / >/dev/null
        store config --os linux --arch "$1" "$container"
        store commit --quiet --rm --timestamp "$SOURCE_DATE_EPOCH" "$container" "$name" >/dev/null
    fi
    echo "$name"
}

# Builds an image for every architecture, starts its program, and writes one archive of all of them
image() {
    local name=kerf-$1 architecture plugin_base on arguments
    local list=docker.io/library/$name:$version
    printf 'image of %s\n' "$name"
    for architecture in "${architectures[@]}"; do
        plugin_base=$base
        [ -z "$stand_in" ] || plugin_base=$(stand_in_image "$architecture")
        on=$plugin_base
        # a static program needs nothing under it
        [ "$1" != extender ] || ! has_target "$(machine "$architecture")-unknown-linux-musl" || on=scratch
        arguments=(--build-arg "BASE=$on" --label "org.opencontainers.image.version=$version"
            --label "org.opencontainers.image.revision=$(git rev-parse HEAD)")
        [ "$on" = scratch ] || arguments+=(--label "org.opencontainers.image.base.name=$on")
        store bud --quiet --isolation chroot --os linux --arch "$architecture" --timestamp "$SOURCE_DATE_EPOCH" \
            --build-context "build=$work/programs/$architecture" "${arguments[@]}" --tag "$name:$architecture" \
            --file "images/$1.Dockerfile" . >/dev/null
        looked_at "$name" "$architecture"
    done
    store manifest create "$list" >/dev/null
    for architecture in "${architectures[@]}"; do
        store manifest add "$list" "$name:$architecture" >/dev/null
    done
    store manifest push --quiet --all "$list" "oci:$work/$name:$list" >/dev/null
    packed "$files/$name-$version.oci.tar" "$work/$name" blobs index.json oci-layout
}

# Starts an image's program, on this machine or under qemu, and lists what the image is made of
looked_at() {
    local container root program said start
    container=$(store from --pull-never "$1:$2")
    root=$(store mount "$container")
    program=$(store inspect --format '{{index .OCIv1.Config.Entrypoint 0}}' "$container")
    start=(chroot "$root" "$program")
    if [ "$(machine "$2")" != "$(uname -m)" ]; then
        start=("qemu-$(machine "$2")" -L "$root" "$root$program")
    fi
    if command -v "${start[0]}" >/dev/null; then
        said=$("${start[@]}" --version) || fail "$1 for $2 does not start: ${start[*]}"
        [ "$said" = "$1 $version" ] || fail "$1 for $2 says that it is $said"
    else
        refused+=("$1 for $2 was not started: ${start[0]} is missing; Debian's package is qemu-user")
    fi
    sbom "dir:$root" "$1" "$2"
    store rm "$container" >/dev/null
}

# Has links of a page in the root of the repository, or after the given steps up to it, lead to the release's pages: beside what is
# released there are no others
linked() {
    local page
    page=$(sed -n '/^\[workspace.package\]/,/^$/s/^repository = "\(.*\)"/\1/p' Cargo.toml)/blob/v$version
    sed -E "s#\]\(${1:-}([A-Za-z][^:)]*)\)#]($page/\1)#g"
}

chart() {
    printf 'chart\n'
    "$helm" package charts/kerf --destination "$work" >/dev/null
    # helm writes the time of the day
    mkdir "$work/chart"
    tar -xzf "$work/kerf-$version.tgz" -C "$work/chart"
    linked ../../ <charts/kerf/README.md >"$work/chart/kerf/README.md"
    cp LICENSE "$work/chart/kerf"
    packed - "$work/chart" kerf | gzip -9n >"$files/kerf-$version.tgz"
}

manifests() {
    # not examples/demo, which is a program of the workspace
    git -c tar.umask=0022 archive --format=tar --prefix="kerf-manifests-$version/" HEAD manifests examples/pods examples/profiles LICENSE |
        gzip -9n >"$files/kerf-manifests-$version.tar.gz"
}

# The section of CHANGELOG.md, and what can be known of the images only now
notes() {
    local name platforms
    platforms=$(printf ', linux/%s' "${architectures[@]}")
    platforms=${platforms#, }
    {
        awk -v "heading=## [$version]" 'index($0, heading) == 1 { own = 1; next } /^## / { own = 0 } own' CHANGELOG.md |
            sed -e 's/^### /## /' -e '/./,$!d' | linked
        printf '\n## Images\n\n| image | platforms | digest |\n| --- | --- | --- |\n'
        for name in kerf-extender kerf-plugin; do
            printf '| `%s:%s` | %s | `%s` |\n' "$name" "$version" "$platforms" \
                "$(grep -o 'sha256:[0-9a-f]*' "$work/$name/index.json" | head -1)"
        done
        printf '\n`kerf-plugin` is on `%s`.\n' "${stand_in:+a stand-in for }$base"
    } >"$files/RELEASE-NOTES.md"
}
