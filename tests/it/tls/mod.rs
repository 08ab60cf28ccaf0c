//! Certificates: replaced under a running server, or issued by ACME.

mod acme;
mod certificates;
