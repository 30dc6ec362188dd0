//! The shapes of the configuration file: every field optional, unknown keys refused, nothing checked yet.
//!
//! The JSON Schema (`schema.rs`) is derived from these very shapes, so the two cannot drift; the comments here are its
//! descriptions. Nothing here has `Debug`: a value may be somebody's misplaced secret. Read `sections.rs` next.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::bundle::section::RawBundle;
use super::confine::RawConfine;
use super::read::Given;
use super::values::{Rate, SecretSource, Size, Span, TextSource};
use super::words::{
    Algorithm, AppScopes, AsWord, AuditFormat, AuditSync, EffectWord, Exchange, LimitPer,
    LogFormat, Mode, OnFailure, Presigned, SessionFormat, Switch, UserMode,
};

/// A list whose entries have their own places.
pub type List<T> = Given<Vec<Given<T>>>;

/// Valetkey: one file, all keys optional.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// The Databricks workspace whose APIs the agent calls.
    pub workspace: Given<RawWorkspace>,
    /// The side of the front door: users' requests to the agent.
    pub inbound: Given<RawInbound>,
    /// How users' tokens are verified and what their sessions may hold.
    pub users: Given<RawUsers>,
    /// The app's service principal; without it there is no app identity.
    pub app: Given<RawApp>,
    /// The side of the agent: its calls to the workspace.
    pub outbound: Given<RawOutbound>,
    /// A Databricks bundle: the app's resources and user_api_scopes become routes and the users' ceiling. A path from the
    /// folder of this file, or {file, app, target}.
    pub bundle: Given<RawBundle>,
    /// The policy: the first match wins, nothing matches = denied. Left out: the starter policy.
    pub routes: List<RawRoute>,
    /// Whether denials are real; observe lets would-be denials through as the caller's identity and records them. Default: enforce.
    pub mode: Given<Mode>,
    /// Until when denials are only observed: a date (UTC, that day included) or a moment; needed by `mode: observe`.
    pub observe_until: Given<String>,
    /// The audit log.
    pub audit: Given<RawAudit>,
    /// How the agent that `run` starts is kept from walking around the sidecar (Linux).
    pub confine: Given<RawConfine>,
    /// Metrics, health and status.
    pub admin: Given<RawAdmin>,
    /// The program's own log, on standard error.
    pub log: Given<RawLog>,
    /// Every limit, with its default and bounds.
    pub limits: Given<RawLimits>,
}

/// The Databricks workspace whose APIs the agent calls.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawWorkspace {
    /// Host name or https address. Default: the variable DATABRICKS_HOST.
    pub host: Given<String>,
    /// Numeric workspace id. Default: the variable DATABRICKS_WORKSPACE_ID, or the number in an Azure host name.
    pub id: Given<String>,
    /// Pins the issuer of users' tokens. Default: discovered.
    pub issuer: Given<String>,
    /// Pins the address of the issuer's keys. Default: discovered.
    pub jwks_uri: Given<String>,
    /// Pins the token endpoint. Default: discovered.
    pub token_endpoint: Given<String>,
    /// PEM file of roots that are trusted besides the public ones.
    pub ca_file: Given<String>,
}

/// The side of the front door: users' requests to the agent.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawInbound {
    /// Address and port. Default: 0.0.0.0 with the port in DATABRICKS_APP_PORT, else 8000.
    pub listen: Given<String>,
    /// The agent, on this machine. Default: http://127.0.0.1:8001.
    pub agent: Given<String>,
    /// Whether a user token is needed. Default: required.
    pub user: Given<UserMode>,
    /// Paths that need no token, such as /assets/**. Default: none.
    pub public: List<String>,
    /// The header that carries the user token. Default: x-forwarded-access-token.
    pub token_header: Given<String>,
    /// Whether the agent sees the Authorization header as it came. Default: false.
    pub pass_authorization: Given<bool>,
}

/// How users' tokens are verified and what their sessions may hold.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawUsers {
    /// Accepted audiences. Default: the workspace id.
    pub audience: List<String>,
    /// The ceiling: a session holds the token's scopes that are also here. Default: no ceiling.
    pub scopes: List<String>,
    /// Accepted signature algorithms. Default: RS256 and ES256.
    pub algorithms: List<Algorithm>,
    /// Accepted token types (`typ`). Default: at+jwt.
    pub token_types: List<String>,
    /// Tolerated difference of clocks. Default: 30s; from 0s to 60s.
    pub leeway: Given<Span>,
    /// The local stand-in for a user token.
    pub session: Given<RawSession>,
    /// Whether the user token is swapped before it is used. Default: none.
    pub exchange: Given<Exchange>,
}

/// The local stand-in for a user token.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawSession {
    /// Life after the last use; never past the user token's end. Default: 1h; from 1m to 24h.
    pub ttl: Given<Span>,
    /// Life after the request that opened it. Default: 2m; from 0s to 1h.
    pub linger: Given<Span>,
    /// How long ahead of a token's end answers carry X-Valetkey-Token-Expiring. Default: 5m; from 0s (never) to 1h.
    pub expiry_warning: Given<Span>,
    /// Default: opaque.
    pub format: Given<SessionFormat>,
    /// Most sessions at a time. Default: 10000; from 10 to 1000000.
    pub sessions_max: Given<u64>,
}

/// The app's service principal.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawApp {
    /// Default: the variable DATABRICKS_CLIENT_ID.
    pub client_id: Given<TextSource>,
    /// Named, never written here. Default: the variable DATABRICKS_CLIENT_SECRET.
    pub client_secret: Given<SecretSource>,
    /// What the token endpoint is asked for. Default: per-route.
    pub scopes: Given<AppScopes>,
}

/// The side of the agent: its calls to the workspace.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawOutbound {
    /// A loopback address and port. Default: 127.0.0.1:9400.
    pub listen: Given<String>,
    /// The pair an agent presents that `serve` did not start; `run` makes its own.
    pub local_client: Given<RawLocalClient>,
    /// Also https on the same port, with a certificate of a local CA that is made at start. Default: off.
    pub tls: Given<Switch>,
    /// Also a forward proxy: CONNECT to the workspace and the upstreams ends here and is decided like any call; to allow_hosts
    /// it passes unseen; to anything else it is refused. Default: off.
    pub forward: Given<Switch>,
    /// Hosts that CONNECT passes to: HOST, *.SUFFIX or ADDRESS, each with :PORT (443 otherwise), or NETWORK/PREFIX. Addresses
    /// that are not public are refused unless they are listed themselves. Default: none.
    pub allow_hosts: List<String>,
    /// Where the local CA and the public roots are written in PEM, for an agent that `run` did not start. Default: nowhere.
    pub trust_file: Given<String>,
    /// Calls that hand out storage addresses which bypass the sidecar. Default: refuse.
    pub presigned: Given<Presigned>,
    /// Further hosts, such as an MCP server that is an app of its own. Default: none.
    pub upstreams: List<RawUpstream>,
}

/// The pair an agent presents that `serve` did not start.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawLocalClient {
    /// The client id.
    pub id: Given<TextSource>,
    /// The secret, at least 16 characters; named, never written here.
    pub secret: Given<SecretSource>,
}

/// A further host, such as an MCP server that is an app of its own.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawUpstream {
    /// Reached under /@NAME/ on the outbound listener: unique; 1 to 63 letters, digits and `-`.
    pub name: Given<String>,
    /// https and its host, without a path; http only on this machine.
    pub url: Given<String>,
    /// The name of the Databricks App, by which routes know it: `resource: app/NAME`. Default: the name.
    pub app: Given<String>,
    /// PEM file of roots that are trusted for it besides the public ones. Default: those of the workspace.
    pub ca_file: Given<String>,
}

/// One rule of the policy: what it matches and as whom the call runs.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawRoute {
    /// Unique; letters, digits, `-`, `_` and `.`.
    pub name: Given<String>,
    /// TYPE/ID, such as sql_warehouse/1234abcd.
    pub resource: Given<String>,
    /// An operation of the catalogue, or a family such as mlflow.*.
    pub operation: Given<String>,
    /// Methods in upper case. Default: any.
    pub method: List<String>,
    /// A path; {name} = one segment, ** = the rest.
    pub path: Given<String>,
    /// Top-level JSON keys of the body with their allowed values.
    pub body: Given<BTreeMap<String, List<String>>>,
    /// As whom the call runs.
    #[serde(rename = "as")]
    pub run_as: Given<AsWord>,
    /// The scope a user call needs. Default: the catalogue's.
    pub scope: Given<String>,
    /// The MCP tools that may be called, on an `mcp/…` or `app/…` resource; the name behind `catalog__schema__` is enough.
    pub tools: List<String>,
    /// The most that a matching call may do: read, or read and write. Default: write; operations of admin effect are named in full.
    pub effect: Given<EffectWord>,
    /// A rate limit (a later version).
    pub limit: Given<RawRouteLimit>,
}

/// A rate limit (a later version).
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawRouteLimit {
    /// Calls per time, such as 60/m.
    pub rate: Given<Rate>,
    /// Whose calls count together.
    pub per: Given<LimitPer>,
}

/// The audit log.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawAudit {
    /// Path, from the working directory. Default: ./audit/valetkey.jsonl.
    pub file: Given<String>,
    /// What happens to a call that cannot be recorded. Default: refuse.
    pub on_failure: Given<OnFailure>,
    /// When the file is flushed to disk. Default: interval.
    pub sync: Given<AuditSync>,
    /// When a new file is begun.
    pub rotate: Given<RawRotate>,
    /// How often the log is signed; also at each rotation and at the end.
    pub checkpoint: Given<RawCheckpoint>,
    /// The Ed25519 private key that signs, PKCS#8 as PEM or DER, readable for this user alone. Default: a new one at each start.
    pub key_file: Given<String>,
    /// Whether each record also goes to the standard output. Default: false.
    pub stdout: Given<bool>,
    /// In which form it does. Default: json.
    pub format: Given<AuditFormat>,
    /// Shipping to a volume (a later version).
    pub ship: Given<RawShip>,
}

/// How often the audit log is signed.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawCheckpoint {
    /// After so many records. Default: 1000; from 1 to 1000000.
    pub records: Given<u64>,
    /// Where fewer come: when the first of them has waited so long. Default: 1m; from 1s to 1d.
    pub interval: Given<Span>,
}

/// When a new audit file is begun.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawRotate {
    /// Default: 64MiB; from 1MiB to 16GiB.
    pub size: Given<Size>,
    /// How many old files are kept. Default: 14; from 1 to 10000.
    pub keep: Given<u64>,
}

/// Shipping to a volume (a later version).
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawShip {
    /// CATALOG.SCHEMA.VOLUME.
    pub volume: Given<String>,
}

/// Metrics, health and status.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawAdmin {
    /// Address and port. Default: 127.0.0.1:9401.
    pub listen: Given<String>,
}

/// The program's own log.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawLog {
    /// Default: json.
    pub format: Given<LogFormat>,
    /// One level (off, error, warn, info, debug, trace), and more for single parts: info,valetkey=debug. Default: info.
    pub level: Given<String>,
}

/// Every limit, with its default and bounds.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawLimits {
    /// Request line and headers together. Default: 64KiB; from 32KiB to 64KiB.
    pub request_head_bytes: Given<Size>,
    /// Header lines of one request. Default: 100; from 20 to 200.
    pub request_headers: Given<u64>,
    /// Path and query of one request. Default: 8KiB; from 1KiB to 32KiB.
    pub request_target_bytes: Given<Size>,
    /// Time for the whole head to arrive. Default: 10s; from 1s to 10s.
    pub request_head_time: Given<Span>,
    /// Largest body that is read because the decision depends on it. Default: 16MiB; from 64KiB to 256MiB.
    pub inspected_body_bytes: Given<Size>,
    /// Open connections of one listener. Default: 1024; from 8 to 65536.
    pub connections: Given<u64>,
    /// Requests in flight of one listener. Default: 512; from 4 to 65536.
    pub requests: Given<u64>,
    /// CONNECT tunnels at a time. Default: 256; from 1 to 65536.
    pub tunnels: Given<u64>,
    /// How long nothing may move in a tunnel to one of outbound.allow_hosts. Default: 15m; from 10s to 1h.
    pub tunnel_idle_time: Given<Span>,
    /// Time to connect to workspace or agent. Default: 5s; from 100ms to 1m.
    pub connect_time: Given<Span>,
    /// Time from the last piece of a request until the far side's answer begins. Default: 300s; from 1s to 1h.
    pub response_head_time: Given<Span>,
    /// How long an unused connection stays open. Default: 75s; from 1s to 10m.
    pub idle_connection_time: Given<Span>,
    /// Time for requests in flight to end at shutdown. Default: 15s; from 0s to 10m.
    pub drain_time: Given<Span>,
    /// After so long without an agent that accepts connections the log says that it is late. Default: 2m; from 1s to 1h.
    pub agent_start_time: Given<Span>,
}
