# kerf-extender: one static program, nothing else. From the root of the repository:
#   docker build -f images/extender.Dockerfile -t kerf-extender:0.1.0 .
FROM rust:1-alpine AS build
# for the parts of the TLS library that are C
RUN apk add --no-cache build-base
WORKDIR /src
COPY . .
# Alpine's target is static musl. Caches stay between builds, so the program is copied out of them
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target,id=kerf-musl \
    cargo build --profile dist --locked --package kerf-extender && cp target/dist/kerf-extender /kerf-extender

FROM scratch
COPY --from=build /kerf-extender /kerf-extender
USER 65532:65532
EXPOSE 3456 3457
ENTRYPOINT ["/kerf-extender"]
