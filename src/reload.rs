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
use crate::config::{Config, Env, LoadOptions};
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
            at_start: config.summary(),
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
        let changed: Vec<&str> = config
            .summary()
            .into_iter()
            .zip(&self.at_start)
            .filter(|(now, then)| now != *then && !matches!(now.0, "policy" | "scopes"))
            .map(|(now, _)| now.0)
            .collect();
        if !changed.is_empty() {
            tracing::warn!(
                keys = changed.join(", "),
                "these changes take effect at a restart; routes, users.scopes and outbound.presigned are in force now"
            );
        }
    }
}
