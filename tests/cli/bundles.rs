//! Whole bundles in the shapes that agent templates have (`tests/bundles`): what `policy from-bundle` prints for each, that it
//! loads, and that it is the very policy that the key `bundle` gives.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use valetkey::config::{Config, Env};
use valetkey::domain::route::{PolicyOrigin, RouteSource};

use crate::harness::process::{Ended, Process};
use crate::harness::{Folder, config_without_workspace};

fn bundles() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bundles");
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut bundles: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    bundles.sort();
    assert!(bundles.len() >= 10, "{bundles:?}");
    bundles
}

fn arguments(bundle: &Path) -> Vec<String> {
    let words = fs::read_to_string(bundle.join("arguments")).unwrap_or_default();
    words.split_whitespace().map(str::to_owned).collect()
}

async fn from_bundle(bundle: &Path, more: &[&str]) -> Ended {
    let given = arguments(bundle);
    let mut words = vec!["policy", "from-bundle", "databricks.yml"];
    words.extend(given.iter().map(String::as_str).chain(more.iter().copied()));
    let folder = Folder::new();
    let mut command = folder.valetkey(&words);
    command.current_dir(bundle);
    Process::start(command).end().await
}

/// What a policy is made of; where its routes stand is another matter.
fn parts(config: &Config) -> (Vec<RouteSource>, Option<String>) {
    let routes = config.routes.iter().cloned();
    let routes = routes.map(|route| RouteSource { line: 0, ..route });
    let ceiling = config.users.scopes.as_ref().map(ToString::to_string);
    (routes.collect(), ceiling)
}

#[tokio::test]
async fn every_bundle_gives_the_expected_policy() {
    for bundle in bundles() {
        let printed = from_bundle(&bundle, &[]).await.good();
        let expected = fs::read_to_string(bundle.join("expected.yaml")).unwrap();
        assert_eq!(printed, expected, "{}", bundle.display());
    }
}

#[tokio::test]
async fn the_json_says_the_same() {
    for bundle in bundles() {
        let told: Value =
            serde_json::from_str(&from_bundle(&bundle, &["--json"]).await.good()).unwrap();
        let expected = fs::read_to_string(bundle.join("expected.yaml")).unwrap();
        let routes = told["routes"].as_array().unwrap();
        assert_eq!(routes.len(), expected.matches("- name: ").count());
        for route in routes {
            let name = format!("- name: {}\n", route["name"].as_str().unwrap());
            assert!(expected.contains(&name), "{name}");
        }
        for left_out in told["left_out"].as_array().unwrap() {
            assert!(expected.contains(left_out["message"].as_str().unwrap()));
        }
    }
}

#[test]
fn what_is_printed_loads_and_is_the_policy_of_the_key_bundle() {
    for bundle in bundles() {
        let given = arguments(&bundle);
        let after = |flag: &str| {
            let at = given.iter().position(|word| word == flag)?;
            given.get(at + 1).cloned()
        };
        let mut env = vec![
            ("DATABRICKS_HOST".to_owned(), "x.example".to_owned()),
            ("DATABRICKS_WORKSPACE_ID".to_owned(), "1".to_owned()),
        ];
        if let Some((name, value)) = after("--var").as_deref().and_then(|v| v.split_once('=')) {
            env.push((format!("BUNDLE_VAR_{name}"), value.to_owned()));
        }
        let env = Env::from_iter(env);
        let printed = fs::read_to_string(bundle.join("expected.yaml")).unwrap();
        let printed = Config::parse(&printed, None, &env).unwrap_or_else(|p| panic!("{p:#?}"));
        let mut key = json!({"file": "databricks.yml"});
        for name in ["app", "target"] {
            if let Some(value) = after(&format!("--{name}")) {
                key[name] = value.into();
            }
        }
        let text = json!({ "bundle": key }).to_string();
        let source = bundle.join("valetkey.yaml");
        let followed =
            Config::parse(&text, Some(&source), &env).unwrap_or_else(|p| panic!("{p:#?}"));
        assert_eq!(followed.policy_origin, PolicyOrigin::Bundle);
        assert_eq!(parts(&printed), parts(&followed), "{}", bundle.display());
    }
}

fn folder(bundle: &str) -> Folder {
    let folder = Folder::new();
    folder.write("databricks.yml", bundle);
    folder
}

#[tokio::test]
async fn mistakes_come_with_their_places_and_an_exit_code() {
    let folder = folder(
        "resources: {apps: {a: {resources: [{name: w, sql_warehouse: {id: 1, permission: CAN_FLY}}]}}}\n",
    );
    let ended = folder
        .run(&["policy", "from-bundle", "databricks.yml"])
        .await;
    assert_eq!(ended.code, 78);
    assert!(ended.err.contains("databricks.yml:1: resources.apps.a.resources[0].sql_warehouse.permission: `CAN_FLY` is no permission"), "{}", ended.err);
    let ended = folder
        .run(&["policy", "from-bundle", "databricks.yml", "--json"])
        .await;
    let told: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(told["problems"][0]["line"], 1);
    let ended = folder
        .run(&["policy", "from-bundle", "databricks.yml", "--var", "x"])
        .await;
    assert_eq!(ended.code, 64);
}

#[tokio::test]
async fn a_configuration_with_a_bundle_alone_starts_at_least_privilege() {
    let folder = folder(
        "resources: {apps: {a: {user_api_scopes: [sql], resources: [{name: wh, sql_warehouse: {id: w1, permission: CAN_USE}}, {name: t, experiment: {experiment_id: '', permission: CAN_EDIT}}]}}}\n",
    );
    let mut config = config_without_workspace();
    config.as_object_mut().unwrap().remove("routes");
    config["users"] = json!({});
    config["bundle"] = json!("./databricks.yml");
    folder.write_config(&config);
    let out = folder.run(&["check"]).await.good();
    for part in [
        "databricks.yml, app a, target default",
        "2 routes of the bundle",
        "iam.access-control:read iam.current-user:read sql",
        "sql_warehouse/w1",
        "everything else is denied",
        "warning: ./databricks.yml:1: resources.apps.a.resources[1].experiment.experiment_id: is empty",
    ] {
        assert!(out.contains(part), "{part} in\n{out}");
    }
    let explain = |method: &'static str, path: &'static str| {
        let folder = &folder;
        async move {
            folder
                .run(&["explain", "--as", "user", method, path])
                .await
                .code
        }
    };
    assert_eq!(explain("GET", "/api/2.0/sql/warehouses/w1").await, 0);
    assert_eq!(explain("GET", "/api/2.0/sql/warehouses/w2").await, 1);
    assert_eq!(explain("GET", "/api/2.0/preview/scim/v2/Me").await, 0);
}
