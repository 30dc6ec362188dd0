//! What keeps the sidecar from starting: it says all of it, and serves nothing (PRODUCT 4).

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use valetkey::domain::problem::Problem;

use crate::harness::{TestApp, TestOptions, with_app};

async fn problems(config: Value) -> Vec<Problem> {
    match TestApp::start(TestOptions::default().with(config)).await {
        Ok(_) => panic!("it must not start"),
        Err(problems) => problems,
    }
}

async fn taken() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn a_taken_port_is_a_problem_of_its_listener() {
    for listener in ["inbound", "outbound", "admin"] {
        let (_held, address) = taken().await;
        let found = problems(json!({listener: {"listen": address}})).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].key, format!("{listener}.listen"));
        assert!(found[0].message.contains(&address.to_string()), "{found:?}");
        assert!(found[0].hint.is_some());
    }
}

#[tokio::test]
async fn all_taken_ports_are_told_at_once_and_nothing_stays_bound() {
    let ((_a, inbound), (_b, outbound)) = (taken().await, taken().await);
    let (free, admin) = taken().await;
    drop(free);
    let config = json!({
        "inbound": {"listen": inbound}, "outbound": {"listen": outbound}, "admin": {"listen": admin},
    });
    let found = problems(config).await;
    let mut keys: Vec<&str> = found.iter().map(|p| p.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["inbound.listen", "outbound.listen"]);
    assert!(
        TcpStream::connect(admin).await.is_err(),
        "the third was let go"
    );
}

#[tokio::test]
async fn an_audit_file_that_cannot_be_written_is_no_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for path in [
        // A directory; below a file; on a device that takes nothing.
        directory.path().to_owned(),
        file.join("audit.jsonl"),
        "/dev/full".into(),
        "/proc/nobody/audit.jsonl".into(),
    ] {
        let found = problems(json!({"audit": {"file": path}})).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].key, "audit.file");
        // Below a file it is the folder that cannot be had.
        let places = [path.as_path(), path.parent().unwrap()];
        let message = &found[0].message;
        let named = places.iter().any(|p| message.contains(p.to_str().unwrap()));
        assert!(named, "{found:?}");
    }
}

#[tokio::test]
async fn two_sidecars_do_not_share_an_audit_file() {
    with_app(TestOptions::default(), async |app| {
        let found = problems(json!({"audit": {"file": app.audit_file}})).await;
        assert_eq!(found[0].key, "audit.file");
        assert!(found[0].message.contains("running valetkey"), "{found:?}");
    })
    .await;
}

#[tokio::test]
async fn a_policy_with_a_mistake_is_no_start_and_names_what_was_meant() {
    let routes = json!([
        {"name": "a", "operation": "sql.statments.execute", "as": "user"},
        {"name": "b", "resource": "sql_warehose/1", "as": "user"},
    ]);
    let found = problems(json!({"routes": routes})).await;
    assert_eq!(found.len(), 2, "{found:?}");
    let text = found.iter().map(ToString::to_string).collect::<String>();
    assert!(
        text.contains("sql.statements.execute") && text.contains("sql_warehouse"),
        "{text}"
    );
}

#[tokio::test]
async fn a_restart_continues_the_chain_of_the_audit_log() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("valetkey.jsonl");
    for _ in 0..3 {
        let options = TestOptions::default().with(json!({"audit": {"file": file}}));
        // The chain over all runs so far is verified at the end of each.
        with_app(options, async |app| {
            let session = app.session(&app.alice()).await;
            let ask = app
                .outbound()
                .get("/api/2.0/preview/scim/v2/Me")
                .bearer(&session);
            assert_eq!(ask.fetch().await.status, 200);
        })
        .await;
    }
    let text = std::fs::read_to_string(file).unwrap();
    assert_eq!(text.matches(r#""event":"start""#).count(), 3);
    assert_eq!(text.matches(r#""event":"stop""#).count(), 3);
}
