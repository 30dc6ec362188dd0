//! The agent's side: who calls, what may leave and as whom, and what comes back (PRODUCT 6).

use serde_json::{Value, json};
use valetkey::embedded::world::{INDEX, WAREHOUSE};

use crate::harness::client::Ask;
use crate::harness::{TestApp, TestOptions};

mod app_tokens;
mod bodies;
mod callers;
mod denials;
mod exchange;
mod failures;
mod files;
mod follow_ups;
mod headers;
mod local_oidc;
mod nouns;
mod paths;
mod refusals;
mod upstreams;

/// An endpoint of the embedded workspace that tells what arrived.
const ECHO: &str = "/api/2.0/embedded/echo";
/// Who am I.
const ME: &str = "/api/2.0/preview/scim/v2/Me";
/// Statement execution.
const STATEMENTS: &str = "/api/2.0/sql/statements";

/// Routes that let every kind of test call through.
fn open_routes() -> Value {
    json!([
        {"name": "marked", "path": "/api/2.0/embedded/**", "as": "caller", "scope": "sql"},
        {"name": "warehouse", "resource": format!("sql_warehouse/{WAREHOUSE}"), "as": "user"},
        {"name": "docs", "resource": format!("vector_search_index/{INDEX}"), "as": "app"},
        {"name": "files", "operation": "files.*", "as": "caller"},
        {"name": "me", "operation": "identity.me", "as": "caller"},
    ])
}

fn open() -> TestOptions {
    TestOptions::routes(open_routes())
}

/// Users' tokens come from the embedded workspace, calls go somewhere else.
fn leading_to(address: std::net::SocketAddr) -> TestOptions {
    TestOptions {
        workspace_at: Some(format!("http://{address}")),
        ..open()
    }
}

fn statement(warehouse: &str) -> Value {
    json!({"warehouse_id": warehouse, "statement": "select current_user()"})
}

fn execute(app: &TestApp, token: &str) -> Ask {
    let ask = app.outbound().post(STATEMENTS).bearer(token);
    ask.json(&statement(WAREHOUSE))
}
