//! `check` and `explain`: what a configuration means, and every mistake in it at once.

use std::process::Stdio;

use serde_json::{Value, json};
use valetkey::embedded::world::WAREHOUSE;

use crate::harness::process::{Ended, Process};
use crate::harness::{APP_SECRET_VARIABLE, Folder, ME, config_without_workspace, experiment};

const SECRET: &str = "the-secret-value-of-the-app";
const STATEMENTS: &str = "/api/2.0/sql/statements";

/// A folder with a configuration of three routes and a secret.
fn folder() -> Folder {
    let folder = Folder::new();
    let mut config = config_without_workspace();
    config["app"] = json!({"client_id": "the-app", "client_secret": {"env": APP_SECRET_VARIABLE}});
    config["users"] = json!({"scopes": ["sql", "iam.current-user:read"]});
    config["routes"] = json!([
        {"name": "who-am-i", "operation": "identity.me", "as": "caller"},
        {"name": "user-sql", "resource": format!("sql_warehouse/{WAREHOUSE}"), "as": "user"},
        {"name": "traces", "operation": "mlflow.*", "as": "app"},
        {"name": "no-echo", "path": "/api/2.0/embedded/**", "as": "deny"},
    ]);
    folder.write_config(&config);
    folder
}

/// Runs with the secret in the environment; it must never come out.
async fn with_secret(folder: &Folder, arguments: &[&str], input: &str) -> Ended {
    let mut command = folder.valetkey(arguments);
    command.env(APP_SECRET_VARIABLE, SECRET);
    let input = std::fs::File::open(folder.write("input", input)).unwrap();
    let ended = Process::start_with(command, Stdio::from(input)).end().await;
    ended.keeps_to_itself(&[SECRET]);
    ended
}

#[tokio::test]
async fn check_prints_the_effective_policy_as_a_table() {
    let out = with_secret(&folder(), &["check"], "").await.good();
    let rows: Vec<Vec<&str>> = out
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    for row in [
        &["config", "valetkey.yaml"][..],
        &["workspace", "http://127.0.0.1:1"],
        &["outbound", "127.0.0.1:0"],
        &["audiences", "12"],
        &["scopes", "iam.current-user:read", "sql"],
        &["app", "the-app"],
        &["#", "ROUTE", "MATCHES", "AS", "SCOPE"],
        &[
            "1",
            "who-am-i",
            "identity.me",
            "caller",
            "of",
            "the",
            "operation",
        ],
        &["everything", "else", "is", "denied"],
    ] {
        assert!(rows.iter().any(|r| r[..] == *row), "{row:?} in\n{out}");
    }
    assert!(!out.contains("warning"), "{out}");
}

#[tokio::test]
async fn check_prints_the_same_as_json() {
    let out = with_secret(&folder(), &["check", "--json"], "")
        .await
        .good();
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["config"]["app"], "the-app");
    assert_eq!(told["warnings"], json!([]));
    let routes = told["routes"].as_array().unwrap();
    let names: Vec<&str> = routes.iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["who-am-i", "user-sql", "traces", "no-echo"]);
    assert_eq!(routes[1]["as"], "user");
    assert!(routes[1]["line"].as_u64().unwrap() > routes[0]["line"].as_u64().unwrap());
}

#[tokio::test]
async fn check_without_routes_tells_of_the_starter_policy() {
    let folder = Folder::new();
    folder.write_config(&config_without_workspace());
    let out = folder.run(&["check"]).await.good();
    assert!(out.contains("built-in starter policy"), "{out}");
    assert!(out.contains("caller"), "{out}");
}

#[tokio::test]
async fn warnings_are_told_with_their_lines_and_are_no_mistakes() {
    let folder = Folder::new();
    let mut config = config_without_workspace();
    config["users"] = json!({"scopes": ["sql"]});
    config["routes"] = json!([
        {"name": "first", "resource": "sql_warehouse/a", "as": "user"},
        {"name": "second", "resource": "sql_warehouse/a", "as": "app"},
        {"name": "third", "operation": "mlflow.*", "as": "caller"},
        {"name": "fourth", "resource": "volume/a.b.c", "as": "user"},
    ]);
    folder.write_config(&config);
    let table = folder.run(&["check"]).await.good();
    let warnings: Vec<&str> = table
        .lines()
        .filter(|l| l.starts_with("warning: "))
        .collect();
    assert_eq!(warnings.len(), 3, "{table}");
    let place = |warning: &str| {
        let rest = warning.strip_prefix("warning: valetkey.yaml:").unwrap();
        rest.split(':').next().unwrap().parse::<usize>().unwrap()
    };
    assert!(
        warnings.is_sorted_by_key(|warning| place(warning)),
        "{table}"
    );
    assert!(warnings[0].contains("routes[1] (second)") && warnings[0].contains("`first`"));
    assert!(warnings[1].contains("use `as: app`"), "{table}");
    assert!(warnings[2].contains("needs `files`"), "{table}");
    let told: Value = serde_json::from_str(&folder.run(&["check", "--json"]).await.good()).unwrap();
    assert_eq!(told["warnings"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_route_that_can_never_serve_anybody_is_a_mistake_with_two_remedies() {
    let folder = Folder::new();
    let mut config = config_without_workspace();
    config["routes"] = json!([{"name": "traces", "operation": "mlflow.*", "as": "user"}]);
    folder.write_config(&config);
    let ended = folder.run(&["check"]).await.expect(78);
    ended.says(&[
        "routes[0].as: no user can ever pass",
        "use `as: app`",
        "`scope: mlflow`",
    ]);
}

#[tokio::test]
async fn explain_says_what_to_add_and_what_nearly_matched() {
    let folder = folder();
    for (arguments, words) in [
        (
            vec!["user", "GET", "/api/2.0/sql/warehouses/w9"],
            vec![
                "operation  sql.warehouses.get (read)",
                "user-sql (line ",
                "it would match but for resource: sql_warehouse/",
                "add        - {name: NAME, resource: sql_warehouse/w9, effect: read, as: user}",
            ],
        ),
        (
            vec!["app", "POST", "/api/2.0/token/create"],
            vec![
                "reached only by the operation's full name",
                "- {name: NAME, operation: tokens.create, as: app}",
            ],
        ),
        (
            vec!["user", "GET", "/nowhere"],
            vec![
                "the catalogue does not know the call",
                "- {name: NAME, method: [GET], path: /nowhere, as: user, scope: SCOPE}",
            ],
        ),
        (
            vec!["user", "--scopes", "sql", "GET", ME],
            vec!["needs the scope `iam.current-user:read`, and the session holds `sql`"],
        ),
        (
            vec!["user", "GET", "/api/2.0/sql/statements/s1"],
            vec!["follow_up_unknown", "--bound TYPE/ID"],
        ),
    ] {
        let all = [vec!["explain", "--as"], arguments].concat();
        with_secret(&folder, &all, "").await.expect(1).says(&words);
    }
}

/// Line, key, and what helps, of each mistake.
const FAULTY: &str = r#"workspace: {host: "http://127.0.0.1:1", id: "${SECRET_LOOKING}"}
inbond: {listen: "127.0.0.1:0"}
outbound:
  listen: 0.0.0.0:9400
  allow_hosts: ["*"]
app: {client_id: x, client_secret: a-secret-value-in-the-file}
users: {session: {ttl: soon}}
routes:
  - {name: a, resource: sql_warehouse/x, as: root}
  - {name: a, operation: identity.me, as: user}
admin: {listen: nowhere}
audit: {ship: {volume: a.b.c}}
"#;
const MISTAKES: [(usize, &str, &str); 8] = [
    (2, "inbond", "`inbound`"),
    (4, "outbound.listen", "127.0.0.1:PORT"),
    (5, "outbound.allow_hosts[0]", "*.example.com"),
    (6, "app.client_secret", "{env: NAME}"),
    (7, "users.session.ttl", "30s"),
    (9, "routes[0].as", "app, user, caller, deny"),
    (10, "routes[1].name", "line 9"),
    (12, "audit.ship", "remove"),
];

#[tokio::test]
async fn every_mistake_of_a_file_is_told_at_once_with_line_key_and_remedy() {
    let folder = Folder::new();
    folder.write("faulty.yaml", FAULTY);
    for command in [
        &["check"][..],
        &["serve"],
        &["healthcheck"],
        &["audit", "verify"],
    ] {
        let mut command = folder.valetkey(command);
        command
            .env("VALETKEY_CONFIG", "faulty.yaml")
            .env("SECRET_LOOKING", "dapi-value-of-a-variable");
        let ended = Process::start(command).end().await.expect(78);
        ended.keeps_to_itself(&["a-secret-value-in-the-file", "dapi-value-of-a-variable"]);
        for (line, key, remedy) in MISTAKES {
            let place = format!("faulty.yaml:{line}: {key}: ");
            let told = ended.err.lines().find(|told| told.starts_with(&place));
            let told = told.unwrap_or_else(|| panic!("{place} in\n{}", ended.err));
            assert!(told.contains(remedy), "{told}");
        }
        assert!(ended.err.contains("faulty.yaml:11: admin.listen: "));
    }
}

#[tokio::test]
async fn mistakes_are_json_for_scripts() {
    let folder = Folder::new();
    folder.write("valetkey.yaml", FAULTY);
    let ended = folder.run(&["check", "--json"]).await.expect(78);
    let told: Value = serde_json::from_str(&ended.out).unwrap();
    let problems = told["problems"].as_array().unwrap();
    for (line, key, remedy) in MISTAKES {
        let problem = problems
            .iter()
            .find(|p| p["line"] == line && p["key"] == key);
        let problem = problem.unwrap_or_else(|| panic!("{key} in {told:#}"));
        assert!(problem.to_string().contains(remedy), "{problem}");
        assert_eq!(problem["file"], "valetkey.yaml");
    }
    ended.keeps_to_itself(&["a-secret-value-in-the-file"]);
}

#[tokio::test]
async fn a_file_that_is_not_there_or_no_yaml_is_told_by_name() {
    let folder = Folder::new();
    folder.write("broken.yaml", "routes: [\n");
    for file in ["nowhere.yaml", "broken.yaml"] {
        let ended = folder.run(&["check", "--config", file]).await.expect(78);
        ended.says(&[file]);
    }
    // Without a file and without a workspace there is nothing to check.
    let ended = folder.run(&["check"]).await.expect(78);
    ended.says(&["workspace.host", "DATABRICKS_HOST"]);
}

#[tokio::test]
async fn explain_answers_yes_with_0_and_no_with_1() {
    let folder = folder();
    let traces = experiment();
    for (arguments, code, words) in [
        (
            vec!["user", "GET", ME],
            0,
            vec!["ALLOWED", "runs as the user", "who-am-i"],
        ),
        (
            vec!["app", "GET", ME],
            0,
            vec!["ALLOWED", "runs as the app"],
        ),
        (
            vec!["user", "GET", &traces],
            0,
            vec!["ALLOWED", "as the app", "traces"],
        ),
        (
            vec!["app", "GET", "/api/2.0/token/list"],
            1,
            vec!["REFUSED", "no_route"],
        ),
        (
            vec!["app", "GET", "/api/2.0/embedded/x"],
            1,
            vec!["route_denies", "no-echo"],
        ),
        (
            vec!["user", "GET", "/api/2.0/../x"],
            1,
            vec!["REFUSED", "bad_path"],
        ),
        (
            vec!["user", "--scopes", "sql", "GET", ME],
            1,
            vec!["scope_missing"],
        ),
        (
            vec!["user", "--scopes", "genie,sql", "POST", STATEMENTS],
            1,
            vec!["REFUSED"],
        ),
    ] {
        let all = [vec!["explain", "--as"], arguments.clone()].concat();
        let ended = with_secret(&folder, &all, "").await.expect(code);
        ended.says(&words);
        assert_eq!(ended.err, "", "{arguments:?}");
        let json = [all, vec!["--json"]].concat();
        let told = with_secret(&folder, &json, "").await.expect(code).out;
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["allowed"], code == 0, "{arguments:?}");
    }
}

#[tokio::test]
async fn explain_reads_the_body_that_decides_from_a_file_or_from_standard_input() {
    let folder = folder();
    let body =
        |warehouse: &str| json!({"warehouse_id": warehouse, "statement": "select 1"}).to_string();
    folder.write("good.json", &body(WAREHOUSE));
    folder.write("other.json", &body("another"));
    for (identity, file, input, code, words) in [
        ("user", "good.json", "", 0, ["ALLOWED", "sql_warehouse/"]),
        (
            "user",
            "other.json",
            "",
            1,
            ["no_route", "sql_warehouse/another"],
        ),
        (
            "user",
            "-",
            body(WAREHOUSE).as_str(),
            0,
            ["ALLOWED", "user-sql"],
        ),
        (
            "user",
            "-",
            r#"{"warehouse_id": "a", "warehouse_id": "b"}"#,
            1,
            ["REFUSED", "bad_"],
        ),
        ("app", "good.json", "", 1, ["user_required", "user-sql"]),
    ] {
        let call = [
            "explain", "--as", identity, "POST", STATEMENTS, "--body", file,
        ];
        with_secret(&folder, &call, input)
            .await
            .expect(code)
            .says(&words);
    }
}

#[tokio::test]
async fn a_question_that_cannot_be_asked_is_bad_usage() {
    let folder = folder();
    for (arguments, word) in [
        (&["--as", "user", "GE T", "/"][..], "GE T"),
        (
            &["--as", "user", "POST", "/x", "--body", "nowhere.json"],
            "nowhere.json",
        ),
        (&["GET", "/"], "--as"),
        (&["--as", "user", "GET"], "PATH"),
    ] {
        let all = [&["explain"], arguments].concat();
        with_secret(&folder, &all, "")
            .await
            .expect(64)
            .says(&[word]);
    }
}
