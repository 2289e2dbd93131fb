# The three programs, one image each: docker build --target proxy-server|proxy-agent|agent-tcp .
#
# To package programs that are already compiled, put them in DIR/out/ and give
# `--build-context compiled=DIR`: the stage of that name is then not built.

# Rust of the version that rust-toolchain.toml names, and a C compiler for AWS-LC and jemalloc.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-slim-bookworm
# A C library, certificates of the public authorities, no shell. Its Debian must not be older
# than the one that compiles: glibc only promises to run what an older one linked.
ARG RUN_IMAGE=gcr.io/distroless/cc-debian12:nonroot

# === compiled: every program in /out ===
FROM ${BUILD_IMAGE} AS compiled
# jemalloc's build needs it, and slim images have none.
RUN command -v make || { apt-get update && apt-get install -y --no-install-recommends make; }
WORKDIR /src
COPY . .
ARG REVISION=unknown
ENV TOWLINE_COMMIT=${REVISION}
# The sources of dependencies are cached, what was compiled is not: cargo trusts time stamps, and
# two clones that share a target directory could be taken for each other.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    RUSTFLAGS=-Cprofile-use=/src/pgo/programs.profdata \
    cargo build --release --locked -p proxy-server -p proxy-agent -p agent-tcp && \
    mkdir /out && \
    cp target/release/proxy-server target/release/proxy-agent target/release/agent-tcp /out/

# === what the images share ===
FROM ${RUN_IMAGE} AS base
ARG VERSION=dev
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.vendor="Towline" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
# A number, so that Kubernetes can check `runAsNonRoot` without reading the image's users.
USER 65532:65532

# === proxy-server: CONNECT over tcp 8443, agents over udp 8888, admin on tcp 8095 ===
FROM base AS proxy-server
LABEL org.opencontainers.image.title="proxy-server" \
      org.opencontainers.image.description="Takes CONNECT requests and passes them to agents over QUIC"
COPY --from=compiled /out/proxy-server /usr/local/bin/proxy-server
EXPOSE 8443/tcp 8888/udp
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["/usr/local/bin/proxy-server", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/proxy-server"]

# === proxy-agent: dials out, listens for probes only ===
FROM base AS proxy-agent
LABEL org.opencontainers.image.title="proxy-agent" \
      org.opencontainers.image.description="Dials a proxy-server and the targets that its clients ask for"
COPY --from=compiled /out/proxy-agent /usr/local/bin/proxy-agent
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["/usr/local/bin/proxy-agent", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/proxy-agent"]

# === agent-tcp: the same with one fixed upstream ===
FROM base AS agent-tcp
LABEL org.opencontainers.image.title="agent-tcp" \
      org.opencontainers.image.description="Dials a proxy-server and passes each stream to one upstream"
COPY --from=compiled /out/agent-tcp /usr/local/bin/agent-tcp
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["/usr/local/bin/agent-tcp", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/agent-tcp"]
