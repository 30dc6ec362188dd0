//! SQL statement execution, query history and warehouses, over a handful of statements with the caller in their answers.
//!
//! A statement belongs to the identity that made it. What a text means is in `query.rs`; the Thrift path is in `thrift.rs`.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::query::{Outcome, run};
use crate::embedded::answer::{Answer, Refusal, json_ok, put};
use crate::embedded::call::{Call, word};
use crate::embedded::control::lock;
use crate::embedded::grants::{Caller, WAREHOUSES};
use crate::embedded::workspace::Site;
use crate::embedded::world::WAREHOUSE;

/// Statements remembered; the oldest go first.
const STATEMENTS_MAX: usize = 1000;
/// Rows in one chunk of a result.
const CHUNK_ROWS: usize = 1000;

/// The statements made so far.
#[derive(Default)]
pub(in crate::embedded) struct Statements(Mutex<VecDeque<Statement>>);

#[derive(Clone)]
struct Statement {
    id: String,
    owner: String,
    warehouse: String,
    text: String,
    started_ms: i64,
    state: State,
    outcome: Outcome,
}

/// With `wait_timeout` 0s a statement needs two looks until it is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    Running,
    Done,
    Canceled,
}

pub(in crate::embedded) async fn answer(
    site: &Site,
    call: &mut Call,
    path: &[&str],
) -> Result<Answer, Refusal> {
    let ["api", "2.0", "sql", rest @ ..] = path else {
        return Err(call.no_endpoint());
    };
    match (call.method.as_str(), rest) {
        ("POST", ["statements"] | ["statements", ""]) => execute(site, call).await,
        ("GET", ["statements", id]) => {
            let statement = site.statements.look(id, &call.caller.name, true)?;
            Ok(json_ok(&statement.answer()))
        }
        ("GET", ["statements", id, "result", "chunks", number]) => {
            let statement = site.statements.look(id, &call.caller.name, false)?;
            let chunk = number.parse().ok().and_then(|n| statement.chunk(n));
            let missing = || Refusal::bad_request(format!("There is no chunk {number}."));
            Ok(json_ok(&chunk.ok_or_else(missing)?))
        }
        ("POST", ["statements", id, "cancel"]) => {
            site.statements.cancel(id, &call.caller.name);
            Ok(json_ok(&json!({})))
        }
        ("GET", ["history", "queries"]) => {
            let own = site.statements.history(&call.caller.name);
            Ok(json_ok(&json!({ "res": own, "has_next_page": false })))
        }
        ("GET", ["warehouses"]) => Ok(json_ok(&json!({ "warehouses": warehouses(call) }))),
        ("GET", ["warehouses", id]) => {
            call.caller.may_use(WAREHOUSES, id)?;
            Ok(json_ok(&warehouse(id)))
        }
        ("POST", ["warehouses", id, "start" | "stop"]) => {
            call.caller.may_use(WAREHOUSES, id)?;
            Ok(json_ok(&json!({})))
        }
        _ => Err(call.no_endpoint()),
    }
}

fn warehouses(call: &Call) -> Vec<Value> {
    call.caller.visible(WAREHOUSES).map(warehouse).collect()
}

fn warehouse(id: &str) -> Value {
    let name = if id == WAREHOUSE {
        "Shared"
    } else {
        "Restricted"
    };
    json!({
        "id": id, "name": name, "state": "RUNNING", "cluster_size": "2X-Small",
        "warehouse_type": "PRO", "enable_serverless_compute": true, "num_clusters": 1,
        "odbc_params": { "path": format!("/sql/1.0/warehouses/{id}"), "protocol": "https", "port": 443 },
    })
}

async fn execute(site: &Site, call: &mut Call) -> Result<Answer, Refusal> {
    let body = call.json().await?;
    let warehouse = word(&body, "warehouse_id")?;
    let text = word(&body, "statement")?;
    call.caller.may_use(WAREHOUSES, warehouse)?;
    if body.get("disposition").and_then(Value::as_str) == Some("EXTERNAL_LINKS") {
        return Err(Refusal::bad_request(
            "This workspace serves disposition INLINE only.",
        ));
    }
    let answer = begin(site, &call.caller, (warehouse, text), &body);
    Ok(json_ok(&answer))
}

/// Begins a statement on a warehouse the caller may use; `body` may ask not to wait, and hold parameters.
pub(super) fn begin(
    site: &Site,
    caller: &Caller,
    (warehouse, text): (&str, &str),
    body: &Value,
) -> Value {
    let wait = body.get("wait_timeout").and_then(Value::as_str);
    let statement = Statement {
        id: uuid::Uuid::now_v7().to_string(),
        owner: caller.name.clone(),
        warehouse: warehouse.to_owned(),
        text: text.to_owned(),
        started_ms: site.issuer.clock.now().as_millisecond(),
        state: if wait == Some("0s") {
            State::Pending
        } else {
            State::Done
        },
        outcome: run(text, body, caller),
    };
    let answer = statement.answer();
    site.statements.keep(statement);
    answer
}

/// How far a statement of the caller is.
pub(super) fn poll(site: &Site, caller: &Caller, id: &str) -> Result<Value, Refusal> {
    Ok(site.statements.look(id, &caller.name, true)?.answer())
}

impl Statements {
    fn keep(&self, statement: Statement) {
        let mut all = lock(&self.0);
        if all.len() >= STATEMENTS_MAX {
            all.pop_front();
        }
        all.push_back(statement);
    }

    /// A statement of this owner; anybody else's does not exist. A poll moves it on.
    fn look(&self, id: &str, owner: &str, poll: bool) -> Result<Statement, Refusal> {
        let mut all = lock(&self.0);
        let found = all.iter_mut().find(|s| s.id == id && s.owner == owner);
        let statement = found.ok_or_else(|| Refusal::unknown(&format!("The statement {id}")))?;
        if poll {
            statement.state = match statement.state {
                State::Pending => State::Running,
                State::Running | State::Done => State::Done,
                State::Canceled => State::Canceled,
            };
        }
        Ok(statement.clone())
    }

    /// The statements of this owner, newest first.
    fn history(&self, owner: &str) -> Vec<Value> {
        let all = lock(&self.0);
        let own = all.iter().rev().filter(|s| s.owner == owner);
        own.map(Statement::in_history).collect()
    }

    /// Unknown ids are no error (facts 6.1), so neither are other people's.
    fn cancel(&self, id: &str, owner: &str) {
        let mut all = lock(&self.0);
        let found = all.iter_mut().find(|s| s.id == id && s.owner == owner);
        if let Some(statement) = found
            && statement.state != State::Done
        {
            statement.state = State::Canceled;
        }
    }
}

impl Statement {
    fn in_history(&self) -> Value {
        let status = match (self.state, &self.outcome) {
            (State::Pending, _) => "QUEUED",
            (State::Running, _) => "RUNNING",
            (State::Canceled, _) => "CANCELED",
            (State::Done, Outcome::Failed { .. }) => "FAILED",
            (State::Done, Outcome::Rows { .. }) => "FINISHED",
        };
        json!({
            "query_id": self.id, "status": status, "query_text": self.text, "warehouse_id": self.warehouse,
            "endpoint_id": self.warehouse, "user_name": self.owner, "executed_as_user_name": self.owner,
            "query_start_time_ms": self.started_ms, "statement_type": "SELECT", "is_final": self.state == State::Done,
        })
    }

    fn answer(&self) -> Value {
        let id = &self.id;
        let state = match (self.state, &self.outcome) {
            (State::Pending, _) => "PENDING",
            (State::Running, _) => "RUNNING",
            (State::Canceled, _) => "CANCELED",
            (State::Done, Outcome::Failed { code, message }) => {
                let error = json!({ "error_code": code, "message": message });
                return json!({ "statement_id": id, "status": { "state": "FAILED", "error": error } });
            }
            (State::Done, Outcome::Rows { columns, rows }) => {
                return json!({
                    "statement_id": id,
                    "status": { "state": "SUCCEEDED" },
                    "manifest": manifest(columns, rows),
                    "result": self.chunk(0),
                });
            }
        };
        json!({ "statement_id": id, "status": { "state": state } })
    }

    /// One piece of the result, from 0; an empty result has one empty piece.
    fn chunk(&self, number: usize) -> Option<Value> {
        let (State::Done, Outcome::Rows { rows, .. }) = (self.state, &self.outcome) else {
            return None;
        };
        let start = number.checked_mul(CHUNK_ROWS)?;
        let end = rows.len().min(start.saturating_add(CHUNK_ROWS));
        if number > 0 && start >= rows.len() {
            return None;
        }
        let piece = rows.get(start..end)?;
        let mut chunk = json!({
            "chunk_index": number,
            "row_offset": start,
            "row_count": piece.len(),
            "data_array": piece,
        });
        if end < rows.len() {
            let next = number + 1;
            put(&mut chunk, "next_chunk_index", json!(next));
            let link = format!(
                "/api/2.0/sql/statements/{}/result/chunks/{next}?row_offset={end}",
                self.id
            );
            put(&mut chunk, "next_chunk_internal_link", json!(link));
        }
        Some(chunk)
    }
}

/// The schema of a result, also used by Genie.
pub(super) fn manifest(columns: &[(&str, &str)], rows: &[Vec<String>]) -> Value {
    let described: Vec<Value> = columns
        .iter()
        .enumerate()
        .map(|(place, (name, kind))| {
            json!({ "name": name, "position": place, "type_name": kind, "type_text": kind })
        })
        .collect();
    let chunks: Vec<Value> = (0..rows.len().div_ceil(CHUNK_ROWS))
        .map(|n| {
            let offset = n * CHUNK_ROWS;
            json!({
                "chunk_index": n,
                "row_offset": offset,
                "row_count": CHUNK_ROWS.min(rows.len() - offset),
            })
        })
        .collect();
    json!({
        "format": "JSON_ARRAY",
        "schema": { "column_count": columns.len(), "columns": described },
        "total_row_count": rows.len(),
        "total_chunk_count": chunks.len(),
        "chunks": chunks,
        "truncated": false,
    })
}
