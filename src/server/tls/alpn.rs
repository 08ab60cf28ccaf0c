//! ALPN protocol names (RFC 7301).

/// HTTP/2 over TLS (RFC 9113 §3.2).
pub(crate) const HTTP_2: &[u8] = b"h2";
/// HTTP/1.1 (RFC 7301 §6).
pub(crate) const HTTP_1_1: &[u8] = b"http/1.1";
/// Validation of a domain by an ACME authority (RFC 8737 §6.2).
pub(crate) const ACME_TLS_1: &[u8] = b"acme-tls/1";
