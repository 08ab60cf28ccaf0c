//! Documents, packages and source files compared with the program.

mod operations;
mod packages;
pub(crate) mod tidy;
