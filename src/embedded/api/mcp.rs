//! The managed MCP servers: which object each stands on, its tools, and what they give. Facts 6.11.
//!
//! The protocol is in `streamable.rs`. A tool below a schema has a grant of its own, and its refusal is a failed result.

use serde_json::{Value, json};

use super::{genie, sql, uc, vector_search};
use crate::embedded::answer::{Answer, Refusal};
use crate::embedded::call::Call;
use crate::embedded::grants::{
    CONNECTIONS, Caller, FUNCTIONS, GENIE_SPACES, INDEXES, Kind, MCP_SERVICES, SCHEMAS, WAREHOUSES,
};
use crate::embedded::streamable::{Called, Exchange, RpcFault, ToolServer, tool};
use crate::embedded::workspace::Site;
use crate::embedded::world::WAREHOUSE;

/// What a server stands on.
enum Server {
    Genie(String),
    /// Functions or indexes of a schema, or one of them.
    Schema {
        kind: Kind,
        schema: String,
        only: Option<String>,
        is_search: bool,
    },
    External(String),
    Service(String),
    Sql,
}

pub(in crate::embedded) async fn answer(
    site: &Site,
    call: &mut Call,
    path: &[&str],
) -> Result<Answer, Refusal> {
    let server = Server::at(path).ok_or_else(|| call.no_endpoint())?;
    server.may_use(&call.caller)?;
    let body = call.bytes().await?;
    let tools = Tools {
        site,
        caller: &call.caller,
        server,
    };
    let exchange = Exchange {
        sessions: &site.sessions,
        server: &tools,
        owner: &call.caller.name,
        address: &call.path,
        method: &call.method,
        headers: &call.headers,
        pace: site.pace(),
        closing: &site.closing,
    };
    Ok(exchange.answer(&body))
}

impl Server {
    fn at(path: &[&str]) -> Option<Self> {
        let below = |kind, is_search, names: &[&str]| match names {
            [catalog, schema] => Some(Self::Schema {
                kind,
                schema: format!("{catalog}.{schema}"),
                only: None,
                is_search,
            }),
            [catalog, schema, object] => Some(Self::Schema {
                kind,
                schema: format!("{catalog}.{schema}"),
                only: Some(format!("{catalog}.{schema}.{object}")),
                is_search,
            }),
            _ => None,
        };
        match path {
            ["api", "2.0", "mcp", "genie", space] => Some(Self::Genie((*space).to_owned())),
            ["api", "2.0", "mcp", "functions", names @ ..] => below(FUNCTIONS, false, names),
            ["api", "2.0", "mcp", "vector-search", names @ ..] => below(INDEXES, true, names),
            ["api", "2.0", "mcp", "external", name] => Some(Self::External((*name).to_owned())),
            ["api", "2.0", "mcp", "sql"] => Some(Self::Sql),
            ["ai-gateway", "mcp-services", name] => Some(Self::Service((*name).to_owned())),
            _ => None,
        }
    }

    fn may_use(&self, caller: &Caller) -> Result<(), Refusal> {
        match self {
            Self::Genie(space) => caller.may_use(GENIE_SPACES, space),
            Self::Schema {
                kind, schema, only, ..
            } => {
                caller.may_use(SCHEMAS, schema)?;
                only.as_ref().map_or(Ok(()), |o| caller.may_use(*kind, o))
            }
            Self::External(name) => caller.may_use(CONNECTIONS, name),
            Self::Service(name) => caller.may_use(MCP_SERVICES, name),
            Self::Sql => Ok(()),
        }
    }
}

/// One server for one caller.
struct Tools<'a> {
    site: &'a Site,
    caller: &'a Caller,
    server: Server,
}

impl ToolServer for Tools<'_> {
    fn name(&self) -> &str {
        match &self.server {
            Server::Genie(_) => "genie",
            Server::Schema { is_search, .. } => {
                if *is_search {
                    "vector-search"
                } else {
                    "functions"
                }
            }
            Server::External(name) | Server::Service(name) => name,
            Server::Sql => "sql",
        }
    }

    fn tools(&self) -> Vec<Value> {
        match &self.server {
            Server::Genie(space) => vec![
                tool(
                    &format!("query_space_{space}"),
                    "Asks the space a question about orders.",
                    &["query"],
                ),
                tool(
                    &format!("poll_response_{space}"),
                    "Looks for the answer of a question.",
                    &["conversation_id", "message_id"],
                ),
            ],
            Server::Schema {
                kind,
                schema,
                only,
                is_search,
            } => {
                let inside = format!("{schema}.");
                let shown = self.caller.visible(*kind).filter(|name| {
                    name.starts_with(&inside) && only.as_ref().is_none_or(|o| o == name)
                });
                shown
                    .map(|name| {
                        let flat = name.replace('.', "__");
                        if *is_search {
                            tool(&flat, "Searches documents.", &["query"])
                        } else {
                            tool(&flat, &uc::comment(name), &["order_id"])
                        }
                    })
                    .collect()
            }
            Server::External(_) | Server::Service(_) => vec![
                tool("list_tickets", "Lists the open tickets.", &[]),
                tool("create_ticket", "Opens a ticket.", &["title"]),
            ],
            Server::Sql => vec![
                tool("execute_sql", "Runs a statement.", &["query"]),
                tool(
                    "execute_sql_read_only",
                    "Runs a statement that only reads.",
                    &["query"],
                ),
                tool(
                    "poll_sql_result",
                    "Looks for the result of a statement.",
                    &["statement_id"],
                ),
            ],
        }
    }

    fn call(&self, tool: &str, arguments: &Value) -> Result<Called, RpcFault> {
        let given = |name: &str| arguments.get(name).and_then(Value::as_str);
        let done = match &self.server {
            Server::Genie(space) => match tool.strip_suffix(&format!("_{space}")) {
                Some("query_space") => {
                    let question = given("query").unwrap_or_default();
                    genie::ask(self.site, self.caller, space, question)
                }
                Some("poll_response") => {
                    let conversation = given("conversation_id").unwrap_or_default();
                    let place = (space.as_str(), conversation, self.caller.name.as_str());
                    genie::look(self.site, place, given("message_id").unwrap_or_default())
                }
                Some(_) | None => return Err(RpcFault::unknown_tool(tool)),
            },
            Server::Schema {
                kind,
                schema,
                only,
                is_search,
            } => {
                let name = tool.replacen("__", ".", 2);
                let inside = name
                    .strip_prefix(schema)
                    .is_some_and(|r| r.starts_with('.'));
                if !inside || only.as_ref().is_some_and(|o| *o != name) {
                    return Err(RpcFault::unknown_tool(tool));
                }
                self.below_schema(*kind, &name, *is_search, arguments)
            }
            Server::External(name) | Server::Service(name) => match tool {
                "list_tickets" => Ok(json!({ "tickets": [], "seen_as": self.caller.name })),
                "create_ticket" => Ok(json!({
                    "ticket": 1, "title": given("title"), "through": name, "opened_by": self.caller.name,
                })),
                _ => return Err(RpcFault::unknown_tool(tool)),
            },
            Server::Sql => match tool {
                "execute_sql" => self.sql(arguments, false),
                "execute_sql_read_only" => self.sql(arguments, true),
                "poll_sql_result" => {
                    let id = given("statement_id").unwrap_or_default();
                    sql::poll(self.site, self.caller, id)
                }
                _ => return Err(RpcFault::unknown_tool(tool)),
            },
        };
        Ok(match done {
            Ok(value) if value.pointer("/status/state") == Some(&json!("FAILED")) => {
                Called::Failed(value.to_string())
            }
            Ok(value) => Called::Said(value.to_string()),
            Err(refusal) => Called::Failed(refusal.line()),
        })
    }
}

impl Tools<'_> {
    fn below_schema(
        &self,
        kind: Kind,
        name: &str,
        is_search: bool,
        arguments: &Value,
    ) -> Result<Value, Refusal> {
        self.caller.may_use(kind, name)?;
        if is_search {
            let text = arguments.get("query").cloned().unwrap_or_default();
            let query = json!({ "columns": ["id", "text", "seen_as"], "query_text": text });
            return vector_search::query(&query, 0, self.caller);
        }
        let order = arguments.get("order_id").cloned().unwrap_or_default();
        let said = uc::called(name, self.caller, &order);
        Ok(json!({ "is_truncated": false, "columns": ["output"], "rows": [[said]] }))
    }

    fn sql(&self, arguments: &Value, read_only: bool) -> Result<Value, Refusal> {
        let given = |name: &str| arguments.get(name).and_then(Value::as_str);
        let missing = || Refusal::bad_request("Missing required argument: query");
        let text = given("query").ok_or_else(missing)?;
        let verb = text.split_whitespace().next().unwrap_or_default();
        if read_only && !["select", "show", "describe"].contains(&verb.to_lowercase().as_str()) {
            return Err(Refusal::bad_request("Only statements that read are taken."));
        }
        let warehouse = given("warehouse_id").unwrap_or(WAREHOUSE);
        self.caller.may_use(WAREHOUSES, warehouse)?;
        let body = json!({});
        Ok(sql::begin(self.site, self.caller, (warehouse, text), &body))
    }
}
