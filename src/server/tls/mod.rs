//! TLS of the public listeners: certificates, private keys and the configuration of rustls.

pub(crate) mod alpn;
pub(crate) mod certificates;
pub(crate) mod config;
pub(crate) mod leaf;
pub(crate) mod pem;
pub(crate) mod self_signed;
