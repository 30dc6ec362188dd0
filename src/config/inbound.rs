//! The values of `inbound` and `users`: who may come in, with which token, and what a session may hold.
//!
//! Must not know the outbound side. Read `sections.rs` for the rest.

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderName, Uri};

use super::check::Checker;
use super::raw::{List, RawInbound, RawSession, RawUsers};
use super::read::Given;
use super::routes;
use super::words::{Algorithm, Exchange, SessionFormat, UserMode};
use super::{Development, Inbound, Session, Users};
use crate::domain::headers;
use crate::domain::identity::is_loopback_host;
use crate::domain::problem::Problem;
use crate::domain::scope::{Scope, ScopeSet};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// `inbound`.
pub(super) fn inbound(raw: &RawInbound, c: &mut Checker<'_>) -> Inbound {
    let developing = c.env.development() != Development::Off;
    let everywhere = if developing {
        [127, 0, 0, 1]
    } else {
        [0, 0, 0, 0]
    };
    let default = SocketAddr::from((everywhere, 8000));
    let listen = if raw.listen.is_absent() {
        app_port(default, c)
    } else {
        c.socket(&raw.listen, default)
    };
    if developing && !listen.ip().is_loopback() {
        let message = "`dev` serves this machine only: whoever gets there acts as you";
        let problem = raw.listen.problem(message);
        c.report(problem.hint("write 127.0.0.1:PORT, or remove the key"));
    }
    let pass_authorization = raw.pass_authorization.get().copied().unwrap_or_default();
    let token_header = token_header(&raw.token_header, c);
    if pass_authorization && headers::is_authorization(&token_header) {
        let problem = raw
            .pass_authorization
            .problem("the header that carries the user token is never passed on");
        c.report(problem.hint("remove this key, or choose another token_header"));
    }
    Inbound {
        listen,
        agent: agent(&raw.agent, c),
        user: raw.user.get().copied().unwrap_or(UserMode::Required),
        public: public(&raw.public, c),
        token_header,
        pass_authorization,
    }
}

fn app_port(default: SocketAddr, c: &mut Checker<'_>) -> SocketAddr {
    const VARIABLE: &str = "DATABRICKS_APP_PORT";
    let Some(text) = c.variable(VARIABLE) else {
        return default;
    };
    match text.trim().parse() {
        Ok(port) => SocketAddr::new(default.ip(), port),
        Err(_) => {
            let problem = Problem::new(VARIABLE, "is no port number");
            c.report(problem.hint("set it to 1 to 65535, or write inbound.listen"));
            default
        }
    }
}

fn agent(given: &Given<String>, c: &mut Checker<'_>) -> Uri {
    let default = Uri::from_static("http://127.0.0.1:8001");
    let Some(text) = c.text(given) else {
        return default;
    };
    let fault = match text.trim_end_matches('/').parse::<Uri>() {
        Ok(uri)
            if uri.scheme_str() == Some("http")
                && uri.port_u16().is_some_and(|port| port > 0)
                && uri.path() == "/"
                && !text.contains(['@', '?', '#']) =>
        {
            if uri.host().is_some_and(is_loopback_host) {
                return uri;
            }
            "the agent must be on this machine: session tokens go there in the clear"
        }
        Ok(_) | Err(_) => "is no address of an agent",
    };
    let hint = "write http://127.0.0.1:PORT";
    c.report(given.problem(fault).hint(hint));
    default
}

fn public(list: &List<String>, c: &mut Checker<'_>) -> Vec<String> {
    let mut patterns = Vec::new();
    for item in list.get().into_iter().flatten() {
        let Some(text) = c.text(item) else { continue };
        match routes::path_fault(text) {
            None => patterns.push(text.to_owned()),
            Some(fault) => c.report(item.problem(fault).hint("such as /assets/**")),
        }
    }
    patterns
}

fn token_header(given: &Given<String>, c: &mut Checker<'_>) -> HeaderName {
    /// Headers whose meaning is taken: framing, routing, other identity.
    const TAKEN: &[&str] = &[
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-email",
        "x-forwarded-groups",
        "x-forwarded-preferred-username",
        "x-forwarded-user",
    ];
    let default = HeaderName::from_static("x-forwarded-access-token");
    let Some(text) = c.text(given) else {
        return default;
    };
    let fault = match text.parse::<HeaderName>() {
        Ok(name) if TAKEN.contains(&name.as_str()) => "this header has another meaning",
        Ok(name) if !name.as_str().contains('_') => return name,
        Ok(_) | Err(_) => "is no name of a header",
    };
    let hint = "write x-forwarded-access-token, authorization, or a name of your own without `_`";
    c.report(given.problem(fault).hint(hint));
    default
}

/// `users`; `id` is the workspace id, the default audience.
pub(super) fn users(raw: RawUsers, id: Option<String>, c: &mut Checker<'_>) -> Users {
    let algorithms: Vec<Algorithm> = match raw.algorithms.get() {
        None => vec![Algorithm::RS256, Algorithm::ES256],
        Some(list) => list.iter().filter_map(|a| a.get().copied()).collect(),
    };
    if raw.algorithms.get().is_some_and(Vec::is_empty) {
        let problem = raw.algorithms.problem("accepts no algorithm, so no token");
        c.report(problem.hint("remove the key for RS256 and ES256"));
    }
    let token_types = match c.texts(&raw.token_types) {
        None => vec!["at+jwt".to_owned()],
        Some(types) => types.iter().map(|t| t.to_ascii_lowercase()).collect(),
    };
    if raw.token_types.get().is_some_and(Vec::is_empty) {
        let problem = raw.token_types.problem("accepts no type, so no token");
        c.report(problem.hint("remove the key for at+jwt"));
    }
    Users {
        audiences: audiences(&raw.audience, id, c),
        scopes: ceiling(&raw.scopes, c),
        algorithms,
        token_types,
        leeway: c.duration(&raw.leeway, secs(30), secs(0)..=secs(60)),
        session: session(&raw.session.take(), c),
        exchange: raw.exchange.get().copied().unwrap_or(Exchange::None),
    }
}

fn audiences(list: &List<String>, id: Option<String>, c: &mut Checker<'_>) -> Vec<String> {
    let embedded = c.env.development() == Development::Embedded;
    if let Some(texts) = c.texts(list).filter(|_| !embedded) {
        if list.get().is_some_and(Vec::is_empty) {
            let problem = list.problem("accepts no audience, so no token");
            c.report(problem.hint("list the workspace id, or remove the key"));
        }
        return texts;
    }
    if id.is_none() && (embedded || list.is_absent()) {
        let message = "neither an audience nor the workspace id, its default, is known";
        let hint = "set users.audience or workspace.id in the file, or the variable DATABRICKS_WORKSPACE_ID";
        c.report(Problem::new("users.audience", message).hint(hint));
    }
    id.into_iter().collect()
}

fn ceiling(list: &List<String>, c: &mut Checker<'_>) -> Option<ScopeSet> {
    let items = list.get()?;
    let mut scopes = Vec::new();
    for item in items {
        let Some(text) = c.text(item) else { continue };
        match Scope::parse(text) {
            Some(scope) => scopes.push(scope),
            None => c.report(
                item.problem("is no name of a scope")
                    .hint("write one name per entry, such as sql or genie"),
            ),
        }
    }
    Some(ScopeSet::new(scopes))
}

fn session(raw: &RawSession, c: &mut Checker<'_>) -> Session {
    Session {
        ttl: c.duration(&raw.ttl, secs(3600), secs(60)..=secs(86_400)),
        linger: c.duration(&raw.linger, secs(120), secs(0)..=secs(3600)),
        expiry_warning: c.duration(&raw.expiry_warning, secs(300), secs(0)..=secs(3600)),
        format: raw.format.get().copied().unwrap_or(SessionFormat::Opaque),
        sessions_max: c.count(&raw.sessions_max, 10_000, 10..=1_000_000),
    }
}
