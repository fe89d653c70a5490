# kerf-extender: one static program, nothing else. From the root of the repository, with docker, podman or buildah:
#   docker build -f images/extender.Dockerfile -t kerf-extender:0.1.0 .
# Other images to build in and on are build arguments. A folder with the program replaces the build (--build-context
# build=FOLDER); one that is not static needs a BASE with a C library.
ARG BUILDER=docker.io/library/rust:1-alpine
ARG BASE=scratch

FROM ${BUILDER} AS build
# for the parts of the TLS library that are C
RUN apk add --no-cache build-base
# writes into a program what it was built of, for scanners
RUN --mount=type=cache,target=/usr/local/cargo/registry cargo install --locked cargo-auditable@0.7.7
WORKDIR /src
COPY . .
# Alpine's target is static musl. Caches stay between builds, so the program is copied out of them
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target,id=kerf-musl \
    cargo auditable build --profile dist --locked --package kerf-extender && cp target/dist/kerf-extender /kerf-extender

FROM ${BASE}
LABEL org.opencontainers.image.title="kerf-extender" \
    org.opencontainers.image.description="Places pods that share GPUs, for kube-scheduler" \
    org.opencontainers.image.source="https://github.com/kerf-project/kerf" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY LICENSE /licenses/LICENSE
COPY --from=build /kerf-extender /kerf-extender
USER 65532:65532
EXPOSE 3456 3457
ENTRYPOINT ["/kerf-extender"]
