//! The library half of Valetkey exists for its own tests and benches and promises no stability.
//!
//! (map to be written)

pub mod config;

/// Floor 1: words and decisions. Pure: no await, no clock, no I/O.
pub mod domain {
    pub mod alias;
    pub mod ask;
    pub mod audit;
    pub mod catalog;
    pub mod clock;
    pub mod compile;
    pub mod headers;
    pub mod identity;
    pub mod jwks;
    pub mod path;
    pub mod policy;
    pub mod problem;
    pub mod route;
    pub mod scope;
    pub mod secret;
    pub mod strict_json;
    pub mod template;
    pub mod token;
}

/// Floor 2: what remembers or talks.
pub mod runtime {
    pub mod access_token;
    pub mod agent_gate;
    pub mod app_tokens;
    pub mod audit_file;
    pub mod audit_writer;
    pub mod credential;
    pub mod discovery;
    pub mod endpoint_fault;
    pub mod exchanged_tokens;
    pub mod follow_up;
    pub mod discovery;
    pub mod endpoint_fault;
    pub mod exchanged_tokens;
    pub mod http_client;
    pub mod key_store;
    pub mod keyed_flight;
    pub mod listener;
    pub mod metrics;
    pub mod session;
    pub mod session_jwt;
    pub mod single_flight;
    pub mod telemetry;
    pub mod tls;
    pub mod token_answer;
    pub mod token_endpoint;
    #[cfg(test)]
    pub mod token_script;
    pub mod upstream;
    pub mod verifier;
}

pub mod app;
pub mod cli;
pub mod demo;
pub mod explain;
pub mod proxy;
pub mod reload;
pub mod supervise;
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

/// Floor 4: the process.
pub mod audit_reader;
