//! Managed MCP servers over a real socket: sessions, generations of clients, batches, streams, tools and their grants.

use super::*;
use crate::embedded::world::{GENIE_SPACE, WAREHOUSE_RESTRICTED};

const FUNCTIONS: &str = "/api/2.0/mcp/functions/main/sales";
const SQL: &str = "/api/2.0/mcp/sql";
const SCOPES: &str = "sql genie vector-search mcp.functions mcp.external ai-gateway";

/// A client with its session.
struct Client<'a> {
    rig: &'a Rig,
    url: String,
    token: String,
    session: String,
}

fn message(method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params })
}

impl<'a> Client<'a> {
    async fn begin(rig: &'a Rig, path: &str, who: &str, version: &str) -> Self {
        let mut client = Self {
            rig,
            url: format!("{}{path}", rig.workspace.url()),
            token: rig.token_for(who, SCOPES),
            session: String::new(),
        };
        let hello = message("initialize", &json!({ "protocolVersion": version }));
        let answer = client.send("POST", &hello.to_string()).await;
        assert_eq!(answer.json()["result"]["protocolVersion"], version);
        client.session = answer.header("mcp-session-id").to_owned();
        client
    }

    async fn raw(&self, method: &str, body: &str, more: &[(&str, &str)]) -> http::Response<Body> {
        let bearer = format!("Bearer {}", self.token);
        let mut headers = vec![
            ("authorization", bearer.as_str()),
            ("accept", "application/json, text/event-stream"),
        ];
        if !self.session.is_empty() {
            headers.push(("mcp-session-id", &self.session));
        }
        headers.extend(more);
        let body = full(body.to_owned());
        self.rig.ask(method, &self.url, &headers, body).await
    }

    async fn send(&self, method: &str, body: &str) -> Read {
        Read::of(self.raw(method, body, &[]).await).await
    }

    async fn call(&self, tool: &str, arguments: &Value) -> Value {
        let params = json!({ "name": tool, "arguments": arguments });
        let body = message("tools/call", &params).to_string();
        self.send("POST", &body).await.json()
    }

    async fn tools(&self) -> Vec<String> {
        let body = message("tools/list", &json!({})).to_string();
        let list = self.send("POST", &body).await.json();
        let tools = list["result"]["tools"].as_array().unwrap();
        let names = tools.iter().map(|t| t["name"].as_str().unwrap().to_owned());
        names.collect()
    }
}

#[tokio::test]
async fn a_session_is_begun_used_and_ended() {
    let rig = Rig::start().await;
    let client = Client::begin(&rig, FUNCTIONS, "bob", "2025-06-18").await;
    let ready = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let noted = client.send("POST", ready).await;
    assert_eq!((noted.status.as_u16(), noted.bytes.len()), (202, 0));
    assert_eq!(
        client.tools().await,
        ["main__sales__order_total", "main__sales__order_region"]
    );
    assert_eq!(client.send("DELETE", "").await.status, 200);
    let ping = message("ping", &json!({})).to_string();
    assert_eq!(client.send("POST", &ping).await.status, 404);
}

#[tokio::test]
async fn a_session_is_nobody_elses_and_no_other_servers() {
    let rig = Rig::start().await;
    let client = Client::begin(&rig, FUNCTIONS, "bob", "2025-06-18").await;
    let ping = message("ping", &json!({})).to_string();
    assert_eq!(client.send("POST", &ping).await.status, 200);
    let strangers = Client {
        rig: &rig,
        token: rig.token_for("alice", SCOPES),
        url: client.url.clone(),
        session: client.session.clone(),
    };
    assert_eq!(strangers.send("POST", &ping).await.status, 404);
    let elsewhere = Client {
        url: format!("{}{SQL}", rig.workspace.url()),
        ..client
    };
    assert_eq!(elsewhere.send("POST", &ping).await.status, 404);
    let without = Client {
        session: String::new(),
        ..elsewhere
    };
    assert_eq!(without.send("POST", &ping).await.status, 400);
}

#[tokio::test]
async fn a_newer_client_learns_that_discovery_is_unknown_before_it_has_a_session() {
    let rig = Rig::start().await;
    let client = Client::begin(&rig, SQL, "bob", "2025-11-25").await;
    let probing = Client {
        session: String::new(),
        ..client
    };
    let probe = message("server/discover", &json!({})).to_string();
    let newest = [
        ("mcp-method", "server/discover"),
        ("mcp-protocol-version", "2026-07-28"),
    ];
    let answer = Read::of(probing.raw("POST", &probe, &newest).await).await;
    assert_eq!(answer.json()["error"]["code"], -32601);
    assert_eq!(answer.json()["id"], 7);
}

#[tokio::test]
async fn batches_are_of_the_oldest_revision_alone() {
    let rig = Rig::start().await;
    let batch = json!([
        message("ping", &json!({})),
        { "jsonrpc": "2.0", "method": "notifications/cancelled" },
        message("tools/call", &json!({ "name": "none" })),
    ])
    .to_string();
    let old = Client::begin(&rig, SQL, "bob", "2025-03-26").await;
    let answers = old.send("POST", &batch).await.json();
    assert_eq!(answers.as_array().unwrap().len(), 2);
    assert_eq!(answers[1]["error"]["code"], -32602);
    let new = Client::begin(&rig, SQL, "bob", "2025-06-18").await;
    assert_eq!(new.send("POST", &batch).await.status, 400);
    assert_eq!(old.send("POST", "[]").await.status, 400);
    assert_eq!(old.send("POST", "{").await.status, 400);
}

#[tokio::test]
async fn a_call_that_asks_for_progress_is_answered_by_a_stream() {
    let rig = Rig::start().await;
    let client = Client::begin(&rig, SQL, "bob", "2025-06-18").await;
    let params = json!({
        "name": "execute_sql", "arguments": { "query": "select current_user()" }, "_meta": { "progressToken": 1 },
    });
    let body = message("tools/call", &params).to_string();
    let mut answer = client.raw("POST", &body, &[]).await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let first = next_event(answer.body_mut()).await.unwrap();
    assert!(first.contains("notifications/progress"), "{first}");
    let last = next_event(answer.body_mut()).await.unwrap();
    assert!(last.contains("bob@example.com"), "{last}");
    assert_eq!(next_event(answer.body_mut()).await, None);
}

#[tokio::test]
async fn the_silent_stream_ends_with_its_reader_and_with_the_workspace() {
    let rig = Rig::start().await;
    let control = rig.workspace.control();
    let client = Client::begin(&rig, SQL, "bob", "2025-06-18").await;
    let stream = client.raw("GET", "", &[]).await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    assert_eq!(control.streams_open(), 1);
    drop(stream);
    let ended = control.wait_until(|c| c.streams_open() == 0);
    tokio::time::timeout(PATIENCE, ended).await.unwrap();

    let mut stream = client.raw("GET", "", &[]).await;
    let Rig { workspace, .. } = rig;
    let stopping = tokio::spawn(workspace.stop());
    assert_eq!(
        next_event(stream.body_mut()).await.as_deref(),
        Some(": closing\n\n")
    );
    assert_eq!(next_event(stream.body_mut()).await, None);
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_tool_below_a_schema_has_a_grant_of_its_own() {
    let rig = Rig::start().await;
    let order = json!({ "order_id": "5" });
    let bob = Client::begin(&rig, FUNCTIONS, "bob", "2025-06-18").await;
    let done = bob.call("main__sales__order_total", &order).await;
    let text = done["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("order_total:bob@example.com:5"), "{text}");
    let denied = bob.call("main__sales__refund_order", &order).await;
    assert_eq!(denied["result"]["isError"], true);
    let text = denied["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("PERMISSION_DENIED: "), "{text}");
    let foreign = bob.call("main__hr__order_total", &order).await;
    assert_eq!(foreign["error"]["code"], -32602);

    let alice = Client::begin(&rig, FUNCTIONS, "alice", "2025-06-18").await;
    assert_eq!(alice.tools().await.len(), 3);
    let done = alice.call("main__sales__refund_order", &order).await;
    assert_eq!(done["result"]["isError"], false);
    let one = format!("{FUNCTIONS}/order_total");
    let one = Client::begin(&rig, &one, "alice", "2025-06-18").await;
    assert_eq!(one.tools().await, ["main__sales__order_total"]);
    let other = one.call("main__sales__refund_order", &order).await;
    assert_eq!(other["error"]["code"], -32602);
}

#[tokio::test]
async fn the_other_servers_have_their_tools() {
    let rig = Rig::start().await;
    let text = |answer: &Value| {
        answer["result"]["content"][0]["text"]
            .as_str()
            .map(str::to_owned)
    };
    let search = "/api/2.0/mcp/vector-search/main/sales";
    let search = Client::begin(&rig, search, "bob", "2025-06-18").await;
    let query = json!({ "query": "x" });
    let found = search.call("main__sales__docs_index", &query).await;
    assert!(text(&found).unwrap().contains("Notes of Bob"));

    let genie = format!("/api/2.0/mcp/genie/{GENIE_SPACE}");
    let genie = Client::begin(&rig, &genie, "bob", "2025-06-18").await;
    let ask = format!("query_space_{GENIE_SPACE}");
    let asked = genie.call(&ask, &query).await;
    let asked: Value = serde_json::from_str(&text(&asked).unwrap()).unwrap();
    let poll = format!("poll_response_{GENIE_SPACE}");
    genie.call(&poll, &asked).await;
    let done = genie.call(&poll, &asked).await;
    assert!(text(&done).unwrap().contains("COMPLETED"));

    let sql = Client::begin(&rig, SQL, "bob", "2025-06-18").await;
    let drop = json!({ "query": "drop table x" });
    let refused = sql.call("execute_sql_read_only", &drop).await;
    assert_eq!(refused["result"]["isError"], true);
    let other = json!({ "query": "select 1", "warehouse_id": WAREHOUSE_RESTRICTED });
    let refused = sql.call("execute_sql", &other).await;
    assert!(text(&refused).unwrap().starts_with("PERMISSION_DENIED"));
    let done = sql
        .call("execute_sql", &json!({ "query": "select 1" }))
        .await;
    let done: Value = serde_json::from_str(&text(&done).unwrap()).unwrap();
    let polled = sql.call("poll_sql_result", &done).await;
    assert!(text(&polled).unwrap().contains("SUCCEEDED"));

    let tickets = "/api/2.0/mcp/external/demo_tickets";
    let tickets = Client::begin(&rig, tickets, "bob", "2025-06-18").await;
    let made = tickets
        .call("create_ticket", &json!({ "title": "t" }))
        .await;
    assert!(text(&made).unwrap().contains("bob@example.com"));
}
