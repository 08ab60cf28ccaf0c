//! Clients: the `client` commands, and the request sequences of the apps.

mod apps_on_the_wire;
mod commands;
mod phone;
mod secrets;
