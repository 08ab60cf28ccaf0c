//! Clients: the `client` commands, the request sequences of the apps, curl and rclone.

mod apps_on_the_wire;
mod commands;
mod phone;
mod real_clients;
mod secrets;
