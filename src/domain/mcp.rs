//! JSON-RPC as the Model Context Protocol speaks it: which methods a body calls, and which tools.
//!
//! Reads a parsed body (`strict_json.rs` has refused duplicate members already) and refuses what two readers could take
//! differently: nested batches, second spellings, headers that say something else than the body. Knows no policy.
//! Source: modelcontextprotocol.io, Streamable HTTP transport, revisions 2025-03-26 to 2026-07-28.

use http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};

use super::ask::value::check_alias;

/// The most messages in one batch (revision 2025-03-26 allows batches).
pub const MCP_BATCH_MAX: usize = 64;

/// The method and the name that newer revisions repeat in headers.
const METHOD_HEADER: HeaderName = HeaderName::from_static("mcp-method");
const NAME_HEADER: HeaderName = HeaderName::from_static("mcp-name");

/// What a client may always say to a server of which it may use some tools.
const HANDSHAKE: [&str; 5] = [
    "initialize",
    "ping",
    "server/discover",
    "tools/list",
    "logging/setLevel",
];

/// Why a body is no MCP message with one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum McpFault {
    /// Neither an object nor a batch of at most [`MCP_BATCH_MAX`] objects.
    #[error("it must be one JSON-RPC 2.0 message, or a batch of at most {MCP_BATCH_MAX}")]
    Shape,
    /// A member with a second spelling, or of another type.
    #[error("`jsonrpc`, `method`, `params` and `params.name` must be as JSON-RPC 2.0 has them")]
    Member,
    /// A tool call that does not say which.
    #[error("`tools/call` must name its tool in `params.name`")]
    Tool,
    /// The headers name another method or tool than the body.
    #[error("the headers Mcp-Method and Mcp-Name must say what the body says")]
    Header,
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// The method; `None` for the answer to a question of the server.
    pub method: Option<&'a str>,
    /// The tool of a `tools/call`.
    pub tool: Option<&'a str>,
}

impl Message<'_> {
    /// Whether a route that lists tools covers this message: a listed tool, or what any client says before and between calls.
    pub fn is_covered_by(&self, tools: &[String]) -> bool {
        match (self.method, self.tool) {
            (_, Some(tool)) => tools.iter().any(|listed| names_tool(listed, tool)),
            (None, None) => true,
            (Some(method), None) => {
                HANDSHAKE.contains(&method) || method.starts_with("notifications/")
            }
        }
    }
}

/// `c__s__refund_lookup` is also called `refund_lookup`: the platform puts catalogue and schema before the name.
fn names_tool(listed: &str, tool: &str) -> bool {
    listed == tool
        || tool
            .split_once("__")
            .and_then(|(_, rest)| rest.split_once("__"))
            .is_some_and(|(_, short)| short == listed)
}

/// The messages of a body.
///
/// # Errors
/// [`McpFault`] says what two readers could take differently.
pub fn messages<'a>(
    body: Option<&'a Value>,
    headers: &HeaderMap,
) -> Result<Vec<Message<'a>>, McpFault> {
    let found = match body {
        Some(Value::Object(members)) => vec![message(members)?],
        Some(Value::Array(items)) if !items.is_empty() && items.len() <= MCP_BATCH_MAX => items
            .iter()
            .map(|item| message(item.as_object().ok_or(McpFault::Shape)?))
            .collect::<Result<_, _>>()?,
        _ => return Err(McpFault::Shape),
    };
    check_headers(&found, headers)?;
    Ok(found)
}

fn message(members: &Map<String, Value>) -> Result<Message<'_>, McpFault> {
    for name in ["jsonrpc", "method", "params"] {
        check_alias(members, name).map_err(|_| McpFault::Member)?;
    }
    if members.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(McpFault::Member);
    }
    let method = match members.get("method") {
        None => None,
        Some(Value::String(method)) => Some(method.as_str()),
        Some(_) => return Err(McpFault::Member),
    };
    let params = match members.get("params") {
        None | Some(Value::Null) => None,
        Some(Value::Object(params)) => Some(params),
        Some(_) => return Err(McpFault::Member),
    };
    let tool = if method == Some("tools/call") {
        let params = params.ok_or(McpFault::Tool)?;
        check_alias(params, "name").map_err(|_| McpFault::Member)?;
        let name = params.get("name").and_then(Value::as_str);
        Some(name.filter(|name| !name.is_empty()).ok_or(McpFault::Tool)?)
    } else {
        None
    };
    Ok(Message { method, tool })
}

/// A server may go by the headers and another by the body: they must say the same.
fn check_headers(messages: &[Message<'_>], headers: &HeaderMap) -> Result<(), McpFault> {
    for header in [METHOD_HEADER, NAME_HEADER] {
        let mut values = headers.get_all(&header).iter();
        let said = match (values.next(), values.next()) {
            (None, _) => continue,
            (Some(one), None) => one.to_str().map_err(|_| McpFault::Header)?,
            (Some(_), Some(_)) => return Err(McpFault::Header),
        };
        let [only] = messages else {
            return Err(McpFault::Header);
        };
        // `Mcp-Name` also repeats the name of a prompt or resource, which is no tool.
        let agrees = if header == METHOD_HEADER {
            only.method == Some(said)
        } else {
            only.method != Some("tools/call") || only.tool == Some(said)
        };
        if !agrees {
            return Err(McpFault::Header);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use serde_json::json;

    fn tools(body: &Value) -> Result<Vec<String>, McpFault> {
        let found = messages(Some(body), &HeaderMap::new())?;
        Ok({ found.iter() }
            .map(|m| m.tool.or(m.method).unwrap_or("answer").to_owned())
            .collect())
    }

    #[test]
    fn methods_and_tools_are_read_in_batches_too() {
        let call = |name: &str| json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name}});
        let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
        let answer = json!({"jsonrpc": "2.0", "id": 3, "result": {}});
        assert_eq!(tools(&call("a")).unwrap(), ["a"]);
        assert_eq!(
            tools(&json!([call("a"), list, answer, call("b")])).unwrap(),
            ["a", "tools/list", "answer", "b"]
        );
    }

    #[test]
    fn what_two_readers_could_take_differently_is_refused() {
        for (body, fault) in [
            (json!(null), McpFault::Shape),
            (json!([]), McpFault::Shape),
            (json!("x"), McpFault::Shape),
            (
                json!([[{"jsonrpc": "2.0", "method": "ping"}]]),
                McpFault::Shape,
            ),
            (json!({"method": "ping"}), McpFault::Member),
            (
                json!({"jsonrpc": "1.0", "method": "ping"}),
                McpFault::Member,
            ),
            (json!({"jsonrpc": "2.0", "method": 7}), McpFault::Member),
            (
                json!({"jsonrpc": "2.0", "Method": "tools/call"}),
                McpFault::Member,
            ),
            (
                json!({"jsonrpc": "2.0", "method": "tools/call"}),
                McpFault::Tool,
            ),
            (
                json!({"jsonrpc": "2.0", "method": "tools/call", "params": ["a"]}),
                McpFault::Member,
            ),
            (
                json!({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": 1}}),
                McpFault::Tool,
            ),
            (
                json!({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "a", "NAME": "b"}}),
                McpFault::Member,
            ),
        ] {
            assert_eq!(tools(&body), Err(fault), "{body}");
        }
        let many = vec![json!({"jsonrpc": "2.0", "method": "ping"}); MCP_BATCH_MAX + 1];
        assert_eq!(tools(&many.into()), Err(McpFault::Shape));
    }

    #[test]
    fn headers_must_say_what_the_body_says() {
        let body = json!({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "a"}});
        let check = |pairs: &[(HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(name, HeaderValue::from_static(value));
            }
            messages(Some(&body), &headers).map(|_| ())
        };
        assert_eq!(check(&[]), Ok(()));
        let said = [(METHOD_HEADER, "tools/call"), (NAME_HEADER, "a")];
        assert_eq!(check(&said), Ok(()));
        for lie in [
            &[(METHOD_HEADER, "tools/list")][..],
            &[(NAME_HEADER, "b")],
            &[(NAME_HEADER, "a"), (NAME_HEADER, "b")],
        ] {
            assert_eq!(check(lie), Err(McpFault::Header), "{lie:?}");
        }
    }

    #[test]
    fn a_list_of_tools_covers_the_handshake_and_no_other_tool() {
        let listed = ["refund_lookup".to_owned(), "execute_sql".to_owned()];
        let call = |tool| Message {
            method: Some("tools/call"),
            tool: Some(tool),
        };
        let say = |method| Message {
            method: Some(method),
            tool: None,
        };
        for covered in [
            call("refund_lookup"),
            call("prod__billing__refund_lookup"),
            call("execute_sql"),
            say("initialize"),
            say("tools/list"),
            say("notifications/initialized"),
            Message {
                method: None,
                tool: None,
            },
        ] {
            assert!(covered.is_covered_by(&listed), "{covered:?}");
        }
        for other in [
            call("refund"),
            call("prod__billing__refund"),
            call("x__refund_lookup"),
            call("a__b__c__refund_lookup"),
            call("execute_sql_read_only"),
            say("resources/read"),
            say("prompts/get"),
            say("tools/call2"),
        ] {
            assert!(!other.is_covered_by(&listed), "{other:?}");
        }
    }
}
