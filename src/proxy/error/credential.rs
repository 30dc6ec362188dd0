//! The rows of what goes wrong with tokens: those that were presented, and those that could not be had.
//!
//! Part of the one table in `error.rs`.
#![deny(clippy::wildcard_enum_match_arm)]

use crate::domain::token::fault::TokenFault;
use crate::runtime::credential::CredentialFault;
use crate::runtime::endpoint_fault::EndpointFault;

use super::{FORBIDDEN, Fault, GATEWAY, INTERNAL, Row, TIMEOUT, row};

pub(super) fn token_reason(fault: TokenFault) -> &'static str {
    match fault.public() {
        "missing" => "token_missing",
        "expired" => "token_expired",
        _ => "token_invalid",
    }
}

pub(super) fn credential_row(fault: &CredentialFault) -> Row {
    use Fault::{Caller, Sidecar, Workspace};
    let endpoint = match fault {
        CredentialFault::NoSession | CredentialFault::Header => {
            return row(INTERNAL, "internal", Sidecar);
        }
        CredentialFault::App(endpoint) | CredentialFault::Exchange(endpoint) => endpoint,
    };
    match endpoint {
        EndpointFault::SubjectRefused { .. } => row(FORBIDDEN, "exchange_refused", Caller),
        EndpointFault::Timeout { .. } => row(TIMEOUT, "token_endpoint_timeout", Workspace),
        EndpointFault::NotConfigured => row(GATEWAY, "app_credential_missing", Sidecar),
        EndpointFault::Refused { .. } => row(GATEWAY, "app_credential_refused", Workspace),
        EndpointFault::Busy { .. }
        | EndpointFault::Unreachable { .. }
        | EndpointFault::Invalid { .. } => row(GATEWAY, "token_endpoint_unavailable", Workspace),
    }
}
