//! Bind all, then wire, then run: from a configuration to a running sidecar.
//!
//! Nothing is served before every listener is bound, the audit log is open and the policy compiled. The drain order is
//! inbound, then the agent, then outbound, then the audit log. `cli.rs` calls it; `reload.rs` swaps the policy.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::words::{self, Exchange, Presigned};
use crate::config::{Config, limits::Limits};
use crate::domain::audit::{Event, Record, Text};
use crate::domain::catalog::Catalog;
use crate::domain::clock::{Clock, SignedDuration};
use crate::domain::compile;
use crate::domain::headers::IdentityHeaders;
use crate::domain::policy::Policy;
use crate::domain::problem::Problem;
use crate::domain::route::PolicyOrigin;
use crate::domain::template::PathTemplate;
use crate::proxy::admin::{Addresses, Admin};
use crate::proxy::local_oidc::{LocalClient, LocalOidc};
use crate::proxy::record::Sinks;
use crate::proxy::{self, FlowSettings, Proxy, Snapshot, UserMode, inbound};
use crate::runtime::agent_gate::{AgentGate, ProbePace};
use crate::runtime::app_tokens::{AppScopes, AppTokens};
use crate::runtime::audit_writer::{AuditSettings, AuditSync, AuditWriter, OnFailure};
use crate::runtime::credential::CredentialSource;
use crate::runtime::discovery::{Discoverer, Pins};
use crate::runtime::exchanged_tokens::ExchangedTokens;
use crate::runtime::follow_up::FollowUps;
use crate::runtime::http_client::{ClientLimits, HttpSend, HyperSend};
use crate::runtime::key_store::{KeyStore, KeyStoreSettings};
use crate::runtime::listener::{Listener, ListenerLimits};
use crate::runtime::metrics::{Direction, Metrics};
use crate::runtime::session::{SessionFormat, SessionSettings, SessionTable};
use crate::runtime::tls;
use crate::runtime::token_endpoint::{
    ClientCredential, EndpointUrl, TokenEndpoint, TokenEndpointSettings,
};
use crate::runtime::upstream::Door;
use crate::runtime::verifier::{Verifier, VerifierSettings};

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
    let presigned = config.outbound.presigned == Presigned::Allow;
    match config.policy_origin {
        PolicyOrigin::Starter => Ok(compile::starter(catalog, presigned)),
        PolicyOrigin::Routes => compile::compile(&config.routes, catalog, presigned)
            .map_err(|problems| in_file(problems, config.source.as_deref())),
    }
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
        let (outbound, inbound, admin_listener) = bind_all(config).await?;
        let addresses = Addresses {
            inbound: inbound.address(),
            outbound: outbound.address(),
            admin: admin_listener.address(),
        };
        let metrics = Metrics::new().map_err(|fault| one("metrics", fault.to_string()))?;
        metrics.policy_starter(policy.origin() == PolicyOrigin::Starter);
        let http = http_client(config)?;
        let workspace = Door::to_origin(Arc::clone(&http), &config.workspace.origin)
            .map_err(|fault| one("workspace.host", fault.to_string()))?;
        let agent = Door::to_agent_at(Arc::clone(&http), &config.inbound.agent)
            .map_err(|fault| one("inbound.agent", fault.to_string()))?;
        let (verifier, credentials) = identity(config, &http, &clock, &metrics)?;
        let sessions = SessionTable::new(
            session_settings(config, addresses.outbound),
            Arc::clone(&clock),
            metrics.clone(),
        )
        .map_err(|fault| one("users.session", fault.to_string()))?;
        let audit =
            AuditWriter::start(&audit_settings(config), Arc::clone(&clock), metrics.clone())
                .map_err(|fault| one("audit.file", fault.to_string()))?;
        let agent_address = agent.authority().to_owned();
        let slots = || Arc::new(Semaphore::new(config.limits.requests));
        let proxy = Arc::new(Proxy {
            settings: flow_settings(config, addresses.outbound)?,
            snapshot: ArcSwap::from_pointee(Snapshot::new(policy, config.users.scopes.clone(), 1)),
            sessions,
            verifier,
            credentials,
            follow_ups: FollowUps::default(),
            sinks: Sinks {
                audit: Arc::new(audit),
                metrics,
            },
            workspace,
            workspace_origin: config.workspace.origin.to_string(),
            agent,
            gate: AgentGate::new(),
            local: LocalOidc::new(
                addresses.outbound,
                config.workspace.workspace_id.clone(),
                local_client,
            ),
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
        let Self {
            inbound,
            outbound,
            admin_listener,
            addresses,
            proxy,
            admin,
            agent_address,
            agent_start_time,
            drain_time,
        } = self;
        let running = Running {
            addresses,
            proxy: Arc::clone(&proxy),
            admin: Arc::clone(&admin),
            stop_inbound: CancellationToken::new(),
            stop_outbound: CancellationToken::new(),
            stop_admin: CancellationToken::new(),
            inbound_tasks: TaskTracker::new(),
            outbound_tasks: TaskTracker::new(),
            admin_tasks: TaskTracker::new(),
            drain_time,
        };
        note_start(&proxy);
        proxy.verifier.keys().warm();
        tokio::spawn(outbound.serve(
            proxy::service(&proxy, Direction::Outbound),
            running.stop_outbound.clone(),
            running.outbound_tasks.clone(),
        ));
        tokio::spawn(inbound.serve(
            proxy::service(&proxy, Direction::Inbound),
            running.stop_inbound.clone(),
            running.inbound_tasks.clone(),
        ));
        let answer = move |request: http::Request<hyper::body::Incoming>, _peer| {
            let admin = Arc::clone(&admin);
            async move { admin.answer(&request) }
        };
        tokio::spawn(admin_listener.serve(
            answer,
            running.stop_admin.clone(),
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
    inbound_tasks: TaskTracker,
    outbound_tasks: TaskTracker,
    admin_tasks: TaskTracker,
    drain_time: Duration,
}

impl Running {
    /// Where the listeners are.
    pub fn addresses(&self) -> Addresses {
        self.addresses
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

    /// Waits until inbound, then outbound, has nothing running. Looked at only after `stop_inbound` is cancelled; stops
    /// outbound by itself once inbound is idle.
    pub fn drained(&self) -> impl Future<Output = ()> + Send + 'static {
        let (inbound, outbound, tunnels) = (
            self.inbound_tasks.clone(),
            self.outbound_tasks.clone(),
            self.proxy.tunnels.clone(),
        );
        let (stop_inbound, stop_outbound) = (self.stop_inbound.clone(), self.stop_outbound.clone());
        async move {
            stop_inbound.cancelled().await;
            for tasks in [&inbound, &tunnels] {
                tasks.close();
                tasks.wait().await;
            }
            stop_outbound.cancel();
            outbound.close();
            outbound.wait().await;
        }
    }

    /// The end: stops what is left, writes the last record, closes the audit log.
    pub async fn finish(self) {
        self.stop_inbound.cancel();
        self.stop_outbound.cancel();
        self.stop_admin.cancel();
        let audit = &self.proxy.sinks.audit;
        audit.note(Record::new(Event::Stop));
        if let Err(fault) = audit.close().await {
            tracing::error!(%fault, "the audit log could not be closed in good order");
        }
        self.admin_tasks.close();
    }

    /// `serve`: drains within the drain time, then ends.
    pub async fn stop(self) {
        self.stop_inbound.cancel();
        if tokio::time::timeout(self.drain_time, self.drained())
            .await
            .is_err()
        {
            tracing::warn!(
                seconds = self.drain_time.as_secs(),
                "the drain time is over; requests in flight are cut"
            );
        }
        self.finish().await;
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
    for warning in compile::warnings(&snapshot.policy) {
        tracing::warn!(%warning, "policy");
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
    record.reason = Some(Text::Fixed(match origin {
        PolicyOrigin::Routes => "routes",
        PolicyOrigin::Starter => "starter",
    }));
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

/// Binds all three, or says of each why not.
async fn bind_all(config: &Config) -> Result<(Listener, Listener, Listener), Vec<Problem>> {
    let limits = listener_limits(&config.limits);
    let bind = async |key: &str, address: SocketAddr| {
        Listener::bind(address, limits).await.map_err(|fault| {
            Problem::new(key, format!("cannot listen on {address}: {fault}"))
                .hint("stop what listens there, or choose another address")
        })
    };
    let outbound = bind("outbound.listen", config.outbound.listen).await;
    let inbound = bind("inbound.listen", config.inbound.listen).await;
    let admin = bind("admin.listen", config.admin.listen).await;
    match (outbound, inbound, admin) {
        (Ok(outbound), Ok(inbound), Ok(admin)) => Ok((outbound, inbound, admin)),
        (outbound, inbound, admin) => Err([outbound.err(), inbound.err(), admin.err()]
            .into_iter()
            .flatten()
            .collect()),
    }
}

fn listener_limits(limits: &Limits) -> ListenerLimits {
    ListenerLimits {
        connections_max: limits.connections,
        first_head_time: limits.request_head_time,
        idle_time: limits.idle_connection_time,
        head_bytes_max: limits.request_head_bytes,
        headers_max: limits.request_headers,
    }
}

fn http_client(config: &Config) -> Result<Arc<dyn HttpSend>, Vec<Problem>> {
    let roots = tls::client_config(config.workspace.ca_file.as_deref())
        .map_err(|fault| vec![Problem::new("workspace.ca_file", fault.to_string())])?;
    let limits = ClientLimits {
        connect_time: config.limits.connect_time,
        response_head_time: config.limits.response_head_time,
        idle_connection_time: config.limits.idle_connection_time,
    };
    Ok(Arc::new(HyperSend::new(roots, limits)))
}

/// Everything that knows the issuer: verification on the way in, credentials on the way out.
fn identity(
    config: &Config,
    http: &Arc<dyn HttpSend>,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> Result<(Verifier, CredentialSource), Vec<Problem>> {
    let workspace = &config.workspace;
    let pins = Pins {
        issuer: workspace.issuer.clone(),
        jwks_uri: workspace.jwks_uri.clone(),
        token_endpoint: workspace.token_endpoint.clone(),
    };
    let discoverer = Discoverer::new(workspace.origin.clone(), pins, Arc::clone(http))
        .map_err(|fault| vec![Problem::new("workspace", fault.to_string())])?;
    let discoverer = Arc::new(discoverer);
    let keys = KeyStore::new(
        KeyStoreSettings::default(),
        Arc::clone(&discoverer),
        Arc::clone(http),
        Arc::clone(clock),
        metrics.clone(),
    );
    let mut settings = VerifierSettings::new(config.users.audiences.clone());
    settings.algorithms = config
        .users
        .algorithms
        .iter()
        .map(|a| (*a).into())
        .collect();
    settings.types.clone_from(&config.users.token_types);
    settings.leeway = SignedDuration::try_from(config.users.leeway).unwrap_or(settings.leeway);
    let verifier = Verifier::new(settings, keys, Arc::clone(clock), metrics.clone());
    let client = config
        .app
        .client_id
        .as_ref()
        .zip(config.app.client_secret.as_ref());
    let client = client.map(|(id, secret)| ClientCredential {
        id: id.as_str().to_owned(),
        secret: Arc::clone(secret),
    });
    let url: EndpointUrl = Box::new(move || {
        let discoverer = Arc::clone(&discoverer);
        Box::pin(async move {
            discoverer
                .token_endpoint()
                .await
                .map_err(|fault| fault.to_string())
        })
    });
    let endpoint = Arc::new(TokenEndpoint::new(
        TokenEndpointSettings::for_client(client),
        url,
        Arc::clone(http),
        Arc::clone(clock),
        metrics.clone(),
    ));
    let scopes = match config.app.scopes {
        words::AppScopes::PerRoute => AppScopes::PerRoute,
        words::AppScopes::AllApis => AppScopes::AllApis,
    };
    let exchange = (config.users.exchange == Exchange::Rfc8693)
        .then(|| ExchangedTokens::new(Arc::clone(&endpoint), Arc::clone(clock)));
    Ok((
        verifier,
        CredentialSource::new(
            AppTokens::new(endpoint, scopes, Arc::clone(clock)),
            exchange,
        ),
    ))
}

fn session_settings(config: &Config, outbound: SocketAddr) -> SessionSettings {
    let session = &config.users.session;
    SessionSettings {
        ttl: session.ttl,
        linger: session.linger,
        format: match session.format {
            words::SessionFormat::Opaque => SessionFormat::Opaque,
            words::SessionFormat::Jwt => SessionFormat::Jwt,
        },
        sessions_max: session.sessions_max,
        issuer: format!("http://{outbound}/oidc"),
    }
}

fn audit_settings(config: &Config) -> AuditSettings {
    let audit = &config.audit;
    AuditSettings {
        on_failure: match audit.on_failure {
            words::OnFailure::Refuse => OnFailure::Refuse,
            words::OnFailure::Continue => OnFailure::Continue,
        },
        sync: match audit.sync {
            words::AuditSync::Record => AuditSync::Record,
            words::AuditSync::Interval => AuditSync::Interval,
            words::AuditSync::None => AuditSync::None,
        },
        rotate_bytes: audit.rotate_bytes,
        rotate_keep: audit.rotate_keep,
        ..AuditSettings::new(audit.file.clone())
    }
}

fn flow_settings(
    config: &Config,
    outbound_address: SocketAddr,
) -> Result<FlowSettings, Vec<Problem>> {
    let inbound = &config.inbound;
    let mut problems = Vec::new();
    let public = inbound.public.iter().filter_map(|text| {
        PathTemplate::parse(text)
            .map_err(|fault| {
                problems.push(Problem::new("inbound.public", format!("`{text}`: {fault}")))
            })
            .ok()
    });
    let public = public.collect();
    if !problems.is_empty() {
        return Err(in_file(problems, config.source.as_deref()));
    }
    Ok(FlowSettings {
        user: match inbound.user {
            words::UserMode::Required => UserMode::Required,
            words::UserMode::Optional => UserMode::Optional,
            words::UserMode::None => UserMode::None,
        },
        public,
        identity_headers: IdentityHeaders::new(
            inbound.token_header.clone(),
            inbound.pass_authorization,
        ),
        workspace_id: config.workspace.workspace_id.clone(),
        inspected_body_bytes_max: config.limits.inspected_body_bytes,
        target_bytes_max: config.limits.request_target_bytes,
        requests_max: config.limits.requests,
        outbound_address,
    })
}
