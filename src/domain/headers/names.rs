//! The names that `headers.rs` strips: hop-by-hop, identities, and what never leaves for the workspace.
//!
//! Data only. A new name goes here; the order of stripping is in `headers.rs`.

/// Hop-by-hop headers (RFC 9110 section 7.6.1) and their relatives.
pub(super) const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    // Answered by the listener once the request was let in (SECURITY R7); the far side is not asked again.
    "expect",
];

/// What claims an identity towards the agent, beside the token header: the front door's own and the habits of other proxies.
pub(super) const IDENTITY: &[&str] = &[
    "authorization",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-preferred-username",
    "x-forwarded-groups",
    "x-forwarded-access-token",
    "remote-user",
    "x-remote-user",
    "x-remote-groups",
    "x-user",
    "x-user-id",
    "x-user-email",
    "x-email",
    "x-authenticated-user",
    "x-original-user",
];
pub(super) const IDENTITY_PREFIXES: &[&str] = &[
    "x-auth-request-",
    "x-valetkey-",
    "x-databricks-azure-sp-",
    "x-databricks-gcp-sa-",
];

/// What the agent sends that never leaves for the workspace (SECURITY R26, facts 9).
pub(super) const NEVER_OUT: &[&str] = &[
    "authorization",
    "cookie",
    "forwarded",
    "x-host",
    "x-real-ip",
    "x-databricks-azure-sp-management-token",
    "x-databricks-azure-workspace-resource-id",
    "x-databricks-gcp-sa-access-token",
    "x-databricks-workspace-id",
    "x-databricks-org-id",
    "expect",
];
pub(super) const NEVER_OUT_PREFIXES: &[&str] = &[
    "proxy-",
    "x-forwarded-",
    "x-original-",
    "x-rewrite-",
    "x-envoy-",
    "x-http-method",
    "x-method-override",
    "x-auth-request-",
    "x-valetkey-",
];

/// What the workspace sends that never reaches the agent; the last three are only ever ours.
pub(super) const NEVER_BACK: &[&str] = &[
    "set-cookie",
    "set-cookie2",
    "alt-svc",
    "authorization",
    "proxy-authentication-info",
    "x-valetkey-error",
    "x-valetkey-missing",
    "x-valetkey-token-expiring",
];

/// Letters and digits only: what is left of a name where a reader turns everything else into one separator, as CGI does
/// (SECURITY R8).
pub(super) fn fold(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect()
}
