//! The backup format: properties, test vectors, and what the apps restore.

mod properties;
mod restores;
mod vectors;
