//! What a run needs of a workspace, embedded or real: where it is, who the users are, what may be used, what is secret.
//!
//! Knows nothing of processes. `suite.rs` brings it together with a sidecar; `real.rs` makes one for a real workspace.

use std::time::Duration;

use serde_json::{Value, json};
use valetkey::embedded::workspace::Workspace;

use crate::things::{self, Things};

/// What the suite's user calls need; also the ceiling in `valetkey.yaml`.
const SCOPES: [&str; 12] = [
    "sql",
    "model-serving",
    "ai-gateway",
    "genie",
    "vector-search",
    "files",
    "postgres",
    "mcp.functions",
    "mcp.external",
    "catalog.connections",
    "catalog.tables:read",
    "iam.current-user:read",
];
/// Each user has several sessions at a time.
const TOKENS_PER_USER: u64 = 4;
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// A person and good tokens of theirs.
pub struct User {
    pub name: String,
    pub tokens: Vec<String>,
}

/// One workspace as a run sees it.
pub struct Site {
    pub kind: &'static str,
    pub host: String,
    pub workspace_id: String,
    pub client_id: String,
    pub client_secret: String,
    pub users: [User; 2],
    pub expired_token: Option<String>,
    pub index_columns: Vec<String>,
    /// What the policy names and what it does not.
    pub things: Things,
    /// Where the app of the policy is, and another one.
    pub app_urls: [String; 2],
}

impl Site {
    /// The embedded workspace, with fresh tokens.
    pub fn embedded(workspace: &Workspace, app_urls: [String; 2]) -> Self {
        let app = workspace.app();
        Self {
            kind: "embedded",
            host: workspace.url(),
            workspace_id: workspace.workspace_id().to_owned(),
            client_id: app.client_id.clone(),
            client_secret: app.client_secret.expose().to_owned(),
            users: ["alice@example.com", "bob@example.com"].map(|name| user(workspace, name)),
            expired_token: Some(expired(workspace, "alice@example.com")),
            index_columns: vec!["id".to_owned(), "seen_as".to_owned()],
            things: things::embedded(),
            app_urls,
        }
    }

    /// The object of a kind that the policy names.
    pub fn thing(&self, name: &str) -> &str {
        &self.things[name].allowed
    }

    /// What `valetkey.yaml` asks for, but for this run's ports and folder.
    pub fn variables(&self) -> Vec<(String, String)> {
        let [app, other] = &self.app_urls;
        let named = [
            ("E2E_HOST", &self.host),
            ("E2E_WORKSPACE_ID", &self.workspace_id),
            ("E2E_APP_URL", app),
            ("E2E_APP_OTHER_URL", other),
        ];
        let named = named.map(|(name, value)| (name.to_owned(), value.clone()));
        named
            .into_iter()
            .chain(things::variables(&self.things))
            .collect()
    }

    /// Everything that must stay with the sidecar.
    pub fn secrets(&self) -> Vec<String> {
        let mut all = vec![self.client_secret.clone()];
        for user in &self.users {
            all.extend(user.tokens.iter().cloned());
        }
        all.extend(self.expired_token.clone());
        all
    }
}

fn user(workspace: &Workspace, name: &str) -> User {
    // Other lives give other tokens: several sessions of one user at a time.
    let lives = (0..TOKENS_PER_USER).map(|n| TOKEN_LIFE + Duration::from_secs(n));
    let tokens = lives.map(|life| workspace.user_token(name, &SCOPES.join(" "), life).unwrap());
    User {
        name: name.to_owned(),
        tokens: tokens.collect(),
    }
}

fn expired(workspace: &Workspace, name: &str) -> String {
    let mut claims = workspace.user_claims(name, &SCOPES.join(" "));
    let past = |value: &Value| json!(value.as_i64().unwrap() - 7200);
    for claim in ["iat", "exp", "nbf"] {
        if let Some(value) = claims.get_mut(claim) {
            *value = past(value);
        }
    }
    workspace
        .claims_token(
            &claims,
            &json!({}),
            valetkey::embedded::issuer::SignWith::Current,
        )
        .unwrap()
}
