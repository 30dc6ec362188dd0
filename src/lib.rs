//! The library half of Valetkey exists for its own tests and benches and promises no stability.
//!
//! Valetkey is an authenticating sidecar for AI agents on Databricks. It stands on both sides of an agent process: **inbound**
//! it verifies the forwarded user token and hands the agent a short-lived local session token instead; **outbound** it decides
//! by a route policy whose credential a call carries, writes the call's record, attaches the credential and streams the call.
//! This page is the map; each file opens with what it is, what it must not know, and what to read next.
//!
//! # Two stories
//!
//! Read [`proxy::inbound`] and [`proxy::outbound`] first: in each, one function lists the security steps in their order.
//!
//! # The floors
//!
//! A file imports from its own floor or a lower one; `tests/tidy.rs` checks it.
//!
//! 1. [`domain`]: words and decisions. Pure: no await, no clock, no I/O.
//! 2. [`runtime`]: what remembers or talks: caches, sessions, clients, writers.
//! 3. [`proxy`]: the two flows, their bodies, errors and records.
//! 4. the process: [`cli`], [`config`], [`app`], [`reload`], [`supervise`], [`demo`], [`embedded`], [`audit_reader`], [`explain`],
//!    [`doctor`], [`dev`].
//!
//! # The chain of proof
//!
//! Each arrow is the only maker of what it points to, so its arguments are the proof that no step was skipped.
//!
//! ```text
//! UnverifiedToken ──verify──► VerifiedToken ──open──► session token ──caller──► Caller
//! path ──read──► Destination + CanonicalPath
//! Destination + CanonicalPath + Caller + body = Call ──decide──► Grant ──resolve──► Credential
//! RequestRecord ──intend──► Receipt
//! parts + Credential + Receipt ──new──► AuthorizedRequest ──forward──► answer
//! parts + session ──new──► AgentRequest ──to_agent──► answer
//! ```
//!
//! # What is deliberately absent
//!
//! 1. A real credential is never written to a socket that the agent can read; a session token is never sent to a far side.
//! 2. `domain` has no `async`, no tokio, no hyper; whatever depends on time takes `now`.
//! 3. Only [`domain::headers`] and [`runtime::token_endpoint`] name the `Authorization` header of real traffic.
//! 4. Only [`proxy`] turns an error into an answer; only [`proxy::error`] chooses a status.
//! 5. Only [`cli`] prints and only `main.rs` reads the environment; only [`domain::clock`] reads wall time.
//! 6. Nothing that holds a secret can be serialized; configuration has a redacted summary.
//! 7. Every map, queue, body, header block, cache and wait has a limit with a name and a unit ([`config::limits`]).
//! 8. There is one implementation of matching: `check`, `explain` and the live path call [`domain::policy::decide`].
//! 9. The way to a far side never upgrades, follows a redirect or honours a proxy variable; inbound upgrades only to WebSocket.
//!    Outbound takes CONNECT only with `outbound.forward`: a tunnel to a host that credentials go to ends here and its calls are
//!    decided; any other one carries no credential of ours, goes where the list says, and only to an address that was checked.
//! 10. No audit log, no start. A policy with a mistake, no start. An unknown operation, a denial.
//!
//! # Decisions
//!
//! - Session tokens are derived (HMAC under a key of the process), not stored: [`runtime::session`].
//! - The first matching route decides; the index must give the answer of the ordered list: [`domain::policy`].
//! - Operations of admin effect are reached only by their full name or by a raw path: [`domain::policy`].
//! - A destination comes from the path, rides in the grant and in the credential, and chooses the door: [`domain::destination`].
//! - What the sidecar is called depends on the way a call came by, never on a `Host` header: [`proxy::way`].
//! - The key of the local CA is gone before anything is served: [`runtime::local_ca`].
//! - The tunnel that ends here has no record of its own, the calls inside have theirs; one that does not has one for all of
//!   it: [`proxy::connect`].
//! - A statement belongs to whoever created it: [`runtime::follow_up`].
//! - Inbound requests make session records, not one record each; outbound calls make an intent and an outcome:
//!   [`proxy::record`].
//! - Statuses are chosen for SDKs that repeat 429 and 503 for five minutes: [`proxy::error`].
//! - The workspace's own refusals pass as they are, with a header that says which plane is missing: [`domain::missing`]; nothing of
//!   their text is repeated: [`domain::platform_refusal`].
//! - A second reader of the framing rides along each connection, for what hyper mends in silence: [`runtime::framing_guard`].
//! - A WebSocket ends with its session, by a close frame at the end of a frame: [`proxy::tunnel`].
//! - A confined child restricts itself and then becomes the agent; Landlock alone is walked past, so a filter goes with it:
//!   [`supervise::confine`].
//! - Content is polled at a reload, since mounted configuration is swapped by links: [`reload`].

/// Floor 1: words and decisions. Pure: no await, no clock, no I/O.
pub mod domain {
    pub mod address; //        what kind of place an IP address is
    pub mod alias; //          two vocabularies of scopes
    pub mod ask; //            a request → operation, resources, follow-up id
    pub mod audit; //          one record, its chain, its proof
    pub mod bundle; //         what a bundle declares, and its routes
    pub mod catalog; //        the Databricks API as data (config/catalog.yaml)
    pub mod clock; //          wall time behind a trait
    pub mod compile; //        routes as written → policy, or every mistake
    pub mod destination; //    the workspace, or an upstream
    pub mod headers; //        header maps: take, strip, set, attach
    pub mod identity; //       users, clients, the workspace's origin
    pub mod jwks; //           the issuer's keys, filtered
    pub mod lint; //           what a policy probably does not mean
    pub mod mcp; //            JSON-RPC: methods and tools
    pub mod missing; //        which plane a refused call lacks
    pub mod path; //           the one reading of a path
    pub mod platform_refusal; // what the workspace's own refusal says
    pub mod policy; //         the one decision
    pub mod problem; //        a mistake with its place and remedy
    pub mod route; //          routes as written
    pub mod scope; //          scopes and their meet
    pub mod secret; //         secrets and digests
    pub mod strict_json; //    JSON with one reading
    pub mod template; //       path templates and their trie
    pub mod token; //          user tokens, verified
    pub mod tunnel; //         CONNECT: what it names, and what is allowed
}

/// Floor 2: what remembers or talks.
pub mod runtime {
    pub mod access_token; //   a real token, ready to be attached
    pub mod agent_gate; //     whether the agent accepts connections
    pub mod app_tokens; //     the app's tokens, per scope set
    pub mod audit_copy; //     the same on standard output
    pub mod audit_file; //     the log on disk: lock, rotate, resume
    pub mod audit_key; //      what signs the log
    pub mod audit_writer; //   one thread that owns the chain
    pub mod credential; //     grant + caller → credential
    pub mod discovery; //      where the issuer, its keys and its token endpoint are
    pub mod endpoint_fault; // what can go wrong at a token endpoint
    pub mod exchanged_tokens; // user tokens swapped by RFC 8693
    pub mod follow_up; //      ids that answers gave out, bound to their owner
    pub mod framing_guard; //  the framing as it stood on the wire
    pub mod http_client; //    the one door to the network
    pub mod key_store; //      the issuer's keys, kept fresh
    pub mod keyed_flight; //   single flight per key, bounded
    pub mod lingering; //      bodies that nobody wants
    pub mod listener; //       bind, accept, serve, drain
    pub mod local_ca; //       certificates of our own, made at start
    pub mod metrics; //        Prometheus, typed
    pub mod seen_scopes; //    what tokens of a client have carried
    pub mod session; //        local stand-ins for users and the app
    pub mod session_jwt; //    session tokens as JWTs
    pub mod single_flight; //  one fetch for any number of callers
    pub mod telemetry; //      the program's own log
    pub mod tls; //            which certificates are trusted
    pub mod token_answer; //   what a token endpoint answers
    pub mod token_endpoint; // RFC 6749 section 4.4 and RFC 8693 on the wire
    #[cfg(test)]
    pub mod token_script; //   a scripted token endpoint
    pub mod trust_bundle; //   roots for the agent
    pub mod tunnel; //         tunnels nobody looks into
    pub mod upstream; //       the typed doors
    pub mod verifier; //       verify once, remember by digest
}

pub mod proxy; //        floor 3: the two flows

pub mod app; //          floor 4: bind, wire, run, drain
pub mod audit_reader; // tail, query, stats, export, verify
pub mod cli; //          the commands; the only place that prints
pub mod config; //       the configuration file, every mistake at once
pub mod demo; //         the tour
pub mod dev; //          plays the front door on a developer's machine
pub mod doctor; //       proves the environment, with a remedy for each fault
pub mod explain; //      why a call would be allowed or refused
pub mod policy_test; //  table tests of a policy
pub mod policy_text; //  routes as YAML
pub mod reload; //       a new policy without a restart
pub mod supervise; //    the agent as a child

/// Floor 4: a workspace inside this process, for the demo and the tests.
pub mod embedded {
    mod accept;
    mod answer;
    /// Its APIs, a family each; `routes` is the table of them.
    mod api {
        mod apps;
        mod connections;
        pub(super) mod file_store;
        pub(super) mod files;
        pub(super) mod genie;
        mod identity;
        pub(super) mod jobs;
        mod lakebase;
        mod mcp;
        pub(super) mod memory;
        pub(super) mod mlflow;
        mod query;
        pub(super) mod routes;
        mod secrets;
        pub(super) mod serving;
        pub(super) mod sql;
        mod thrift;
        mod uc;
        mod vector_search;
    }
    mod call;
    pub mod control;
    mod door;
    mod grants;
    pub mod issuer;
    mod marked;
    mod oidc;
    pub mod other_app;
    pub mod seen;
    mod signing_key;
    mod stream;
    mod streamable;
    pub mod workspace;
    pub mod world;
}
