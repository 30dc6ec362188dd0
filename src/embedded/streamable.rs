//! MCP over Streamable HTTP, as a server: sessions, JSON-RPC, streams. The same for managed servers and for the other app.
//!
//! Knows nothing of tools beyond their names: whoever serves them implements [`ToolServer`].

use std::collections::BTreeMap;
use std::sync::Mutex;

use http::header::{ACCEPT, ALLOW};
use http::{HeaderMap, HeaderName, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, bare, json_ok, json_with, put, set};
use super::control::lock;
use super::stream::{Pace, message_stream, silent_stream};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// Revisions spoken here, oldest first. A client of a later one falls back to a handshake.
const VERSIONS: [&str; 3] = ["2025-03-26", "2025-06-18", "2025-11-25"];
/// The only revision with batches.
const BATCH_VERSION: &str = "2025-03-26";
/// Sessions remembered; the oldest go first.
const SESSIONS_MAX: usize = 1000;
const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
/// Also for a tool nobody knows.
pub(super) const INVALID_PARAMS: i64 = -32602;

/// What a tool gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Called {
    /// A result, as text.
    Said(String),
    /// A failure inside a result, as MCP has it.
    Failed(String),
}

/// A call that JSON-RPC itself refuses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RpcFault {
    pub(super) code: i64,
    pub(super) message: String,
}

impl RpcFault {
    pub(super) fn unknown_tool(name: &str) -> Self {
        Self {
            code: INVALID_PARAMS,
            message: format!("Unknown tool: {name}"),
        }
    }
}

/// The tools of one server, for one caller.
pub(super) trait ToolServer {
    fn name(&self) -> &str;
    /// As `tools/list` shows them.
    fn tools(&self) -> Vec<Value>;
    fn call(&self, tool: &str, arguments: &Value) -> Result<Called, RpcFault>;
}

/// A tool as `tools/list` shows it, with text parameters that are all required.
pub(super) fn tool(name: &str, description: &str, parameters: &[&str]) -> Value {
    let mut properties = json!({});
    for parameter in parameters {
        put(&mut properties, parameter, json!({ "type": "string" }));
    }
    json!({
        "name": name, "description": description,
        "inputSchema": { "type": "object", "properties": properties, "required": parameters },
    })
}

/// The sessions begun so far, by id.
#[derive(Default)]
pub(super) struct Sessions(Mutex<BTreeMap<String, Session>>);

#[derive(Clone)]
struct Session {
    owner: String,
    address: String,
    version: &'static str,
}

/// One HTTP call on a server.
pub(super) struct Exchange<'a> {
    pub(super) sessions: &'a Sessions,
    pub(super) server: &'a dyn ToolServer,
    /// Whose session it must be.
    pub(super) owner: &'a str,
    /// The server's path: a session is good for one server.
    pub(super) address: &'a str,
    pub(super) method: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) pace: Pace,
    pub(super) closing: &'a CancellationToken,
}

/// A refusal of the transport, before any message has an id.
struct Refused {
    status: StatusCode,
    code: i64,
    message: &'static str,
}

impl Refused {
    fn bad(message: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: INVALID_REQUEST,
            message,
        }
    }

    fn into_answer(self) -> Answer {
        json_with(self.status, &error(&Value::Null, self.code, self.message))
    }
}

/// What one message asks for.
enum Reply {
    /// Notifications and answers get none.
    Nothing,
    Message(Value),
    /// Progress first, then the answer.
    Streamed(Vec<Value>),
}

impl Exchange<'_> {
    pub(super) fn answer(&self, body: &[u8]) -> Answer {
        match self.method {
            "POST" => self.posted(body).unwrap_or_else(Refused::into_answer),
            "GET" => match self.session() {
                Ok(_) if self.accepts_stream() => {
                    silent_stream(&self.pace.control, self.closing.clone())
                }
                Ok(_) => {
                    let message = "Not Acceptable: Client must accept text/event-stream";
                    let status = StatusCode::NOT_ACCEPTABLE;
                    let refused = Refused {
                        status,
                        ..Refused::bad(message)
                    };
                    refused.into_answer()
                }
                Err(refused) => refused.into_answer(),
            },
            "DELETE" => match self.session() {
                Ok((id, _)) => {
                    lock(&self.sessions.0).remove(&id);
                    bare(StatusCode::OK)
                }
                Err(refused) => refused.into_answer(),
            },
            _ => {
                let mut answer = bare(StatusCode::METHOD_NOT_ALLOWED);
                set(&mut answer, ALLOW, "GET, POST, DELETE");
                answer
            }
        }
    }

    fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn accepts_stream(&self) -> bool {
        let accepted = self.header(&ACCEPT).unwrap_or_default();
        accepted.contains("text/event-stream") || accepted.contains("*/*")
    }

    fn posted(&self, body: &[u8]) -> Result<Answer, Refused> {
        let message: Value = serde_json::from_slice(body).map_err(|_| Refused {
            code: PARSE_ERROR,
            ..Refused::bad("Parse error: the body is not JSON")
        })?;
        let method = message.get("method").and_then(Value::as_str);
        // A newer client asks first what only newer servers know, without a session.
        if let (Some(method), Some(id)) = (method, message.get("id"))
            && !is_known(method)
        {
            return Ok(json_ok(&unknown_method(id, method)));
        }
        if method == Some("initialize") {
            return Ok(self.initialize(&message));
        }
        let (_, session) = self.session()?;
        let reply = match message.as_array() {
            None => self.reply(&message),
            Some(batch) if session.version == BATCH_VERSION && !batch.is_empty() => {
                self.batch(batch)
            }
            Some(_) => {
                let message = "Invalid Request: this protocol version has no batches";
                return Err(Refused::bad(message));
            }
        };
        Ok(match reply {
            Reply::Nothing => bare(StatusCode::ACCEPTED),
            Reply::Message(message) => json_ok(&message),
            Reply::Streamed(messages) => message_stream(&self.pace, &messages),
        })
    }

    /// The session a call names; a stranger's does not exist.
    fn session(&self) -> Result<(String, Session), Refused> {
        let Some(id) = self.header(&SESSION) else {
            let message = "Bad Request: Missing session ID";
            return Err(Refused::bad(message));
        };
        let found = lock(&self.sessions.0).get(id).cloned();
        let own = found.filter(|s| s.owner == self.owner && s.address == self.address);
        let Some(session) = own else {
            let message = "Session not found";
            return Err(Refused {
                status: StatusCode::NOT_FOUND,
                ..Refused::bad(message)
            });
        };
        let version = self.header(&VERSION);
        if version.is_some_and(|v| !VERSIONS.contains(&v)) {
            let message = "Bad Request: Unsupported protocol version";
            return Err(Refused::bad(message));
        }
        Ok((id.to_owned(), session))
    }

    fn initialize(&self, message: &Value) -> Answer {
        let asked = message
            .pointer("/params/protocolVersion")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let version = VERSIONS.iter().copied().find(|v| *v == asked);
        let version = version.unwrap_or("2025-11-25");
        let id = uuid::Uuid::now_v7().simple().to_string();
        let mut all = lock(&self.sessions.0);
        if all.len() >= SESSIONS_MAX {
            all.pop_first();
        }
        all.insert(
            id.clone(),
            Session {
                owner: self.owner.to_owned(),
                address: self.address.to_owned(),
                version,
            },
        );
        let mut answer = json_ok(&result(
            message.get("id").unwrap_or(&Value::Null),
            &json!({
                "protocolVersion": version,
                "capabilities": { "tools": { "listChanged": false } },
                "serverInfo": { "name": self.server.name(), "version": "1.0.0" },
            }),
        ));
        set(&mut answer, SESSION, &id);
        answer
    }

    fn batch(&self, batch: &[Value]) -> Reply {
        let mut answers = Vec::new();
        for message in batch {
            match self.reply(message) {
                Reply::Nothing => {}
                Reply::Message(answer) => answers.push(answer),
                Reply::Streamed(messages) => answers.extend(messages.into_iter().last()),
            }
        }
        if answers.is_empty() {
            Reply::Nothing
        } else {
            Reply::Message(Value::Array(answers))
        }
    }

    fn reply(&self, message: &Value) -> Reply {
        let method = message.get("method").and_then(Value::as_str);
        let (Some(method), Some(id)) = (method, message.get("id")) else {
            return Reply::Nothing;
        };
        match method {
            "ping" => Reply::Message(result(id, &json!({}))),
            "tools/list" => Reply::Message(result(id, &json!({ "tools": self.server.tools() }))),
            "tools/call" => self.call(id, message),
            _ => Reply::Message(unknown_method(id, method)),
        }
    }

    fn call(&self, id: &Value, message: &Value) -> Reply {
        let none = json!({});
        let name = message.pointer("/params/name").and_then(Value::as_str);
        let arguments = message.pointer("/params/arguments").unwrap_or(&none);
        let called = match name {
            Some(name) => self.server.call(name, arguments),
            None => Err(RpcFault {
                code: INVALID_PARAMS,
                message: "Invalid params: name is missing".to_owned(),
            }),
        };
        let said = |text: &str, is_error: bool| {
            let content = json!([{ "type": "text", "text": text }]);
            result(id, &json!({ "content": content, "isError": is_error }))
        };
        let answer = match called {
            Ok(Called::Said(text)) => said(&text, false),
            Ok(Called::Failed(text)) => said(&text, true),
            Err(refused) => error(id, refused.code, &refused.message),
        };
        match message.pointer("/params/_meta/progressToken") {
            Some(token) if self.accepts_stream() => {
                let progress = json!({
                    "jsonrpc": "2.0", "method": "notifications/progress",
                    "params": { "progressToken": token, "progress": 1, "total": 1 },
                });
                Reply::Streamed(vec![progress, answer])
            }
            Some(_) | None => Reply::Message(answer),
        }
    }
}

fn is_known(method: &str) -> bool {
    matches!(method, "initialize" | "ping" | "tools/list" | "tools/call")
}

fn result(id: &Value, result: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

fn error(id: &Value, code: i64, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
}

fn unknown_method(id: &Value, method: &str) -> Value {
    error(id, METHOD_NOT_FOUND, &format!("Method not found: {method}"))
}
