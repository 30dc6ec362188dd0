//! `outbound.upstreams`: names, addresses, and what no two of them may share.
//!
//! Messages never quote an address: it may come from a variable. Read `domain/destination.rs` next.

use std::path::PathBuf;
use std::sync::Arc;

use http::uri::Authority;

use super::Outbound;
use super::check::Checker;
use super::raw::{List, RawUpstream};
use super::read::Given;
use crate::domain::destination::{self, UPSTREAM_NAME_CHARS_MAX, Upstreams};
use crate::domain::identity::{Origin, is_loopback_host};

const NAME_HINT: &str = "write 1 to 63 letters, digits and `-`";
const URL_HINT: &str = "write https://HOST, such as https://mcp-tools-123.aws.databricksapps.com";

/// One of `outbound.upstreams`.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Name, app and origin.
    pub reached: Arc<destination::Upstream>,
    /// Roots trusted for it besides the public ones; `None` = those of the workspace.
    pub ca_file: Option<PathBuf>,
}

impl Outbound {
    /// The further hosts, as calls are led to them.
    pub fn destinations(&self) -> Upstreams {
        let reached = self.upstreams.iter().map(|u| Arc::clone(&u.reached));
        Upstreams::new(reached.collect())
    }
}

/// What the start log and `check` say of them.
pub fn summary(upstreams: &[Upstream]) -> String {
    let told = { upstreams.iter() }
        .map(|u| format!("{} = {}", u.reached.prefix(), u.reached.origin))
        .collect::<Vec<_>>();
    if told.is_empty() {
        "none".to_owned()
    } else {
        told.join(" ")
    }
}

/// Checks the list.
pub fn check(
    list: &List<RawUpstream>,
    workspace: Option<&Origin>,
    c: &mut Checker<'_>,
) -> Vec<Upstream> {
    let mut upstreams: Vec<Upstream> = Vec::new();
    for given in list.get().into_iter().flatten() {
        let Some(raw) = given.get() else { continue };
        let name = required(given, &raw.name, "name", c).and_then(|text| name(text, &raw.name, c));
        let origin = required(given, &raw.url, "url", c).and_then(|text| origin(text, raw, c));
        let app = c
            .text(&raw.app)
            .and_then(|text| self::name(text, &raw.app, c));
        let ca_file = c.ca_file(&raw.ca_file);
        if origin.is_some() && origin.as_ref() == workspace {
            let problem = raw.url.problem("this is the workspace");
            c.report(problem.hint("call its paths as they are, without /@NAME"));
        }
        let (Some(name), Some(origin)) = (name, origin) else {
            continue;
        };
        let app = app.unwrap_or_else(|| Arc::clone(&name));
        let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
        if upstreams.iter().any(|u| same(&u.reached.name, &name)) {
            let problem = raw.name.problem("this name is already taken");
            c.report(problem.hint("names must be unique, also without regard to case"));
        } else if upstreams.iter().any(|u| u.reached.app == app) {
            let place = if raw.app.is_absent() {
                &raw.name
            } else {
                &raw.app
            };
            let problem = place.problem("another upstream is this app already");
            c.report(problem.hint("an app has one address: remove one of the two"));
        }
        let reached = destination::Upstream { name, app, origin };
        upstreams.push(Upstream {
            reached: Arc::new(reached),
            ca_file,
        });
    }
    upstreams
}

fn required<'g>(
    entry: &Given<RawUpstream>,
    given: &'g Given<String>,
    key: &str,
    c: &mut Checker<'_>,
) -> Option<&'g str> {
    if given.is_absent() {
        let problem = entry.problem(format!("has no `{key}`"));
        c.report(problem.hint("write {name: NAME, url: https://HOST}"));
    }
    c.text(given)
}

fn name(text: &str, given: &Given<String>, c: &mut Checker<'_>) -> Option<Arc<str>> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if text.len() <= UPSTREAM_NAME_CHARS_MAX && text.bytes().all(plain) {
        return Some(text.into());
    }
    c.report(given.problem("is no name of an app").hint(NAME_HINT));
    None
}

/// Scheme and host alone: what follows them belongs to the calls.
fn origin(text: &str, raw: &RawUpstream, c: &mut Checker<'_>) -> Option<Origin> {
    let mut refuse = |fault: &str, hint: &str| {
        c.report(raw.url.problem(fault).hint(hint));
        None
    };
    let Some((scheme, rest)) = text.trim().split_once("://") else {
        return refuse("is no address", URL_HINT);
    };
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (host, path) = rest.split_at_checked(end)?;
    if host.contains('@') {
        return refuse("holds a user name or password", URL_HINT);
    }
    if !matches!(path, "" | "/") {
        let hint = "write https://HOST alone; the agent adds the path: /@NAME/PATH";
        return refuse("has something behind the host", hint);
    }
    let named = host.parse::<Authority>();
    let loopback = named.is_ok_and(|host| is_loopback_host(host.host()));
    match scheme.to_ascii_lowercase().as_str() {
        "http" if !loopback => {
            let hint = "write https://; plain http is for development on this machine";
            return refuse("real tokens would go there in the clear", hint);
        }
        "http" | "https" => {}
        _ => return refuse("is no address", URL_HINT),
    }
    let scheme = scheme.to_ascii_lowercase();
    let origin = Origin::parse(&format!("{scheme}://{host}"));
    origin
        .or_else(|_| refuse("is no address", URL_HINT).ok_or(()))
        .ok()
}
