//! The table of the APIs: which path is whose, which scope it takes, and in which words a missing one is refused.
//!
//! Grants are the handlers' own business. Facts 4.1 and 4.4; the words differ by family, as they do on the platform.

use super::{
    apps, connections, files, genie, identity, jobs, lakebase, mcp, memory, mlflow, secrets,
    serving, sql, thrift, uc, vector_search,
};
use crate::embedded::answer::{Answer, Refusal};
use crate::embedded::call::{Call, segments};
use crate::embedded::marked;
use crate::embedded::workspace::Site;

/// Which module answers.
#[derive(Clone, Copy)]
enum Area {
    Apps,
    Connections,
    Files,
    Genie,
    Identity,
    Jobs,
    Lakebase,
    Marked,
    Mcp,
    Memory,
    Mlflow,
    Secrets,
    Serving,
    Sql,
    Thrift,
    UnityCatalog,
    VectorSearch,
}

/// In which words a missing scope is refused.
#[derive(Clone, Copy)]
enum Words {
    /// JSON: "Provided OAuth token does not have required scopes".
    Provided,
    /// Plain text: "Invalid scope, required scopes".
    Invalid,
}

use Words::{Invalid, Provided};

/// A family of endpoints: path prefix, scopes of which one suffices (a refusal names the first), in which words, who answers.
type Family = (&'static str, &'static str, Words, Area);

/// Longer prefixes first. User tokens never hold `mlflow`, `jobs`, `secrets`, `apps` or `unity-catalog` (facts 4.2), which
/// keeps those for the app.
const FAMILIES: &[Family] = &[
    // SQL
    (
        "api/2.0/sql/statements",
        "sql sql.statement-execution",
        Provided,
        Area::Sql,
    ),
    (
        "api/2.0/sql/warehouses",
        "sql sql.warehouses:read",
        Provided,
        Area::Sql,
    ),
    (
        "api/2.0/sql/history",
        "sql query-history",
        Provided,
        Area::Sql,
    ),
    ("api/2.0/sql", "sql", Provided, Area::Sql),
    ("sql/1.0", "sql", Invalid, Area::Thrift),
    // models
    (
        "serving-endpoints",
        "model-serving",
        Provided,
        Area::Serving,
    ),
    (
        "api/2.0/serving-endpoints",
        "model-serving",
        Provided,
        Area::Serving,
    ),
    ("ai-gateway/mcp-services", "ai-gateway", Invalid, Area::Mcp),
    ("ai-gateway", "ai-gateway", Provided, Area::Serving),
    // search, Genie, files
    (
        "api/2.0/vector-search",
        "vector-search",
        Provided,
        Area::VectorSearch,
    ),
    (
        "api/2.0/ai-search",
        "vector-search",
        Invalid,
        Area::VectorSearch,
    ),
    ("api/2.0/genie", "genie", Provided, Area::Genie),
    (
        "api/2.0/fs/files/WorkspaceInternal",
        "mlflow files",
        Provided,
        Area::Files,
    ),
    ("api/2.0/fs", "files", Provided, Area::Files),
    // MCP
    ("api/2.0/mcp/genie", "genie", Invalid, Area::Mcp),
    (
        "api/2.0/mcp/vector-search",
        "vector-search",
        Invalid,
        Area::Mcp,
    ),
    (
        "api/2.0/mcp/functions",
        "unity-catalog mcp.functions",
        Invalid,
        Area::Mcp,
    ),
    (
        "api/2.0/mcp/external",
        "unity-catalog mcp.external catalog.connections",
        Invalid,
        Area::Mcp,
    ),
    ("api/2.0/mcp/sql", "sql", Invalid, Area::Mcp),
    // Unity Catalog, connections
    (
        "api/2.1/unity-catalog/catalogs",
        "unity-catalog catalog.catalogs:read",
        Provided,
        Area::UnityCatalog,
    ),
    (
        "api/2.1/unity-catalog/schemas",
        "unity-catalog catalog.schemas:read",
        Provided,
        Area::UnityCatalog,
    ),
    (
        "api/2.1/unity-catalog/tables",
        "unity-catalog catalog.tables:read",
        Provided,
        Area::UnityCatalog,
    ),
    (
        "api/2.1/unity-catalog/table-summaries",
        "unity-catalog catalog.tables:read",
        Provided,
        Area::UnityCatalog,
    ),
    (
        "api/2.1/unity-catalog/connections",
        "unity-catalog catalog.connections",
        Provided,
        Area::UnityCatalog,
    ),
    (
        "api/2.1/unity-catalog/memory-stores",
        "unity-catalog",
        Provided,
        Area::Memory,
    ),
    (
        "api/2.1/unity-catalog",
        "unity-catalog",
        Provided,
        Area::UnityCatalog,
    ),
    (
        "api/2.0/external-function",
        "unity-catalog catalog.connections",
        Invalid,
        Area::Connections,
    ),
    (
        "api/2.0/unity-catalog/connections",
        "unity-catalog catalog.connections",
        Invalid,
        Area::Connections,
    ),
    // Lakebase
    (
        "api/2.0/database",
        "postgres database",
        Provided,
        Area::Lakebase,
    ),
    ("api/2.0/postgres", "postgres", Provided, Area::Lakebase),
    // MLflow
    ("api/2.0/mlflow", "mlflow", Provided, Area::Mlflow),
    ("api/3.0/mlflow", "mlflow", Provided, Area::Mlflow),
    ("api/4.0/mlflow", "mlflow", Provided, Area::Mlflow),
    ("api/5.0/mlflow", "mlflow", Provided, Area::Mlflow),
    ("api/2.0/otel", "mlflow", Provided, Area::Mlflow),
    // the rest
    ("api/2.1/jobs", "jobs", Provided, Area::Jobs),
    ("api/2.2/jobs", "jobs", Provided, Area::Jobs),
    ("api/2.0/secrets", "secrets", Provided, Area::Secrets),
    ("api/2.0/apps", "apps", Provided, Area::Apps),
    (
        "api/2.0/workspace",
        "workspace workspace.workspace",
        Provided,
        Area::Identity,
    ),
    (
        "api/2.0/preview/scim",
        "iam.current-user:read scim",
        Provided,
        Area::Identity,
    ),
    ("api/2.0/embedded", "", Provided, Area::Marked),
];

/// Scope, then endpoint, then grant.
pub(in crate::embedded) async fn dispatch(site: &Site, call: &mut Call) -> Result<Answer, Refusal> {
    let path = segments(&call.path);
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let family = FAMILIES.iter().find(|(prefix, ..)| {
        let mut rest = path.iter();
        prefix
            .split('/')
            .all(|wanted| rest.next().is_some_and(|found| *found == wanted))
    });
    let Some((_, scopes, words, area)) = family else {
        return Err(call.no_endpoint());
    };
    let suffices: Vec<&str> = scopes.split(' ').filter(|name| !name.is_empty()).collect();
    if let Some(shown) = suffices.first()
        && !call.caller.holds_one_of(&suffices)
    {
        return Err(match words {
            Provided => Refusal::missing_scope(shown),
            Invalid => Refusal::invalid_scope(shown),
        });
    }
    match area {
        Area::Apps => apps::answer(site, call, &path),
        Area::Connections => connections::answer(call, &path).await,
        Area::Files => files::answer(site, call, &path).await,
        Area::Genie => genie::answer(site, call, &path).await,
        Area::Identity => identity::answer(site, call, &path),
        Area::Jobs => jobs::answer(site, call, &path).await,
        Area::Lakebase => lakebase::answer(site, call, &path).await,
        Area::Marked => marked::answer(call, &path).await,
        Area::Mcp => mcp::answer(site, call, &path).await,
        Area::Memory => memory::answer(site, call, &path).await,
        Area::Mlflow => mlflow::answer(site, call, &path).await,
        Area::Secrets => secrets::answer(call, &path),
        Area::Serving => serving::answer(site, call, &path).await,
        Area::Sql => sql::answer(site, call, &path).await,
        Area::Thrift => thrift::answer(call, &path),
        Area::UnityCatalog => uc::answer(call, &path),
        Area::VectorSearch => vector_search::answer(site, call, &path).await,
    }
}
