//! One object of each kind that the suite's policy names, and another of the same kind that it does not.
//!
//! The policy (`valetkey.yaml`) has them as `${E2E_NAME}`, the table of rows (`rows.py`) as `{name}` and `{name_other}`. On a
//! real workspace each may be given as `VALETKEY_E2E_REAL_NAME`; the other one need not exist, since nobody gets to it. The
//! function there takes an `order_id`.

use std::collections::BTreeMap;

use valetkey::embedded::world;

/// Name, the allowed one, the other.
const EMBEDDED: [(&str, &str, &str); 23] = [
    ("warehouse", world::WAREHOUSE, world::WAREHOUSE_RESTRICTED),
    (
        "model",
        world::CHAT_ENDPOINT,
        world::CHAT_ENDPOINT_RESTRICTED,
    ),
    (
        "embeddings",
        world::EMBEDDING_ENDPOINT,
        world::CHAT_ENDPOINT_RESTRICTED,
    ),
    (
        "genie_space",
        world::GENIE_SPACE,
        world::GENIE_SPACE_RESTRICTED,
    ),
    ("index", world::INDEX, world::INDEX_RESTRICTED),
    (
        "search_endpoint",
        world::VECTOR_ENDPOINT,
        world::VECTOR_ENDPOINT_RESTRICTED,
    ),
    ("schema", world::SCHEMA, world::SCHEMA_RESTRICTED),
    ("table", world::TABLE_ORDERS, world::TABLE_RESTRICTED),
    ("function", world::FUNCTION, world::FUNCTION_SECOND),
    (
        "connection",
        world::CONNECTION,
        world::CONNECTION_RESTRICTED,
    ),
    (
        "mcp_service",
        world::MCP_SERVICE,
        world::MCP_SERVICE_RESTRICTED,
    ),
    ("volume", world::VOLUME, "/Volumes/main/sales/other"),
    (
        "volume_to_read",
        world::VOLUME_RESTRICTED,
        "/Volumes/main/sales/other",
    ),
    (
        "instance",
        world::DATABASE_INSTANCE,
        world::DATABASE_INSTANCE_RESTRICTED,
    ),
    (
        "branch",
        world::POSTGRES_BRANCH,
        world::POSTGRES_BRANCH_RESTRICTED,
    ),
    ("secret", "demo/api-key", "hr/api-key"),
    ("job", world::JOB, world::JOB_RESTRICTED),
    (
        "memory_store",
        world::MEMORY_STORE,
        world::MEMORY_STORE_RESTRICTED,
    ),
    ("app", world::APP, world::APP_RESTRICTED),
    (
        "experiment",
        world::EXPERIMENT,
        world::EXPERIMENT_RESTRICTED,
    ),
    (
        "experiment_name",
        world::EXPERIMENT_NAME,
        world::EXPERIMENT_NAME_RESTRICTED,
    ),
    (
        "trace_table",
        "main.sales.agent_otel_spans",
        "main.hr.agent_otel_spans",
    ),
    ("prompt", world::PROMPT, world::PROMPT_RESTRICTED),
];

/// What a run knows of one kind.
pub struct Thing {
    /// In the policy; on a real workspace a stand-in where none was given.
    pub allowed: String,
    /// In no route.
    pub other: String,
    /// Whether rows can be tried on it.
    pub exists: bool,
}

/// By name.
pub type Things = BTreeMap<&'static str, Thing>;

/// Those of the embedded workspace.
pub fn embedded() -> Things {
    given(|_, stand_in| (stand_in.to_owned(), true))
}

/// Those of a real workspace, as far as they are given.
pub fn real(find: impl Fn(&str) -> Option<String>) -> Things {
    given(|name, stand_in| match find(name) {
        Some(thing) => (thing, true),
        None => (stand_in.to_owned(), false),
    })
}

fn given(allowed: impl Fn(&str, &str) -> (String, bool)) -> Things {
    let thing = |(name, stand_in, other): (&'static str, &str, &str)| {
        let (allowed, exists) = allowed(name, stand_in);
        let other = other.to_owned();
        (
            name,
            Thing {
                allowed,
                other,
                exists,
            },
        )
    };
    EMBEDDED.into_iter().map(thing).collect()
}

/// Variables for the policy: each thing, and what tools and volumes are called there.
pub fn variables(things: &Things) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, thing) in things {
        let variable = format!("E2E_{}", name.to_uppercase());
        match *name {
            "function" | "index" => {
                let tool = thing.allowed.rsplit('.').next().unwrap();
                all.push((format!("{variable}_TOOL"), tool.to_owned()));
            }
            "volume" | "volume_to_read" => {
                let volume = thing.allowed.trim_start_matches("/Volumes/");
                all.push((format!("{variable}_NAME"), volume.replace('/', ".")));
            }
            "app" => all.push((format!("{variable}_OTHER"), thing.other.clone())),
            _ => {}
        }
        all.push((variable, thing.allowed.clone()));
    }
    all
}
