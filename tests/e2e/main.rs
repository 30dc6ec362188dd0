//! The end-to-end suite: real, unmodified clients from PyPI in a sample agent under `valetkey run`, against a workspace.
//!
//! This driver makes the virtual environment (`python.rs`), starts workspace and sidecar (`site.rs`, `sidecar.rs`), runs the
//! Python suite beside it, and then looks for every known secret in all that anybody got to see (`canary.rs`). The tests
//! themselves are the `test_*.py` files; `agent.py` is the agent. Two generations of clients are in use at the same time
//! (`shared/facts/clients.md`), so everything runs twice. Linux only, because the suite reads `/proc`.
//!
//! With `VALETKEY_E2E_REAL_HOST` and its companions (`real.rs`) the same suite runs against a real workspace.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test driver: a broken set-up ends the test"
)]

mod canary;
mod formats;
mod levers;
mod python;
mod real;
mod sidecar;
mod site;
mod suite;
mod things;

use std::io::Write as _;

use tokio::sync::Mutex;

use crate::python::Generation;

/// Two agents with fifty requests at once are not measured side by side on a small machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_of_the_generation_capped_at_sdk_0_94_work_unmodified() {
    let python = python::environment(Generation::Capped).await;
    let _turn = ONE_AT_A_TIME.lock().await;
    suite::run_against_embedded(&python).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_on_the_newest_sdk_work_unmodified() {
    let python = python::environment(Generation::Newest).await;
    let _turn = ONE_AT_A_TIME.lock().await;
    suite::run_against_embedded(&python).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_generations_work_against_a_real_workspace_where_one_is_given() {
    let Some(real) = real::from_environment() else {
        say("a real workspace: set VALETKEY_E2E_REAL_HOST and its companions (tests/e2e/real.rs)");
        return;
    };
    for generation in [Generation::Capped, Generation::Newest] {
        let python = python::environment(generation).await;
        let _turn = ONE_AT_A_TIME.lock().await;
        suite::run_against_real(&python, &real).await;
    }
}

/// Says aloud that something was left out.
fn say(what: &str) {
    show(&format!("NOT TESTED HERE: {what}"));
}

/// Prints a line past the test harness, which swallows what passing tests print.
fn show(line: &str) {
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(std::io::stderr(), "e2e: {line}");
}
