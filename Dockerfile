# Builds the program, then puts it alone on a minimal base.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin threema-safe-server \
    && mkdir /empty

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/threema-safe-server /usr/local/bin/threema-safe-server
# An empty directory that belongs to the user: a new volume takes over its owner.
COPY --from=build --chown=10001:10001 --chmod=0700 /empty /data
USER 10001:10001
VOLUME ["/data"]
WORKDIR /data
# Everything can be set by environment; these are the places inside the container.
ENV SAFE_ACCOUNTS_FILE=/data/accounts.json \
    SAFE_STORAGE__FILES__DIRECTORY=/data/store \
    SAFE_TLS__CERTIFICATE_FILE=/certs/fullchain.pem \
    SAFE_TLS__PRIVATE_KEY_FILE=/certs/privkey.pem
EXPOSE 8443
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=10s CMD ["/usr/local/bin/threema-safe-server", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/threema-safe-server"]
CMD ["serve"]
