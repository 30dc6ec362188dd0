//! Traces in Unity Catalog: the fourth version of the API, the fifth's settings, and OTLP into the trace tables.
//!
//! A location is `c.s` or `c.s.prefix`; the tables below it are named after it. What a trace is: `traces.rs`.

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName};
use serde_json::{Value, json};

use super::{may_use_experiment, may_use_location, runs, tag, texts, traces};
use crate::embedded::answer::{Answer, Refusal, bare, json_ok, put, set};
use crate::embedded::call::{Call, word};
use crate::embedded::grants::{SCHEMAS, TRACE_LOCATIONS};
use crate::embedded::workspace::Site;

/// Names the table that OTLP data goes to.
const TABLE: HeaderName = HeaderName::from_static("x-databricks-uc-table-name");
/// What the trace tables of a prefix are called after it.
const TABLES: [&str; 4] = [
    "_otel_spans",
    "_otel_logs",
    "_otel_metrics",
    "_otel_annotations",
];
/// The tags by which an experiment tells where its traces go, each with what it adds to the location.
const DESTINATION: [(&str, &str); 4] = [
    ("mlflow.experiment.databricksTraceDestinationPath", ""),
    (
        "mlflow.experiment.databricksTraceSpanStorageTable",
        "_otel_spans",
    ),
    (
        "mlflow.experiment.databricksTraceLogStorageTable",
        "_otel_logs",
    ),
    (
        "mlflow.experiment.databricksTraceAnnotationsTable",
        "_otel_annotations",
    ),
];
/// What they are called in a schema without a prefix.
const SCHEMA_TABLES: &str = "mlflow_experiment_trace";

/// Takes OTLP data for a trace table.
pub(super) fn export(call: &Call) -> Result<Answer, Refusal> {
    if call.method != "POST" {
        return Err(call.no_endpoint());
    }
    let missing = || Refusal::bad_request("Missing header X-Databricks-UC-Table-Name");
    let table = call.headers.get(TABLE).and_then(|v| v.to_str().ok());
    let table = table.ok_or_else(missing)?;
    let prefix = TABLES.iter().find_map(|end| table.strip_suffix(end));
    let unknown = || Refusal::missing("TABLE_DOES_NOT_EXIST", "Table", table);
    let prefix = prefix.ok_or_else(unknown)?;
    match prefix.rsplit_once('.') {
        Some((schema, SCHEMA_TABLES)) => call.caller.may_use(SCHEMAS, schema)?,
        Some(_) | None => call.caller.may_use(TRACE_LOCATIONS, prefix)?,
    }
    // An empty ExportServiceResponse is no bytes at all.
    let mut answer = bare(StatusCode::OK);
    set(&mut answer, CONTENT_TYPE, "application/x-protobuf");
    Ok(answer)
}

/// The fourth version.
pub(super) fn answer(
    site: &Site,
    call: &Call,
    rest: &[&str],
    body: &Value,
) -> Result<Answer, Refusal> {
    match (call.method.as_str(), rest) {
        ("POST", ["location"]) => {
            let mut place = body.clone();
            let name = traces::location_name(body);
            let missing = || Refusal::bad_request("Missing required field: uc_schema");
            may_use_location(site, &call.caller, &name.ok_or_else(missing)?)?;
            if let Some(schema) = place.get_mut("uc_schema") {
                let named = |end: &str| json!(format!("{SCHEMA_TABLES}{end}"));
                put(schema, "otel_spans_table_name", named("_otel_spans"));
                put(schema, "otel_logs_table_name", named("_otel_logs"));
            }
            Ok(json_ok(&json!({ "uc_schema": place.get("uc_schema") })))
        }
        ("POST", ["search"]) => {
            let found = traces::search(site, call, body)?;
            Ok(json_ok(&json!({ "trace_infos": found })))
        }
        ("POST", ["search-long-running"]) => {
            // Done at once, so that there is no operation to be looked at later.
            let found = traces::search(site, call, body)?;
            Ok(json_ok(&json!({
                "name": uuid::Uuid::now_v7().to_string(), "done": true, "response": { "trace_infos": found },
            })))
        }
        ("POST", [experiment, "link-location" | "unlink-location"]) => {
            may_use_experiment(site, &call.caller, experiment)?;
            let name = traces::location_name(body).unwrap_or_default();
            may_use_location(site, &call.caller, &name)?;
            Ok(json_ok(&json!({})))
        }
        (_, [location, rest @ ..]) => {
            may_use_location(site, &call.caller, location)?;
            in_location(site, call, location, rest, body)
        }
        _ => Err(call.no_endpoint()),
    }
}

fn in_location(
    site: &Site,
    call: &Call,
    location: &str,
    rest: &[&str],
    body: &Value,
) -> Result<Answer, Refusal> {
    match (call.method.as_str(), rest) {
        ("GET", ["batchGet"]) => {
            let ids = call.query.iter().filter(|(name, _)| name == "trace_ids");
            let found: Result<Vec<Value>, Refusal> = ids
                .map(|(_, id)| {
                    let info = traces::change(site, call, id, |info| info.clone())?;
                    Ok(json!({ "trace_info": info, "spans": [] }))
                })
                .collect();
            Ok(json_ok(&json!({ "traces": found? })))
        }
        (
            "POST" | "DELETE",
            ["link-to-run", "batchCreate"] | ["unlink-from-run", "batchDelete"],
        ) => {
            runs::change(site, call, word(body, "run_id")?, |_| ())?;
            for id in texts(body, "trace_ids") {
                traces::change(site, call, id, |_| ())?;
            }
            Ok(json_ok(&json!({})))
        }
        ("POST", [id, "info"]) => {
            let named = body.get("trace_location").and_then(traces::location_name);
            if named.as_deref() != Some(location) {
                let message = "The trace_location is not the one in the path.";
                return Err(Refusal::bad_request(message));
            }
            let mut info = body.clone();
            put(&mut info, "trace_id", json!(id));
            traces::begin(site, call, &info).map(|info| json_ok(&info))
        }
        ("GET", [id, "info"]) => {
            let info = traces::change(site, call, id, |info| info.clone())?;
            Ok(json_ok(&json!({ "trace": { "trace_info": info } })))
        }
        (_, [id, "tags"]) => traces::tags(site, call, id, body),
        ("DELETE", [id, "tags", key]) => {
            traces::untag(site, call, id, key)?;
            Ok(json_ok(&json!({})))
        }
        // Here the assessment is the whole body, and the whole answer.
        ("POST", [id, "assessments"]) => {
            traces::assess(site, call, id, body).map(|kept| json_ok(&kept))
        }
        (_, [id, "assessments", assessment]) => {
            let kept = traces::on_assessment(site, call, (id, assessment), body)?;
            Ok(json_ok(&kept.unwrap_or_else(|| json!({}))))
        }
        _ => Err(call.no_endpoint()),
    }
}

/// The fifth version: which tables a location has, and which experiment puts its traces there.
pub(super) fn settings(
    site: &Site,
    call: &Call,
    rest: &[&str],
    body: &Value,
) -> Result<Answer, Refusal> {
    let missing = || Refusal::bad_request("Missing required field: uc_table_prefix");
    match (call.method.as_str(), rest) {
        ("POST", ["tracing", "locations"]) => {
            let name = traces::location_name(body).ok_or_else(missing)?;
            may_use_location(site, &call.caller, &name)?;
            Ok(json_ok(&json!({ "uc_table_prefix": prefix(&name) })))
        }
        ("GET", ["tracing", "locations", id]) => {
            may_use_location(site, &call.caller, id)?;
            Ok(json_ok(&json!({ "uc_table_prefix": prefix(id) })))
        }
        ("POST", ["experiments", experiment, "trace-location:link"]) => {
            may_use_experiment(site, &call.caller, experiment)?;
            let name = traces::location_name(body).ok_or_else(missing)?;
            may_use_location(site, &call.caller, &name)?;
            for (key, end) in DESTINATION {
                tag(site, experiment, key, &format!("{name}{end}"))?;
            }
            Ok(json_ok(&json!({})))
        }
        _ => Err(call.no_endpoint()),
    }
}

fn prefix(name: &str) -> Value {
    let mut names = name.split('.');
    let table = |end: &str| format!("{name}{end}");
    json!({
        "catalog_name": names.next(), "schema_name": names.next(), "table_prefix": names.next(), "location_id": name,
        "spans_table_name": table("_otel_spans"), "logs_table_name": table("_otel_logs"),
        "metrics_table_name": table("_otel_metrics"), "annotations_table_name": table("_otel_annotations"),
    })
}
