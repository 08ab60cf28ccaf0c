//! Requests and answers: routes, methods, credentials, conditions, and malformed or cut messages.

mod access;
mod access_log;
mod bad_input;
pub(crate) mod cut_uploads;
mod dav_guards;
mod http2_attacks;
mod if_header;
mod listing_paths;
mod malformed;
mod oracles;
mod proxies;
mod request_races;
pub(crate) mod requests;
mod roles;
mod whole_uploads;
