//! How a test wants its world: routes, configuration, workspace, and what is broken from the start.

use serde_json::{Value, json};
use valetkey::config::Env;
use valetkey::embedded::workspace::{Workspace, WorkspaceOptions};

use super::ENVIRONMENT;
use super::agent::Agent;

/// How a test wants its world.
pub struct TestOptions {
    /// `routes`; `None` leaves the starter policy in force.
    pub routes: Option<Value>,
    /// Merged over the harness's configuration: objects member by member, anything else replaces; `null` removes.
    pub config: Value,
    /// The workspace's set-up.
    pub workspace: WorkspaceOptions,
    /// Run on the workspace before the sidecar is bound, to break it from the start.
    pub before: fn(&Workspace),
    /// Another address than the echo agent's, as `host:port`.
    pub agent: Option<String>,
    /// Another place for calls than the workspace, which stays the issuer.
    pub workspace_at: Option<String>,
    /// Further far sides, which must never see a local token; `config` says what they are called.
    pub upstreams: Vec<Agent>,
    /// What the configuration's environment holds.
    pub environment: Vec<(&'static str, &'static str)>,
    /// Whether `with_app` waits until the agent was reached.
    pub await_agent: bool,
    /// Whether the audit chain must verify at the end; tests that break the file say no.
    pub audit_is_good: bool,
}

impl Default for TestOptions {
    fn default() -> Self {
        Self {
            routes: None,
            config: json!({}),
            workspace: WorkspaceOptions::default(),
            before: |_| {},
            agent: None,
            workspace_at: None,
            upstreams: Vec::new(),
            environment: ENVIRONMENT.to_vec(),
            await_agent: true,
            audit_is_good: true,
        }
    }
}

impl TestOptions {
    /// These routes, everything else as usual.
    pub fn routes(routes: Value) -> Self {
        Self {
            routes: Some(routes),
            ..Self::default()
        }
    }

    /// Merges more configuration.
    pub fn with(mut self, config: Value) -> Self {
        merge(&mut self.config, config);
        self
    }
}

/// The environment the configuration is read with.
pub fn environment() -> Env {
    Env::from_iter(ENVIRONMENT)
}

/// Merges `over` into `base`: objects member by member, anything else replaces; `null` removes.
pub fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    base.remove(&key);
                } else {
                    merge(base.entry(key).or_insert(json!({})), value);
                }
            }
        }
        (base, over) => *base = over,
    }
}
