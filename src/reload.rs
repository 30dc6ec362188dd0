//! A new policy without a restart: on SIGHUP, or when the file's content changes.
//!
//! A bad file changes nothing: the last good policy stays in force, and the log, `/status`, a metric and an audit record say
//! why. Content is compared, not time stamps: mounted configuration is swapped by links (dependencies 2.8).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::{compile_policy, policy_record};
use crate::config::{Config, Env, LoadOptions, Users};
use crate::domain::audit::{Event, Text};
use crate::domain::compile;
use crate::domain::problem::Problem;
use crate::domain::route::PolicyOrigin;
use crate::domain::secret::Digest;
use crate::proxy::admin::Admin;
use crate::proxy::{Proxy, Snapshot};

/// How often the file's content is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What a reload needs.
pub struct Reloader {
    proxy: Arc<Proxy>,
    admin: Arc<Admin>,
    options: LoadOptions,
    env: Env,
    /// The file that the running configuration came from.
    file: PathBuf,
    /// Sections that only a restart changes, as they were at the start.
    at_start: Vec<(&'static str, String)>,
}

impl Reloader {
    /// `None` when the configuration came from the environment alone: there is nothing to reload.
    pub fn new(
        proxy: Arc<Proxy>,
        admin: Arc<Admin>,
        config: &Config,
        options: LoadOptions,
        env: Env,
    ) -> Option<Self> {
        let file = config.source.clone()?;
        // Named from now on: a default file that is gone for a moment must not mean "no file, the starter policy".
        let options = LoadOptions {
            config: Some(file.clone()),
            ..options
        };
        Some(Self {
            proxy,
            admin,
            options,
            env,
            file,
            at_start: fixed(config),
        })
    }

    /// Watches until `stop`.
    ///
    /// # Errors
    /// When the handler of SIGHUP cannot be installed.
    pub async fn watch(self, stop: CancellationToken) -> std::io::Result<()> {
        let mut hangups = signal(SignalKind::hangup())?;
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let mut seen = self.content();
        loop {
            let forced = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = hangups.recv() => true,
                _ = looks.tick() => false,
            };
            let now = self.content();
            // A file that is being replaced is looked at again, unless somebody asked for it now.
            if forced || (now.is_some() && now != seen) {
                seen = now;
                self.reload();
            }
        }
    }

    /// Loads the file once and puts its policy in force, or says why not.
    pub fn reload(&self) {
        let loaded = Config::load(&self.options, &self.env)
            .and_then(|config| compile_policy(&config).map(|policy| (config, policy)));
        let Proxy {
            sinks, snapshot, ..
        } = &*self.proxy;
        match loaded {
            Ok((config, policy)) => {
                for warning in compile::warnings(&policy) {
                    tracing::warn!(%warning, "policy");
                }
                let origin = policy.origin();
                let version = snapshot.load().version + 1;
                sinks
                    .metrics
                    .policy_starter(origin == PolicyOrigin::Starter);
                snapshot.store(Arc::new(Snapshot::new(
                    policy,
                    config.users.scopes.clone(),
                    version,
                )));
                sinks.metrics.policy_reload("ok");
                sinks.audit.note(policy_record(Event::PolicyLoaded, origin));
                self.admin.reloaded(None);
                tracing::info!(version, "the policy was reloaded");
                self.warn_of_restart(&config);
            }
            Err(problems) => {
                let text = problems
                    .iter()
                    .map(Problem::to_string)
                    .collect::<Vec<_>>()
                    .join("; ");
                tracing::error!(problems = %text, "the new policy is refused; the last good one stays in force");
                sinks.metrics.policy_reload("refused");
                let mut record = policy_record(Event::PolicyRefused, PolicyOrigin::Routes);
                record.reason = Some(Text::Fixed("invalid"));
                sinks.audit.note(record);
                self.admin.reloaded(Some(text));
            }
        }
    }

    fn content(&self) -> Option<Digest> {
        std::fs::read(&self.file)
            .ok()
            .map(|bytes| Digest::of(&[&bytes]))
    }

    fn warn_of_restart(&self, config: &Config) {
        let changed = changed(&self.at_start, &fixed(config));
        if !changed.is_empty() {
            tracing::warn!(
                keys = changed.join(", "),
                "these changes take effect at a restart; routes, users.scopes and outbound.presigned are in force now"
            );
        }
    }
}

/// The sections as far as only a restart changes them, each in a form that differs when anything in it does.
fn fixed(config: &Config) -> Vec<(&'static str, String)> {
    let Config {
        workspace,
        inbound,
        users,
        app,
        outbound,
        audit,
        admin,
        log,
        limits,
        ..
    } = config;
    let users = Users {
        scopes: None,
        ..users.clone()
    };
    let app_secret = app.client_secret.as_ref().map(|secret| secret.digest());
    vec![
        ("workspace", format!("{workspace:?}")),
        ("inbound", format!("{inbound:?}")),
        ("users", format!("{users:?}")),
        ("app", format!("{app:?} {app_secret:?}")),
        (
            "outbound",
            format!("{:?} {:?}", outbound.listen, outbound.local_client),
        ),
        ("audit", format!("{audit:?}")),
        ("admin", format!("{admin:?}")),
        ("log", format!("{log:?}")),
        ("limits", format!("{limits:?}")),
    ]
}

fn changed<'n>(then: &[(&str, String)], now: &[(&'n str, String)]) -> Vec<&'n str> {
    now.iter()
        .zip(then)
        .filter(|(now, then)| now.1 != then.1)
        .map(|(now, _)| now.0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let env = Env::from_iter([
            ("DATABRICKS_HOST", "x.example"),
            ("DATABRICKS_WORKSPACE_ID", "1"),
        ]);
        Config::parse(text, None, &env).unwrap()
    }

    #[test]
    fn what_a_reload_cannot_change_is_told_and_what_it_changes_is_not() {
        let then = fixed(&config("{}"));
        for (text, expected) in [
            ("{}", &[][..]),
            ("routes: []", &[]),
            ("users: {scopes: [sql]}", &[]),
            ("outbound: {presigned: allow}", &[]),
            ("inbound: {user: optional}", &["inbound"]),
            ("inbound: {public: [/assets/**]}", &["inbound"]),
            ("users: {session: {ttl: 5m}}", &["users"]),
            (
                "{limits: {requests: 8}, log: {level: warn}}",
                &["log", "limits"],
            ),
        ] {
            assert_eq!(changed(&then, &fixed(&config(text))), expected, "{text}");
        }
    }
}
