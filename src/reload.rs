//! A new policy without a restart: on SIGHUP, or when the content of the file or of its bundle's files changes.
//!
//! A bad file changes nothing: the last good policy stays in force, and the log, `/status`, a metric and an audit record say
//! why. Content is compared, not time stamps: mounted configuration is swapped by links (dependencies 2.8).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::{compile_policy, policy_record, warnings};
use crate::config::bundle::{Loaded, Watched, section};
use crate::config::{Config, Env, LoadOptions, Users, file};
use crate::domain::audit::{Event, Text};
use crate::domain::problem::Problem;
use crate::domain::route::PolicyOrigin;
use crate::domain::secret::Digest;
use crate::proxy::admin::Admin;
use crate::proxy::{Proxy, Snapshot};

/// How often the file's content is looked at. A change is taken at the second look that sees it: a file that is being
/// written may be empty or cut for a moment, and without its `routes` it would mean the starter policy.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a reload needs.
pub struct Reloader {
    proxy: Arc<Proxy>,
    admin: Arc<Admin>,
    options: LoadOptions,
    env: Env,
    /// The file that the running configuration came from.
    file: PathBuf,
    /// The files of its bundle.
    bundle: Option<Watched>,
    content: Settling,
    hangups: Signal,
    /// Sections that only a restart changes, as they were at the start.
    at_start: Vec<(&'static str, String)>,
}

impl Reloader {
    /// `None` when the configuration came from the environment alone: there is nothing to reload. From here on no SIGHUP is
    /// lost.
    ///
    /// # Errors
    /// When the handler of SIGHUP cannot be installed.
    pub fn new(
        proxy: Arc<Proxy>,
        admin: Arc<Admin>,
        config: &Config,
        options: LoadOptions,
        env: Env,
    ) -> std::io::Result<Option<Self>> {
        let Some(file) = config.source.clone() else {
            return Ok(None);
        };
        // Named from now on: a default file that is gone for a moment must not mean "no file, the starter policy".
        let options = LoadOptions {
            config: Some(file.clone()),
            ..options
        };
        Ok(Some(Self {
            proxy,
            admin,
            options,
            env,
            file,
            bundle: config.bundle.as_ref().map(|bundle| bundle.watched.clone()),
            content: Settling::new(config.digest),
            hangups: signal(SignalKind::hangup())?,
            at_start: fixed(config),
        }))
    }

    /// Watches until `stop`.
    pub async fn watch(mut self, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            let forced = tokio::select! {
                () = stop.cancelled() => return,
                _ = self.hangups.recv() => true,
                _ = looks.tick() => false,
            };
            // A file that is gone for a moment is being replaced.
            let changed = self.digest();
            let changed = changed.is_some_and(|digest| self.content.looked(digest, forced));
            if forced || changed {
                let before = self.pointed_to();
                self.watch_anew(self.reload().as_ref(), before);
            }
        }
    }

    /// Of the files as they are now.
    fn digest(&self) -> Option<Digest> {
        self.digest_with(self.bundle.as_ref())
    }

    fn digest_with(&self, bundle: Option<&Watched>) -> Option<Digest> {
        let text = std::fs::read(&self.file).ok()?;
        let bundle = match bundle {
            Some(watched) => Some(watched.digest()?),
            None => None,
        };
        Some(file::content(&text, bundle))
    }

    /// The files of the bundle that the file names now, and the digest with them.
    fn pointed_to(&self) -> Option<(Watched, Option<Digest>)> {
        let folder = self.file.parent().unwrap_or_else(|| Path::new(""));
        let text = std::fs::read_to_string(&self.file).ok()?;
        let watched = section::watched(&text, folder, &self.env)?;
        let digest = self.digest_with(Some(&watched));
        Some((watched, digest))
    }

    /// A reload may have found another bundle or other includes. Where it was refused, what is mended there must be noticed
    /// all the same: `before` is from before it, for somebody who sees the refusal may mend the file at once.
    fn watch_anew(&mut self, loaded: Option<&Config>, before: Option<(Watched, Option<Digest>)>) {
        if let Some(config) = loaded {
            let watched = |bundle: &Loaded| bundle.watched.clone();
            self.bundle = config.bundle.as_ref().map(watched);
            // What was loaded, not what was seen before: a change in between is one more.
            self.content = Settling::new(config.digest);
            return;
        }
        if let Some((found, digest)) = before
            && self.bundle.as_ref() != Some(&found)
        {
            self.bundle = Some(found);
            self.content = Settling::new(digest.unwrap_or(self.content.known));
        }
    }

    /// Loads the file once and puts its policy in force, or says why not; the configuration where it was loaded.
    pub fn reload(&self) -> Option<Config> {
        let loaded = Config::load(&self.options, &self.env)
            .and_then(|config| compile_policy(&config).map(|policy| (config, policy)));
        let Proxy {
            sinks, snapshot, ..
        } = &*self.proxy;
        match loaded {
            Ok((config, policy)) => {
                for warning in warnings(&config, &policy) {
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
                Some(config)
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
                None
            }
        }
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

/// Tells a content that stays from one that is being written.
struct Settling {
    /// In force, or refused.
    known: Digest,
    /// Seen once.
    candidate: Option<Digest>,
}

impl Settling {
    fn new(known: Digest) -> Self {
        Self {
            known,
            candidate: None,
        }
    }

    /// Whether `now` is to be loaded. What is loaded because somebody asked for it now counts as known.
    fn looked(&mut self, now: Digest, forced: bool) -> bool {
        let settled = forced || self.candidate == Some(now);
        let is_new = now != self.known;
        self.candidate = (is_new && !settled).then_some(now);
        if settled {
            self.known = now;
        }
        is_new && settled
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
        confine,
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
            // All but `presigned`, which is the policy's.
            format!(
                "{:?} {:?} {:?} {:?} {:?} {:?} {:?}",
                outbound.tls,
                outbound.forward,
                outbound.allow_hosts,
                outbound.trust_file,
                outbound.listen,
                outbound.local_client,
                outbound.upstreams
            ),
        ),
        ("audit", format!("{audit:?}")),
        ("confine", format!("{confine:?}")),
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

    #[test]
    fn only_a_content_that_is_seen_twice_in_a_row_is_a_change() {
        let [old, cut, new] = [b"old", b"cut", b"new"].map(|text| Digest::of(&[text]));
        let mut content = Settling::new(old);
        let loaded = [old, cut, new, new, new, cut, new, old, old, old];
        let loaded = loaded.map(|now| content.looked(now, false));
        let expected = [
            false, false, false, true, false, false, false, false, true, false,
        ];
        assert_eq!(loaded, expected);
    }

    #[test]
    fn what_was_loaded_on_demand_is_not_loaded_again() {
        let [old, new] = [b"old", b"new"].map(|text| Digest::of(&[text]));
        let mut content = Settling::new(old);
        assert!(!content.looked(new, false));
        assert!(content.looked(new, true));
        assert!(!content.looked(new, false));
        assert!(!content.looked(new, false));
    }

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
            (
                "outbound: {upstreams: [{name: a, url: 'https://a.example'}]}",
                &["outbound"],
            ),
            ("outbound: {allow_hosts: [pypi.org]}", &["outbound"]),
            ("outbound: {tls: on}", &["outbound"]),
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
