//! One request, from its header to its response.

mod access_log;
mod body;
mod conditions;
pub(crate) mod context;
mod dav;
mod dav_listing;
mod dav_node;
pub(crate) mod handler;
mod landing_page;
pub(crate) mod pseudonym;
pub(crate) mod reply;
mod route;
mod xml_guard;
