# kerf-plugin. From the root of the repository:
#   docker build -f images/plugin.Dockerfile -t kerf-plugin:0.1.0 .
# Not static: NVIDIA's management library is loaded at run time and is built for glibc.
FROM rust:1-bookworm AS build
# for the limiter's linker, which is a package of PyPI
RUN apt-get update && apt-get install --yes --no-install-recommends python3-pip
WORKDIR /src
COPY limiter/zig.sh limiter/zig.txt limiter/
RUN limiter/zig.sh
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target,id=kerf-glibc \
    cargo build --profile dist --locked --package kerf-plugin && cp target/dist/kerf-plugin / && \
    cp "$(limiter/build.sh)" /libkerf_limiter.so

FROM debian:bookworm-slim
COPY --from=build /kerf-plugin /usr/local/bin/kerf-plugin
# not for this container: the plugin hands it to those that have shares
COPY --from=build /libkerf_limiter.so /usr/local/lib/kerf/libkerf_limiter.so
# NVIDIA's container runtime reads these; other runtimes ignore them. The manifest sets them as well
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=utility
# Root: kubelet's sockets and the directories they are in belong to root. The manifest drops every capability
USER 0:0
EXPOSE 9394
ENTRYPOINT ["/usr/local/bin/kerf-plugin"]
