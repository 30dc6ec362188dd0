//! `doctor`: each thing that can be wrong is made wrong, and the report names it and its remedy.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::{Value, json};
use valetkey::embedded::control::{Fault, Place};
use valetkey::embedded::workspace::Workspace;
use valetkey::embedded::world::{CHAT_ENDPOINT, EXPERIMENT, WAREHOUSE, WAREHOUSE_RESTRICTED};

use crate::confine::{can_confine, without_landlock};
use crate::harness::process::Process;
use crate::harness::{
    APP_SECRET_VARIABLE, Folder, config, config_without_workspace, free_port, held_port, workspace,
};

/// A report by the names of its checks.
struct Report {
    code: i32,
    checks: Vec<Value>,
    text: String,
}

impl Report {
    #[track_caller]
    fn has(&self, name: &str, verdict: &str, words: &[&str]) {
        let check = { self.checks.iter() }.find(|c| c["name"] == name && c["verdict"] == verdict);
        let Some(check) = check else {
            panic!("no `{verdict}` of {name}: {}", self.text);
        };
        for word in words {
            assert!(check.to_string().contains(word), "`{word}`: {check}");
        }
    }

    /// All that is not as it should be.
    fn faults(&self) -> Vec<&str> {
        let bad = { self.checks.iter() }.filter(|c| c["verdict"] != "ok");
        bad.map(|c| c["name"].as_str().unwrap()).collect()
    }
}

async fn report(folder: &Folder, config: &Value, secret: &str) -> Report {
    folder.write_config(config);
    let mut command = folder.valetkey(&["doctor", "--json"]);
    command.env(APP_SECRET_VARIABLE, secret);
    let ended = Process::start(command).end().await;
    assert_eq!(ended.err, "");
    let page: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(page["good"], ended.code == 0, "{page}");
    ended.keeps_to_itself(&[secret, "eyJ"]);
    let checks = page["checks"].as_array().unwrap().clone();
    Report {
        code: ended.code,
        checks,
        text: ended.out,
    }
}

/// With a change of the configuration.
async fn of(workspace: &Workspace, change: impl FnOnce(&mut Value)) -> Report {
    let mut config = config(workspace, free_port());
    change(&mut config);
    let secret = workspace.app().client_secret.expose();
    report(&Folder::new(), &config, secret).await
}

#[tokio::test]
async fn all_is_well_with_a_good_environment() {
    let workspace = workspace().await;
    let good = of(&workspace, |config| {
        config["users"]["scopes"] = json!(["sql", "model-serving"]);
        config["routes"] = json!([
            {"name": "sql", "resource": format!("sql_warehouse/{WAREHOUSE}"), "as": "app"},
            {"name": "chat", "resource": format!("serving_endpoint/{CHAT_ENDPOINT}"), "as": "caller"},
            {"name": "runs", "resource": format!("experiment/{EXPERIMENT}"), "as": "app"},
            {"name": "hers", "resource": format!("sql_warehouse/{WAREHOUSE_RESTRICTED}"), "as": "user"},
        ]);
    })
    .await;
    assert_eq!((good.code, good.faults()), (0, vec![]), "{}", good.text);
    good.has("version", "ok", &["valetkey 0.", "valetkey.yaml"]);
    good.has("policy", "ok", &["4 routes"]);
    good.has("host", "ok", &[&workspace.url(), "(200)"]);
    good.has("clock", "ok", &["users.leeway is 30 s"]);
    good.has("discovery", "ok", &[workspace.issuer(), "token endpoint"]);
    good.has("keys", "ok", &["1 usable"]);
    good.has("app credential", "ok", &["a token for `sql`"]);
    for kind in [
        format!("sql_warehouse/{WAREHOUSE}"),
        format!("serving_endpoint/{CHAT_ENDPOINT}"),
    ] {
        good.has(&kind, "ok", &["can see it"]);
    }
    good.has("audit log", "ok", &["writable", "MiB free"]);
    for port in ["port inbound", "port outbound", "port admin", "port agent"] {
        good.has(port, "ok", &["free"]);
    }
    good.has("confinement", "ok", &["off"]);
    let calls = workspace.control().calls();
    assert!(
        calls
            .iter()
            .all(|call| call.method != "PUT" && call.method != "DELETE")
    );
}

#[tokio::test]
async fn the_bundles_resources_are_read_and_their_faults_told_apart() {
    let (folder, workspace) = (Folder::new(), workspace().await);
    folder.write("databricks.yml", &format!(
        "bundle: {{name: b}}\nresources:\n  apps:\n    agent:\n      name: agent\n      source_code_path: .\n      resources:\n\
        \x20       - {{name: a, sql_warehouse: {{id: {WAREHOUSE}, permission: CAN_USE}}}}\n\
        \x20       - {{name: b, sql_warehouse: {{id: {WAREHOUSE_RESTRICTED}, permission: CAN_USE}}}}\n\
        \x20       - {{name: c, serving_endpoint: {{name: no-such-model, permission: CAN_QUERY}}}}\n"
    ));
    let mut config = config(&workspace, free_port());
    let object = config.as_object_mut().unwrap();
    object.remove("routes");
    object.insert("bundle".into(), json!("databricks.yml"));
    let found = report(&folder, &config, workspace.app().client_secret.expose()).await;
    assert_eq!(found.code, 1, "{}", found.text);
    found.has(&format!("sql_warehouse/{WAREHOUSE}"), "ok", &[]);
    let denied = ["403", "no right", "CAN_USE", "deploy"];
    found.has(
        &format!("sql_warehouse/{WAREHOUSE_RESTRICTED}"),
        "fail",
        &denied,
    );
    found.has(
        "serving_endpoint/no-such-model",
        "fail",
        &["404", "check the id", "CAN_QUERY"],
    );
}

#[tokio::test]
async fn a_host_that_is_not_there_is_one_fault() {
    let mut config = config_without_workspace();
    config["app"] = json!({"client_id": "a", "client_secret": {"env": APP_SECRET_VARIABLE}});
    let found = report(&Folder::new(), &config, "some-secret").await;
    assert_eq!(found.code, 1);
    found.has(
        "host",
        "fail",
        &["127.0.0.1:1", "refused", "workspace.host", "DNS"],
    );
    for name in ["clock", "discovery", "keys", "app credential"] {
        found.has(name, "skip", &["cannot be reached"]);
    }
    found.has("policy", "warn", &["starter policy"]);
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config_without_workspace();
    config["workspace"]["host"] = json!(format!("http://{}", listener.local_addr().unwrap()));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 2048]);
            let answer = "HTTP/1.1 404 Not Found\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            // Whoever asked may have gone.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let found = report(&Folder::new(), &config, "some-secret").await;
    assert_eq!(found.code, 1);
    found.has("host", "ok", &["(404)"]);
    found.has(
        "clock",
        "fail",
        &["ahead of the workspace", "good tokens are refused", "NTP"],
    );
    found.has("discovery", "fail", &["404"]);
    found.has("keys", "skip", &[]);
}

#[tokio::test]
async fn faults_of_the_workspace_have_their_lines() {
    let workspace = workspace().await;
    let control = workspace.control();
    control.fail(Place::Keys, Fault::status(500));
    let found = of(&workspace, |_| {}).await;
    found.has("discovery", "ok", &[]);
    found.has("keys", "fail", &["status 500", "users cannot be verified"]);
    assert_eq!(
        (found.code, found.faults()),
        (1, vec!["keys"]),
        "{}",
        found.text
    );
    control.heal(Place::Keys);

    control.fail(Place::Token, Fault::Garbage);
    let found = of(&workspace, |_| {}).await;
    found.has("app credential", "fail", &["not usable"]);
    found.has("resources", "skip", &[]);
    control.heal(Place::Token);

    control.fail(Place::Workspace, Fault::Garbage);
    let found = of(&workspace, |_| {}).await;
    found.has("host", "ok", &["(200)"]);
    found.has("discovery", "fail", &["not a JSON object"]);
    control.heal(Place::Workspace);

    control.fail(Place::Api, Fault::status(503));
    let found = of(&workspace, |config| {
        config["routes"][1]["as"] = json!("app");
    })
    .await;
    found.has(
        &format!("sql_warehouse/{WAREHOUSE}"),
        "warn",
        &["503", "later"],
    );
    assert_eq!(found.code, 0, "{}", found.text);
}

#[tokio::test]
async fn a_wrong_or_missing_app_credential_is_told() {
    let workspace = workspace().await;
    let config = config(&workspace, free_port());
    let found = report(&Folder::new(), &config, "not-the-secret").await;
    assert_eq!(found.code, 1);
    found.has(
        "app credential",
        "fail",
        &["invalid_client", "expired or deleted"],
    );

    let found = of(&workspace, |config| {
        config.as_object_mut().unwrap().remove("app");
    })
    .await;
    assert_eq!(found.code, 1);
    found.has(
        "app credential",
        "fail",
        &["routes run as the app", "DATABRICKS_CLIENT_ID"],
    );
    let found = of(&workspace, |config| {
        config.as_object_mut().unwrap().remove("app");
        config["routes"] = json!([{"name": "who-am-i", "operation": "identity.me", "as": "user"}]);
    })
    .await;
    assert_eq!(found.code, 0);
    found.has("app credential", "warn", &["no call can run as the app"]);
}

#[tokio::test]
async fn an_audit_path_that_cannot_be_written_is_told_and_nothing_is_made() {
    let (folder, workspace) = (Folder::new(), workspace().await);
    folder.write("a-file", "");
    let mut config = config(&workspace, free_port());
    let secret = workspace.app().client_secret.expose();
    config["audit"]["file"] = json!("a-file/audit.jsonl");
    let found = report(&folder, &config, secret).await;
    assert_eq!(found.code, 1);
    found.has("audit log", "fail", &["a-file", "audit.file"]);
    config["audit"]["file"] = json!("new/folders/audit.jsonl");
    let found = report(&folder, &config, secret).await;
    assert_eq!(found.code, 0, "{}", found.text);
    assert!(!folder.file("new").exists());
    config["audit"]["rotate"] = json!({"size": "16GiB", "keep": 10000});
    let found = report(&folder, &config, secret).await;
    found.has("audit log", "warn", &["needed", "audit.rotate"]);
    assert_eq!(found.code, 0);
}

#[tokio::test]
async fn ports_of_others_are_faults_and_those_of_our_own_sidecar_are_not() {
    let (folder, workspace) = (Folder::new(), workspace().await);
    let [(_a, a), (_b, b), (_c, c), (agent, d)] =
        [held_port(), held_port(), held_port(), held_port()];
    let mut config = config(&workspace, d);
    for (name, port) in [("inbound", a), ("outbound", b), ("admin", c)] {
        config[name]["listen"] = json!(format!("127.0.0.1:{port}"));
    }
    let secret = workspace.app().client_secret.expose();
    let found = report(&folder, &config, secret).await;
    assert_eq!(found.code, 1);
    for name in ["inbound", "outbound", "admin"] {
        let remedy = format!("set {name}.listen");
        found.has(
            &format!("port {name}"),
            "fail",
            &["another process", &remedy],
        );
    }
    found.has("port agent", "warn", &["inbound.agent"]);

    drop((_a, _b, _c));
    folder.write_config(&config);
    let mut serve = folder.valetkey(&["serve"]);
    serve.env(APP_SECRET_VARIABLE, secret);
    let mut sidecar = Process::start(serve);
    sidecar.listening().await;
    let found = report(&folder, &config, secret).await;
    assert_eq!((found.code, found.faults()), (0, vec![]), "{}", found.text);
    for name in ["port inbound", "port outbound", "port admin"] {
        found.has(name, "ok", &["a running sidecar"]);
    }
    found.has("port agent", "ok", &["the agent listens"]);
    found.has("audit log", "ok", &["in use by a running sidecar"]);
    drop(agent);
    sidecar.stop().await.expect(0);
}

#[tokio::test]
async fn confinement_is_proven_by_a_child_that_tries() {
    let workspace = workspace().await;
    let port = workspace.addr().port();
    let found = of(&workspace, |config| {
        config["confine"] = json!({"mode": "required", "allow": [port]});
    })
    .await;
    assert_eq!(found.code, 1);
    found.has("confinement", "fail", &["in vain", "confine.allow"]);
    if !can_confine().await {
        return;
    }
    let found = of(&workspace, |config| {
        config["confine"] = json!({"mode": "required"})
    })
    .await;
    assert_eq!(found.code, 0, "{}", found.text);
    found.has("confinement", "ok", &["cannot reach", &workspace.url()]);

    let mut config = config_without_workspace();
    config["workspace"]["host"] = json!(workspace.url());
    for (mode, verdict) in [
        ("required", "fail  confinement"),
        ("best-effort", "warn  confinement"),
    ] {
        config["confine"] = json!({"mode": mode});
        let ended = without_landlock(&config, &["doctor"]).await;
        ended.says(&[verdict, "by itself", "Landlock", "Linux 6.7"]);
    }
}

#[tokio::test]
async fn a_configuration_with_mistakes_ends_with_78_in_both_forms() {
    let folder = Folder::new();
    folder.write_config(&json!({"workspace": {"hots": "x"}}));
    folder
        .run(&["doctor"])
        .await
        .expect(78)
        .says(&["workspace.hots"]);
    let ended = folder.run(&["doctor", "--json"]).await.expect(78);
    let page: Value = serde_json::from_str(&ended.out).unwrap();
    let problems = page["problems"].as_array().unwrap();
    assert!(
        problems.iter().any(|p| p["key"] == "workspace.hots"),
        "{page}"
    );
}
