//! Vector search: two indexes over a few documents, some of which only their owner finds.
//!
//! Queries come as POST and, from the dedicated client, as GET with a body (facts/clients 4).

use serde_json::{Value, json};

use super::answer::{Answer, Refusal, json_ok};
use super::call::Call;
use super::workspace::Site;
use super::world::{Caller, INDEX, INDEX_RESTRICTED, VECTOR_ENDPOINT};

const INDEXES: [&str; 2] = [INDEX, INDEX_RESTRICTED];
/// Rows of a query that does not say how many.
const RESULTS_DEFAULT: usize = 10;

/// Documents: id, text, and whose alone they are.
const DOCUMENTS: [(&str, &str, Option<&str>); 5] = [
    ("doc-1", "How to return an order", None),
    ("doc-2", "Shipping times by region", None),
    ("doc-3", "Discount rules for 2026", None),
    (
        "doc-4",
        "Notes of Alice on her accounts",
        Some("alice@example.com"),
    ),
    (
        "doc-5",
        "Notes of Bob on his accounts",
        Some("bob@example.com"),
    ),
];

pub(super) async fn answer(site: &Site, call: &mut Call, path: &[&str]) -> Result<Answer, Refusal> {
    let ["api", "2.0", "vector-search", rest @ ..] = path else {
        return Err(call.no_endpoint());
    };
    match (call.method.as_str(), rest) {
        ("GET", ["indexes"] | ["endpoints", VECTOR_ENDPOINT, "indexes"]) => {
            let visible = INDEXES
                .iter()
                .filter(|name| call.caller.may_use("index", name).is_ok());
            let list: Vec<Value> = visible.map(|name| description(site, name)).collect();
            Ok(json_ok(&json!({ "vector_indexes": list })))
        }
        ("GET", ["indexes", name] | ["endpoints", VECTOR_ENDPOINT, "indexes", name]) => {
            call.caller.may_use_one_of("index", name, &INDEXES)?;
            Ok(json_ok(&description(site, name)))
        }
        ("GET" | "POST", ["indexes", name, "query"]) => {
            call.caller.may_use_one_of("index", name, &INDEXES)?;
            let body = call.json().await?;
            found(&body, &call.caller).map(|rows| json_ok(&rows))
        }
        ("GET" | "POST", ["indexes", name, "query-next-page"]) => {
            call.caller.may_use_one_of("index", name, &INDEXES)?;
            let body = json!({ "columns": ["id"], "query_text": "", "num_results": 0 });
            found(&body, &call.caller).map(|rows| json_ok(&rows))
        }
        ("GET", ["endpoints"]) => Ok(json_ok(&json!({ "endpoints": [endpoint()] }))),
        ("GET", ["endpoints", VECTOR_ENDPOINT]) => Ok(json_ok(&endpoint())),
        ("GET", ["endpoints", other, ..]) => Err(Refusal::unknown(&format!("Endpoint {other}"))),
        _ => Err(call.no_endpoint()),
    }
}

fn endpoint() -> Value {
    json!({
        "name": VECTOR_ENDPOINT, "endpoint_type": "STANDARD", "num_indexes": INDEXES.len(),
        "endpoint_status": { "state": "ONLINE" },
    })
}

fn description(site: &Site, name: &str) -> Value {
    json!({
        "name": name, "endpoint_name": VECTOR_ENDPOINT, "primary_key": "id", "index_type": "DELTA_SYNC",
        "creator": site.app.client_id,
        "delta_sync_index_spec": {
            "source_table": "main.sales.docs", "pipeline_type": "TRIGGERED",
            "embedding_source_columns": [{
                "name": "text", "embedding_model_endpoint_name": super::world::EMBEDDING_ENDPOINT,
            }],
        },
        "status": {
            "ready": true, "detailed_state": "ONLINE_NO_PENDING_UPDATE", "indexed_row_count": DOCUMENTS.len(),
            "message": "Index is ready",
            // Clients with a service principal go wherever this leads.
            "index_url": format!("{}/api/2.0/vector-search/indexes/{name}", site.url),
        },
    })
}

fn found(body: &Value, caller: &Caller) -> Result<Value, Refusal> {
    let wanted: Vec<&str> = body
        .get("columns")
        .and_then(Value::as_array)
        .ok_or_else(|| Refusal::bad_request("Missing required field: columns"))?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    if body.get("query_text").is_none() && body.get("query_vector").is_none() {
        return Err(Refusal::bad_request(
            "One of query_text and query_vector is required.",
        ));
    }
    let limit = body.get("num_results").and_then(Value::as_u64);
    let limit = limit.map_or(RESULTS_DEFAULT, |n| {
        usize::try_from(n).unwrap_or(usize::MAX)
    });
    let visible = DOCUMENTS
        .iter()
        .filter(|(_, _, owner)| owner.is_none_or(|o| caller.is_app || o == caller.name));
    let mut rows = Vec::new();
    for (place, (id, text, _)) in visible.take(limit).enumerate() {
        let mut row = Vec::new();
        for column in &wanted {
            row.push(match *column {
                "id" => json!(id),
                "text" => json!(text),
                // Ours: tells who the query ran as.
                "seen_as" => json!(caller.name),
                other => {
                    return Err(Refusal::bad_request(format!("Unknown column: {other}")));
                }
            });
        }
        let score = 0.9 - 0.1 * f64::from(u32::try_from(place).unwrap_or(u32::MAX));
        row.push(json!(score));
        rows.push(row);
    }
    let names = wanted.iter().copied().chain(["score"]);
    let columns: Vec<Value> = names.map(|name| json!({ "name": name })).collect();
    Ok(json!({
        "manifest": { "column_count": columns.len(), "columns": columns },
        "result": { "row_count": rows.len(), "data_array": rows },
        "next_page_token": "",
    }))
}
