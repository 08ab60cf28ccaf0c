//! Documents, packages and source files compared with the program.

mod examples;
mod imports;
mod links;
mod operations;
mod packages;
pub(crate) mod tidy;
