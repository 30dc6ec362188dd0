//! `demo`: the tour that the README invites to.

use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::harness::process::Process;
use crate::harness::web::get;
use crate::harness::{Folder, PATH, USUAL_PORTS, until, within};

/// Who, which call, by which route, as whom, allowed, status, and a word of what happened.
const TABLE: [(&str, &str, &str, &str, &str, &str, &str); 12] = [
    (
        "alice",
        "me",
        "who-am-i",
        "user",
        "allowed",
        "200",
        "saw user:alice@example.com",
    ),
    (
        "alice",
        "orders",
        "user-sql",
        "user",
        "allowed",
        "200",
        "saw user:alice@example.com",
    ),
    (
        "bob",
        "orders",
        "user-sql",
        "user",
        "allowed",
        "200",
        "saw user:bob@example.com",
    ),
    (
        "alice",
        "search",
        "shared-knowledge",
        "app",
        "allowed",
        "200",
        "saw app",
    ),
    (
        "bob",
        "chat",
        "model",
        "user",
        "allowed",
        "200",
        "saw user:bob@example.com",
    ),
    (
        "app", "traces", "traces", "app", "allowed", "200", "saw app",
    ),
    (
        "app",
        "orders-as-app",
        "user-sql",
        "none",
        "REFUSED",
        "403",
        "user_required",
    ),
    (
        "alice",
        "other-warehouse",
        "-",
        "none",
        "REFUSED",
        "403",
        "no_route",
    ),
    (
        "bob",
        "make-token",
        "-",
        "none",
        "REFUSED",
        "403",
        "no_route",
    ),
    ("bob", "climb", "-", "none", "REFUSED", "400", "bad_path"),
    (
        "nobody",
        "orders",
        "-",
        "none",
        "REFUSED",
        "401",
        "token_missing",
    ),
    (
        "forger",
        "orders",
        "-",
        "none",
        "REFUSED",
        "401",
        "token_invalid",
    ),
];

/// Everything that looks like a token or a secret of the sidecar or the workspace.
fn secrets_in(text: &str) -> Vec<&str> {
    ["eyJ", "vks_", "vka_", "vkl_", "dose", "Bearer "]
        .into_iter()
        .filter(|beginning| text.contains(beginning))
        .collect()
}

fn audit_file(out: &str) -> PathBuf {
    let line = out.lines().find_map(|line| line.strip_prefix("audit log"));
    PathBuf::from(line.expect("the demo names its audit log").trim())
}

#[tokio::test]
async fn the_tour_shows_who_ran_as_whom_by_which_route_and_why_others_were_refused() {
    let folder = Folder::new();
    let ended = folder.run(&["demo", "--once"]).await.expect(0);
    let rows: Vec<Vec<&str>> = ended
        .out
        .lines()
        .skip_while(|line| !line.starts_with("WHO "))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), TABLE.len(), "{}", ended.out);
    for (row, (who, call, route, identity, result, status, words)) in rows.iter().zip(TABLE) {
        assert_eq!(row[..6], [who, call, route, identity, result, status]);
        assert!(row.join(" ").ends_with(words), "{row:?}");
    }
    assert_eq!(ended.err, "");
    assert_eq!(secrets_in(&ended.out), [""; 0], "{}", ended.out);
}

#[tokio::test]
async fn the_audit_log_of_the_tour_verifies_and_holds_no_secret() {
    let folder = Folder::new();
    let out = folder.run(&["demo", "--once"]).await.good();
    let log = audit_file(&out);
    assert!(log.starts_with(folder.path()), "{}", log.display());
    let log = log.to_str().unwrap();
    let report = folder.run(&["audit", "verify", log]).await.good();
    assert!(report.starts_with("good: "), "{report}");
    let text = std::fs::read_to_string(log).unwrap();
    assert_eq!(secrets_in(&text), [""; 0]);
    let query = ["audit", "query", "--json", "--decision", "deny", log];
    let denied = folder.run(&query).await.good();
    assert_eq!(denied.lines().count(), 6, "{denied}");
}

/// The lines that the demo prints for other terminals, as shell commands.
fn lines_to_paste(out: &str) -> Vec<String> {
    let program = env!("CARGO_BIN_EXE_valetkey");
    out.lines()
        .filter_map(|line| line.strip_prefix("  "))
        .map(|line| line.replace("valetkey audit", &format!("{program} audit")))
        .map(|line| line.replace("valetkey explain", &format!("{program} explain")))
        .map(|line| line.replace("valetkey check", &format!("{program} check")))
        .collect()
}

#[tokio::test]
async fn a_demo_that_stays_prints_lines_that_work_when_pasted_and_ends_by_ctrl_c() {
    let folder = Folder::new();
    let _turn = USUAL_PORTS.lock().await;
    let demo = Process::start(folder.valetkey(&["demo"]));
    let out = until("the demo prints its last line", async || {
        let out = demo.out();
        out.contains("valetkey check --config").then_some(out)
    })
    .await;
    let lines = lines_to_paste(&out);
    assert_eq!(lines.len(), 7, "{out}");
    for line in &lines {
        // Following goes on for good, so it is only begun; and curl, which not every machine has, is played.
        let line = line.replace("tail -f", "tail");
        let line = line.replace("curl -H", "printf '%s\\n'");
        let mut shell = tokio::process::Command::new("sh");
        shell.args(["-c", &line]).env_clear().env("PATH", PATH);
        let shell = Process::start(shell).end().await;
        if line.contains("explain") {
            shell.expect(1).says(&["REFUSED", "no_route"]);
        } else if let Some((header, url)) = shell.good().split_once('\n')
            && line.contains("printf")
        {
            let (name, value) = header.split_once(": ").unwrap();
            let (address, tool) = url.trim()["http://".len()..].split_once('/').unwrap();
            let target = format!("/{tool}");
            let answer = get(address.parse().unwrap(), &target, &[(name, value)]).await;
            assert_eq!(answer.json()["status"], 200, "{line}: {answer:?}");
        }
    }
    let file = lines.last().unwrap().split("--config ").nth(1).unwrap();
    let mut health = folder.valetkey(&["healthcheck", "--config", file]);
    health.env("DEMO_CLIENT_SECRET", "any");
    Process::start(health).end().await.good();
    let metrics = out.lines().find_map(|line| line.strip_prefix("metrics"));
    let address = metrics.unwrap().trim().trim_start_matches("http://");
    let address = address.trim_end_matches("/metrics").parse().unwrap();
    let page = get(address, "/metrics", &[]).await.expect(200).body;
    assert!(page.contains("valetkey_requests_total{"), "{page}");
    assert_eq!(secrets_in(&out), [""; 0]);

    demo.signal(Signal::SIGINT);
    let ended = within("the demo ends", demo.end()).await.expect(0);
    assert_eq!(ended.err, "");
}
