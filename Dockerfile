# Builds the program without shared libraries, then puts it alone into an empty image.
#
# The compiler comes from this image; its own target is musl. Any other with cargo and a C compiler for such a target does.
ARG BUILDER=rust:1.95-alpine
FROM ${BUILDER} AS build
WORKDIR /build
COPY . .
# Beside the program: the authorities that `client` and `check` trust, and an empty folder for the data.
RUN cargo build --release --locked --bin threema-safe-server \
    && mkdir -p /image/usr/local/bin /image/etc/ssl/certs /data \
    && cp target/release/threema-safe-server /image/usr/local/bin/ \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/

FROM scratch
COPY --from=build /image/ /
# It belongs to the user: a new volume takes over its owner.
COPY --from=build --chown=10001:10001 --chmod=0700 /data /data
USER 10001:10001
VOLUME ["/data"]
WORKDIR /data
# Everything can be set by environment; these are the places inside the container. The last one is where a key is, and
# no key.
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
