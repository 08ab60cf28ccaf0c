//! Connections below HTTP: listeners, client addresses, trusted proxies, connection limits, minimum
//! transfer rates, request framing, external paths.

pub(crate) mod client_address;
pub(crate) mod connection_limiter;
pub(crate) mod external_path;
pub(crate) mod forwarded;
pub(crate) mod inherited_sockets;
pub(crate) mod listener;
pub(crate) mod metered_body;
pub(crate) mod min_rate;
pub(crate) mod proxy_detection;
pub(crate) mod rate_limited_stream;
pub(crate) mod request_framing;
mod response_tracker;
pub(crate) mod trusted_proxies;
