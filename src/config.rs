//! The configuration: file and environment in, checked values out, or every mistake at once (PRODUCT 2 to 4).
//!
//! The steps are files: `yaml.rs` (text to tree) → `substitute.rs` (variables) → `read.rs` (tree to the shapes of `raw.rs`)
//! → `sections.rs` and those beside it (values). The environment is passed in; nothing comes out but [`Config::summary`].
//!
//! Lives: listeners, files and limits are read once (a change needs a restart); `routes` and `users.scopes` are the
//! policy and may be swapped while running; secrets are read when the configuration is.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};
use tracing::level_filters::LevelFilter;

use crate::domain::clock::Timestamp;
use crate::domain::identity::{ClientId, Origin};
use crate::domain::problem::Problem;
use crate::domain::route::{PolicyOrigin, RouteSource};
use crate::domain::scope::ScopeSet;
use crate::domain::secret::{Digest, Secret};
use crate::domain::tunnel::AllowedHosts;

pub mod alone;
pub mod bundle;
pub mod check;
pub mod confine;
pub mod file;
pub mod inbound;
pub mod limits;
pub mod outbound;
pub mod policy;
pub mod raw;
pub mod read;
pub mod reader;
pub mod routes;
pub mod schema;
pub mod sections;
pub mod substitute;
pub mod summary;
#[cfg(test)]
mod tests;
pub mod upstreams;
pub mod values;
pub mod words;
pub mod yaml;

use bundle::Loaded;
use confine::Confine;
use limits::Limits;
use upstreams::Upstream;
use words::{
    Algorithm, AppScopes, AuditFormat, AuditSync, Exchange, LogFormat, OnFailure, Presigned,
    SessionFormat, UserMode,
};
use yaml::Node;

/// The environment as it was when the program started. `Debug` shows the names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Env {
    variables: BTreeMap<String, String>,
    development: Development,
}

/// How `valetkey dev` changes what a configuration means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Development {
    /// Not at all: this is not `dev`.
    #[default]
    Off,
    /// Inbound listens on loopback only.
    Real,
    /// … and the embedded workspace takes the place of what `workspace`, `app` and `users.audience` say.
    Embedded,
}

impl Env {
    /// What a variable holds.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The names of all variables, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// All variables.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// How `dev` changes what a configuration means.
    pub fn development(&self) -> Development {
        self.development
    }

    /// The same for `dev`, with more variables.
    #[must_use]
    pub fn developing(mut self, development: Development, more: BTreeMap<String, String>) -> Self {
        self.development = development;
        self.variables.extend(more);
        self
    }
}

impl From<BTreeMap<String, String>> for Env {
    fn from(variables: BTreeMap<String, String>) -> Self {
        Self {
            variables,
            development: Development::Off,
        }
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let owned = variables.into_iter().map(|(k, v)| (k.into(), v.into()));
        Self::from(owned.collect::<BTreeMap<_, _>>())
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

/// Where to look for the file.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// `--config`; comes before everything else and must exist.
    pub config: Option<PathBuf>,
    /// What is read, if it exists, when neither `--config` nor `VALETKEY_CONFIG` names a file.
    pub default_file: PathBuf,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            config: None,
            default_file: "valetkey.yaml".into(),
        }
    }
}

/// Everything the program was told, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from; `None` where the environment was enough.
    pub source: Option<PathBuf>,
    /// Of that file's text and of the bundle's files, to know later ones from them.
    pub digest: Digest,
    /// The workspace.
    pub workspace: Workspace,
    /// The side of the front door.
    pub inbound: Inbound,
    /// Verification of users' tokens, and sessions.
    pub users: Users,
    /// The app's service principal.
    pub app: App,
    /// The side of the agent.
    pub outbound: Outbound,
    /// The routes as written; empty with [`PolicyOrigin::Routes`] means that everything is denied.
    pub routes: Vec<RouteSource>,
    /// Whether the routes are the user's or the starter policy is to be used.
    pub policy_origin: PolicyOrigin,
    /// What the bundle declares, where one is named.
    pub bundle: Option<Loaded>,
    /// Until when would-be denials are only recorded (`mode: observe`).
    pub observe_until: Option<Timestamp>,
    /// The audit log.
    pub audit: Audit,
    /// How the child of `run` is kept from walking around the sidecar.
    pub confine: Confine,
    /// Metrics, health, status.
    pub admin: Admin,
    /// The program's own log.
    pub log: Log,
    /// Every limit.
    pub limits: Limits,
    /// Names of variables that secrets were read from: a child of ours must not see them.
    pub secret_variables: Vec<String>,
}

/// `workspace`.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The one place that credentials are sent to.
    pub origin: Origin,
    /// Pinned issuer; `None` = discovered.
    pub issuer: Option<String>,
    /// Pinned address of the issuer's keys.
    pub jwks_uri: Option<String>,
    /// Pinned token endpoint.
    pub token_endpoint: Option<String>,
    /// Roots trusted besides the public ones.
    pub ca_file: Option<PathBuf>,
    /// The workspace's id, where it is known.
    pub workspace_id: Option<String>,
}

/// `inbound`.
#[derive(Debug, Clone)]
pub struct Inbound {
    /// Where the front door connects to.
    pub listen: SocketAddr,
    /// The agent's origin: `http://HOST:PORT` with a loopback host and no path.
    pub agent: Uri,
    /// Whether a token is needed.
    pub user: UserMode,
    /// Path patterns that need no token.
    pub public: Vec<String>,
    /// The header that carries the user token.
    pub token_header: HeaderName,
    /// Whether the agent sees `Authorization` as it came.
    pub pass_authorization: bool,
}

impl Inbound {
    /// The port the agent listens on; `run` tells it to the child.
    pub fn agent_port(&self) -> u16 {
        self.agent.port_u16().unwrap_or(80)
    }
}

/// `users`.
#[derive(Debug, Clone)]
pub struct Users {
    /// Accepted audiences, never empty.
    pub audiences: Vec<String>,
    /// The ceiling of every session; `None` = everything the token holds.
    pub scopes: Option<ScopeSet>,
    /// Accepted signature algorithms, never empty.
    pub algorithms: Vec<Algorithm>,
    /// Accepted values of `typ`, in lower case.
    pub token_types: Vec<String>,
    /// Tolerated difference of clocks.
    pub leeway: Duration,
    /// The local stand-in for the token.
    pub session: Session,
    /// Whether the token is swapped before use.
    pub exchange: Exchange,
}

/// `users.session`.
#[derive(Debug, Clone)]
pub struct Session {
    /// Life after the last use.
    pub ttl: Duration,
    /// Life after the request that opened it.
    pub linger: Duration,
    /// How long ahead of a token's end the agent is warned.
    pub expiry_warning: Duration,
    /// What the stand-in looks like.
    pub format: SessionFormat,
    /// Most sessions at a time.
    pub sessions_max: usize,
}

/// `app`. Id and secret are both there or both absent; without them no call can run as the app.
#[derive(Debug, Clone)]
pub struct App {
    /// The service principal's client id.
    pub client_id: Option<ClientId>,
    /// Its secret.
    pub client_secret: Option<Arc<Secret>>,
    /// What the token endpoint is asked for.
    pub scopes: AppScopes,
}

/// `outbound`.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Where the agent's SDKs connect to: always loopback.
    pub listen: SocketAddr,
    /// The pair of an agent that `serve` did not start.
    pub local_client: Option<LocalClient>,
    /// Whether https is served on the same port.
    pub tls: bool,
    /// Whether CONNECT is served.
    pub forward: bool,
    /// Hosts that CONNECT may lead to without a look inside.
    pub allow_hosts: AllowedHosts,
    /// Where the local CA and the public roots are written, for an agent that `run` did not start.
    pub trust_file: Option<PathBuf>,
    /// Whether calls that hand out storage addresses pass.
    pub presigned: Presigned,
    /// Further hosts.
    pub upstreams: Vec<Upstream>,
}

/// `outbound.local_client`.
#[derive(Debug, Clone)]
pub struct LocalClient {
    /// The id the agent presents.
    pub id: String,
    /// Its secret, worth nothing anywhere else.
    pub secret: Arc<Secret>,
}

/// `audit`.
#[derive(Debug, Clone)]
pub struct Audit {
    /// The file that is appended to.
    pub file: PathBuf,
    /// What happens to a call that cannot be recorded.
    pub on_failure: OnFailure,
    /// When the file is flushed to disk.
    pub sync: AuditSync,
    /// Size at which a new file is begun.
    pub rotate_bytes: u64,
    /// How many old files are kept.
    pub rotate_keep: usize,
    /// The form in which records go to the standard output too, if they do.
    pub stdout: Option<AuditFormat>,
    /// Records between two checkpoints.
    pub checkpoint_records: usize,
    /// The longest wait for a checkpoint.
    pub checkpoint_interval: Duration,
    /// The key that signs them; `None` makes one at each start.
    pub key_file: Option<PathBuf>,
}

/// `admin`.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where metrics, health and status are.
    pub listen: SocketAddr,
}

/// `log`.
#[derive(Debug, Clone)]
pub struct Log {
    /// How it is written.
    pub format: LogFormat,
    /// What is written where nothing else is said.
    pub level: LevelFilter,
    /// What is written of single targets.
    pub targets: Vec<(String, LevelFilter)>,
}

impl Config {
    /// Finds the file, reads and checks it together with the environment.
    ///
    /// # Errors
    /// Every mistake that was found, in the order of their lines.
    pub fn load(options: &LoadOptions, env: &Env) -> Result<Self, Vec<Problem>> {
        let Some((path, key)) = file::find(options, env) else {
            return Self::parse("", None, env);
        };
        let text = file::read(&path).map_err(|message| {
            let mut problem = Problem::new(key, message);
            problem.file = Some(path.display().to_string());
            vec![problem]
        })?;
        Self::parse(&text, Some(&path), env)
    }

    /// Checks a text that was read already; `source` is what its problems call it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, source: Option<&Path>, env: &Env) -> Result<Self, Vec<Problem>> {
        let tree = yaml::parse(text).map_err(|problem| file::in_order(vec![problem], source))?;
        let config = Self::of_tree(tree, source, (env, env))?;
        let bundle = config.bundle.as_ref().map(|bundle| bundle.digest);
        Ok(Self {
            digest: file::content(text.as_bytes(), bundle),
            ..config
        })
    }

    /// Checks a tree: its variables come from the first environment, what stands in for absent keys from the second.
    fn of_tree(
        mut tree: Node,
        source: Option<&Path>,
        (variables, env): (&Env, &Env),
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        substitute::substitute(&mut tree, variables, &mut problems);
        let raw = read::read(&tree, &mut problems);
        let folder = source
            .and_then(Path::parent)
            .unwrap_or_else(|| Path::new(""));
        sections::check(raw, (env, folder), problems)
            .map(|config| Self {
                source: source.map(Path::to_path_buf),
                ..config
            })
            .map_err(|problems| file::in_order(problems, source))
    }

    /// What the bundle declares and could not become part of the policy.
    pub fn left_out(&self) -> &[Problem] {
        let bundle = self.bundle.as_ref();
        bundle.map_or(&[], |bundle| &bundle.declared.left_out)
    }
}
