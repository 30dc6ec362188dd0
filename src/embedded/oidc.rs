//! What the workspace serves without a bearer: discovery, keys, and the token endpoint with its three grants.
//!
//! App tokens by client credentials, narrowed as asked; user tokens narrowed by exchange, never widened and never longer
//! lived than what they came from (facts 2.4, 3.1, 3.3). Makes no tokens itself: `issuer.rs` does.

use std::collections::BTreeMap;

use http::StatusCode;
use http::request::Parts;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal, json_ok, json_with, put};
use super::call::{Presented, presented};
use super::grants::Caller;
use super::issuer::Verified;
use super::workspace::Site;
use crate::domain::scope::{Scope, ScopeSet};
use crate::runtime::http_client::{Body, read_limited};

/// Where the keys are.
pub(super) const KEYS_PATH: &str = "/oidc/jwks.json";
/// Where tokens are made.
pub(super) const TOKEN_PATH: &str = "/oidc/v1/token";
const FORM_BYTES_MAX: usize = 64 * 1024;
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ASSERTION: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const SUBJECT_TYPES: [&str; 2] = [
    "urn:ietf:params:oauth:token-type:jwt",
    "urn:ietf:params:oauth:token-type:access_token",
];

/// Whether a path is served without a bearer.
pub(super) fn is_public(path: &str) -> bool {
    path.starts_with("/oidc/") || path.starts_with("/.well-known/")
}

/// Answers a call on one of these paths.
pub(super) async fn answer(site: &Site, parts: Parts, body: Body) -> Answer {
    match (parts.method.as_str(), parts.uri.path()) {
        ("GET", "/.well-known/databricks-config") => json_ok(&host_metadata(site)),
        (
            "GET",
            "/oidc/.well-known/oauth-authorization-server"
            | "/oidc/.well-known/openid-configuration",
        ) => json_ok(&metadata(site)),
        ("GET", KEYS_PATH) => json_ok(&site.issuer.key_set()),
        ("POST", TOKEN_PATH) => match token(site, &parts, body).await {
            Ok(granted) => json_ok(&granted),
            Err(refused) => refused.into_answer(),
        },
        (method, path) => Refusal::no_endpoint(method, path).into_answer(""),
    }
}

fn host_metadata(site: &Site) -> Value {
    json!({
        "oidc_endpoint": site.issuer.url,
        "account_id": "e0b5e0b5-0000-4000-8000-00000000acc0",
        "workspace_id": site.issuer.workspace_id,
        "cloud": "aws",
        "host_type": "workspace",
        "token_federation_default_oidc_audiences": [format!("{}{TOKEN_PATH}", site.url)],
    })
}

fn metadata(site: &Site) -> Value {
    let at = |path: &str| format!("{}{path}", site.url);
    json!({
        "issuer": site.issuer.url,
        "authorization_endpoint": at("/oidc/v1/authorize"),
        "token_endpoint": at(TOKEN_PATH),
        "jwks_uri": at(KEYS_PATH),
        "scopes_supported": ["all-apis", "email", "offline_access", "openid", "profile", "sql"],
        "response_types_supported": ["code", "id_token"],
        "response_modes_supported": ["query", "fragment", "form_post"],
        "grant_types_supported": ["client_credentials", "authorization_code", "refresh_token", EXCHANGE],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "claims_supported": ["iss", "sub", "aud", "iat", "exp", "jti", "scope"],
        "request_uri_parameter_supported": false,
    })
}

/// A refusal of the token endpoint, in OAuth's shape.
struct Refused {
    status: StatusCode,
    error: &'static str,
    description: String,
}

impl Refused {
    fn bad(error: &'static str, description: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error,
            description: description.into(),
        }
    }

    fn client() -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            error: "invalid_client",
            description: "Client authentication failed".to_owned(),
        }
    }

    fn into_answer(self) -> Answer {
        let request_id = uuid::Uuid::now_v7().to_string();
        json_with(
            self.status,
            &json!({
                "error": self.error,
                "error_description": self.description,
                "error_id": request_id,
            }),
        )
    }
}

type Form = BTreeMap<String, String>;

async fn token(site: &Site, parts: &Parts, body: Body) -> Result<Value, Refused> {
    let bytes = read_limited(body, FORM_BYTES_MAX)
        .await
        .map_err(|_| Refused::bad("invalid_request", "The request body could not be read."))?;
    let mut form = Form::new();
    for (name, value) in form_urlencoded::parse(&bytes) {
        if form.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(Refused::bad(
                "invalid_request",
                "A parameter was sent twice.",
            ));
        }
    }
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let is_client = client(site, parts, &form)?;
    match field("grant_type") {
        "client_credentials" if is_client => {
            client_credentials(site, field("scope"), field("authorization_details"))
        }
        "client_credentials" => Err(Refused::client()),
        EXCHANGE if !SUBJECT_TYPES.contains(&field("subject_token_type")) => Err(Refused::bad(
            "invalid_request",
            "The subject_token_type is not supported.",
        )),
        EXCHANGE => exchange(site, field("subject_token"), field("scope"), is_client),
        ASSERTION => exchange(site, field("assertion"), field("scope"), is_client),
        _ => Err(Refused::bad(
            "unsupported_grant_type",
            "The grant_type is not supported.",
        )),
    }
}

/// Whether the app's credential came along; a wrong one is refused whatever the grant.
fn client(site: &Site, parts: &Parts, form: &Form) -> Result<bool, Refused> {
    let given = match presented(&parts.headers) {
        Presented::Basic(id, secret) => Some((id, secret)),
        Presented::Bearer(_) | Presented::Nothing => match form.get("client_secret") {
            Some(secret) => {
                let id = form.get("client_id").cloned().unwrap_or_default();
                Some((id, secret.clone()))
            }
            None => None,
        },
    };
    match given {
        None => Ok(false),
        Some((id, secret))
            if id == site.app.client_id && site.app.client_secret.matches(secret.as_bytes()) =>
        {
            Ok(true)
        }
        Some(_) => Err(Refused::client()),
    }
}

fn asked_scopes(text: &str) -> Result<ScopeSet, Refused> {
    for name in text.split_whitespace() {
        if Scope::parse(name).is_none() {
            let message = format!("Invalid scope: {name}");
            return Err(Refused::bad("invalid_scope", message));
        }
    }
    Ok(ScopeSet::parse(text.split_whitespace()))
}

fn client_credentials(site: &Site, scope: &str, details: &str) -> Result<Value, Refused> {
    let scopes = asked_scopes(scope)?;
    let scope = if scopes.is_empty() {
        "all-apis".to_owned()
    } else {
        scopes.to_string()
    };
    let now = site.issuer.clock.now().as_second();
    let life = i64::try_from(site.token_life.as_secs()).unwrap_or(3600);
    let app = &site.app.client_id;
    let mut claims = site.issuer.claims(app, app, &scope, now, now + life);
    if !details.is_empty() {
        let details: Value = serde_json::from_str(details)
            .map_err(|_| Refused::bad("invalid_request", "authorization_details is not JSON."))?;
        put(&mut claims, "authorization_details", details);
    }
    site.issuer.remember_app_token(&claims);
    Ok(granted(&site.issuer.sign_claims(&claims), &scope, life))
}

/// A narrower token for the same person.
fn exchange(site: &Site, subject: &str, scope: &str, is_client: bool) -> Result<Value, Refused> {
    let invalid = || Refused::bad("invalid_grant", "The subject token is invalid or expired.");
    let Verified {
        subject,
        scopes,
        expires_at,
    } = site.issuer.verify(subject).ok_or_else(invalid)?;
    let known = Caller::find(&subject, scopes.clone(), &site.users, &site.app);
    if known.is_none_or(|caller| caller.is_app && !is_client) {
        return Err(invalid());
    }
    let asked = asked_scopes(scope)?;
    let kept = if asked.is_empty() {
        scopes.clone()
    } else {
        asked
    };
    if let Some(wider) = kept.iter().find(|s| !scopes.covers(s)) {
        let message = format!("Invalid scope: {wider} is not held by the subject token");
        return Err(Refused::bad("invalid_scope", message));
    }
    let now = site.issuer.clock.now().as_second();
    let life = i64::try_from(site.token_life.as_secs()).unwrap_or(3600);
    let expires_at = expires_at.min(now + life);
    let scope = kept.to_string();
    let app = &site.app.client_id;
    let mut claims = site.issuer.claims(&subject, app, &scope, now, expires_at);
    if is_client {
        put(&mut claims, "act", json!({ "sub": app }));
    }
    let mut answer = granted(&site.issuer.sign_claims(&claims), &scope, expires_at - now);
    let kind = json!("urn:ietf:params:oauth:token-type:access_token");
    put(&mut answer, "issued_token_type", kind);
    Ok(answer)
}

fn granted(token: &str, scope: &str, life: i64) -> Value {
    json!({ "access_token": token, "token_type": "Bearer", "expires_in": life, "scope": scope })
}
