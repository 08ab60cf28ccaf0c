//! Certificates: replaced under a running server, and issued by ACME.

mod acme;
mod certificates;
