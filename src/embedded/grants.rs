//! Who calls, and what they may use: kinds of objects, which of them exist, and how the platform says no to each.
//!
//! Knows nothing of HTTP. The objects themselves are in `world.rs`; a restricted one is for the first user alone.

use super::answer::{INVALID, Refusal};
use super::workspace::{AppCredential, EmbeddedUser};
use super::world;
use crate::domain::scope::{Scope, ScopeSet};

/// One kind of object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// As people read it, in refusals.
    noun: &'static str,
    /// Every object of the kind.
    known: &'static [&'static str],
    /// The error code for an object that is not there.
    missing: &'static str,
    /// The Unity Catalog privilege that it takes; other objects have plain permissions.
    privilege: Option<&'static str>,
}

const fn plain(noun: &'static str, known: &'static [&'static str]) -> Kind {
    Kind {
        noun,
        known,
        missing: "RESOURCE_DOES_NOT_EXIST",
        privilege: None,
    }
}

const fn securable(
    noun: &'static str,
    known: &'static [&'static str],
    missing: &'static str,
    privilege: &'static str,
) -> Kind {
    Kind {
        noun,
        known,
        missing,
        privilege: Some(privilege),
    }
}

pub(super) const WAREHOUSES: Kind = plain(
    "SQL warehouse",
    &[world::WAREHOUSE, world::WAREHOUSE_RESTRICTED],
);
pub(super) const SERVING_ENDPOINTS: Kind = plain(
    "serving endpoint",
    &[
        world::CHAT_ENDPOINT,
        world::CHAT_ENDPOINT_RESTRICTED,
        world::EMBEDDING_ENDPOINT,
    ],
);
pub(super) const KNOWLEDGE_ASSISTANTS: Kind = plain(
    "knowledge assistant",
    &[
        world::KNOWLEDGE_ASSISTANT,
        world::KNOWLEDGE_ASSISTANT_RESTRICTED,
    ],
);
pub(super) const INDEXES: Kind = securable(
    "Table",
    &[world::INDEX, world::INDEX_RESTRICTED],
    "RESOURCE_DOES_NOT_EXIST",
    "SELECT",
);
pub(super) const VECTOR_ENDPOINTS: Kind = plain(
    "vector search endpoint",
    &[world::VECTOR_ENDPOINT, world::VECTOR_ENDPOINT_RESTRICTED],
);
pub(super) const GENIE_SPACES: Kind = plain(
    "Genie space",
    &[world::GENIE_SPACE, world::GENIE_SPACE_RESTRICTED],
);
pub(super) const CATALOGS: Kind = securable(
    "Catalog",
    &[world::CATALOG, world::CATALOG_RESTRICTED],
    "CATALOG_DOES_NOT_EXIST",
    "USE CATALOG",
);
pub(super) const SCHEMAS: Kind = securable(
    "Schema",
    &[world::SCHEMA, world::SCHEMA_RESTRICTED],
    "SCHEMA_DOES_NOT_EXIST",
    "USE SCHEMA",
);
pub(super) const TABLES: Kind = securable(
    "Table",
    &[world::TABLE_ORDERS, world::TABLE_RESTRICTED],
    "TABLE_DOES_NOT_EXIST",
    "SELECT",
);
pub(super) const FUNCTIONS: Kind = securable(
    "Routine or Model",
    &[
        world::FUNCTION,
        world::FUNCTION_SECOND,
        world::FUNCTION_RESTRICTED,
    ],
    "ROUTINE_DOES_NOT_EXIST",
    "EXECUTE",
);
pub(super) const VOLUMES: Kind = securable(
    "Volume",
    &[world::VOLUME_NAME, world::VOLUME_NAME_RESTRICTED],
    "VOLUME_DOES_NOT_EXIST",
    "READ VOLUME",
);
pub(super) const CONNECTIONS: Kind = securable(
    "Connection",
    &[world::CONNECTION, world::CONNECTION_RESTRICTED],
    "CONNECTION_DOES_NOT_EXIST",
    "USE CONNECTION",
);
pub(super) const MCP_SERVICES: Kind = securable(
    "MCP Service",
    &[world::MCP_SERVICE, world::MCP_SERVICE_RESTRICTED],
    "RESOURCE_DOES_NOT_EXIST",
    "EXECUTE",
);
pub(super) const MEMORY_STORES: Kind = securable(
    "Memory Store",
    &[world::MEMORY_STORE, world::MEMORY_STORE_RESTRICTED],
    "NOT_FOUND",
    "READ_MEMORY_STORE",
);
pub(super) const INSTANCES: Kind = plain(
    "database instance",
    &[
        world::DATABASE_INSTANCE,
        world::DATABASE_INSTANCE_RESTRICTED,
    ],
);
pub(super) const BRANCHES: Kind = plain(
    "branch",
    &[world::POSTGRES_BRANCH, world::POSTGRES_BRANCH_RESTRICTED],
);
pub(super) const EXPERIMENTS: Kind = plain(
    "experiment",
    &[world::EXPERIMENT, world::EXPERIMENT_RESTRICTED],
);
pub(super) const TRACE_LOCATIONS: Kind = securable(
    "Table",
    &[world::TRACE_LOCATION, world::TRACE_LOCATION_RESTRICTED],
    "RESOURCE_DOES_NOT_EXIST",
    "MODIFY",
);
pub(super) const PROMPTS: Kind = securable(
    "Routine or Model",
    &[world::PROMPT, world::PROMPT_RESTRICTED],
    "RESOURCE_DOES_NOT_EXIST",
    "EXECUTE",
);
/// The SDK takes the jobs' 400 for the 404 that it means, by these very words.
pub(super) const JOBS: Kind = Kind {
    missing: INVALID,
    ..plain("Job", &[world::JOB, world::JOB_RESTRICTED])
};
pub(super) const SECRET_SCOPES: Kind = plain(
    "secret scope",
    &[world::SECRET_SCOPE, world::SECRET_SCOPE_RESTRICTED],
);
pub(super) const APPS: Kind = plain("app", &[world::APP, world::APP_RESTRICTED]);

/// Somebody with a good token.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// E-mail address or client id: the key of everything that belongs to one identity.
    pub(super) name: String,
    /// As people read it.
    pub(super) display: String,
    pub(super) is_app: bool,
    pub(super) is_first_user: bool,
    pub(super) scopes: ScopeSet,
}

impl Caller {
    /// Whoever the subject of a token is, or nobody this workspace knows.
    pub(super) fn find(
        subject: &str,
        scopes: ScopeSet,
        users: &[EmbeddedUser],
        app: &AppCredential,
    ) -> Option<Self> {
        if subject == app.client_id {
            return Some(Self {
                name: subject.to_owned(),
                display: "app".to_owned(),
                is_app: true,
                is_first_user: false,
                scopes,
            });
        }
        let place = users
            .iter()
            .position(|u| u.email.eq_ignore_ascii_case(subject))?;
        let user = users.get(place)?;
        Some(Self {
            name: user.email.clone(),
            display: user.name.clone(),
            is_app: false,
            is_first_user: place == 0,
            scopes,
        })
    }

    /// Lets through whoever has a grant on an object that exists.
    pub(super) fn may_use(&self, kind: Kind, object: &str) -> Result<(), Refusal> {
        if !kind.known.contains(&object) {
            return Err(Refusal::missing(kind.missing, kind.noun, object));
        }
        if self.has_grant(object) {
            return Ok(());
        }
        Err(match kind.privilege {
            Some(privilege) => Refusal::no_privilege(privilege, kind.noun, object),
            None => Refusal::no_permission(&self.name, &format!("{} {object}", kind.noun)),
        })
    }

    /// The objects of a kind that this caller sees in a list.
    pub(super) fn visible(&self, kind: Kind) -> impl Iterator<Item = &'static str> {
        let known = kind.known.iter().copied();
        known.filter(|object| self.has_grant(object))
    }

    /// Whether the object is not among those for the first user alone.
    pub(super) fn has_grant(&self, object: &str) -> bool {
        self.is_first_user || !world::is_restricted(object)
    }

    /// Whether the token holds one of these scopes.
    pub(super) fn holds_one_of(&self, scopes: &[&str]) -> bool {
        let mut parsed = scopes.iter().filter_map(|name| Scope::parse(name));
        parsed.any(|scope| self.scopes.covers(&scope))
    }
}
