//! The built binary as a user meets it: arguments, environment and signals in; exit code, output and HTTP out.
//!
//! Children start with an environment made up from nothing. Read `harness.rs` first; there is one file per command.
#![cfg(target_os = "linux")]

#[cfg(test)]
mod harness;

#[cfg(test)]
mod audit;
#[cfg(test)]
mod audit_faults;
#[cfg(test)]
mod audit_kill;
#[cfg(test)]
mod basics;
#[cfg(test)]
mod bundles;
#[cfg(test)]
mod confine;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod dev;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod run;
#[cfg(test)]
mod serve;
#[cfg(test)]
mod wire;
