//! `outbound`: the agent's side, in its plain form and as https and forward proxy.
//!
//! Messages never quote a value: it may come from a variable. Read `upstreams.rs` and `domain/tunnel.rs` next.

use super::check::Checker;
use super::raw::{List, RawLocalClient, RawOutbound};
use super::read::Given;
use super::sections::{LOCAL_SECRET_CHARS_MIN, loopback};
use super::upstreams;
use super::words::{Presigned, Switch};
use super::{LocalClient, Outbound};
use crate::domain::identity::{ClientId, Origin};
use crate::domain::tunnel::AllowedHosts;

/// The most hosts that may be listed.
const ALLOWED_HOSTS_MAX: usize = 1000;

/// Checks the section.
pub(super) fn outbound(
    raw: &RawOutbound,
    workspace: Option<&Origin>,
    c: &mut Checker<'_>,
) -> Outbound {
    let listen = c.socket(&raw.listen, loopback(9400));
    if !listen.ip().is_loopback() {
        let problem = raw
            .listen
            .problem("the outbound listener must be reachable from this machine only");
        c.report(problem.hint("write 127.0.0.1:PORT"));
    }
    let is_on = |given: &Given<Switch>| given.get() == Some(&Switch::On);
    Outbound {
        listen,
        local_client: local_client(&raw.local_client, c),
        tls: is_on(&raw.tls),
        forward: is_on(&raw.forward),
        allow_hosts: allowed(&raw.allow_hosts, c),
        trust_file: c.path(&raw.trust_file),
        presigned: raw.presigned.get().copied().unwrap_or(Presigned::Refuse),
        upstreams: upstreams::check(&raw.upstreams, workspace, c),
    }
}

fn allowed(list: &List<String>, c: &mut Checker<'_>) -> AllowedHosts {
    let mut allowed = AllowedHosts::default();
    for given in list.get().into_iter().flatten().take(ALLOWED_HOSTS_MAX) {
        let Some(text) = c.text(given) else { continue };
        if let Err(fault) = allowed.add(text) {
            let problem = given.problem(fault.to_string());
            c.report(problem.hint(
                "write HOST, HOST:PORT, *.example.com, an address, or a network such as 10.2.0.0/16",
            ));
        }
    }
    if list.get().is_some_and(|all| all.len() > ALLOWED_HOSTS_MAX) {
        c.report(
            list.problem("more than 1000 hosts are listed")
                .hint("use wildcards"),
        );
    }
    allowed
}

fn local_client(given: &Given<RawLocalClient>, c: &mut Checker<'_>) -> Option<LocalClient> {
    let raw = given.get()?;
    if raw.id.is_absent() || raw.secret.is_absent() {
        let problem = given.problem("needs both `id` and `secret`");
        c.report(problem.hint("remove it under `run`, which makes its own pair"));
    }
    let (id, secret) = (
        c.sourced_text(&raw.id),
        c.secret(&raw.secret, LOCAL_SECRET_CHARS_MIN),
    );
    let (id, secret) = (id?, secret?);
    if ClientId::parse(&id).is_err() {
        c.report(raw.id.problem("is no name of a client"));
    }
    Some(LocalClient { id, secret })
}
