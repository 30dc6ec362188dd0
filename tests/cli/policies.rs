//! `policy test`, and the starter policies with their tests, as `config/policies` ships them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::Folder;
use crate::harness::process::{Ended, Process};

/// The policies by name.
fn shipped() -> BTreeMap<String, PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/policies");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let policies = files.filter(|path| path.extension().is_some_and(|e| e == "yaml"));
    policies
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path))
        .collect()
}

fn tests_of(policy: &Path) -> PathBuf {
    let name = policy.file_name().unwrap();
    policy.parent().unwrap().join("tests").join(name)
}

async fn run(folder: &Folder, arguments: &[&str]) -> Ended {
    Process::start(folder.valetkey(arguments)).end().await
}

#[tokio::test]
async fn every_starter_policy_passes_its_tests_and_each_route_has_some() {
    let folder = Folder::new();
    let shipped = shipped();
    assert!(shipped.len() >= 6, "{shipped:?}");
    for (name, path) in shipped {
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("# For "),
            "{name} does not say which agent it is for"
        );
        let tests = tests_of(&path);
        let out = run(
            &folder,
            &["policy", "test", "--json", tests.to_str().unwrap()],
        )
        .await
        .good();
        let told: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(told["failed"], 0, "{name}");
        let file = &told["files"][0];
        assert_eq!(file["untested"], serde_json::json!([]), "{name}");
        let cases = file["tests"].as_array().unwrap();
        let allowed = |case: &&Value| case["answer"]["allowed"] == true;
        let served: Vec<&Value> = cases.iter().filter(allowed).collect();
        let routes = text
            .lines()
            .filter(|line| line.trim_start().starts_with("- name: "))
            .count();
        assert!(
            cases.len() - served.len() >= routes,
            "{name}: too few refusals"
        );
        for line in text
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("- name: "))
        {
            let route = line.split_whitespace().next().unwrap();
            let decides = |case: &&Value| {
                case["answer"]["routes"]
                    .as_array()
                    .unwrap()
                    .contains(&route.into())
            };
            assert!(served.iter().any(decides), "{name}: {route} allows nothing");
        }
    }
}

#[tokio::test]
async fn check_has_nothing_to_say_of_a_starter_policy() {
    let folder = Folder::new();
    for (name, path) in shipped() {
        let tests: Value =
            serde_saphyr::from_str(&fs::read_to_string(tests_of(&path)).unwrap()).unwrap();
        let mut command = folder.valetkey(&["check", "--json", "--config", path.to_str().unwrap()]);
        command
            .env("DATABRICKS_HOST", "https://workspace.example")
            .env("DATABRICKS_WORKSPACE_ID", "12");
        for (variable, value) in tests["env"].as_object().unwrap() {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            command.env(variable, value);
        }
        let out = Process::start(command).end().await.good();
        let told: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(told["warnings"], serde_json::json!([]), "{name}");
    }
}

#[tokio::test]
async fn check_has_nothing_to_say_of_the_full_example() {
    let folder = Folder::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/valetkey.yaml");
    let arguments = ["check", "--json", "--config", example.to_str().unwrap()];
    let mut command = folder.valetkey(&arguments);
    command.env("DATABRICKS_HOST", "https://workspace.example");
    for variable in [
        "DATABRICKS_CLIENT_ID",
        "DATABRICKS_CLIENT_SECRET",
        "AGENT_CLIENT_ID",
        "AGENT_CLIENT_SECRET",
    ] {
        command.env(variable, "a-value-for-the-example");
    }
    let out = Process::start(command).end().await.good();
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["warnings"], serde_json::json!([]));
}

const POLICY: &str = "routes:\n  - {name: wh, resource: sql_warehouse/w1, as: user}\n  - {name: model, resource: serving_endpoint/m, as: caller}\n";

#[tokio::test]
async fn a_failing_test_is_told_with_its_line_the_difference_and_the_explanation() {
    let folder = Folder::new();
    folder.write(
        "good.yaml",
        &format!("{POLICY}tests:\n  - {{as: app, call: GET /x, expect: deny}}\n"),
    );
    folder.write(
        "bad.yaml",
        &format!("{POLICY}tests:\n  - {{name: the app asks, as: app, call: GET /api/2.0/sql/warehouses/w1, expect: allow}}\n"),
    );
    let out = run(&folder, &["policy", "test", "good.yaml"]).await.good();
    assert!(
        out.contains("ok    good.yaml: 1 of 1 as expected; decides no test: wh, model"),
        "{out}"
    );
    let ended = run(&folder, &["policy", "test", "good.yaml", "bad.yaml"])
        .await
        .expect(1);
    ended.says(&[
        "FAIL  bad.yaml:5: the app asks: expected allow, got deny",
        "REFUSED    the route runs as the user",
        "1 passed, 1 failed",
    ]);
    let json = run(&folder, &["policy", "test", "--json", "bad.yaml"])
        .await
        .expect(1)
        .out;
    let told: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(told["files"][0]["tests"][0]["line"], 5);
    assert_eq!(
        told["files"][0]["tests"][0]["answer"]["reason"],
        "user_required"
    );
}

#[tokio::test]
async fn mistakes_in_tests_are_bad_configuration_and_no_file_is_bad_usage() {
    let folder = Folder::new();
    folder.write(
        "t.yaml",
        &format!("{POLICY}tests:\n  - {{as: app, call: GET /x, expect: dny}}\n"),
    );
    let ended = run(&folder, &["policy", "test", "t.yaml", "nowhere.yaml"])
        .await
        .expect(78);
    ended.says(&[
        "t.yaml:5: tests[0].expect: must be one of allow, deny (did you mean `deny`?)",
        "nowhere.yaml: ",
    ]);
    let json = run(&folder, &["policy", "test", "--json", "t.yaml"])
        .await
        .expect(78)
        .out;
    let told: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(told["problems"][0]["line"], 5);
    run(&folder, &["policy", "test"])
        .await
        .expect(64)
        .says(&["FILE"]);
}

#[tokio::test]
async fn the_catalogue_is_listed_as_a_table_and_as_json() {
    let folder = Folder::new();
    let table = run(&folder, &["check", "--catalog", "sql.statements"])
        .await
        .good();
    for words in [
        &[
            "OPERATION",
            "METHOD",
            "EFFECT",
            "SCOPE",
            "USERS",
            "RESOURCE",
            "PATH",
        ][..],
        &[
            "sql.statements.execute",
            "POST",
            "write",
            "sql_warehouse in body warehouse_id",
            "/api/2.0/sql/statements",
        ],
    ] {
        let fits = |line: &&str| words.iter().all(|word| line.contains(word));
        assert!(
            table.lines().any(|line| fits(&line)),
            "{words:?} in\n{table}"
        );
    }
    assert!(!table.contains("genie"), "{table}");
    let genie = run(&folder, &["check", "--catalog", "genie.spaces.list"])
        .await
        .good();
    assert!(
        genie.contains("genie (dashboards.genie, mcp.genie)"),
        "{genie}"
    );
    let json = run(&folder, &["check", "--json", "--catalog"]).await.good();
    let told: Value = serde_json::from_str(&json).unwrap();
    let all = told["operations"].as_array().unwrap();
    let traces = all
        .iter()
        .find(|o| o["id"] == "mlflow.experiments.get")
        .unwrap();
    assert_eq!(traces["users"], false);
    assert_eq!(traces["resources"][0]["in"], "query");
    run(&folder, &["check", "--catalog", "genei"])
        .await
        .expect(64)
        .says(&["`genie`"]);
}
