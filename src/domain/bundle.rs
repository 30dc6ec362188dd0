//! What a Databricks bundle declares for one app: its resources with their permissions, and the scopes it asks of users.
//!
//! Words and tables only (facts 5). Knows no file format: `config/bundle.rs` reads bundles and fills this. Read
//! `bundle/routes.rs` next, which turns it into routes.

use super::catalog::Effect;
use super::problem::Problem;
use super::scope::{Scope, ScopeSet};

pub mod routes;

/// The scopes that the platform gives every user token of an app unasked, and that no app may list (facts 4.2): they belong
/// to any ceiling, or nobody could be told who they are.
pub const DEFAULT_USER_SCOPES: [&str; 2] = ["iam.access-control:read", "iam.current-user:read"];

/// One app of a bundle, as one target deploys it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// The bundle's root file, as it was named.
    pub file: String,
    /// Its key under `resources.apps`.
    pub app: String,
    /// The target that was chosen.
    pub target: String,
    /// What the app's service principal is given.
    pub resources: Vec<Resource>,
    /// What the app asks of its users, in either vocabulary.
    pub user_scopes: Vec<UserScope>,
    /// What is declared and could not become part of this, each with the reason and a remedy.
    pub left_out: Vec<Problem>,
}

/// One entry of the app's `resources`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its name, which `value_from` refers to.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Which one, as the catalogue writes ids: `SCOPE/KEY` for a secret, the branch for Postgres.
    pub id: String,
    /// The permission as declared.
    pub permission: &'static str,
    /// The most that the permission allows: reading, or everything but administration.
    pub effect: Effect,
    /// The file it stands in.
    pub file: String,
    /// Its line there, from 1.
    pub line: usize,
}

/// One entry of `user_api_scopes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserScope {
    /// In its short name.
    pub scope: Scope,
    /// The file it stands in.
    pub file: String,
    /// Its line there, from 1.
    pub line: usize,
}

/// What an app resource can be; Unity Catalog securables by their type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A SQL warehouse, by id.
    SqlWarehouse,
    /// A model serving endpoint, by name.
    ServingEndpoint,
    /// A table or vector search index, by full name: the declaration does not tell which.
    Table,
    /// A volume, by full name.
    Volume,
    /// A function, by full name.
    Function,
    /// A connection, by name.
    Connection,
    /// A Genie space, by id.
    GenieSpace,
    /// A provisioned Lakebase instance, by name.
    Database,
    /// A branch of an autoscaling Lakebase project.
    Postgres,
    /// An MLflow experiment, by id.
    Experiment,
    /// A job, by id.
    Job,
    /// A secret, by scope and key.
    Secret,
    /// Another app, by name.
    App,
}

impl Kind {
    /// The word of the catalogue and of routes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SqlWarehouse => "sql_warehouse",
            Self::ServingEndpoint => "serving_endpoint",
            Self::Table => "table",
            Self::Volume => "volume",
            Self::Function => "function",
            Self::Connection => "connection",
            Self::GenieSpace => "genie_space",
            Self::Database => "database",
            Self::Postgres => "postgres",
            Self::Experiment => "experiment",
            Self::Job => "job",
            Self::Secret => "secret",
            Self::App => "app",
        }
    }

    /// Every permission that can be declared on it, with the most that it allows.
    pub fn permissions(self) -> &'static [(&'static str, Effect)] {
        use Effect::{Read, Write};
        match self {
            Self::SqlWarehouse => &[
                ("CAN_USE", Write),
                ("CAN_MANAGE", Write),
                ("IS_OWNER", Write),
            ],
            Self::ServingEndpoint => &[
                ("CAN_VIEW", Read),
                ("CAN_QUERY", Write),
                ("CAN_MANAGE", Write),
            ],
            Self::Table => &[("SELECT", Read), ("MODIFY", Write)],
            Self::Volume => &[("READ_VOLUME", Read), ("WRITE_VOLUME", Write)],
            Self::Function => &[("EXECUTE", Write)],
            Self::Connection => &[("USE_CONNECTION", Write)],
            Self::GenieSpace => &[
                ("CAN_VIEW", Read),
                ("CAN_RUN", Write),
                ("CAN_EDIT", Write),
                ("CAN_MANAGE", Write),
            ],
            Self::Database | Self::Postgres => &[("CAN_CONNECT_AND_CREATE", Write)],
            Self::Experiment => &[
                ("CAN_READ", Read),
                ("CAN_EDIT", Write),
                ("CAN_MANAGE", Write),
            ],
            Self::Job => &[
                ("CAN_VIEW", Read),
                ("CAN_MANAGE_RUN", Write),
                ("CAN_MANAGE", Write),
                ("IS_OWNER", Write),
            ],
            Self::Secret => &[("READ", Read), ("WRITE", Write), ("MANAGE", Write)],
            Self::App => &[("CAN_USE", Write)],
        }
    }

    /// What is wrong with an id; `None` when it can be one.
    pub fn id_fault(self, id: &str) -> Option<&'static str> {
        // A `*` would make a route match more than one thing; `/` separates scope and key of a secret.
        let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '*' | '?' | '\\');
        if id.contains(odd) || id.len() > ID_BYTES_MAX {
            return Some("is no id or name");
        }
        let whole = |separator| {
            let parts: Vec<&str> = id.split(separator).collect();
            parts.iter().all(|part| !part.is_empty()).then_some(parts)
        };
        match self {
            Self::Table | Self::Volume | Self::Function => {
                let fits = whole('.').is_some_and(|parts| parts.len() == 3) && !id.contains('/');
                (!fits).then_some("is no full name CATALOG.SCHEMA.NAME")
            }
            Self::Postgres => {
                let parts = whole('/').unwrap_or_default();
                let fits = matches!(parts[..], ["projects", _, "branches", _]);
                (!fits).then_some("is no branch projects/PROJECT/branches/BRANCH")
            }
            Self::Secret => {
                let fits = whole('/').is_some_and(|parts| parts.len() == 2);
                (!fits).then_some("is no scope and key without a slash in them")
            }
            Self::SqlWarehouse
            | Self::ServingEndpoint
            | Self::Connection
            | Self::GenieSpace
            | Self::Database
            | Self::Experiment
            | Self::Job
            | Self::App => id.contains('/').then_some("is no id or name"),
        }
    }
}

/// The longest id, in bytes: three names of Unity Catalog with 255 characters each.
const ID_BYTES_MAX: usize = 1024;

/// A type of app resource: the key under which it is declared and where its id stands.
#[derive(Debug, Clone, Copy)]
pub struct ResourceType {
    /// Such as `sql_warehouse`.
    pub key: &'static str,
    /// The fields that make the id, joined by `/`.
    pub id: &'static [&'static str],
    /// `None` for Unity Catalog securables, which say it themselves.
    pub kind: Option<Kind>,
}

const fn of(key: &'static str, id: &'static [&'static str], kind: Kind) -> ResourceType {
    let kind = Some(kind);
    ResourceType { key, id, kind }
}

/// Every type of app resource (facts 5).
pub const RESOURCE_TYPES: [ResourceType; 10] = [
    of("sql_warehouse", &["id"], Kind::SqlWarehouse),
    of("serving_endpoint", &["name"], Kind::ServingEndpoint),
    ResourceType {
        key: "uc_securable",
        id: &["securable_full_name"],
        kind: None,
    },
    of("genie_space", &["space_id"], Kind::GenieSpace),
    of("database", &["instance_name"], Kind::Database),
    of("postgres", &["branch"], Kind::Postgres),
    of("experiment", &["experiment_id"], Kind::Experiment),
    of("job", &["id"], Kind::Job),
    of("secret", &["scope", "key"], Kind::Secret),
    of("app", &["name"], Kind::App),
];

/// The types of Unity Catalog securables that can be app resources.
pub const SECURABLES: [(&str, Kind); 4] = [
    ("TABLE", Kind::Table),
    ("VOLUME", Kind::Volume),
    ("FUNCTION", Kind::Function),
    ("CONNECTION", Kind::Connection),
];

/// What people write for a type that is called otherwise.
pub const MISTAKEN_TYPES: [(&str, &str); 13] = [
    ("warehouse", "sql_warehouse"),
    ("mlflow_experiment", "experiment"),
    ("genie", "genie_space"),
    ("database_instance", "database"),
    ("lakebase", "database or postgres"),
    ("table", "uc_securable with securable_type: TABLE"),
    (
        "vector_search_index",
        "uc_securable with securable_type: TABLE",
    ),
    ("volume", "uc_securable with securable_type: VOLUME"),
    ("function", "uc_securable with securable_type: FUNCTION"),
    (
        "unity_catalog_function",
        "uc_securable with securable_type: FUNCTION",
    ),
    (
        "registered_model",
        "uc_securable with securable_type: FUNCTION",
    ),
    ("connection", "uc_securable with securable_type: CONNECTION"),
    (
        "unity_catalog_connection",
        "uc_securable with securable_type: CONNECTION",
    ),
];

impl Declared {
    /// What a user's session may hold at most: what the app asks for, and what the platform gives unasked.
    pub fn ceiling(&self) -> ScopeSet {
        let asked = self.user_scopes.iter().map(|entry| entry.scope.clone());
        let given = DEFAULT_USER_SCOPES.into_iter().filter_map(Scope::parse);
        ScopeSet::new(asked.chain(given))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_permission_goes_beyond_writing_and_no_kind_is_without_one() {
        let kinds = RESOURCE_TYPES.iter().filter_map(|t| t.kind);
        let kinds: Vec<Kind> = kinds.chain(SECURABLES.map(|(_, kind)| kind)).collect();
        assert_eq!(kinds.len(), 13);
        for kind in kinds {
            assert!(!kind.permissions().is_empty(), "{kind:?}");
            for (word, effect) in kind.permissions() {
                assert!(*effect < Effect::Admin, "{kind:?} {word}");
            }
        }
    }

    #[test]
    fn an_id_is_one_thing_and_has_the_shape_of_its_kind() {
        let check = |kind: Kind, id: &str, good: bool| {
            assert_eq!(kind.id_fault(id).is_none(), good, "{kind:?} {id:?}");
        };
        check(Kind::SqlWarehouse, "1234abcd", true);
        check(Kind::SqlWarehouse, "1234*", false);
        check(Kind::SqlWarehouse, "a/b", false);
        check(Kind::ServingEndpoint, "a b", false);
        check(Kind::Table, "c.s.t", true);
        check(Kind::Table, "c.s", false);
        check(Kind::Table, "c.s.t.u", false);
        check(Kind::Table, "c..t", false);
        check(Kind::Volume, "c.s.*", false);
        check(Kind::Connection, "github", true);
        check(Kind::Postgres, "projects/p/branches/b", true);
        check(Kind::Postgres, "projects/p/branches/b/endpoints/e", false);
        check(Kind::Postgres, "projects//branches/b", false);
        check(Kind::Secret, "scope/key", true);
        check(Kind::Secret, "scope/a/b", false);
        check(Kind::Secret, "scope/", false);
        check(Kind::Job, &"1".repeat(2000), false);
    }

    #[test]
    fn the_ceiling_is_what_is_asked_for_and_what_everybody_has() {
        let declared = Declared {
            file: "databricks.yml".into(),
            app: "agent".into(),
            target: "dev".into(),
            resources: Vec::new(),
            user_scopes: ["dashboards.genie", "sql"]
                .map(|name| UserScope {
                    scope: Scope::parse(name).unwrap(),
                    file: "databricks.yml".into(),
                    line: 3,
                })
                .into(),
            left_out: Vec::new(),
        };
        let expected = "genie iam.access-control:read iam.current-user:read sql";
        assert_eq!(declared.ceiling().to_string(), expected);
    }
}
