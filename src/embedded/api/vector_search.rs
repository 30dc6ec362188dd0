//! Vector search under its old and its new paths: two indexes over a few documents, some of which only their owner finds.
//!
//! Queries come as POST and, from the dedicated client, as GET with a body (facts/clients 4).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::embedded::answer::{Answer, Refusal, json_ok};
use crate::embedded::call::{Call, word};
use crate::embedded::grants::{Caller, INDEXES, VECTOR_ENDPOINTS};
use crate::embedded::workspace::Site;
use crate::embedded::world::{EMBEDDING_ENDPOINT, VECTOR_ENDPOINT};

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

pub(in crate::embedded) async fn answer(
    site: &Site,
    call: &mut Call,
    path: &[&str],
) -> Result<Answer, Refusal> {
    match path {
        ["api", "2.0", "vector-search", "indexes", rest @ ..]
        | [
            "api",
            "2.0",
            "vector-search",
            "endpoints",
            VECTOR_ENDPOINT,
            "indexes",
            rest @ ..,
        ] => on_indexes(site, call, rest).await,
        ["api", "2.0", "vector-search", "endpoints"] if call.method == "GET" => {
            let list: Vec<Value> = call
                .caller
                .visible(VECTOR_ENDPOINTS)
                .map(endpoint)
                .collect();
            Ok(json_ok(&json!({ "endpoints": list })))
        }
        ["api", "2.0", "vector-search", "endpoints", name] if call.method == "GET" => {
            call.caller.may_use(VECTOR_ENDPOINTS, name)?;
            Ok(json_ok(&endpoint(name)))
        }
        [
            "api",
            "2.0",
            "ai-search",
            "workspaces",
            workspace,
            "endpoints",
            name,
            "indexes",
            rest @ ..,
        ] => {
            if *workspace != site.issuer.workspace_id {
                return Err(Refusal::unknown(&format!("Workspace {workspace}")));
            }
            call.caller.may_use(VECTOR_ENDPOINTS, name)?;
            match rest {
                // The verb follows a colon.
                [last] => match last.split_once(':') {
                    Some((index, verb)) => on_indexes(site, call, &[index, verb]).await,
                    None => on_indexes(site, call, rest).await,
                },
                _ => on_indexes(site, call, rest).await,
            }
        }
        _ => Err(call.no_endpoint()),
    }
}

/// The calls on all indexes or on one, in the words of either family of paths.
async fn on_indexes(site: &Site, call: &mut Call, rest: &[&str]) -> Result<Answer, Refusal> {
    let Some((name, verb)) = rest.split_first() else {
        let visible = call.caller.visible(INDEXES);
        let list: Vec<Value> = visible.map(|name| description(site, name)).collect();
        return Ok(json_ok(&json!({ "vector_indexes": list })));
    };
    call.caller.may_use(INDEXES, name)?;
    match (call.method.as_str(), verb) {
        ("GET", []) => Ok(json_ok(&description(site, name))),
        ("GET" | "POST", ["query"]) => {
            let body = call.json().await?;
            query(&body, 0, &call.caller).map(|rows| json_ok(&rows))
        }
        ("GET" | "POST", ["query-next-page" | "queryNextPage"]) => {
            let body = call.json().await?;
            let (query_of, skip) = read_page_token(word(&body, "page_token")?)?;
            query(&query_of, skip, &call.caller).map(|rows| json_ok(&rows))
        }
        ("GET" | "POST", ["scan"]) => {
            let body = call.json().await?;
            Ok(json_ok(&scan(&body, &call.caller)))
        }
        ("POST", ["sync"]) => Ok(json_ok(&json!({}))),
        (_, ["upsert-data" | "delete-data" | "upsertData" | "removeData"]) => Err(
            Refusal::bad_request(format!("Index {name} is not a direct access index.")),
        ),
        _ => Err(call.no_endpoint()),
    }
}

fn endpoint(name: &str) -> Value {
    let indexes = if name == VECTOR_ENDPOINT { 2 } else { 0 };
    json!({
        "name": name, "endpoint_type": "STANDARD", "num_indexes": indexes,
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
                "name": "text", "embedding_model_endpoint_name": EMBEDDING_ENDPOINT,
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

/// The documents a caller finds, with the place of each.
fn visible(caller: &Caller) -> impl Iterator<Item = (usize, &'static str, &'static str)> {
    let own = |owner: Option<&str>| owner.is_none_or(|o| caller.is_app || o == caller.name);
    let found = DOCUMENTS.iter().filter(move |(_, _, owner)| own(*owner));
    found
        .enumerate()
        .map(|(place, (id, text, _))| (place, *id, *text))
}

fn limit(body: &Value) -> usize {
    let asked = body.get("num_results").and_then(Value::as_u64);
    asked.map_or(RESULTS_DEFAULT, |n| {
        usize::try_from(n).unwrap_or(usize::MAX)
    })
}

/// The rows of one page of a query, whoever may see them.
pub(super) fn query(body: &Value, skip: usize, caller: &Caller) -> Result<Value, Refusal> {
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
    let limit = limit(body);
    let mut rows = Vec::new();
    for (place, id, text) in visible(caller).skip(skip).take(limit) {
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
    let next = skip.saturating_add(rows.len());
    let token = if limit > 0 && visible(caller).nth(next).is_some() {
        page_token(body, next)
    } else {
        String::new()
    };
    Ok(json!({
        "manifest": { "column_count": columns.len(), "columns": columns },
        "result": { "row_count": rows.len(), "data_array": rows },
        "next_page_token": token,
    }))
}

/// A page token holds its query, so that nothing has to be remembered; it gives no rights.
fn page_token(body: &Value, skip: usize) -> String {
    let held = json!({ "query": body, "skip": skip });
    URL_SAFE_NO_PAD.encode(held.to_string())
}

fn read_page_token(token: &str) -> Result<(Value, usize), Refusal> {
    let bad = || Refusal::bad_request("Invalid page token.");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    let mut held: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    let skip = held.get("skip").and_then(Value::as_u64);
    let skip = usize::try_from(skip.ok_or_else(bad)?).map_err(|_| bad())?;
    let query = held.get_mut("query").map(Value::take);
    Ok((query.ok_or_else(bad)?, skip))
}

fn scan(body: &Value, caller: &Caller) -> Value {
    let after = body.get("last_primary_key").and_then(Value::as_str);
    let field = |key: &str, value: &str| json!({ "key": key, "value": { "string_value": value } });
    let documents = visible(caller).filter(|(_, id, _)| after.is_none_or(|a| *id > a));
    let page: Vec<(usize, &str, &str)> = documents.take(limit(body)).collect();
    let data: Vec<Value> = page
        .iter()
        .map(|(_, id, text)| json!({ "fields": [field("id", id), field("text", text)] }))
        .collect();
    json!({ "data": data, "last_primary_key": page.last().map(|(_, id, _)| id) })
}
