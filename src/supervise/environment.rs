//! The environment that the agent is started with: wired to the sidecar, and without a credential worth stealing.
//!
//! Pure: takes a map, gives a map, knows no process. Variables are unset, never blanked, because the Node SDK takes an
//! empty one for a second way to log in. Read `leaks.rs` for the last guard and `process.rs` for who uses the result.
//!
//! Decided: the frameworks' host variables are set as well, because an agent that listens on every address can be
//! reached round the sidecar. `MLFLOW_TRACKING_*`, `AZURE_CLIENT_ID` and `GOOGLE_APPLICATION_CREDENTIALS` stay: they
//! serve other services, and a Databricks token in one of them is found by its shape. `wire.rs` has the two ways in which
//! calls are led to the sidecar; what is removed is removed in both.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use crate::domain::secret::Secret;
use crate::supervise::leaks::LeakFinder;

use self::wire::Wire;

pub mod wire;

/// Environment variables by name.
pub type Variables = BTreeMap<OsString, OsString>;

/// What the child has to be told about the sidecar, and what must not reach it.
#[derive(Debug, Clone)]
pub struct Wiring {
    /// Where the outbound listener serves, such as `http://127.0.0.1:9400`.
    pub outbound_url: String,
    /// How calls are led there.
    pub wire: Wire,
    /// The bundle with the sidecar's root, where it serves https.
    pub trust_file: Option<PathBuf>,
    /// Where the admin listener serves.
    pub admin_url: String,
    /// The loopback address that the agent shall listen on.
    pub agent_host: String,
    /// The port that the agent shall listen on.
    pub agent_port: u16,
    /// The client id for an agent whose environment names none.
    pub local_client_id: String,
    /// The secret that opens the local token endpoint and nothing else.
    pub local_client_secret: Arc<Secret>,
    /// Variables that the sidecar's own configuration reads secrets from.
    pub secret_variables: Vec<String>,
    /// Secrets that must not be in any variable, whatever its name.
    pub known_secrets: Vec<Arc<Secret>>,
}

/// An environment fit for an agent. Only [`child_environment`] makes one, so that no child starts with another.
pub struct ChildEnvironment {
    variables: Variables,
    withheld: Vec<String>,
}

impl ChildEnvironment {
    /// All variables of the child.
    pub fn variables(&self) -> &Variables {
        &self.variables
    }

    /// Names of variables that were removed only because a credential was found in their value; worth a warning.
    pub fn withheld(&self) -> &[String] {
        &self.withheld
    }
}

impl fmt::Debug for ChildEnvironment {
    /// Names only: the values belong to the user.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

/// Derives the child's environment from our own.
pub fn child_environment(own: &Variables, wiring: &Wiring) -> ChildEnvironment {
    let named_elsewhere = own
        .get(OsStr::new(OIDC_TOKEN_VARIABLE_NAME))
        .map(OsString::as_os_str);
    let mut variables: Variables = own
        .iter()
        .filter(|(name, _)| !is_credential(name) && Some(name.as_os_str()) != named_elsewhere)
        .filter(|(name, _)| {
            !wiring
                .secret_variables
                .iter()
                .any(|secret| *name == secret.as_str())
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    set_all(&mut variables, own, wiring);

    let finder = LeakFinder::new(&wiring.known_secrets);
    let mut withheld = Vec::new();
    variables.retain(|name, value| {
        let leaks = finder.finds_in(value.as_bytes());
        if leaks {
            withheld.push(name.to_string_lossy().into_owned());
        }
        !leaks
    });
    ChildEnvironment {
        variables,
        withheld,
    }
}

/// The client id that the child presents at the local token endpoint: its own where one is set, for it is no secret and
/// Lakebase clients use it as a user name.
pub fn child_client_id(own: &Variables, wiring: &Wiring) -> OsString {
    own.get(OsStr::new("DATABRICKS_CLIENT_ID"))
        .filter(|id| !id.is_empty())
        .map_or_else(|| OsString::from(&wiring.local_client_id), Clone::clone)
}

/// Holds the name of a further variable in which the SDK finds a token.
const OIDC_TOKEN_VARIABLE_NAME: &str = "DATABRICKS_OIDC_TOKEN_ENV";

/// Variables by which an SDK logs in to Databricks or finds another host to do so, beside the patterns below.
const CREDENTIAL_VARIABLES: &[&str] = &[
    // Databricks' own
    "DATABRICKS_AUTH_TYPE",
    "DATABRICKS_CONFIG_FILE",
    "DATABRICKS_CONFIG_PROFILE",
    "DATABRICKS_DISCOVERY_URL",
    "DATABRICKS_EXPERIMENTAL_IS_UNIFIED_HOST",
    "DATABRICKS_GOOGLE_SERVICE_ACCOUNT",
    "DATABRICKS_METADATA_SERVICE_URL",
    "DATABRICKS_MODEL_SERVING_HOST_URL",
    "DATABRICKS_USERNAME",
    "DB_DEPENDENCY_OAUTH_CACHE",
    "DB_MODEL_SERVING_HOST_URL",
    "SERVING_CREDENTIALS_DIR",
    "SPARK_REMOTE", // `sc://host/;token=…` of Databricks Connect
    // clouds, as far as the SDKs turn them into a Databricks token
    "ARM_CLIENT_ID",
    "ARM_CLIENT_SECRET",
    "ARM_ENVIRONMENT",
    "ARM_OIDC_TOKEN",
    "ARM_OIDC_TOKEN_FILE_PATH",
    "ARM_TENANT_ID",
    "ARM_USE_MSI",
    "AZURE_ACTIVE_DIRECTORY_TOKEN",
    "AZURE_CLIENT_SECRET",
    "GOOGLE_CREDENTIALS",
    // build systems whose identity token the SDKs exchange
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "SYSTEM_ACCESSTOKEN",
];
const CREDENTIAL_PREFIXES: &[&str] = &["DATABRICKS_AZURE_", "DATABRICKS_OIDC_", "VALETKEY_"];
/// A variable of Databricks with one of these words is taken for a credential, known to us or not.
const CREDENTIAL_WORDS: &[&str] = &["TOKEN", "SECRET", "PASSWORD", "CREDENTIAL"];
/// Switches of the SDK, such as `DATABRICKS_DISABLE_ASYNC_TOKEN_REFRESH`, name what they switch off and hold no credential.
const SWITCH_PREFIX: &str = "DATABRICKS_DISABLE_";

const PORT_VARIABLES: &[&str] = &[
    "DATABRICKS_APP_PORT",
    "FLASK_RUN_PORT",
    "GRADIO_SERVER_PORT",
    "PORT",
    "STREAMLIT_SERVER_PORT",
    "UVICORN_PORT",
];
const HOST_VARIABLES: &[&str] = &[
    "FLASK_RUN_HOST",
    "GRADIO_SERVER_NAME",
    "STREAMLIT_SERVER_ADDRESS",
    "UVICORN_HOST",
];

fn is_credential(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    CREDENTIAL_VARIABLES.contains(&name)
        || CREDENTIAL_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
        || (name.starts_with("DATABRICKS_")
            && !name.starts_with(SWITCH_PREFIX)
            && CREDENTIAL_WORDS.iter().any(|word| name.contains(word)))
}

fn set_all(variables: &mut Variables, own: &Variables, wiring: &Wiring) {
    let mut set = |name: &str, value: OsString| variables.insert(name.into(), value);
    set("DATABRICKS_HOST", wiring.outbound_url.clone().into());
    set("DATABRICKS_CLIENT_ID", child_client_id(own, wiring));
    set(
        "DATABRICKS_CLIENT_SECRET",
        wiring.local_client_secret.expose().into(),
    );
    // File bytes take the audited way instead of a pre-signed link.
    set(
        "DATABRICKS_DISABLE_EXPERIMENTAL_FILES_API_CLIENT",
        "true".into(),
    );
    set("VALETKEY_OUTBOUND_URL", wiring.outbound_url.clone().into());
    set("VALETKEY_ADMIN_URL", wiring.admin_url.clone().into());
    for name in PORT_VARIABLES {
        set(name, wiring.agent_port.to_string().into());
    }
    for name in HOST_VARIABLES {
        set(name, wiring.agent_host.clone().into());
    }
    wire::lead(variables, own, &wiring.wire, wiring.trust_file.as_deref());
}

#[cfg(test)]
pub(super) mod tests;
