//! The assembled sidecar over real sockets: a workspace, an agent and clients in one process.
//!
//! Every test runs inside `harness::with_app`, which looks for leaked secrets after the body. Read `harness.rs` first.

#[cfg(test)]
mod harness;

#[cfg(test)]
mod inbound;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod outbound;
#[cfg(test)]
mod smoke;

#[cfg(test)]
mod explain;

#[cfg(test)]
mod catalogue;

#[cfg(test)]
mod tls;

#[cfg(test)]
mod wire;

#[cfg(test)]
mod regressions;
