//! The answers of PRODUCT 6.4: discovery and tokens, by the sidecar itself, so that unmodified SDKs work and cannot talk
//! around it.
//!
//! Every URL is built from the origin that `way.rs` gives, never from the `Host` header (SECURITY R28). Tokens are local and worth
//! nothing anywhere else. Nothing under `/oidc/` or `/.well-known/` is ever forwarded.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::domain::headers;
use crate::domain::secret::Secret;
use crate::runtime::http_client::{Body, full, read_limited};
use crate::runtime::session::{APP_TOKEN_EXPIRES_IN, SessionTable};

/// The largest token request, in bytes.
pub const TOKEN_REQUEST_BYTES_MAX: usize = 64 * 1024;

/// The pair that the agent was given for the app identity.
#[derive(Debug, Clone)]
pub struct LocalClient {
    /// Not a secret: the real client id in `run`.
    pub id: String,
    /// Worth nothing anywhere else.
    pub secret: Arc<Secret>,
}

/// The local endpoints.
pub struct LocalOidc {
    workspace_id: Option<String>,
    client: Option<LocalClient>,
}

impl LocalOidc {
    /// The pair, where there is one, and what discovery says beside addresses.
    pub fn new(workspace_id: Option<String>, client: Option<LocalClient>) -> Self {
        Self {
            workspace_id,
            client,
        }
    }

    /// Whether a path belongs to the sidecar itself.
    pub fn owns(path: &str) -> bool {
        ["/oidc", "/.well-known"].iter().any(|root| {
            path.strip_prefix(root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// Answers a request for a path that [`LocalOidc::owns`], naming `origin`; `None` when there is no such endpoint.
    pub async fn answer(
        &self,
        request: Request<Body>,
        origin: &str,
        sessions: &SessionTable,
    ) -> Option<Response<Body>> {
        let (parts, body) = request.into_parts();
        match (&parts.method, parts.uri.path()) {
            (&Method::GET, "/.well-known/databricks-config") => {
                Some(ok(&self.databricks_config(origin)))
            }
            (
                &Method::GET,
                "/oidc/.well-known/oauth-authorization-server"
                | "/oidc/.well-known/openid-configuration",
            ) => Some(ok(&metadata(origin))),
            (&Method::GET, "/oidc/jwks.json") => Some(ok(&sessions
                .jwks()
                .cloned()
                .unwrap_or_else(|| json!({"keys": []})))),
            (&Method::POST, "/oidc/v1/token") => {
                Some(self.token(&parts.headers, body, sessions).await)
            }
            _ => None,
        }
    }

    fn databricks_config(&self, origin: &str) -> Value {
        json!({
            "oidc_endpoint": format!("{origin}/oidc"),
            "workspace_id": self.workspace_id,
        })
    }

    /// RFC 6749 section 4.4 with the local pair. `scope` and `authorization_details` are accepted: the route policy decides
    /// per call what the real token may do.
    async fn token(
        &self,
        headers: &HeaderMap,
        body: Body,
        sessions: &SessionTable,
    ) -> Response<Body> {
        let form = match read_form(headers, body).await {
            Ok(form) => form,
            Err(what) => return refused(StatusCode::BAD_REQUEST, "invalid_request", what),
        };
        let field = |name: &str| {
            form.iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        let presented = match (
            headers::basic_credentials(headers),
            field("client_id"),
            field("client_secret"),
        ) {
            (Some(Some((id, secret))), sent_id, None) if sent_id.is_none_or(|sent| sent == id) => {
                Some((id, secret))
            }
            (None, Some(id), Some(secret)) => Some((id.to_owned(), secret.to_owned())),
            (Some(_), _, Some(_)) => {
                return refused(
                    StatusCode::BAD_REQUEST,
                    "invalid_request",
                    "use one way to authenticate the client",
                );
            }
            (_, _, _) => None,
        };
        let known = presented
            .zip(self.client.as_ref())
            .is_some_and(|((id, secret), client)| {
                // Both are compared, so that the time tells nothing of the id.
                let right = client.secret.matches(secret.as_bytes());
                (client.id == id) & right
            });
        if !known {
            return refused(
                StatusCode::UNAUTHORIZED,
                "invalid_client",
                "the local client id or secret is wrong; use DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET as the sidecar gave them",
            );
        }
        if field("grant_type") != Some("client_credentials") {
            return refused(
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                "only client_credentials is served here",
            );
        }
        let scope = field("scope")
            .filter(|scope| scope.len() <= 4096)
            .unwrap_or("all-apis");
        ok(&json!({
            "access_token": sessions.app_token().expose(),
            "token_type": "Bearer",
            "expires_in": APP_TOKEN_EXPIRES_IN.as_secs(),
            "scope": scope,
        }))
    }
}

/// RFC 8414.
fn metadata(origin: &str) -> Value {
    json!({
        "issuer": format!("{origin}/oidc"),
        "authorization_endpoint": format!("{origin}/oidc/v1/authorize"),
        "token_endpoint": format!("{origin}/oidc/v1/token"),
        "jwks_uri": format!("{origin}/oidc/jwks.json"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA"],
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "scopes_supported": ["all-apis"],
    })
}

async fn read_form(headers: &HeaderMap, body: Body) -> Result<Vec<(String, String)>, &'static str> {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if !content_type.split(';').next().is_some_and(|media| {
        media
            .trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded")
    }) {
        return Err("the body must be application/x-www-form-urlencoded");
    }
    let bytes = read_limited(body, TOKEN_REQUEST_BYTES_MAX)
        .await
        .map_err(|_| "the body is too long or broke off")?;
    let form: Vec<(String, String)> = form_urlencoded::parse(&bytes).into_owned().collect();
    let mut names: Vec<&str> = form.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair.first() == pair.get(1)) {
        Err("a parameter stands twice")
    } else {
        Ok(form)
    }
}

fn ok(body: &Value) -> Response<Body> {
    answer(StatusCode::OK, body)
}

fn answer(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(full(body.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn refused(status: StatusCode, error: &str, description: &str) -> Response<Body> {
    let mut response = answer(
        status,
        &json!({"error": error, "error_description": format!("valetkey: {description}")}),
    );
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"valetkey\""),
        );
    }
    response
}
