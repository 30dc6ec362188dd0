//! The library half of Valetkey exists for its own tests and benches and promises no stability.
//!
//! (map to be written)

/// Floor 1: words and decisions. Pure: no await, no clock, no I/O.
pub mod domain {
    pub mod alias;
    pub mod clock;
    pub mod identity;
    pub mod jwks;
    pub mod problem;
    pub mod route;
    pub mod scope;
    pub mod secret;
    pub mod strict_json;
    pub mod token;
}

/// Floor 2: what remembers or talks.
pub mod runtime {
    pub mod discovery;
    pub mod http_client;
    pub mod key_store;
    pub mod metrics;
    pub mod single_flight;
    pub mod tls;
    pub mod verifier;
}
