# Builds a static binary and copies it into an empty image.
#
# The build image compiles for musl by default. Any image with cargo and a C compiler for a musl
# target works.
ARG BUILDER=rust:1.95-alpine
FROM ${BUILDER} AS build
WORKDIR /build
COPY . .
# Besides the binary: the CA certificates for `client` and `check`, and an empty data directory.
RUN cargo build --release --locked --bin threema-safe-server \
    && mkdir -p /image/usr/local/bin /image/etc/ssl/certs /data \
    && cp target/release/threema-safe-server /image/usr/local/bin/ \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/

FROM scratch
COPY --from=build /image/ /
# A new volume takes over the owner of this directory.
COPY --from=build --chown=10001:10001 --chmod=0700 /data /data
USER 10001:10001
VOLUME ["/data"]
WORKDIR /data
# Paths inside the container. SAFE_TLS__PRIVATE_KEY_FILE is the path of a key, not a secret.
# hadolint ignore=DL3064
ENV PATH=/usr/local/bin \
    SAFE_ACCOUNTS_FILE=/data/accounts.json \
    SAFE_STORAGE__FILES__DIRECTORY=/data/store \
    SAFE_TLS__CERTIFICATE_FILE=/certs/fullchain.pem \
    SAFE_TLS__PRIVATE_KEY_FILE=/certs/privkey.pem
EXPOSE 8443
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=10s CMD ["/usr/local/bin/threema-safe-server", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/threema-safe-server"]
CMD ["serve"]
