//! What stands in `deploy/`: each place is tried as far as it can be tried on a machine without that place.
//!
//! One file per place. What needs a tool that is not here (`promtool`, a built wheel) says so aloud and is left out;
//! `.ci/run` sees to it that all of it is there. Read `harness.rs` first.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test driver: a broken set-up ends the test"
)]

mod harness;
mod promql;
mod venv;

#[cfg(test)]
mod container;
#[cfg(test)]
mod databricks_app;
#[cfg(test)]
mod kubernetes;
#[cfg(test)]
mod prometheus;
#[cfg(test)]
mod readmes;
#[cfg(test)]
mod systemd;
#[cfg(test)]
mod wheel;
