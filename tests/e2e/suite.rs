//! One run: a sidecar in front of a workspace, the Python suite against it, then the search for secrets.
//!
//! Everything that anybody could see lands in one folder; the canary test reads all of it. Read `canary.rs` next.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use valetkey::embedded::other_app::{OtherApp, OtherAppOptions};
use valetkey::embedded::workspace::{Workspace, WorkspaceOptions};
use valetkey::embedded::world::{APP, APP_RESTRICTED};

use crate::canary::{Canaries, credentials_seen, files_below, handed_out};
use crate::levers::Levers;
use crate::python::{suite_folder, work_folder};
use crate::sidecar::{LISTENS, Sidecar};
use crate::site::Site;
use crate::{say, show};

/// Two transfers of a large file and a few hundred calls, on a slow machine.
const SUITE_TIME_MAX: Duration = Duration::from_secs(600);
const COMMAND_TIME_MAX: Duration = Duration::from_secs(60);
/// In every answer of the embedded workspace; a session cookie is a credential too.
const COOKIE_OF_WORKSPACE: &str = "must-not-reach-the-agent";
/// How the Python suite says what it left out.
const NOT_TESTED: &str = "NOT TESTED HERE: ";
/// How it tells the table of rows.
const ROW: &str = "ROW: ";

/// The suite against a workspace of its own.
pub async fn run_against_embedded(python: &Path) {
    let folder = run_folder();
    let options = WorkspaceOptions {
        scratch: work_folder(),
        ..WorkspaceOptions::default()
    };
    let workspace = Arc::new(Workspace::start(options).await.unwrap());
    let apps = [APP, APP_RESTRICTED].map(|name| OtherAppOptions {
        name: name.to_owned(),
        ..OtherAppOptions::default()
    });
    let [tools, others] = apps.map(|options| OtherApp::start(&workspace, options));
    let (tools, others) = (tools.await.unwrap(), others.await.unwrap());
    let site = Site::embedded(&workspace, [tools.url(), others.url()]);
    let levers = Levers::attach(Arc::clone(&workspace)).await;
    run(python, &site, Some(&levers.url), folder.path()).await;
    let mut seen = credentials_seen(workspace.control());
    seen.extend(credentials_seen(tools.control()));
    assert!(
        seen.len() > site.users.len(),
        "the workspace saw only {} credentials: nothing to look for",
        seen.len()
    );
    seen.push(COOKIE_OF_WORKSPACE.to_owned());
    assert_nothing_leaked(&site, seen, folder.path());
    assert_handed_out_to_the_agent_alone(folder.path());
}

/// The suite against a real workspace, whose own tokens for the app cannot be known.
pub async fn run_against_real(python: &Path, site: &Site) {
    let folder = run_folder();
    run(python, site, None, folder.path()).await;
    assert_nothing_leaked(site, Vec::new(), folder.path());
}

fn run_folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("run-")
        .tempdir_in(work_folder())
        .unwrap()
}

async fn run(python: &Path, site: &Site, levers: Option<&str>, folder: &Path) {
    fs::create_dir(folder.join("answers")).unwrap();
    let mut sidecar = Sidecar::start(site, python, folder).await;
    let facts = facts(site, &sidecar, levers, &folder.join("answers"));
    let suite = pytest(python, &facts, folder).await;
    if let Err(report) = suite {
        panic!(
            "{report}\n--- sidecar and agent ---\n{}",
            tail(&sidecar.output())
        );
    }
    keep_admin_pages(site, &sidecar, folder).await;
    let ended = sidecar.stop().await;
    // A shell would say 143: the agent was ended by the signal that was passed on to it.
    assert_eq!(
        ended.code(),
        Some(128 + Signal::SIGTERM as i32),
        "{ended:?}"
    );
    let output = sidecar.output();
    assert!(
        output.contains(LISTENS) && output.contains("vks_"),
        "the agent's log with its session tokens is not where the canaries look"
    );
    verify_audit(&sidecar, folder, &site.users[1].name).await;
}

fn facts(site: &Site, sidecar: &Sidecar, levers: Option<&str>, store: &Path) -> Value {
    let users = site.users.iter();
    let users: Vec<Value> = users
        .map(|user| json!({"name": user.name, "tokens": user.tokens}))
        .collect();
    json!({
        "workspace": site.kind,
        "inbound": sidecar.inbound,
        "admin": sidecar.admin,
        "control": levers,
        "sidecar_pid": sidecar.pid,
        "agent_may_trace": sidecar.agent_may_trace,
        "store": store,
        "app_name": site.client_id,
        "users": users,
        "expired_token": site.expired_token,
        "workspace_id": site.workspace_id,
        "index_columns": site.index_columns,
        "things": site.things.iter().filter(|(_, thing)| thing.exists)
            .map(|(name, thing)| ((*name).to_owned(), json!([thing.allowed, thing.other])))
            .collect::<serde_json::Map<String, Value>>(),
        "decoys": Sidecar::decoys(),
    })
}

/// Runs the Python tests; the error is their report.
async fn pytest(python: &Path, facts: &Value, folder: &Path) -> Result<(), String> {
    // Not in the run's folder: these are the suite's own words, and a failing test may print the tokens it sent.
    let report = tempfile::NamedTempFile::new_in(work_folder()).unwrap();
    let mut command = Command::new(python);
    command
        .args(["-m", "pytest"])
        .current_dir(suite_folder())
        .env("VALETKEY_E2E_FACTS", facts.to_string())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HOME", folder)
        .stdin(Stdio::null())
        .stdout(report.reopen().unwrap())
        .stderr(File::options().append(true).open(report.path()).unwrap())
        .kill_on_drop(true);
    let ended = tokio::time::timeout(SUITE_TIME_MAX, command.status()).await;
    let text = fs::read_to_string(report.path()).unwrap();
    for left_out in text.lines().filter_map(|line| line.split_once(NOT_TESTED)) {
        say(left_out.1);
    }
    for row in text.lines().filter_map(|line| line.strip_prefix(ROW)) {
        show(row);
    }
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(_)) => Err(text),
        Ok(Err(fault)) => Err(format!("the suite did not start: {fault}")),
        Err(_) => Err(format!(
            "the suite took longer than {SUITE_TIME_MAX:?}\n{text}"
        )),
    }
}

/// What an operator sees after all that: kept for the canaries, and no label of a metric names a user or a path.
async fn keep_admin_pages(site: &Site, sidecar: &Sidecar, folder: &Path) {
    let metrics = sidecar.admin_page("/metrics").await;
    fs::write(folder.join("metrics"), &metrics).unwrap();
    fs::write(folder.join("status"), sidecar.admin_page("/status").await).unwrap();
    assert!(metrics.contains("valetkey_requests_total{"), "{metrics}");
    let [one, other] = &site.users;
    for private in [
        &one.name,
        &other.name,
        &site.thing("volume").to_owned(),
        &"/api/".to_owned(),
    ] {
        assert!(
            !metrics.contains(private.as_str()),
            "{private} in\n{metrics}"
        );
    }
}

/// The chain is whole, and both identities' work is in it.
async fn verify_audit(sidecar: &Sidecar, folder: &Path, user: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_valetkey"));
    command
        .args(["audit", "verify", "--config"])
        .arg(Sidecar::config_file())
        .env_clear()
        .envs(sidecar.variables.clone())
        .kill_on_drop(true);
    let output = tokio::time::timeout(COMMAND_TIME_MAX, command.output()).await;
    let output = output.expect("audit verify ends").unwrap();
    assert!(output.status.success(), "audit verify: {output:?}");
    let log = files_below(&folder.join("audit"));
    let text: String = log
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    assert!(
        text.contains(user) && text.contains("identity.me"),
        "no trace of the suite in the audit log"
    );
}

fn assert_nothing_leaked(site: &Site, seen: Vec<String>, folder: &Path) {
    let decoys = Sidecar::decoys().map(str::to_owned);
    let canaries = Canaries::new(site.secrets().into_iter().chain(seen).chain(decoys));
    let files = files_below(folder);
    let kept = files
        .iter()
        .filter(|file| file.starts_with(folder.join("answers")));
    assert!(
        kept.count() > 100,
        "the suite kept too few answers to look through"
    );
    assert_eq!(canaries.found_in(folder), Vec::<String>::new());
}

/// What the platform gives the agent by design may be in the agent's answers, and nowhere in what the sidecar wrote.
fn assert_handed_out_to_the_agent_alone(folder: &Path) {
    let canaries = Canaries::new(handed_out());
    let answers = canaries.found_in(&folder.join("answers"));
    assert!(
        answers.len() >= 2,
        "neither a Lakebase password nor a secret got to the agent: nothing to look for"
    );
    let mut found = canaries.found_in(&folder.join("audit"));
    for page in ["metrics", "status"] {
        found.extend(canaries.found_by(&folder.join(page), |_| true));
    }
    for log in ["stdout.log", "stderr.log"] {
        // The agent's own lines, which clients at their most talkative fill with what they got, are no JSON.
        found.extend(canaries.found_by(&folder.join(log), |line| line.starts_with('{')));
    }
    assert_eq!(found, Vec::<String>::new());
    let log = fs::read_to_string(folder.join("stderr.log")).unwrap();
    assert!(
        log.lines()
            .any(|line| line.starts_with('{') && line.contains("refused")),
        "the sidecar's own log is not where the canaries look"
    );
}

/// The end of a long text.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(200)..].join("\n")
}
