//! From the configuration to the parts that `app.rs` puts together: listeners, clients, settings of each room.
//!
//! The top floor knows the rooms, never the reverse: each room defines its settings, and this file fills them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::sync::Semaphore;

use crate::config::words::{self, Exchange};
use crate::config::{Config, limits::Limits};
use crate::domain::clock::{Clock, SignedDuration, SystemClock};
use crate::domain::destination::Destination;
use crate::domain::headers::IdentityHeaders;
use crate::domain::identity::Origin;
use crate::domain::problem::Problem;
use crate::domain::template::PathTemplate;
use crate::domain::tunnel::Host;
use crate::proxy::connect::Forward;
use crate::proxy::way::{self, StandIn};
use crate::proxy::{FlowSettings, UserMode};
use crate::runtime::app_tokens::{AppScopes, AppTokens};
use crate::runtime::audit_writer::{AuditSettings, AuditSync, OnFailure};
use crate::runtime::credential::CredentialSource;
use crate::runtime::discovery::{Discoverer, Pins};
use crate::runtime::exchanged_tokens::ExchangedTokens;
use crate::runtime::http_client::{ClientLimits, HttpSend, HyperSend};
use crate::runtime::key_store::{KeyStore, KeyStoreSettings};
use crate::runtime::listener::{Listener, ListenerLimits, Serving};
use crate::runtime::local_ca::LocalCa;
use crate::runtime::metrics::Metrics;
use crate::runtime::session::{SessionFormat, SessionSettings};
use crate::runtime::tls;
use crate::runtime::token_endpoint::{
    ClientCredential, EndpointUrl, TokenEndpoint, TokenEndpointSettings,
};
use crate::runtime::trust_bundle::TrustBundle;
use crate::runtime::upstream::{Door, Doors};
use crate::runtime::verifier::{Verifier, VerifierSettings};

use super::{Calls, in_file};

/// Binds all three, or says of each why not.
pub(super) async fn bind_all(
    config: &Config,
    tls: Option<Arc<ServerConfig>>,
) -> Result<(Listener, Listener, Listener), Vec<Problem>> {
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
        (Ok(outbound), Ok(inbound), Ok(admin)) => Ok((outbound.with_tls(tls), inbound, admin)),
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

pub(super) fn http_client(config: &Config) -> Result<Arc<dyn HttpSend>, Vec<Problem>> {
    let ca_file = config.workspace.ca_file.as_deref();
    client_that_trusts(config, ca_file, "workspace.ca_file")
}

/// The ways that real credentials go. An upstream with roots of its own has a client of its own; it is the only one that
/// trusts them.
pub(super) fn doors(config: &Config, http: &Arc<dyn HttpSend>) -> Result<Doors, Vec<Problem>> {
    let door = |http: Arc<dyn HttpSend>, origin: &Origin, key: &str| {
        Door::to_origin(http, origin).map_err(|fault| vec![Problem::new(key, fault.to_string())])
    };
    let workspace = door(Arc::clone(http), &config.workspace.origin, "workspace.host")?;
    let mut upstreams = BTreeMap::new();
    for upstream in &config.outbound.upstreams {
        let key = "outbound.upstreams";
        let http = match upstream.ca_file.as_deref() {
            Some(file) => client_that_trusts(config, Some(file), key)?,
            None => Arc::clone(http),
        };
        let there = door(http, &upstream.reached.origin, key)?;
        upstreams.insert(Arc::clone(&upstream.reached.name), there);
    }
    Ok(Doors::new(workspace, upstreams))
}

fn client_that_trusts(
    config: &Config,
    ca_file: Option<&Path>,
    key: &str,
) -> Result<Arc<dyn HttpSend>, Vec<Problem>> {
    let roots =
        tls::client_config(ca_file).map_err(|fault| vec![Problem::new(key, fault.to_string())])?;
    let limits = ClientLimits {
        connect_time: config.limits.connect_time,
        response_head_time: config.limits.response_head_time,
        idle_connection_time: config.limits.idle_connection_time,
    };
    Ok(Arc::new(HyperSend::new(roots, limits)))
}

/// What of the agent's side is made of certificates.
#[derive(Default)]
pub(super) struct Certificates {
    /// Of the listener itself.
    pub(super) listener: Option<Arc<ServerConfig>>,
    /// Of the hosts that tunnels end here for.
    pub(super) stand_ins: Vec<Arc<StandIn>>,
    /// What clients have to trust; its key is gone.
    pub(super) root: Option<CertificateDer<'static>>,
}

/// Makes the local CA and all that it ever signs.
pub(super) fn certificates(config: &Config) -> Result<Certificates, Vec<Problem>> {
    let outbound = &config.outbound;
    if !outbound.tls && !outbound.forward {
        let unused = outbound.trust_file.is_some();
        let problem = Problem::new("outbound.trust_file", "there is no local CA to be trusted");
        let hint = "set outbound.tls or outbound.forward to on, or remove the key";
        return if unused {
            Err(vec![problem.hint(hint)])
        } else {
            Ok(Certificates::default())
        };
    }
    let fault = |key: &str, fault: String| vec![Problem::new(key, fault)];
    let key = if outbound.tls {
        "outbound.tls"
    } else {
        "outbound.forward"
    };
    // The clients' clocks are what a certificate must agree with, so this is the real time also in tests.
    let ca = LocalCa::new(SystemClock.now()).map_err(|f| fault(key, f.to_string()))?;
    let mut made = Certificates {
        root: Some(ca.certificate()),
        ..Certificates::default()
    };
    write_trust_file(config, &ca.certificate())?;
    if outbound.tls {
        let names = ["127.0.0.1", "::1", "localhost"];
        let server = ca.serve_as(&names).map_err(|f| fault(key, f.to_string()))?;
        made.listener = Some(server);
    }
    if outbound.forward {
        let upstreams = config.outbound.destinations();
        let workspace = (
            "workspace.host",
            &config.workspace.origin,
            Destination::Workspace,
        );
        let all = upstreams.iter().map(|u| {
            let to = Destination::Upstream(Arc::clone(u));
            ("outbound.upstreams", &u.origin, to)
        });
        for (key, origin, destination) in std::iter::once(workspace).chain(all) {
            let place = way::place(origin).map_err(|f| fault(key, f.to_string()))?;
            let name = match &place.host {
                Host::Name(name) => name.to_string(),
                Host::Address(address) => address.to_string(),
            };
            let tls = ca
                .serve_as(&[&name])
                .map_err(|f| fault(key, f.to_string()))?;
            made.stand_ins.push(Arc::new(StandIn {
                destination,
                place,
                tls,
            }));
        }
    }
    Ok(made)
}

/// The forward proxy, if there is to be one.
pub(super) fn forward(
    config: &Config,
    stand_ins: Vec<Arc<StandIn>>,
    calls: &Calls,
) -> Option<Arc<Forward>> {
    config.outbound.forward.then(|| {
        Arc::new(Forward {
            stand_ins,
            allowed: config.outbound.allow_hosts.clone(),
            slots: Arc::new(Semaphore::new(config.limits.tunnels)),
            connect_time: config.limits.connect_time,
            idle_time: config.limits.tunnel_idle_time,
            serving: Serving::new(listener_limits(&config.limits), calls.stop.clone()),
            tasks: calls.tasks.clone(),
        })
    })
}

/// Writes the root and the public ones for an agent that somebody else starts. Readers see the old file or the new one.
fn write_trust_file(config: &Config, root: &CertificateDer<'static>) -> Result<(), Vec<Problem>> {
    let Some(file) = &config.outbound.trust_file else {
        return Ok(());
    };
    let problem = |message: String| vec![Problem::new("outbound.trust_file", message)];
    let bundle = TrustBundle::of_the_system();
    if bundle.is_empty() {
        let message = "this system has no public roots to put beside the local CA";
        let problem = Problem::new("outbound.trust_file", message);
        let hint = "install ca-certificates, or set SSL_CERT_FILE to a bundle";
        return Err(vec![problem.hint(hint)]);
    }
    let mut beside = file.clone().into_os_string();
    beside.push(".new");
    std::fs::write(&beside, bundle.with_own(root))
        .and_then(|()| std::fs::rename(&beside, file))
        .map_err(|fault| problem(format!("cannot be written: {fault}")))
}

/// Everything that knows the issuer: verification on the way in, credentials on the way out.
pub(super) fn identity(
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

pub(super) fn session_settings(config: &Config, outbound: SocketAddr) -> SessionSettings {
    let session = &config.users.session;
    SessionSettings {
        ttl: session.ttl,
        linger: session.linger,
        format: match session.format {
            words::SessionFormat::Opaque => SessionFormat::Opaque,
            words::SessionFormat::Jwt => SessionFormat::Jwt,
        },
        sessions_max: session.sessions_max,
        // Where the agent finds the keys by the way that it is wired.
        issuer: if config.outbound.forward {
            format!("{}/oidc", way::https(&config.workspace.origin))
        } else {
            format!("{}/oidc", way::direct_origin(outbound, config.outbound.tls))
        },
    }
}

pub(super) fn audit_settings(config: &Config) -> AuditSettings {
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

pub(super) fn flow_settings(
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
        outbound_address,
    })
}
