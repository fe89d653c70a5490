# kerf-plugin. From the root of the repository, with docker, podman or buildah:
#   docker build -f images/plugin.Dockerfile -t kerf-plugin:0.1.0 .
# Not static: NVIDIA's management library is loaded at run time and is built for glibc.
# Other images to build in and on are build arguments. A folder with program and library replaces the build
# (--build-context build=FOLDER).
ARG BUILDER=docker.io/library/rust:1-bookworm
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BUILDER} AS build
# for the limiter's linker, which is a package of PyPI
RUN apt-get update && apt-get install --yes --no-install-recommends python3-pip
# writes into a program what it was built of, for scanners
RUN --mount=type=cache,target=/usr/local/cargo/registry cargo install --locked cargo-auditable@0.7.7
WORKDIR /src
COPY limiter/zig.sh limiter/zig.txt limiter/
RUN limiter/zig.sh
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target,id=kerf-glibc \
    cargo auditable build --profile dist --locked --package kerf-plugin && cp target/dist/kerf-plugin / && \
    cp "$(KERF_AUDITABLE=/usr/local/cargo/bin/cargo-auditable limiter/build.sh)" /libkerf_limiter.so

FROM ${BASE}
LABEL org.opencontainers.image.title="kerf-plugin" \
    org.opencontainers.image.description="Gives containers their GPUs and shares of GPUs, for kubelet" \
    org.opencontainers.image.source="https://github.com/kerf-project/kerf" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY LICENSE /licenses/LICENSE
COPY --from=build /kerf-plugin /usr/local/bin/kerf-plugin
# not for this container: the plugin hands it to those that have shares
COPY --from=build /libkerf_limiter.so /usr/local/lib/kerf/libkerf_limiter.so
# NVIDIA's container runtime reads these; other runtimes ignore them. The manifest sets them as well
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=utility
# Root: kubelet's sockets and the directories they are in belong to root. The manifest drops every capability
USER 0:0
EXPOSE 9394
ENTRYPOINT ["/usr/local/bin/kerf-plugin"]
