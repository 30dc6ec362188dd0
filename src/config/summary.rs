//! What the start log and `check` say about a configuration.
//!
//! The only way out of one: names and values, no secret among them.

use std::path::PathBuf;

use super::bundle::Loaded;
use super::confine::Confine;
use super::words::ConfineMode;
use super::{Config, Outbound, upstreams};
use crate::domain::route::PolicyOrigin;

impl Config {
    /// What the start log and `check` say about it: names and values, no secret among them.
    pub fn summary(&self) -> Vec<(&'static str, String)> {
        let source = |path: &PathBuf| path.display().to_string();
        let app = self.app.client_id.as_ref();
        let policy = match self.policy_origin {
            PolicyOrigin::Routes => format!("{} routes", self.routes.len()),
            PolicyOrigin::Bundle => format!("{} routes of the bundle", self.routes.len()),
            PolicyOrigin::Starter => "starter policy".to_owned(),
        };
        let policy = match self.observe_until {
            Some(until) => format!("{policy}, observed until {until}"),
            None => policy,
        };
        let bundle = self.bundle.as_ref().map_or_else(
            || "none".into(),
            |Loaded { declared, .. }| {
                let (file, app, target) = (&declared.file, &declared.app, &declared.target);
                format!("{file}, app {app}, target {target}")
            },
        );
        let ceiling = self.users.scopes.as_ref();
        vec![
            (
                "config",
                self.source
                    .as_ref()
                    .map_or_else(|| "environment".into(), source),
            ),
            ("workspace", self.workspace.origin.to_string()),
            ("inbound", self.inbound.listen.to_string()),
            ("agent", self.inbound.agent.to_string()),
            ("outbound", outbound(&self.outbound)),
            ("upstreams", upstreams::summary(&self.outbound.upstreams)),
            ("admin", self.admin.listen.to_string()),
            ("user", format!("{:?}", self.inbound.user).to_lowercase()),
            ("audiences", self.users.audiences.join(" ")),
            (
                "scopes",
                ceiling.map_or_else(|| "no ceiling".into(), ToString::to_string),
            ),
            (
                "app",
                app.map_or_else(|| "none".into(), ToString::to_string),
            ),
            ("policy", policy),
            ("bundle", bundle),
            ("confine", confine(&self.confine)),
            ("audit", source(&self.audit.file)),
        ]
    }
}

/// Where it listens, and in which forms.
fn outbound(outbound: &Outbound) -> String {
    let mut text = outbound.listen.to_string();
    if outbound.tls {
        text.push_str(", also https");
    }
    if outbound.forward {
        let listed = outbound.allow_hosts.len();
        text.push_str(&format!(", forward proxy with {listed} further hosts"));
    }
    text
}

fn confine(confine: &Confine) -> String {
    let mode = match confine.mode {
        ConfineMode::Off => return "off".to_owned(),
        ConfineMode::BestEffort => "best-effort",
        ConfineMode::Required => "required",
    };
    let allowed = confine.allow.iter().map(u16::to_string);
    let words: Vec<String> = std::iter::once(mode.to_owned()).chain(allowed).collect();
    words.join(" ")
}
