//! What the fuzz targets share.
//!
//! Only what an input cannot reach is written here with `expect`: each panic is a finding.

pub mod answers;
pub mod log;
pub mod site;
pub mod translate;
