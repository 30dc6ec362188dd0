//! Calls that are allowed on one thing and name another by a way that must not be overlooked.
//!
//! `catalogue.rs` knows the narrowest route of each.

use serde_json::{Value, json};

use super::case::table;
use super::{Trial, catalog};

/// An operation, the body that names too much, and the one thing that the route is on.
type Hole = (&'static str, Value, &'static str);

fn of_the_supervisor() -> Vec<Hole> {
    let with = |tool: Value| json!({"model": "llm", "input": "hello", "tools": [tool]});
    let space = |members: Value| with(json!({"type": "genie_space", "genie_space": members}));
    let traced = |to: Value| json!({"model": "llm", "input": "hello", "trace_destination": to});
    let bodies = [
        space(json!({"id": "01ef22"})),
        space(json!({"space_id": "01ef22"})),
        space(json!({"id": null})),
        with(json!({"genie_space": {"id": "01ef22"}})),
        with(json!({"type": "new_tool", "new_tool": {}})),
        with(json!({"type": "mcp", "server_url": "https://mcp.example"})),
        traced(json!({"catalog_name": "main"})),
        traced(json!({"catalog_name": "main", "schema_name": "hr"})),
    ];
    let hole = |body| ("gateway.mlflow.responses", body, "serving_endpoint/llm");
    bodies.map(hole).into()
}

fn of_trace_searches() -> Vec<Hole> {
    let mine = json!({"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "101"}});
    let with = |other: Value| json!({"locations": [mine.clone(), other]});
    let schema = |members: Value| with(json!({"type": "UC_SCHEMA", "uc_schema": members}));
    let payloads = json!({"inference_table": {"full_table_name": "main.hr.payloads"}});
    let bodies = [
        schema(json!({"catalog_name": "main", "schema_name": "hr"})),
        schema(json!({"catalog_name": "main"})),
        with(json!({"uc_schema": {"catalog_name": "main", "schema_name": "hr"}})),
        with(json!({"type": "UC_OTHER", "uc_other": {}})),
    ];
    let hole = |body| ("mlflow.traces.search-v4", body, "experiment/101");
    let mut holes: Vec<Hole> = bodies.map(hole).into();
    holes.push(("mlflow.traces.search-v3", with(payloads), "experiment/101"));
    holes
}

fn of_lists_and_spellings() -> Vec<Hole> {
    let search = |body| ("mlflow.runs.search", body, "experiment/101");
    vec![
        search(json!({"experiment_ids": ["101", "202"]})),
        search(json!({"experiment_ids": ["101"], "experimentIds": ["202"]})),
        (
            "database.credentials.create",
            json!({"instance_names": ["orders-db", null]}),
            "database/orders-db",
        ),
        ("jobs.run-now", json!({"job_id": "042"}), "job/42"),
    ]
}

#[test]
fn nothing_that_a_call_names_in_passing_escapes() {
    let catalog = catalog();
    let holes = [
        of_the_supervisor(),
        of_trace_searches(),
        of_lists_and_spellings(),
    ];
    for (op, body, touched) in holes.into_iter().flatten() {
        let case = table().into_iter().find(|case| case.op == op).unwrap();
        let mut trial = Trial::new(&catalog, case);
        let (run_as, caller) = trial.identity();
        let mut asked = trial.case.asked();
        asked.body = Some(body);
        let routes = trial.narrow(&[touched.to_owned()], run_as);
        trial.refused("it names more than its route", &routes, &asked, &caller);
    }
}
