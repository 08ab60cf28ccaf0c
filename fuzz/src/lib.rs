//! Shared code of the fuzz targets.
//!
//! `expect` is used only where no input can make it fail: each panic is a finding.

pub mod installation;
pub mod log;
pub mod responses;
pub mod translate;
