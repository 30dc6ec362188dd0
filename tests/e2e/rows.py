"""The table: for each kind of Databricks object its main call, as whom, on what it is allowed and on what it is refused.

`{name}` is the object that the policy (valetkey.yaml) names and `{name_other}` another of the same kind (things.rs); a call is a
function of calls.py. A refusal is the client's own exception, and names the route that comes nearest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: Whoever presents itself: the app, or the first user.
APP, USER = "app", "user"
BOTH = (APP, USER)

#: What each client raises when it is refused.
SDK = "PermissionDenied"
OPENAI = "PermissionDeniedError"
#: mcp 1.x and 2.x.
MCP = ("HTTPStatusError", "MCPError")
MLFLOW = ("RestException", "MlflowException")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    call: str
    #: Which of these the policy lets in; each is tried.
    identities: tuple[str, ...]
    allowed: str
    refused: str
    #: The route that a refusal names; none has anything in common where there is none.
    route: str | None
    error: str | tuple[str, ...] = SDK
    #: As whom it runs, where that is not whoever asks.
    runs_as: str | None = None
    #: Further words for the call.
    words: dict[str, str] = field(default_factory=dict)

    @property
    def errors(self) -> tuple[str, ...]:
        return (self.error,) if isinstance(self.error, str) else self.error


FUNCTIONS = "/api/2.0/mcp/functions/{schema_path}#"
SEARCH = "/api/2.0/mcp/vector-search/{schema_path}#"
GENIE = "/api/2.0/mcp/genie/{genie_space}#query_space_{genie_space}"
EXTERNAL = "/api/2.0/mcp/external/{connection}#"
SERVICE = "/ai-gateway/mcp-services/{mcp_service}#"
TOOLS = "/@tools/mcp#"
NEW_PATH = {"workspace": "{workspace_id}", "endpoint": "{search_endpoint}"}
CHAT = {"model": "{model}", "space": "{genie_space}"}

# fmt: off
ROWS = [
    # SQL warehouse
    Row("SQL statement, chunk, poll", "statement", BOTH, "{warehouse}", "{warehouse_other}", "warehouse"),
    Row("SQL statement cancelled", "statement_cancelled", BOTH, "{warehouse}", "{warehouse_other}", "warehouse"),
    # Model Serving endpoint
    Row("serving: SDK query", "serving_query", BOTH, "{model}", "{model_other}", "chat"),
    Row("serving: chat", "chat", BOTH, "{model}", "{model_other}", "chat", OPENAI),
    Row("serving: embeddings", "embeddings", BOTH, "{embeddings}", "{embeddings_other}", "chat", OPENAI),
    Row("serving: responses", "responses", BOTH, "{model}", "{model_other}", "chat", OPENAI),
    Row("AI Gateway: chat", "gateway_chat", BOTH, "{model}", "{model_other}", "chat", OPENAI),
    Row("Supervisor: Genie tool", "supervisor_genie", BOTH, "{genie_space}", "{genie_space_other}", "genie-space", OPENAI, words=CHAT),
    Row("Supervisor: function tool", "supervisor_function", (APP,), "{function}", "{function_other}", "function", OPENAI, words=CHAT),
    # Unity Catalog function
    Row("UC function: get", "function", (APP,), "{function}", "{function_other}", "function"),
    Row("UC function: MCP tool", "mcp_tool", BOTH, FUNCTIONS + "{function_tool}", FUNCTIONS + "{function_other_tool}", "mcp-functions", MCP),
    Row("UC function: MCP, schema", "mcp_tool", BOTH, FUNCTIONS + "{function_tool}", "/api/2.0/mcp/functions/{schema_other_path}#any", "mcp-functions", MCP),
    # Genie space
    Row("Genie conversation", "genie", BOTH, "{genie_space}", "{genie_space_other}", "genie-space"),
    Row("Genie MCP", "mcp_tool", BOTH, GENIE, "/api/2.0/mcp/genie/{genie_space_other}#any", "genie-space", MCP),
    # Vector Search index
    Row("vector search, REST client", "search", BOTH, "{index}", "{index_other}", "index", ("Exception", "PermissionDenied")),
    Row("vector search, new path", "search_as_renamed", BOTH, "{index}", "{index_other}", "index", words=NEW_PATH),
    Row("vector search MCP", "mcp_tool", BOTH, SEARCH + "{index_tool}", "/api/2.0/mcp/vector-search/{schema_other_path}#any", "mcp-search", MCP),
    # Unity Catalog table, connection, volume
    Row("UC table: get", "table", BOTH, "{table}", "{table_other}", "table"),
    Row("UC connection: http_request", "connection", BOTH, "{connection}", "{connection_other}", "connection"),
    Row("UC connection: proxy", "connection_proxy", BOTH, "{connection}", "{connection_other}", "connection"),
    Row("UC connection: external MCP", "mcp_tool", BOTH, EXTERNAL + "list_tickets", EXTERNAL + "create_ticket", "mcp-external", MCP),
    Row("UC connection: another's MCP", "mcp_tool", BOTH, EXTERNAL + "list_tickets", "/api/2.0/mcp/external/{connection_other}#list_tickets", "mcp-external", MCP),
    Row("UC volume: up, list, down", "volume_write", BOTH, "{volume}", "{volume_other}", "volume"),
    Row("UC volume: list", "volume_read", (USER,), "{volume_to_read}", "{volume_to_read_other}", "volume"),
    Row("UC volume: only to read", "volume_write", (USER,), "{volume}", "{volume_to_read}", "volume-to-read"),
    # Lakebase
    Row("Lakebase provisioned", "lakebase_provisioned", BOTH, "{instance}", "{instance_other}", "lakebase-instance"),
    Row("Lakebase autoscaling", "lakebase_autoscaling", BOTH, "{branch}", "{branch_other}", "lakebase-branch"),
    # MLflow: no user scope
    Row("MLflow run", "mlflow_run", (APP,), "{experiment}", "{experiment_other}", "experiment", MLFLOW),
    Row("MLflow experiment by name", "mlflow_experiment_by_name", (APP,), "{experiment_name}", "{experiment_name_other}", "experiment-by-name", MLFLOW),
    Row("MLflow trace", "mlflow_trace", (APP,), "{experiment}", "{experiment_other}", "experiment", MLFLOW),
    Row("MLflow OTLP spans", "mlflow_otlp", (APP,), "{trace_table}", "{trace_table_other}", "trace-table", MLFLOW),
    Row("MLflow prompt", "mlflow_prompt", (APP,), "{prompt}", "{prompt_other}", "prompt", MLFLOW),
    # Managed MCP servers, with the client of Databricks; a custom MCP server that is another app
    Row("databricks-mcp: functions", "mcp_tool_with_databricks_mcp", BOTH, FUNCTIONS + "{function_tool}", FUNCTIONS + "{function_other_tool}", "mcp-functions", MCP),
    Row("databricks-mcp: Genie", "mcp_tool_with_databricks_mcp", BOTH, GENIE, "/api/2.0/mcp/genie/{genie_space_other}#any", "genie-space", MCP),
    Row("SQL MCP", "mcp_tool", BOTH, "/api/2.0/mcp/sql#execute_sql_read_only", "/api/2.0/mcp/sql#execute_sql", "mcp-sql", MCP),
    Row("MCP service", "mcp_tool", BOTH, SERVICE + "list_tickets", SERVICE + "create_ticket", "mcp-service", MCP),
    Row("custom MCP server: tool", "mcp_tool", BOTH, TOOLS + "whoami", TOOLS + "shout", "app-tools", MCP),
    Row("custom MCP server: app", "mcp_tool", BOTH, TOOLS + "whoami", "/@others/mcp#whoami", "app-tools", MCP),
    Row("custom MCP server: address", "custom_app", (APP,), "{app}#whoami", "{app_other}#whoami", "app-address"),
    # Jobs, secrets, identity, memories: but for identity no user scope
    Row("job run and output", "job", (APP,), "{job}", "{job_other}", "job"),
    Row("secret", "secret", (APP,), "{secret}", "{secret_other}", "secret"),
    Row("SCIM Me", "me", BOTH, "Me", "Users", None),
    Row("memory store", "memory", BOTH, "{memory_store}", "{memory_store_other}", "memories", runs_as=APP),
]
# fmt: on
