//! The library half of Valetkey exists for its own tests and benches and promises no stability.
//!
//! (map to be written)

/// Floor 1: words and decisions. Pure: no await, no clock, no I/O.
pub mod domain {
    pub mod alias;
    pub mod clock;
    pub mod identity;
    pub mod problem;
    pub mod route;
    pub mod scope;
    pub mod secret;
}

/// Floor 2: what remembers or talks.
pub mod runtime {
    pub mod http_client;
    pub mod metrics;
    pub mod single_flight;
    pub mod tls;
}

/// Floor 4: a workspace inside this process, for demo, dev and tests.
pub mod embedded {
    mod accept;
    mod answer;
    mod call;
    mod catalog;
    pub mod control;
    mod door;
    mod file_store;
    mod files;
    mod genie;
    pub mod issuer;
    mod marked;
    mod mlflow;
    mod oidc;
    mod query;
    pub mod seen;
    mod serving;
    mod signing_key;
    mod sql;
    mod stream;
    mod vector_search;
    pub mod workspace;
    pub mod world;
}
