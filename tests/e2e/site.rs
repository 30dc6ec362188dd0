//! What a run needs of a workspace, embedded or real: where it is, who the users are, what may be used, what is secret.
//!
//! Knows nothing of processes. `suite.rs` brings it together with a sidecar; `real.rs` makes one for a real workspace.

use std::time::Duration;

use serde_json::{Value, json};
use valetkey::embedded::workspace::Workspace;
use valetkey::embedded::world::{CHAT_ENDPOINT, INDEX, VOLUME, WAREHOUSE, WAREHOUSE_RESTRICTED};

/// What the suite's user calls need; also the ceiling in the configuration.
pub const SCOPES: [&str; 5] = [
    "sql",
    "model-serving",
    "vector-search",
    "files",
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
    pub warehouse: String,
    pub warehouse_refused: String,
    pub model: String,
    pub index: String,
    pub index_columns: Vec<String>,
    /// A path, `/Volumes/…`.
    pub volume: String,
}

impl Site {
    /// The embedded workspace, with fresh tokens.
    pub fn embedded(workspace: &Workspace) -> Self {
        let app = workspace.app();
        Self {
            kind: "embedded",
            host: workspace.url(),
            workspace_id: workspace.workspace_id().to_owned(),
            client_id: app.client_id.clone(),
            client_secret: app.client_secret.expose().to_owned(),
            users: ["alice@example.com", "bob@example.com"].map(|name| user(workspace, name)),
            expired_token: Some(expired(workspace, "alice@example.com")),
            warehouse: WAREHOUSE.to_owned(),
            warehouse_refused: WAREHOUSE_RESTRICTED.to_owned(),
            model: CHAT_ENDPOINT.to_owned(),
            index: INDEX.to_owned(),
            index_columns: vec!["id".to_owned(), "seen_as".to_owned()],
            volume: VOLUME.to_owned(),
        }
    }

    /// The routes that the suite needs, each naming its resource; nothing else is allowed.
    pub fn routes(&self) -> Value {
        let volume = self
            .volume
            .trim_start_matches("/Volumes/")
            .replace('/', ".");
        json!([
            {"name": "who", "operation": "identity.me", "as": "caller"},
            {"name": "user-sql", "resource": format!("sql_warehouse/{}", self.warehouse), "as": "user"},
            {"name": "model", "resource": format!("serving_endpoint/{}", self.model), "as": "caller"},
            {"name": "knowledge", "resource": format!("vector_search_index/{}", self.index), "as": "caller"},
            // The search client asks for the model behind the index before its first query.
            {"name": "model-of-index", "operation": "serving.endpoints.get", "as": "caller"},
            {"name": "files", "resource": format!("volume/{volume}"), "as": "user"},
        ])
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
