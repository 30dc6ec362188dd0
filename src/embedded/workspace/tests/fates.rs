//! Every family of calls and its four fates: allowed, without the scope, without a grant, on what is not there.

use super::*;
use crate::embedded::world;

/// Scopes that a user token may hold without any family below being open to it.
const NO_SCOPE: &str = "iam.current-user:read";

/// One call; `@` in path and body stands for the object.
struct Row {
    method: &'static str,
    path: &'static str,
    body: &'static str,
    /// What a user's token needs; empty where only the app's can have it.
    scopes: &'static str,
    /// What a refusal names.
    shown: &'static str,
    open: &'static str,
    restricted: &'static str,
    missing: &'static str,
}

const fn row(
    call: (&'static str, &'static str, &'static str),
    scopes: (&'static str, &'static str),
    objects: (&'static str, &'static str),
    missing: &'static str,
) -> Row {
    Row {
        method: call.0,
        path: call.1,
        body: call.2,
        scopes: scopes.0,
        shown: scopes.1,
        open: objects.0,
        restricted: objects.1,
        missing,
    }
}

const GONE: &str = "RESOURCE_DOES_NOT_EXIST";
const WAREHOUSES: (&str, &str) = (world::WAREHOUSE, world::WAREHOUSE_RESTRICTED);
const MODELS: (&str, &str) = (world::CHAT_ENDPOINT, world::CHAT_ENDPOINT_RESTRICTED);
const INDEXES: (&str, &str) = (world::INDEX, world::INDEX_RESTRICTED);
const SPACES: (&str, &str) = (world::GENIE_SPACE, world::GENIE_SPACE_RESTRICTED);
const FUNCTIONS: (&str, &str) = (world::FUNCTION, world::FUNCTION_RESTRICTED);
const CONNECTIONS: (&str, &str) = (world::CONNECTION, world::CONNECTION_RESTRICTED);
const INSTANCES: (&str, &str) = (
    world::DATABASE_INSTANCE,
    world::DATABASE_INSTANCE_RESTRICTED,
);
const BRANCHES: (&str, &str) = (world::POSTGRES_BRANCH, world::POSTGRES_BRANCH_RESTRICTED);
const EXPERIMENTS: (&str, &str) = (world::EXPERIMENT, world::EXPERIMENT_RESTRICTED);
const LOCATIONS: (&str, &str) = (world::TRACE_LOCATION, world::TRACE_LOCATION_RESTRICTED);
const PROMPTS: (&str, &str) = (world::PROMPT, world::PROMPT_RESTRICTED);
const STORES: (&str, &str) = (world::MEMORY_STORE, world::MEMORY_STORE_RESTRICTED);
const JOBS: (&str, &str) = (world::JOB, world::JOB_RESTRICTED);
const SECRETS: (&str, &str) = (world::SECRET_SCOPE, world::SECRET_SCOPE_RESTRICTED);
const APPS: (&str, &str) = (world::APP, world::APP_RESTRICTED);
const HELLO: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
const MODEL_ASK: &str = r#"{"model":"@","input":"hi","messages":[{"role":"user","content":"hi"}]}"#;
const SEARCH: &str = r#"{"columns":["id"],"query_text":"x"}"#;
const UC: (&str, &str) = ("", "unity-catalog");
const MLFLOW: (&str, &str) = ("", "mlflow");

#[rustfmt::skip] // a row a line, to be read as a table
const ROWS: &[Row] = &[
    row(("POST", "/api/2.0/sql/statements", r#"{"warehouse_id":"@","statement":"select 1"}"#), ("sql.statement-execution", "sql"), WAREHOUSES, GONE),
    row(("GET", "/api/2.0/sql/warehouses/@", ""), ("sql.warehouses:read", "sql"), WAREHOUSES, GONE),
    row(("POST", "/sql/1.0/warehouses/@", "thrift"), ("sql", "sql"), WAREHOUSES, GONE),
    row(("POST", "/serving-endpoints/@/invocations", MODEL_ASK), ("model-serving", "model-serving"), MODELS, GONE),
    row(("POST", "/serving-endpoints/chat/completions", MODEL_ASK), ("model-serving", "model-serving"), MODELS, GONE),
    row(("POST", "/serving-endpoints/completions", MODEL_ASK), ("model-serving", "model-serving"), MODELS, GONE),
    row(("POST", "/serving-endpoints/responses", MODEL_ASK), ("model-serving", "model-serving"), MODELS, GONE),
    row(("GET", "/api/2.0/serving-endpoints/@", ""), ("model-serving", "model-serving"), MODELS, GONE),
    row(("POST", "/ai-gateway/mlflow/v1/chat/completions", MODEL_ASK), ("ai-gateway", "ai-gateway"), MODELS, GONE),
    row(("POST", "/ai-gateway/mlflow/v1/embeddings", MODEL_ASK), ("ai-gateway", "ai-gateway"), MODELS, GONE),
    row(("POST", "/ai-gateway/mlflow/v1/responses", MODEL_ASK), ("ai-gateway", "ai-gateway"), MODELS, GONE),
    row(("POST", "/ai-gateway/openai/v1/responses", MODEL_ASK), ("ai-gateway", "ai-gateway"), MODELS, GONE),
    row(("POST", "/ai-gateway/openai/v1/chat/completions", MODEL_ASK), ("ai-gateway", "ai-gateway"), MODELS, GONE),
    row(("GET", "/api/2.1/unity-catalog/catalogs/@", ""), ("catalog.catalogs:read", "unity-catalog"), (world::CATALOG, world::CATALOG_RESTRICTED), "CATALOG_DOES_NOT_EXIST"),
    row(("GET", "/api/2.1/unity-catalog/schemas?catalog_name=@", ""), ("catalog.schemas:read", "unity-catalog"), (world::CATALOG, world::CATALOG_RESTRICTED), "CATALOG_DOES_NOT_EXIST"),
    row(("GET", "/api/2.1/unity-catalog/table-summaries?catalog_name=@", ""), ("catalog.tables:read", "unity-catalog"), (world::CATALOG, world::CATALOG_RESTRICTED), "CATALOG_DOES_NOT_EXIST"),
    row(("GET", "/api/2.1/unity-catalog/schemas/@", ""), ("catalog.schemas:read", "unity-catalog"), (world::SCHEMA, world::SCHEMA_RESTRICTED), "SCHEMA_DOES_NOT_EXIST"),
    row(("GET", "/api/2.1/unity-catalog/tables/@", ""), ("catalog.tables:read", "unity-catalog"), (world::TABLE_ORDERS, world::TABLE_RESTRICTED), "TABLE_DOES_NOT_EXIST"),
    row(("GET", "/api/2.1/unity-catalog/functions/@", ""), UC, FUNCTIONS, "ROUTINE_DOES_NOT_EXIST"),
    row(("GET", "/api/2.1/unity-catalog/volumes/@", ""), UC, (world::VOLUME_NAME, world::VOLUME_NAME_RESTRICTED), "VOLUME_DOES_NOT_EXIST"),
    row(("GET", "/api/2.1/unity-catalog/connections/@", ""), ("catalog.connections", "unity-catalog"), CONNECTIONS, "CONNECTION_DOES_NOT_EXIST"),
    row(("POST", "/api/2.0/external-function", r#"{"connection_name":"@","method":"GET","path":"/x"}"#), ("catalog.connections", "unity-catalog"), CONNECTIONS, "CONNECTION_DOES_NOT_EXIST"),
    row(("PUT", "/api/2.0/unity-catalog/connections/@/proxy/a/b", "anything"), ("catalog.connections", "unity-catalog"), CONNECTIONS, "CONNECTION_DOES_NOT_EXIST"),
    row(("POST", "/api/2.0/vector-search/indexes/@/query", SEARCH), ("vector-search", "vector-search"), INDEXES, GONE),
    row(("POST", "/api/2.0/vector-search/indexes/@/scan", "{}"), ("vector-search", "vector-search"), INDEXES, GONE),
    row(("GET", "/api/2.0/vector-search/endpoints/@", ""), ("vector-search", "vector-search"), (world::VECTOR_ENDPOINT, world::VECTOR_ENDPOINT_RESTRICTED), GONE),
    row(("POST", "/api/2.0/ai-search/workspaces/1234567890123456/endpoints/demo-vectors/indexes/@:query", SEARCH), ("vector-search", "vector-search"), INDEXES, GONE),
    row(("POST", "/api/2.0/ai-search/workspaces/1234567890123456/endpoints/demo-vectors/indexes/@:scan", "{}"), ("vector-search", "vector-search"), INDEXES, GONE),
    row(("POST", "/api/2.0/genie/spaces/@/start-conversation", r#"{"content":"hi"}"#), ("genie", "genie"), SPACES, GONE),
    row(("PUT", "/api/2.0/fs/directories@/d", ""), ("files", "files"), (world::VOLUME, world::VOLUME_RESTRICTED), "VOLUME_DOES_NOT_EXIST"),
    row(("POST", "/api/2.0/database/credentials", r#"{"instance_names":["@"],"request_id":"1"}"#), ("postgres", "postgres"), INSTANCES, GONE),
    row(("GET", "/api/2.0/database/instances/@", ""), ("postgres", "postgres"), INSTANCES, GONE),
    row(("GET", "/api/2.0/database/instances:findByUid?uid=uid-of-@", ""), ("postgres", "postgres"), INSTANCES, GONE),
    row(("POST", "/api/2.0/postgres/credentials", r#"{"endpoint":"@/endpoints/primary"}"#), ("postgres", "postgres"), BRANCHES, GONE),
    row(("GET", "/api/2.0/postgres/@", ""), ("postgres", "postgres"), BRANCHES, GONE),
    row(("GET", "/api/2.0/postgres/@/endpoints/primary", ""), ("postgres", "postgres"), BRANCHES, GONE),
    row(("GET", "/api/2.0/postgres/@/databases/app", ""), ("postgres", "postgres"), BRANCHES, GONE),
    row(("GET", "/api/2.0/mlflow/experiments/get?experiment_id=@", ""), MLFLOW, EXPERIMENTS, GONE),
    row(("GET", "/api/2.0/mlflow/experiments/get-by-name?experiment_name=@", ""), MLFLOW, (world::EXPERIMENT_NAME, world::EXPERIMENT_NAME_RESTRICTED), GONE),
    row(("POST", "/api/2.0/mlflow/runs/create", r#"{"experiment_id":"@"}"#), MLFLOW, EXPERIMENTS, GONE),
    row(("POST", "/api/2.0/mlflow/runs/search", r#"{"experiment_ids":["@"]}"#), MLFLOW, EXPERIMENTS, GONE),
    row(("POST", "/api/2.0/mlflow/logged-models", r#"{"experiment_id":"@","name":"m"}"#), MLFLOW, EXPERIMENTS, GONE),
    row(("POST", "/api/2.0/mlflow/traces", r#"{"experiment_id":"@","timestamp_ms":1}"#), MLFLOW, EXPERIMENTS, GONE),
    row(("POST", "/api/3.0/mlflow/traces", r#"{"trace":{"trace_info":{"trace_location":{"mlflow_experiment":{"experiment_id":"@"}}}}}"#), MLFLOW, EXPERIMENTS, GONE),
    row(("POST", "/api/3.0/mlflow/traces/search", r#"{"locations":[{"mlflow_experiment":{"experiment_id":"@"}}]}"#), MLFLOW, EXPERIMENTS, GONE),
    row(("PUT", "/api/2.0/fs/files/WorkspaceInternal/Mlflow/Artifacts/@/x?overwrite=true", "x"), MLFLOW, EXPERIMENTS, GONE),
    row(("GET", "/api/5.0/mlflow/tracing/locations/@", ""), MLFLOW, LOCATIONS, GONE),
    row(("GET", "/api/2.0/mlflow/unity-catalog/prompts/@/versions/1", ""), MLFLOW, PROMPTS, GONE),
    row(("POST", "/api/2.0/mlflow/unity-catalog/prompts/@/versions", r#"{"prompt_version":{"template":"\"x\""}}"#), MLFLOW, PROMPTS, GONE),
    row(("POST", "/api/2.0/mcp/genie/@", HELLO), ("genie", "genie"), SPACES, GONE),
    row(("POST", "/api/2.0/mcp/external/@", HELLO), ("mcp.external", "unity-catalog"), CONNECTIONS, "CONNECTION_DOES_NOT_EXIST"),
    row(("POST", "/ai-gateway/mcp-services/@", HELLO), ("ai-gateway", "ai-gateway"), (world::MCP_SERVICE, world::MCP_SERVICE_RESTRICTED), GONE),
    row(("POST", "/api/2.0/mcp/functions/main/@", HELLO), ("mcp.functions", "unity-catalog"), ("sales/order_total", "sales/refund_order"), "SCHEMA_DOES_NOT_EXIST"),
    row(("POST", "/api/2.0/mcp/vector-search/main/@", HELLO), ("vector-search", "vector-search"), ("sales/docs_index", "hr/docs_index"), "SCHEMA_DOES_NOT_EXIST"),
    row(("POST", "/api/2.2/jobs/run-now", r#"{"job_id":"@"}"#), ("", "jobs"), JOBS, "INVALID_PARAMETER_VALUE"),
    row(("GET", "/api/2.2/jobs/get?job_id=@", ""), ("", "jobs"), JOBS, "INVALID_PARAMETER_VALUE"),
    row(("GET", "/api/2.0/secrets/get?scope=@&key=api-key", ""), ("", "secrets"), SECRETS, GONE),
    row(("GET", "/api/2.0/secrets/list?scope=@", ""), ("", "secrets"), SECRETS, GONE),
    row(("GET", "/api/2.0/apps/@", ""), ("", "apps"), APPS, GONE),
    row(("GET", "/api/2.1/unity-catalog/memory-stores/@", ""), UC, STORES, "NOT_FOUND"),
    row(("POST", "/api/2.1/unity-catalog/memory-stores/@/entries", r#"{"scope":"s","memory_entry":{"path":"/memories/p","contents":"c"}}"#), UC, STORES, "NOT_FOUND"),
];

impl Row {
    async fn send(&self, rig: &Rig, object: &str, token: &str) -> Read {
        let path = self.path.replace('@', object);
        let body = full(self.body.replace('@', object));
        rig.read(self.method, &path, Some(token), body).await
    }

    /// A Thrift body is never readable here.
    fn is_allowed(&self, answer: &Read) -> bool {
        answer.status.is_success() || (self.body == "thrift" && answer.status == 400)
    }
}

#[tokio::test]
async fn every_family_lets_through_whoever_has_scope_and_grant_and_nobody_else() {
    let rig = Rig::start().await;
    let all_apis = rig.token_for("alice", "all-apis");
    let without = rig.token_for("alice", NO_SCOPE);
    for row in ROWS {
        let what = format!("{} {}", row.method, row.path);
        let app = rig.app_token(row.shown).await;
        let caller = if row.scopes.is_empty() {
            app.clone()
        } else {
            rig.token_for("bob", row.scopes)
        };

        let allowed = row.send(&rig, row.open, &caller).await;
        assert!(row.is_allowed(&allowed), "{what}: {}", allowed.text());
        let by_app = row.send(&rig, row.open, &app).await;
        let is_repeated = by_app.json_code() == "ALREADY_EXISTS";
        assert!(row.is_allowed(&by_app) || is_repeated, "{what} by the app");
        let by_owner = row.send(&rig, row.restricted, &all_apis).await;
        assert!(row.is_allowed(&by_owner), "{what}: {}", by_owner.text());

        let refused = row.send(&rig, row.open, &without).await;
        assert_eq!(refused.status, 403, "{what}");
        let wanted = format!("required scopes: {}", row.shown);
        assert!(
            refused.text().contains(&wanted),
            "{what}: {}",
            refused.text()
        );
        assert!(
            refused
                .header("x-databricks-reason-phrase")
                .ends_with(&wanted)
        );

        let no_grant = row.send(&rig, row.restricted, &caller).await;
        assert_eq!(
            (no_grant.status.as_u16(), no_grant.json_code().as_str()),
            (403, "PERMISSION_DENIED"),
            "{what}: {}",
            no_grant.text()
        );

        // What it is made of stays well formed.
        let unknown = match row.open {
            world::POSTGRES_BRANCH => "projects/none/branches/none",
            world::VOLUME => "/Volumes/main/sales/none",
            _ => "none",
        };
        let unknown = if row.missing == "SCHEMA_DOES_NOT_EXIST" && row.path.contains("mcp") {
            "none/none"
        } else {
            unknown
        };
        let absent = row.send(&rig, unknown, &caller).await;
        assert_eq!(
            (absent.status.as_u16(), absent.json_code().as_str()),
            (
                if row.missing.starts_with("INVALID") {
                    400
                } else {
                    404
                },
                row.missing
            ),
            "{what}: {}",
            absent.text()
        );
    }
}

#[tokio::test]
async fn a_missing_scope_is_told_in_json_or_in_plain_text() {
    let rig = Rig::start().await;
    let without = rig.token_for("bob", NO_SCOPE);
    let json = rig.get("/api/2.0/genie/spaces", &without).await;
    assert_eq!(json.json()["error_code"], 403);
    let plain = rig.get("/api/2.0/mcp/sql", &without).await;
    assert_eq!(plain.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(plain.text(), "Invalid scope, required scopes: sql");
}

impl Read {
    /// The `error_code` of a refusal; empty where there is none.
    fn json_code(&self) -> String {
        let value: Value = serde_json::from_slice(&self.bytes).unwrap_or_default();
        value["error_code"].as_str().unwrap_or_default().to_owned()
    }
}
