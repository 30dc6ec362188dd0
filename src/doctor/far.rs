//! The workspace's side: host and trust, clock, discovery, keys, the app's credential, its resources, the upstreams.
//!
//! What depends on something that failed is skipped, so that one fault is told once. Read `resources.rs` next.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::header::DATE;
use http::{Request, Response};

use crate::app::wire;
use crate::config::Config;
use crate::domain::clock::{Clock, SignedDuration, http_date};
use crate::domain::jwks::KeySet;
use crate::domain::policy::Policy;
use crate::domain::route::RunAs;
use crate::domain::scope::ScopeSet;
use crate::runtime::app_tokens::AppTokens;
use crate::runtime::discovery::{Discoverer, METADATA_BYTES_MAX, METADATA_TIME_MAX, fetch};
use crate::runtime::http_client::{Body, ClientLimits, HttpSend, HyperSend, SendFault, empty};
use crate::runtime::metrics::Metrics;
use crate::runtime::tls;

use super::{Finding, resources};

/// Time for each answer: nobody waits for a report as long as for a query.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Where every workspace answers without a credential.
const OPEN_PATH: &str = "/oidc/.well-known/oauth-authorization-server";
/// Everything that needs the workspace, in the order of the report.
const NEEDS_HOST: [&str; 4] = ["clock", "discovery", "keys", "app credential"];

const NETWORK: &str = "check workspace.host, DNS and what lets this machine out; with roots of its own: workspace.ca_file";

pub(super) async fn examine(
    config: &Config,
    policy: Option<&Policy>,
    clock: Arc<dyn Clock>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let http = match client(config, config.workspace.ca_file.as_deref()) {
        Ok(http) => http,
        Err(fault) => return unreachable(Finding::fail("host", fault, "check workspace.ca_file")),
    };
    let origin = &config.workspace.origin;
    let answer = match ask(&*http, &format!("{origin}{OPEN_PATH}")).await {
        Ok(answer) => answer,
        Err(fault) => {
            return unreachable(Finding::fail(
                "host",
                format!("{origin}: {}", whole(&fault)),
                NETWORK,
            ));
        }
    };
    let secured = if origin.scheme() == "https" {
        "a verified certificate"
    } else {
        "no TLS, on this machine"
    };
    let status = answer.status().as_u16();
    findings.push(Finding::ok(
        "host",
        format!("{origin} answers ({status}), {secured}"),
    ));
    findings.push(clock_skew(&answer, config, &*clock));
    match wire::discoverer(config, &http) {
        Err(problems) => {
            let told = problems
                .iter()
                .map(|p| Finding::fail("discovery", p.to_string(), NETWORK));
            findings.extend(told);
        }
        Ok(discoverer) => {
            findings.extend(issuer(&discoverer, &*http).await);
            if let Some(policy) = policy {
                let metrics = Metrics::new();
                let tokens = metrics
                    .ok()
                    .map(|metrics| wire::app_tokens(config, discoverer, &http, &clock, &metrics).1);
                if let Some(tokens) = tokens {
                    findings.extend(as_the_app(config, policy, &*http, &tokens).await);
                }
            }
        }
    }
    findings.extend(upstreams(config).await);
    findings
}

fn unreachable(host: Finding) -> Vec<Finding> {
    let skipped = NEEDS_HOST.map(|name| Finding::skip(name, "the workspace cannot be reached"));
    std::iter::once(host).chain(skipped).collect()
}

fn client(config: &Config, ca_file: Option<&Path>) -> Result<Arc<dyn HttpSend>, String> {
    let roots = tls::client_config(ca_file).map_err(|fault| fault.to_string())?;
    let limits = ClientLimits {
        connect_time: config.limits.connect_time,
        response_head_time: ANSWER_TIME,
        idle_connection_time: config.limits.idle_connection_time,
    };
    Ok(Arc::new(HyperSend::new(roots, limits)))
}

/// One GET without a credential.
async fn ask(http: &dyn HttpSend, url: &str) -> Result<Response<Body>, SendFault> {
    let request = Request::get(url).body(empty());
    let request = request.map_err(|fault| SendFault::Broken(fault.into()))?;
    http.send(request).await
}

/// A fault with its causes, in one line.
pub(super) fn whole(fault: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(fault.source(), |cause| cause.source());
    let causes = causes.map(ToString::to_string);
    std::iter::once(fault.to_string())
        .chain(causes)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Tokens are refused for their times by our clock, and made by the workspace's.
fn clock_skew(answer: &Response<Body>, config: &Config, clock: &dyn Clock) -> Finding {
    const NAME: &str = "clock";
    let theirs = { answer.headers().get(DATE) }
        .and_then(|date| date.to_str().ok())
        .and_then(http_date);
    let Some(theirs) = theirs else {
        let detail = "the workspace does not say its time";
        return Finding::warn(NAME, detail, "compare this machine's clock by hand");
    };
    let skew = clock.now().duration_since(theirs);
    let leeway = SignedDuration::try_from(config.users.leeway).unwrap_or(SignedDuration::ZERO);
    let (seconds, leeway_seconds) = (skew.as_secs(), leeway.as_secs());
    let detail = format!("{seconds} s ahead of the workspace; users.leeway is {leeway_seconds} s");
    let remedy = "set this machine's clock (NTP)";
    // The header is whole seconds, and took a moment to get here.
    if skew.abs() <= SignedDuration::from_secs(2).max(leeway / 2) {
        Finding::ok(NAME, detail)
    } else if skew.abs() <= leeway {
        Finding::warn(NAME, detail, remedy)
    } else {
        Finding::fail(NAME, format!("{detail}: good tokens are refused"), remedy)
    }
}

async fn issuer(discoverer: &Discoverer, http: &dyn HttpSend) -> Vec<Finding> {
    let pin = "it can be pinned under workspace; look at the document with curl";
    let endpoint = match discoverer.token_endpoint().await {
        Ok(endpoint) => Ok(endpoint),
        Err(fault) => Err(Finding::fail("discovery", fault.to_string(), pin)),
    };
    let (issuer, jwks) = match discoverer.keys_at().await {
        Ok(found) => found,
        Err(fault) => {
            let failed = Finding::fail("discovery", fault.to_string(), pin);
            return vec![failed, Finding::skip("keys", "nobody knows where they are")];
        }
    };
    let discovery = endpoint.map_or_else(
        |failed| failed,
        |endpoint| {
            Finding::ok(
                "discovery",
                format!("issuer {issuer}, token endpoint {endpoint}"),
            )
        },
    );
    let document = fetch(http, &jwks, METADATA_BYTES_MAX, METADATA_TIME_MAX).await;
    let keys = match document {
        Err(fault) => Finding::fail(
            "keys",
            format!("{jwks} {fault}"),
            "users cannot be verified without them",
        ),
        Ok(document) => match KeySet::from_jwks(&issuer, &document) {
            Ok(keys) => {
                let live = keys.live(crate::domain::clock::Timestamp::MIN);
                Finding::ok("keys", format!("{live} usable, at {jwks}"))
            }
            Err(fault) => Finding::fail(
                "keys",
                format!("{jwks}: {fault}"),
                "look at the document with curl; workspace.jwks_uri names another",
            ),
        },
    };
    vec![discovery, keys]
}

/// The credential, and what it opens.
async fn as_the_app(
    config: &Config,
    policy: &Policy,
    http: &dyn HttpSend,
    tokens: &AppTokens,
) -> Vec<Finding> {
    const NAME: &str = "app credential";
    if config.app.client_id.is_none() {
        let runs_as_app = |run_as| matches!(run_as, RunAs::App);
        let needed = policy
            .routes()
            .iter()
            .any(|route| runs_as_app(route.run_as));
        let remedy = "set DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, or app.client_id and app.client_secret";
        let (none, skipped) = (
            "none is configured",
            Finding::skip("resources", "there is no app credential"),
        );
        return if needed {
            vec![
                Finding::fail(NAME, format!("{none}, and routes run as the app"), remedy),
                skipped,
            ]
        } else {
            vec![
                Finding::warn(NAME, format!("{none}: no call can run as the app"), remedy),
                skipped,
            ]
        };
    }
    let scope = policy.first_app_scope();
    let asked = ScopeSet::new(scope);
    let token = match tokens.token(&asked).await {
        Ok(token) => token,
        Err(fault) => {
            let remedy = "check client id and secret: the secret may be expired or deleted, the service principal not in this workspace";
            return vec![
                Finding::fail(NAME, fault.to_string(), remedy),
                Finding::skip("resources", "the app got no token"),
            ];
        }
    };
    let scopes = token.scopes();
    let detail = format!("a token for `{scopes}`, until {}", token.expires());
    let mut findings = vec![Finding::ok(NAME, detail)];
    findings.extend(resources::examine(config, policy, http, tokens).await);
    findings
}

/// Without a credential: any answer proves host and trust, and the other app's front door is its own judge.
async fn upstreams(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for upstream in &config.outbound.upstreams {
        let origin = &upstream.reached.origin;
        let name = format!("upstream {}", upstream.reached.name);
        let roots = upstream
            .ca_file
            .as_deref()
            .or(config.workspace.ca_file.as_deref());
        let answered = match client(config, roots) {
            Ok(http) => ask(&*http, &format!("{origin}/"))
                .await
                .map_err(|fault| whole(&fault)),
            Err(fault) => Err(fault),
        };
        findings.push(match answered {
            Ok(answer) => Finding::ok(
                &name,
                format!("{origin} answers ({})", answer.status().as_u16()),
            ),
            Err(fault) => Finding::fail(
                &name,
                format!("{origin}: {fault}"),
                "check its url and ca_file under outbound.upstreams",
            ),
        });
    }
    findings
}
