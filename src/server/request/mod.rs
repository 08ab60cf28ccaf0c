//! HTTP requests: routing, authentication, limits and responses.

mod access_log;
mod body;
mod conditions;
pub(crate) mod context;
mod dav;
mod dav_listing;
mod dav_node;
mod dav_request;
mod dav_upload;
pub(crate) mod handler;
mod if_header;
mod landing_page;
pub(crate) mod pseudonym;
pub(crate) mod reply;
mod route;
mod upload_headers;
mod xml_guard;
