//! Bind all, then wire, then run: from a configuration to a running sidecar.
//!
//! Nothing is served before every listener is bound, the audit log is open and the policy compiled. The drain order is
//! inbound, then the agent, then outbound, then the audit log. `cli.rs` calls it; `reload.rs` swaps the policy.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::config::words::Presigned;
use crate::dev::{self, SharedDoor};
use crate::domain::audit::{Event, Record, Text};
use crate::domain::catalog::Catalog;
use crate::domain::clock::Clock;
use crate::domain::compile;
use crate::domain::lint;
use crate::domain::policy::Policy;
use crate::domain::problem::Problem;
use crate::domain::route::PolicyOrigin;
use crate::domain::scope::ScopeSet;
use crate::proxy::admin::{Addresses, Admin};
use crate::proxy::local_oidc::{LocalClient, LocalOidc};
use crate::proxy::{self, Proxy, Snapshot, inbound};
use crate::runtime::agent_gate::{AgentGate, ProbePace};
use crate::runtime::follow_up::FollowUps;
use crate::runtime::listener::{Listener, Service, Stop};
use crate::runtime::metrics::{Direction, Metrics};
use crate::runtime::session::SessionTable;
use crate::runtime::upstream::Door;

use self::secure::{Calls, certificates, forward};
use self::wire::{bind_all, doors, flow_settings, http_client, identity, session_settings, sinks};

mod drain;
mod secure;
pub mod wire;

/// How often ended sessions are swept out.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// A bound sidecar that serves nothing yet.
pub struct App {
    inbound: Listener,
    outbound: Listener,
    admin_listener: Listener,
    addresses: Addresses,
    proxy: Arc<Proxy>,
    admin: Arc<Admin>,
    calls: Calls,
    root: Option<CertificateDer<'static>>,
    agent_address: String,
    agent_start_time: Duration,
    drain_time: Duration,
}

/// Compiles the policy of a configuration.
///
/// # Errors
/// Every mistake in it, with the file.
pub fn compile_policy(config: &Config) -> Result<Policy, Vec<Problem>> {
    let catalog = Catalog::built_in()?;
    let settings = compile::Settings {
        origin: config.policy_origin,
        presigned_allowed: config.outbound.presigned == Presigned::Allow,
        observe_until: config.observe_until,
    };
    match config.policy_origin {
        PolicyOrigin::Starter => Ok(compile::starter(catalog, settings)),
        PolicyOrigin::Routes | PolicyOrigin::Bundle => {
            compile::compile(&config.routes, catalog, settings)
                .map_err(|problems| in_file(problems, config.source.as_deref()))
        }
    }
}

/// What the policy allows or leaves out and probably does not mean, with the file.
pub fn warnings(config: &Config, policy: &Policy) -> Vec<Problem> {
    let upstreams = config.outbound.destinations();
    let around = lint::Surroundings {
        upstreams: Some(&upstreams),
        ceiling: config.users.scopes.as_ref(),
        declared: { config.bundle.as_ref() }.map(|bundle| &bundle.declared),
    };
    let mut found = config.left_out().to_vec();
    found.extend(lint::lint(policy, around));
    let name = config
        .source
        .as_ref()
        .map(|path| path.display().to_string());
    for problem in found.iter_mut().filter(|problem| problem.file.is_none()) {
        problem.file.clone_from(&name);
    }
    found
}

/// Adds the file's name to problems that were found in it.
pub fn in_file(mut problems: Vec<Problem>, file: Option<&Path>) -> Vec<Problem> {
    let name = file.map(|path| path.display().to_string());
    for problem in &mut problems {
        problem.file.clone_from(&name);
    }
    problems
}

impl App {
    /// Binds the listeners, opens the audit log, compiles the policy.
    ///
    /// # Errors
    /// Everything that stands in the way, each with its key and the remedy.
    pub async fn bind(
        config: &Config,
        local_client: Option<LocalClient>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Vec<Problem>> {
        let one = |key: &str, message: String| vec![Problem::new(key, message)];
        let policy = compile_policy(config)?;
        for warning in warnings(config, &policy) {
            tracing::warn!(%warning, "policy");
        }
        let certificates = certificates(config)?;
        let (outbound, inbound, admin_listener) = bind_all(config, certificates.listener).await?;
        let addresses = Addresses {
            inbound: inbound.address(),
            outbound: outbound.address(),
            admin: admin_listener.address(),
        };
        let metrics = Metrics::new().map_err(|fault| one("metrics", fault.to_string()))?;
        metrics.policy_starter(policy.origin() == PolicyOrigin::Starter);
        let http = http_client(config)?;
        let doors = doors(config, &http)?;
        let agent = Door::to_agent_at(Arc::clone(&http), &config.inbound.agent)
            .map_err(|fault| one("inbound.agent", fault.to_string()))?;
        let (verifier, credentials) = identity(config, &http, &clock, &metrics)?;
        let sessions = SessionTable::new(
            session_settings(config, addresses.outbound),
            Arc::clone(&clock),
            metrics.clone(),
        )
        .map_err(|fault| one("users.session", fault.to_string()))?;
        let sinks = sinks(config, &clock, metrics)?;
        let agent_address = agent.authority().to_owned();
        let slots = || Semaphore::new(config.limits.requests);
        let calls = Calls::until(&sinks.cut);
        let proxy = Arc::new(Proxy {
            settings: flow_settings(config, addresses.outbound)?,
            snapshot: ArcSwap::from_pointee(Snapshot::new(policy, config.users.scopes.clone(), 1)),
            sessions,
            verifier,
            credentials,
            follow_ups: FollowUps::default(),
            sinks,
            doors,
            clock: Arc::clone(&clock),
            workspace_origin: config.workspace.origin.clone(),
            upstreams: config.outbound.destinations(),
            agent,
            gate: AgentGate::new(),
            local: LocalOidc::new(config.workspace.workspace_id.clone(), local_client),
            forward: forward(config, certificates.stand_ins, &calls),
            tunnels: TaskTracker::new(),
            slots: [slots(), slots()],
        });
        let admin = Arc::new(Admin::new(Arc::clone(&proxy), addresses, clock.now()));
        Ok(Self {
            inbound,
            outbound,
            admin_listener,
            addresses,
            proxy,
            admin,
            calls,
            root: certificates.root,
            agent_address,
            agent_start_time: config.limits.agent_start_time,
            drain_time: config.limits.drain_time,
        })
    }

    /// Where the listeners are.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The shared parts, for reloads and tests.
    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// The admin view, for reloads.
    pub fn admin(&self) -> &Arc<Admin> {
        &self.admin
    }

    /// Serves. `pace` is that of a child of ours or of somebody else's agent.
    pub fn start(self, pace: ProbePace) -> Running {
        self.start_behind(None, pace)
    }

    /// The same behind the front door of a developer's machine, if there is one.
    pub fn start_behind(self, door: Option<SharedDoor>, pace: ProbePace) -> Running {
        let Self {
            inbound,
            outbound,
            admin_listener,
            addresses,
            proxy,
            admin,
            calls,
            root,
            agent_address,
            agent_start_time,
            drain_time,
        } = self;
        let running = Running {
            addresses,
            proxy: Arc::clone(&proxy),
            admin: Arc::clone(&admin),
            stop_inbound: CancellationToken::new(),
            stop_outbound: calls.stop.gently,
            stop_admin: CancellationToken::new(),
            cut: proxy.sinks.cut.clone(),
            inbound_tasks: TaskTracker::new(),
            outbound_tasks: calls.tasks,
            admin_tasks: TaskTracker::new(),
            drain_time,
            root,
        };
        note_start(&proxy);
        proxy.verifier.keys().warm();
        tokio::spawn(outbound.serve(
            proxy::service(&proxy, Direction::Outbound),
            running.stop_of(&running.stop_outbound),
            running.outbound_tasks.clone(),
        ));
        tokio::spawn(inbound.serve(
            dev::behind(door, proxy::service(&proxy, Direction::Inbound)),
            running.stop_of(&running.stop_inbound),
            running.inbound_tasks.clone(),
        ));
        let answer: Service = Arc::new(move |request, _peer| {
            let admin = Arc::clone(&admin);
            Box::pin(async move { admin.answer(&request) })
        });
        tokio::spawn(admin_listener.serve(
            answer,
            running.stop_of(&running.stop_admin),
            running.admin_tasks.clone(),
        ));
        let gone = running.stop_outbound.clone();
        tokio::spawn(late_agent(
            proxy.gate.clone(),
            agent_address.clone(),
            agent_start_time,
        ));
        let gate = proxy.gate.clone();
        tokio::spawn(async move { gate.watch(&agent_address, pace, gone).await });
        tokio::spawn(sweep(proxy, running.stop_outbound.clone()));
        running
    }
}

/// A serving sidecar.
pub struct Running {
    addresses: Addresses,
    proxy: Arc<Proxy>,
    admin: Arc<Admin>,
    stop_inbound: CancellationToken,
    stop_outbound: CancellationToken,
    stop_admin: CancellationToken,
    cut: CancellationToken,
    inbound_tasks: TaskTracker,
    outbound_tasks: TaskTracker,
    admin_tasks: TaskTracker,
    drain_time: Duration,
    root: Option<CertificateDer<'static>>,
}

impl Running {
    fn stop_of(&self, gently: &CancellationToken) -> Stop {
        Stop {
            gently: gently.clone(),
            at_once: self.cut.clone(),
        }
    }

    /// Where the listeners are.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The root of the local CA, where one was made: what the agent has to trust.
    pub fn root(&self) -> Option<&CertificateDer<'static>> {
        self.root.as_ref()
    }

    /// The shared parts.
    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// The admin view.
    pub fn admin(&self) -> &Arc<Admin> {
        &self.admin
    }

    /// `limits.drain_time`.
    pub fn drain_time(&self) -> Duration {
        self.drain_time
    }

    /// Cancelled: no new inbound request is taken.
    pub fn stop_inbound(&self) -> &CancellationToken {
        &self.stop_inbound
    }

    /// Cancelled: no new outbound call is taken. Inbound is stopped first, since agents call out while they answer.
    pub fn stop_outbound(&self) -> &CancellationToken {
        &self.stop_outbound
    }

    /// Fetches one token for the app before anybody needs it, so that `/readyz` tells of a wrong secret from the start.
    /// Without a route that always runs as the app there may never be such a call, and none is made.
    pub fn try_app_credential(&self) {
        let proxy = Arc::clone(&self.proxy);
        tokio::spawn(async move {
            let scope = proxy.snapshot.load().policy.first_app_scope();
            if let Some(scope) = scope
                && let Err(fault) = proxy.credentials.app().token(&ScopeSet::new([scope])).await
            {
                tracing::error!(%fault, "the app's credential does not work; calls that run as the app will be refused");
            }
        });
    }
}

/// Says once that the agent takes longer than it should; inbound answers 503 until it is there.
async fn late_agent(gate: AgentGate, address: String, patience: Duration) {
    if tokio::time::timeout(patience, gate.settled())
        .await
        .is_err()
    {
        tracing::error!(%address, seconds = patience.as_secs(), "the agent does not accept connections yet (limits.agent_start_time); does it listen on DATABRICKS_APP_PORT of its own environment?");
    }
}

fn note_start(proxy: &Proxy) {
    let snapshot = proxy.snapshot.load();
    proxy.sinks.audit.note(Record::new(Event::Start));
    proxy
        .sinks
        .audit
        .note(policy_record(Event::PolicyLoaded, snapshot.policy.origin()));
    if let Some(until) = snapshot.policy.observed_until() {
        tracing::warn!(%until, "mode: observe: would-be denials go through as whoever calls until then");
    }
    if snapshot.policy.origin() == PolicyOrigin::Starter {
        tracing::warn!(
            "no routes are configured: the built-in starter policy is in force (every operation but those of admin effect, as whoever calls); next step: `valetkey learn`"
        );
    }
}

/// A record that says which policy is, or is not, in force.
pub fn policy_record(event: Event, origin: PolicyOrigin) -> Record {
    let mut record = Record::new(event);
    record.reason = Some(Text::Fixed(origin.as_str()));
    record
}

async fn sweep(proxy: Arc<Proxy>, stop: CancellationToken) {
    let mut every = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        for session in proxy.sessions.sweep() {
            proxy
                .sinks
                .audit
                .note(inbound::session_record(Event::SessionClosed, &session));
        }
    }
}
