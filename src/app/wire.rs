//! From the configuration to the parts that `app.rs` puts together: listeners, clients, settings of each room.
//!
//! The top floor knows the rooms, never the reverse: each room defines its settings, and this file fills them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::config::words::{self, Exchange};
use crate::config::{Config, limits::Limits};
use crate::domain::clock::{Clock, SignedDuration};
use crate::domain::headers::IdentityHeaders;
use crate::domain::identity::Origin;
use crate::domain::problem::Problem;
use crate::domain::template::PathTemplate;
use crate::proxy::record::Sinks;
use crate::proxy::way;
use crate::proxy::{FlowSettings, UserMode};
use crate::runtime::app_tokens::{AppScopes, AppTokens};
use crate::runtime::audit_copy::CopyFormat;
use crate::runtime::audit_key;
use crate::runtime::audit_writer::{
    AuditSettings, AuditSync, AuditWriter, CheckpointSettings, OnFailure,
};
use crate::runtime::credential::CredentialSource;
use crate::runtime::discovery::{Discoverer, Pins};
use crate::runtime::exchanged_tokens::ExchangedTokens;
use crate::runtime::http_client::{ClientLimits, HttpSend, HyperSend};
use crate::runtime::key_store::{KeyStore, KeyStoreSettings};
use crate::runtime::listener::{Listener, ListenerLimits};
use crate::runtime::metrics::Metrics;
use crate::runtime::session::{SessionFormat, SessionSettings};
use crate::runtime::tls;
use crate::runtime::token_endpoint::{
    ClientCredential, EndpointUrl, TokenEndpoint, TokenEndpointSettings,
};
use crate::runtime::upstream::{Door, Doors};
use crate::runtime::verifier::{Verifier, VerifierSettings};

use super::in_file;

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

pub(super) fn listener_limits(limits: &Limits) -> ListenerLimits {
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

/// Everything that knows the issuer: verification on the way in, credentials on the way out.
pub(super) fn identity(
    config: &Config,
    http: &Arc<dyn HttpSend>,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> Result<(Verifier, CredentialSource), Vec<Problem>> {
    let discoverer = discoverer(config, http)?;
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
    let (endpoint, app) = app_tokens(config, discoverer, http, clock, metrics);
    let exchange = (config.users.exchange == Exchange::Rfc8693)
        .then(|| ExchangedTokens::new(endpoint, Arc::clone(clock)));
    Ok((verifier, CredentialSource::new(app, exchange)))
}

/// Finds the issuer, its keys and its token endpoint; nothing is asked yet.
pub fn discoverer(
    config: &Config,
    http: &Arc<dyn HttpSend>,
) -> Result<Arc<Discoverer>, Vec<Problem>> {
    let workspace = &config.workspace;
    let pins = Pins {
        issuer: workspace.issuer.clone(),
        jwks_uri: workspace.jwks_uri.clone(),
        token_endpoint: workspace.token_endpoint.clone(),
    };
    Discoverer::new(workspace.origin.clone(), pins, Arc::clone(http))
        .map(Arc::new)
        .map_err(|fault| vec![Problem::new("workspace", fault.to_string())])
}

/// The app's tokens, and the endpoint that they come from.
pub fn app_tokens(
    config: &Config,
    discoverer: Arc<Discoverer>,
    http: &Arc<dyn HttpSend>,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> (Arc<TokenEndpoint>, AppTokens) {
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
    let tokens = AppTokens::new(Arc::clone(&endpoint), scopes, Arc::clone(clock));
    (endpoint, tokens)
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

pub(super) fn audit_settings(config: &Config) -> Result<AuditSettings, Vec<Problem>> {
    let audit = &config.audit;
    let key = audit_key::load(audit.key_file.as_deref()).map_err(|fault| {
        let path = audit.key_file.as_deref().map(|path| path.display());
        let path = path.map_or_else(String::new, |path| format!("{path}: "));
        vec![Problem::new("audit.key_file", format!("{path}{fault}"))]
    })?;
    let public = key.public();
    let from = audit.key_file.as_deref().map_or_else(
        || "made for this run".into(),
        |path| path.display().to_string(),
    );
    tracing::info!(key_id = public.id(), public_key = %public, from, "audit checkpoints are signed by this key");
    Ok(AuditSettings {
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
        stdout: audit.stdout.map(|format| match format {
            words::AuditFormat::Json => CopyFormat::Json,
            words::AuditFormat::Ocsf => CopyFormat::Ocsf,
        }),
        checkpoint: Some(CheckpointSettings {
            records: audit.checkpoint_records as u64,
            interval: audit.checkpoint_interval,
            key: Arc::new(key),
        }),
        ..AuditSettings::new(audit.file.clone())
    })
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
        expiry_warning: SignedDuration::try_from(config.users.session.expiry_warning)
            .unwrap_or(SignedDuration::ZERO),
        inspected_body_bytes_max: config.limits.inspected_body_bytes,
        target_bytes_max: config.limits.request_target_bytes,
        outbound_address,
    })
}

/// Opens the audit log.
pub(super) fn sinks(
    config: &Config,
    clock: &Arc<dyn Clock>,
    metrics: Metrics,
) -> Result<Sinks, Vec<Problem>> {
    let settings = audit_settings(config)?;
    let audit = AuditWriter::start(&settings, Arc::clone(clock), metrics.clone())
        .map_err(|fault| vec![Problem::new("audit.file", fault.to_string())])?;
    Ok(Sinks {
        audit: Arc::new(audit),
        metrics,
        cut: CancellationToken::new(),
    })
}
