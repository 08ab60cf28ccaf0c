//! Certificates and the TLS configuration of the public listeners.

pub(crate) mod alpn;
pub(crate) mod certificates;
pub(crate) mod config;
pub(crate) mod leaf;
pub(crate) mod pem;
pub(crate) mod self_signed;
