//! The library half of Valetkey exists for its own tests and benches and promises no stability.
//!
//! (map to be written)

/// Floor 1: words and decisions. Pure: no await, no clock, no I/O.
pub mod domain {
    pub mod alias;
    pub mod audit;
    pub mod clock;
    pub mod identity;
    pub mod problem;
    pub mod route;
    pub mod scope;
    pub mod secret;
}

/// Floor 2: what remembers or talks.
pub mod runtime {
    pub mod audit_file;
    pub mod audit_writer;
    pub mod http_client;
    pub mod metrics;
    pub mod single_flight;
    pub mod tls;
}

/// Floor 4: the process.
pub mod audit_reader;
