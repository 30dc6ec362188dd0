//! The objects of the embedded workspace and who may use them: the same in every run, so that tests can name them.
//!
//! Objects marked restricted are for the first user alone; neither other users nor the app have a grant on them.
//! What kinds they are of, and who calls, is in `grants.rs`.

/// A warehouse that everybody may use.
pub const WAREHOUSE: &str = "1234abcd5678ef90";
/// A warehouse for the first user alone.
pub const WAREHOUSE_RESTRICTED: &str = "a11ce00000000001";
/// The catalog of almost everything here.
pub const CATALOG: &str = "main";
/// A catalog for the first user alone.
pub const CATALOG_RESTRICTED: &str = "vault";
/// The schema of what everybody may use.
pub const SCHEMA: &str = "main.sales";
/// A schema for the first user alone.
pub const SCHEMA_RESTRICTED: &str = "main.hr";
/// A table whose rows differ by user: each sees their own, the app sees all.
pub const TABLE_ORDERS: &str = "main.sales.orders";
/// A table for the first user alone.
pub const TABLE_RESTRICTED: &str = "main.hr.salaries";
/// A function.
pub const FUNCTION: &str = "main.sales.order_total";
/// A second function in the same schema.
pub const FUNCTION_SECOND: &str = "main.sales.order_region";
/// A function for the first user alone, in a schema that everybody may use.
pub const FUNCTION_RESTRICTED: &str = "main.sales.refund_order";
/// An HTTP connection, also an external MCP server.
pub const CONNECTION: &str = "demo_tickets";
/// An HTTP connection for the first user alone.
pub const CONNECTION_RESTRICTED: &str = "hr_payroll";
/// An MCP service of the gateway.
pub const MCP_SERVICE: &str = "main.sales.tickets_mcp";
/// An MCP service for the first user alone.
pub const MCP_SERVICE_RESTRICTED: &str = "main.hr.payroll_mcp";
/// A memory store.
pub const MEMORY_STORE: &str = "main.sales.memories";
/// A memory store for the first user alone.
pub const MEMORY_STORE_RESTRICTED: &str = "main.hr.memories";
/// A chat model.
pub const CHAT_ENDPOINT: &str = "demo-chat";
/// A chat model for the first user alone.
pub const CHAT_ENDPOINT_RESTRICTED: &str = "demo-chat-restricted";
/// An embedding model.
pub const EMBEDDING_ENDPOINT: &str = "demo-embeddings";
/// A knowledge assistant, a tool of the Supervisor API.
pub const KNOWLEDGE_ASSISTANT: &str = "0b0b0b0b-0000-4000-8000-000000000001";
/// A knowledge assistant for the first user alone.
pub const KNOWLEDGE_ASSISTANT_RESTRICTED: &str = "0b0b0b0b-0000-4000-8000-000000000002";
/// A vector search index.
pub const INDEX: &str = "main.sales.docs_index";
/// A vector search index for the first user alone.
pub const INDEX_RESTRICTED: &str = "main.hr.docs_index";
/// The vector search endpoint of both.
pub const VECTOR_ENDPOINT: &str = "demo-vectors";
/// A vector search endpoint, without indexes, for the first user alone.
pub const VECTOR_ENDPOINT_RESTRICTED: &str = "hr-vectors";
/// A Genie space.
pub const GENIE_SPACE: &str = "01f0aaaa000000000000000000000001";
/// A Genie space for the first user alone.
pub const GENIE_SPACE_RESTRICTED: &str = "01f0aaaa000000000000000000000002";
/// A volume, as a path.
pub const VOLUME: &str = "/Volumes/main/sales/files";
/// A volume for the first user alone, as a path.
pub const VOLUME_RESTRICTED: &str = "/Volumes/main/hr/private";
/// [`VOLUME`] by its name in Unity Catalog.
pub const VOLUME_NAME: &str = "main.sales.files";
/// [`VOLUME_RESTRICTED`] by its name in Unity Catalog.
pub const VOLUME_NAME_RESTRICTED: &str = "main.hr.private";
/// A provisioned Lakebase instance.
pub const DATABASE_INSTANCE: &str = "demo-db";
/// A provisioned Lakebase instance for the first user alone.
pub const DATABASE_INSTANCE_RESTRICTED: &str = "hr-db";
/// A branch of an autoscaling Lakebase project. Its endpoint is `<branch>/endpoints/primary`, its database
/// `<branch>/databases/app`.
pub const POSTGRES_BRANCH: &str = "projects/demo/branches/production";
/// A branch for the first user alone.
pub const POSTGRES_BRANCH_RESTRICTED: &str = "projects/hr/branches/production";
/// Every Lakebase credential starts so. It is a real credential of this workspace: let tests look for it.
pub const LAKEBASE_CREDENTIAL_PREFIX: &str = "embedded-lakebase-credential-";
/// An MLflow experiment, of the app.
pub const EXPERIMENT: &str = "100000000000001";
/// The name of [`EXPERIMENT`].
pub const EXPERIMENT_NAME: &str = "/Shared/embedded";
/// An experiment for the first user alone (whom no scope lets reach it, but `all-apis`).
pub const EXPERIMENT_RESTRICTED: &str = "100000000000002";
/// The name of [`EXPERIMENT_RESTRICTED`].
pub const EXPERIMENT_NAME_RESTRICTED: &str = "/Shared/restricted";
/// Where traces lie in Unity Catalog: the prefix of the trace tables' names.
pub const TRACE_LOCATION: &str = "main.sales.agent";
/// The same for the first user alone.
pub const TRACE_LOCATION_RESTRICTED: &str = "main.hr.agent";
/// A prompt of the registry.
pub const PROMPT: &str = "main.sales.greeting";
/// A prompt for the first user alone.
pub const PROMPT_RESTRICTED: &str = "main.hr.review";
/// A job, of the app.
pub const JOB: &str = "200000000000001";
/// A job for the first user alone.
pub const JOB_RESTRICTED: &str = "200000000000002";
/// A secret scope, of the app.
pub const SECRET_SCOPE: &str = "demo";
/// The only key of either secret scope.
pub const SECRET_KEY: &str = "api-key";
/// Every secret's value starts so.
pub const SECRET_VALUE_PREFIX: &str = "embedded-secret-of-";
/// A secret scope for the first user alone.
pub const SECRET_SCOPE_RESTRICTED: &str = "hr";
/// Another Databricks App: see `other_app`.
pub const APP: &str = "demo-tools";
/// Another app for the first user alone.
pub const APP_RESTRICTED: &str = "hr-tools";

/// Everything for the first user alone.
const RESTRICTED: &[&str] = &[
    WAREHOUSE_RESTRICTED,
    CATALOG_RESTRICTED,
    SCHEMA_RESTRICTED,
    TABLE_RESTRICTED,
    FUNCTION_RESTRICTED,
    CONNECTION_RESTRICTED,
    MCP_SERVICE_RESTRICTED,
    MEMORY_STORE_RESTRICTED,
    CHAT_ENDPOINT_RESTRICTED,
    KNOWLEDGE_ASSISTANT_RESTRICTED,
    INDEX_RESTRICTED,
    VECTOR_ENDPOINT_RESTRICTED,
    GENIE_SPACE_RESTRICTED,
    VOLUME_NAME_RESTRICTED,
    DATABASE_INSTANCE_RESTRICTED,
    POSTGRES_BRANCH_RESTRICTED,
    EXPERIMENT_RESTRICTED,
    TRACE_LOCATION_RESTRICTED,
    PROMPT_RESTRICTED,
    JOB_RESTRICTED,
    SECRET_SCOPE_RESTRICTED,
    APP_RESTRICTED,
];

/// Whether only the first user has a grant on it.
pub(super) fn is_restricted(object: &str) -> bool {
    RESTRICTED.contains(&object)
}
