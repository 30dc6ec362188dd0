//! MLflow over a real socket: runs, models, prompts, traces of every version, and OTLP.

use super::*;
use crate::embedded::world::{
    EXPERIMENT_NAME, EXPERIMENT_RESTRICTED, PROMPT, TRACE_LOCATION, TRACE_LOCATION_RESTRICTED,
};

/// A caller of MLflow.
struct Tracker<'a> {
    rig: &'a Rig,
    token: String,
}

impl<'a> Tracker<'a> {
    async fn app(rig: &'a Rig) -> Self {
        let token = rig.app_token("mlflow").await;
        Self { rig, token }
    }

    /// Alice, who has every grant, with the widest scope.
    fn owner(rig: &'a Rig) -> Self {
        let token = rig.token_for("alice", "all-apis");
        Self { rig, token }
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Read {
        let body = if method == "GET" {
            empty()
        } else {
            full(body.to_string())
        };
        let path = format!("/api/{path}");
        self.rig.read(method, &path, Some(&self.token), body).await
    }

    async fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.send(method, path, body).await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        answer.json()
    }
}

fn experiment_trace(experiment: &str) -> Value {
    let place = json!({ "type": "MLFLOW_EXPERIMENT", "mlflow_experiment": { "experiment_id": experiment } });
    json!({ "trace": { "trace_info": { "trace_id": "tr-1", "trace_location": place, "state": "OK" } } })
}

fn prefix(name: &str) -> Value {
    let names: Vec<&str> = name.split('.').collect();
    json!({ "uc_table_prefix": { "catalog_name": names[0], "schema_name": names[1], "table_prefix": names[2] } })
}

#[tokio::test]
async fn a_run_keeps_what_is_logged_and_is_its_experiments() {
    let rig = Rig::start().await;
    let app = Tracker::app(&rig).await;
    let body = json!({ "experiment_id": EXPERIMENT });
    let run = app.done("POST", "2.0/mlflow/runs/create", &body).await;
    let id = run["run"]["info"]["run_id"].as_str().unwrap();
    let batch = json!({
        "run_id": id, "params": [{ "key": "p", "value": "1" }, { "key": "p", "value": "2" }],
        "metrics": [{ "key": "m", "value": 1 }, { "key": "m", "value": 2 }], "tags": [{ "key": "t", "value": "v" }],
    });
    app.done("POST", "2.0/mlflow/runs/log-batch", &batch).await;
    let untag = json!({ "run_id": id, "key": "t" });
    app.done("POST", "2.0/mlflow/runs/delete-tag", &untag).await;
    let get = format!("2.0/mlflow/runs/get?run_id={id}");
    let read = app.done("GET", &get, &Value::Null).await;
    let data = &read["run"]["data"];
    assert_eq!(data["params"], json!([{ "key": "p", "value": "2" }]));
    assert_eq!(data["tags"], json!([]));
    let history = format!("2.0/mlflow/metrics/get-history?run_id={id}&metric_key=m");
    let history = app.done("GET", &history, &Value::Null).await;
    assert_eq!(history["metrics"].as_array().unwrap().len(), 2);

    let file = format!(
        "/api/2.0/fs/files/WorkspaceInternal/Mlflow/Artifacts/{EXPERIMENT}/Runs/{id}/artifacts/a.txt"
    );
    let put = rig.read("PUT", &file, Some(&app.token), full("x")).await;
    assert_eq!(put.status, 204);
    let list = format!("2.0/mlflow/artifacts/list?run_id={id}");
    let list = app.done("GET", &list, &Value::Null).await;
    assert_eq!(list["files"][0]["path"], "a.txt");

    let owner = Tracker::owner(&rig);
    let hers = json!({ "experiment_id": EXPERIMENT_RESTRICTED });
    let hers = owner.done("POST", "2.0/mlflow/runs/create", &hers).await;
    let get = format!(
        "2.0/mlflow/runs/get?run_id={}",
        hers["run"]["info"]["run_id"].as_str().unwrap()
    );
    assert_eq!(app.send("GET", &get, &Value::Null).await.status, 403);
    let nothing = "2.0/mlflow/runs/get?run_id=none";
    assert_eq!(app.send("GET", nothing, &Value::Null).await.status, 404);
}

#[tokio::test]
async fn an_experiment_is_made_once() {
    let rig = Rig::start().await;
    let app = Tracker::app(&rig).await;
    let body = json!({ "name": "/Shared/new" });
    let made = app
        .done("POST", "2.0/mlflow/experiments/create", &body)
        .await;
    let get = format!(
        "2.0/mlflow/experiments/get?experiment_id={}",
        made["experiment_id"].as_str().unwrap()
    );
    let found = app.done("GET", &get, &Value::Null).await;
    assert_eq!(found["experiment"]["name"], "/Shared/new");
    for name in ["/Shared/new", EXPERIMENT_NAME] {
        let body = json!({ "name": name });
        let again = app
            .send("POST", "2.0/mlflow/experiments/create", &body)
            .await;
        assert_eq!(again.json()["error_code"], "ALREADY_EXISTS");
    }
    let list = app
        .done("POST", "2.0/mlflow/experiments/search", &json!({}))
        .await;
    assert_eq!(list["experiments"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_trace_of_the_third_version_has_tags_and_assessments() {
    let rig = Rig::start().await;
    let app = Tracker::app(&rig).await;
    let made = app
        .done("POST", "3.0/mlflow/traces", &experiment_trace(EXPERIMENT))
        .await;
    assert!(made["trace"]["trace_info"]["tags"]["mlflow.artifactLocation"].is_string());
    let tag = json!({ "key": "k", "value": "v" });
    app.done("PATCH", "2.0/mlflow/traces/tr-1/tags", &tag).await;
    let given =
        json!({ "assessment": { "assessment_name": "good", "feedback": { "value": true } } });
    let path = "3.0/mlflow/traces/tr-1/assessments";
    let kept = app.done("POST", path, &given).await;
    let one = format!(
        "{path}/{}",
        kept["assessment"]["assessment_id"].as_str().unwrap()
    );
    let change = json!({ "assessment": { "feedback": { "value": false } } });
    app.done("PATCH", &one, &change).await;
    let read = app.done("GET", &one, &Value::Null).await;
    assert_eq!(read["assessment"]["feedback"]["value"], false);
    let whole = app
        .done("GET", "3.0/mlflow/traces/tr-1", &Value::Null)
        .await;
    assert_eq!(whole["trace"]["trace_info"]["tags"]["k"], "v");
    assert_eq!(
        whole["trace"]["trace_info"]["assessments"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    app.done("DELETE", &one, &json!({})).await;
    assert_eq!(app.send("GET", &one, &Value::Null).await.status, 404);
    app.done(
        "DELETE",
        "3.0/mlflow/traces/tr-1/tags",
        &json!({ "key": "k" }),
    )
    .await;

    let search = json!({ "locations": [{ "mlflow_experiment": { "experiment_id": EXPERIMENT } }] });
    let found = app.done("POST", "3.0/mlflow/traces/search", &search).await;
    assert_eq!(found["traces"].as_array().unwrap().len(), 1);
    let delete = json!({ "experiment_id": EXPERIMENT, "request_ids": ["tr-1"] });
    let deleted = app
        .done("POST", "3.0/mlflow/traces/delete-traces", &delete)
        .await;
    assert_eq!(deleted["traces_deleted"], 1);
    assert_eq!(
        app.send("GET", "3.0/mlflow/traces/tr-1", &Value::Null)
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn a_trace_is_as_restricted_as_the_place_it_lies_in() {
    let rig = Rig::start().await;
    let (app, owner) = (Tracker::app(&rig).await, Tracker::owner(&rig));
    owner
        .done(
            "POST",
            "3.0/mlflow/traces",
            &experiment_trace(EXPERIMENT_RESTRICTED),
        )
        .await;
    let given = json!({ "assessment": { "assessment_name": "x" } });
    for (method, path, body) in [
        ("GET", "3.0/mlflow/traces/tr-1", &Value::Null),
        ("GET", "2.0/mlflow/traces/tr-1/info", &Value::Null),
        (
            "PATCH",
            "2.0/mlflow/traces/tr-1/tags",
            &json!({ "key": "k", "value": "v" }),
        ),
        ("POST", "3.0/mlflow/traces/tr-1/assessments", &given),
    ] {
        assert_eq!(app.send(method, path, body).await.status, 403, "{path}");
    }
}

#[tokio::test]
async fn a_trace_of_the_second_version_is_begun_and_ended() {
    let rig = Rig::start().await;
    let app = Tracker::app(&rig).await;
    let body = json!({ "experiment_id": EXPERIMENT, "timestamp_ms": 1000, "tags": [{ "key": "a", "value": "b" }] });
    let begun = app.done("POST", "2.0/mlflow/traces", &body).await;
    let info = &begun["trace_info"];
    assert_eq!(
        (&info["status"], &info["timestamp_ms"]),
        (&json!("IN_PROGRESS"), &json!(1000))
    );
    let path = format!("2.0/mlflow/traces/{}", info["request_id"].as_str().unwrap());
    let ended = app.done("PATCH", &path, &json!({ "status": "OK" })).await;
    assert_eq!(ended["trace_info"]["status"], "OK");
    let read = app.done("GET", &format!("{path}/info"), &Value::Null).await;
    assert_eq!(read["trace_info"]["experiment_id"], EXPERIMENT);
    let list = format!("2.0/mlflow/traces?experiment_ids={EXPERIMENT}");
    let list = app.done("GET", &list, &Value::Null).await;
    assert_eq!(list["traces"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_trace_in_unity_catalog_takes_the_grant_of_its_location() {
    let rig = Rig::start().await;
    let app = Tracker::app(&rig).await;
    let path = |location: &str, rest: &str| format!("4.0/mlflow/traces/{location}/{rest}");
    let info = json!({ "trace_location": prefix(TRACE_LOCATION), "state": "OK" });
    let made = app
        .done("POST", &path(TRACE_LOCATION, "ab12/info"), &info)
        .await;
    assert_eq!(made["trace_id"], "ab12");
    let read = app
        .done("GET", &path(TRACE_LOCATION, "ab12/info"), &Value::Null)
        .await;
    assert_eq!(read["trace"]["trace_info"]["state"], "OK");
    let tags = path(TRACE_LOCATION, "ab12/tags");
    app.done("PATCH", &tags, &json!({ "key": "k", "value": "v" }))
        .await;
    app.done("DELETE", &format!("{tags}/k"), &json!({})).await;
    let assessments = path(TRACE_LOCATION, "ab12/assessments");
    let kept = app
        .done("POST", &assessments, &json!({ "assessment_name": "good" }))
        .await;
    let one = format!("{assessments}/{}", kept["assessment_id"].as_str().unwrap());
    assert_eq!(
        app.done("GET", &one, &Value::Null).await["assessment_name"],
        "good"
    );
    app.done("DELETE", &one, &json!({})).await;
    let search = json!({ "locations": [prefix(TRACE_LOCATION)] });
    let found = app
        .done("POST", "4.0/mlflow/traces/search-long-running", &search)
        .await;
    assert_eq!(
        found["response"]["trace_infos"].as_array().unwrap().len(),
        1
    );

    let elsewhere = path("main.sales", "ab12/info");
    assert_eq!(app.send("POST", &elsewhere, &info).await.status, 400);
    let foreign = path(TRACE_LOCATION_RESTRICTED, "ab12/info");
    assert_eq!(app.send("GET", &foreign, &Value::Null).await.status, 403);
    let absent = path("main.sales.none", "ab12/info");
    assert_eq!(app.send("GET", &absent, &Value::Null).await.status, 404);
    let location = json!({ "uc_schema": { "catalog_name": "main", "schema_name": "hr" } });
    assert_eq!(
        app.send("POST", "4.0/mlflow/traces/location", &location)
            .await
            .status,
        403
    );
    let link = format!("5.0/mlflow/experiments/{EXPERIMENT}/trace-location:link");
    app.done("POST", &link, &prefix(TRACE_LOCATION)).await;
    assert_eq!(
        app.send("POST", &link, &prefix(TRACE_LOCATION_RESTRICTED))
            .await
            .status,
        403
    );
    let linked = format!("2.0/mlflow/experiments/get?experiment_id={EXPERIMENT}");
    let linked = app.done("GET", &linked, &Value::Null).await;
    assert_eq!(linked["experiment"]["tags"][0]["value"], TRACE_LOCATION);
    let made = app
        .done(
            "POST",
            "5.0/mlflow/tracing/locations",
            &prefix(TRACE_LOCATION),
        )
        .await;
    assert_eq!(
        made["uc_table_prefix"]["spans_table_name"],
        format!("{TRACE_LOCATION}_otel_spans")
    );
}

#[tokio::test]
async fn otlp_goes_to_the_table_in_its_header() {
    let rig = Rig::start().await;
    let app = Tracker::app(&rig).await;
    let bearer = format!("Bearer {}", app.token);
    for (table, status) in [
        (format!("{TRACE_LOCATION}_otel_spans"), 200),
        (
            "main.sales.mlflow_experiment_trace_otel_logs".to_owned(),
            200,
        ),
        (format!("{TRACE_LOCATION_RESTRICTED}_otel_spans"), 403),
        ("main.hr.mlflow_experiment_trace_otel_spans".to_owned(), 403),
        ("main.sales.none_otel_spans".to_owned(), 404),
        ("main.sales.orders".to_owned(), 404),
        (String::new(), 404),
    ] {
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/x-protobuf"),
            ("x-databricks-uc-table-name", &table),
        ];
        let url = format!("{}/api/2.0/otel/v1/traces", rig.workspace.url());
        let answer = rig.ask("POST", &url, &headers, full("\u{1}")).await;
        assert_eq!(answer.status(), status, "{table}");
    }
    let unnamed = app.send("POST", "2.0/otel/v1/traces", &json!({})).await;
    assert_eq!(unnamed.status, 400);
}

#[tokio::test]
async fn a_prompt_gets_versions_and_aliases() {
    let rig = Rig::start().await;
    let app = Tracker::app(&rig).await;
    let prompts = "2.0/mlflow/unity-catalog/prompts";
    let path = format!("{prompts}/{PROMPT}");
    let second = json!({ "name": PROMPT, "prompt_version": { "template": "\"Hi\"" } });
    let made = app.done("POST", &format!("{path}/versions"), &second).await;
    assert_eq!(made["version"], "2");
    let alias = json!({ "version": "2" });
    app.done("POST", &format!("{path}/aliases/prod"), &alias)
        .await;
    let found = app
        .done(
            "GET",
            &format!("{path}/versions/by-alias/prod"),
            &Value::Null,
        )
        .await;
    assert_eq!(found["template"], "\"Hi\"");
    let absent = app
        .send("GET", &format!("{path}/versions/9"), &Value::Null)
        .await;
    assert_eq!(absent.status, 404);

    let new = |name: &str| json!({ "name": name, "prompt": { "description": "d" } });
    app.done("POST", prompts, &new("main.sales.mine")).await;
    assert_eq!(
        app.send("POST", prompts, &new("main.sales.mine"))
            .await
            .status,
        409
    );
    assert_eq!(
        app.send("POST", prompts, &new("main.hr.mine")).await.status,
        403
    );
    let search = json!({ "catalog_schema": { "catalog_name": "main", "schema_name": "sales" } });
    let list = app
        .done("POST", &format!("{prompts}/search"), &search)
        .await;
    assert_eq!(list["prompts"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_logged_model_is_made_finished_and_found() {
    let rig = Rig::start().await;
    let app = Tracker::app(&rig).await;
    let body = json!({ "experiment_id": EXPERIMENT, "name": "agent" });
    let made = app.done("POST", "2.0/mlflow/logged-models", &body).await;
    let path = format!(
        "2.0/mlflow/logged-models/{}",
        made["model"]["info"]["model_id"].as_str().unwrap()
    );
    app.done("PATCH", &path, &json!({ "status": "LOGGED_MODEL_READY" }))
        .await;
    let tags = json!({ "tags": [{ "key": "a", "value": "b" }] });
    app.done("PATCH", &format!("{path}/tags"), &tags).await;
    let read = app.done("GET", &path, &Value::Null).await;
    assert_eq!(read["model"]["info"]["status"], "LOGGED_MODEL_READY");
    assert_eq!(read["model"]["info"]["tags"][0]["value"], "b");
    let search = json!({ "experiment_ids": [EXPERIMENT] });
    let found = app
        .done("POST", "2.0/mlflow/logged-models/search", &search)
        .await;
    assert_eq!(found["models"].as_array().unwrap().len(), 1);
}
