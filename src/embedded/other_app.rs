//! Another Databricks App: a small custom MCP server behind its own front door, on its own port, as agents call them.
//!
//! The front door takes the workspace's OAuth tokens and sends everything else to the login page (facts 1.4). `/mcp` speaks
//! MCP with two tools, `/api/hello` greets; every answer tells as whom it was called. Start it after its workspace.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::{Acceptor, Door};
use super::answer::{Answer, json_ok, set, text};
use super::call::{JSON_BYTES_MAX, drain};
use super::control::{Control, Fault, Place, lock};
use super::door::{Closed, IDENTITY, REQUEST_ID, identify, redirect, suffer, write_down};
use super::grants::Caller;
use super::seen::Seen;
use super::stream::Pace;
use super::streamable::{Called, Exchange, RpcFault, Sessions, ToolServer, tool};
use super::workspace::{Site, Workspace};
use super::world::{APP, is_restricted};
use crate::runtime::http_client::{Body, read_limited};

/// How long [`OtherApp::stop`] waits for calls in flight.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);

/// How the other app is set up.
#[derive(Debug, Clone)]
pub struct OtherAppOptions {
    /// Its name, under which the workspace's Apps API knows it: `world::APP` or `world::APP_RESTRICTED`.
    pub name: String,
    /// Serves https with this; plain http otherwise.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The host in [`OtherApp::url`]; must lead to loopback and, with TLS, stand in the certificate.
    pub host: String,
    /// The loopback port; 0 takes a free one.
    pub port: u16,
}

impl Default for OtherAppOptions {
    fn default() -> Self {
        Self {
            name: APP.to_owned(),
            tls: None,
            host: "127.0.0.1".to_owned(),
            port: 0,
        }
    }
}

/// What serves every call.
pub(super) struct AppSite {
    name: String,
    url: String,
    workspace: Arc<Site>,
    control: Arc<Control>,
    sessions: Sessions,
    closing: CancellationToken,
}

/// The running app. Dropping it ends it at once.
pub struct OtherApp {
    addr: SocketAddr,
    site: Arc<AppSite>,
    ended: CancellationToken,
    connections: TaskTracker,
}

impl OtherApp {
    /// Binds a loopback port, serves on the current runtime and tells the workspace's Apps API where it is.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub async fn start(workspace: &Workspace, options: OtherAppOptions) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
        let addr = listener.local_addr()?;
        let scheme = if options.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let url = format!("{scheme}://{}:{}", options.host, addr.port());
        let workspace = Arc::clone(workspace.site());
        lock(&workspace.app_urls).insert(options.name.clone(), url.clone());
        let app = Self {
            addr,
            site: Arc::new(AppSite {
                name: options.name,
                url,
                control: Arc::new(Control::new(Arc::clone(&workspace.issuer))),
                workspace,
                sessions: Sessions::default(),
                closing: CancellationToken::new(),
            }),
            ended: CancellationToken::new(),
            connections: TaskTracker::new(),
        };
        let acceptor = Acceptor {
            door: Door::App(Arc::clone(&app.site)),
            closing: app.site.closing.clone(),
            ended: app.ended.clone(),
            connections: app.connections.clone(),
            tls: options.tls.map(TlsAcceptor::from),
        };
        app.connections.spawn(acceptor.run(listener));
        Ok(app)
    }

    /// Scheme, host and port, without a trailing slash.
    pub fn url(&self) -> String {
        self.site.url.clone()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its own levers and windows: faults at [`Place::Api`], and the calls it saw.
    pub fn control(&self) -> &Control {
        &self.site.control
    }

    /// Lets calls in flight end for a short time, then ends everything.
    pub async fn stop(self) {
        self.site.closing.cancel();
        self.connections.close();
        if tokio::time::timeout(STOP_TIME_MAX, self.connections.wait())
            .await
            .is_err()
        {
            self.ended.cancel();
            self.connections.wait().await;
        }
    }
}

impl Drop for OtherApp {
    fn drop(&mut self) {
        lock(&self.site.workspace.app_urls).remove(&self.site.name);
        self.site.closing.cancel();
        self.ended.cancel();
        self.connections.close();
    }
}

/// Answers one call: the front door first, then the app.
pub(super) async fn open(
    site: Arc<AppSite>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Closed> {
    let (parts, incoming) = request.into_parts();
    let id = uuid::Uuid::now_v7().to_string();
    let body = write_down(&site.control, &id, &parts, incoming);
    let mut suffered = None;
    match site.control.take_fault(&[Place::Workspace, Place::Api]) {
        Some((_, Fault::Close)) => return Err(Closed),
        Some((place, fault)) => suffered = suffer(&site.control, place, fault).await,
        None => {}
    }
    let (seen, mut answer) = match (suffered, identify(&site.workspace, &parts.headers)) {
        (Some(answer), _) => {
            drain(Some(body)).await;
            (Seen::None, answer)
        }
        (None, (seen, Err(_))) => {
            drain(Some(body)).await;
            (seen, login(&site))
        }
        (None, (seen, Ok(caller))) if is_restricted(&site.name) && !caller.is_first_user => {
            drain(Some(body)).await;
            (seen, no_access(&site.name))
        }
        (None, (seen, Ok(caller))) => (seen, inside(&site, &caller, &parts, body).await),
    };
    set(&mut answer, REQUEST_ID, &id);
    set(&mut answer, IDENTITY, &seen.to_string());
    site.control
        .note_answer(&id, answer.status().as_u16(), &seen);
    Ok(answer)
}

/// Where the front door sends whoever has no token of the workspace.
fn login(site: &AppSite) -> Answer {
    let workspace = &site.workspace.url;
    redirect(&format!(
        "{workspace}/oidc/oauth2/v2.0/authorize?client_id=front-door-of-{}&redirect_uri={}/.auth/callback",
        site.name, site.url
    ))
}

fn no_access(name: &str) -> Answer {
    let page = format!(
        "<!DOCTYPE html><html><head><title>403</title></head><body>You do not have permission to use {name}.</body></html>"
    );
    text(StatusCode::FORBIDDEN, "text/html; charset=utf-8", page)
}

async fn inside(
    site: &AppSite,
    caller: &Caller,
    parts: &http::request::Parts,
    body: Body,
) -> Answer {
    let Ok(body) = read_limited(body, JSON_BYTES_MAX).await else {
        let kind = "text/plain; charset=utf-8";
        return text(StatusCode::PAYLOAD_TOO_LARGE, kind, "Too large".to_owned());
    };
    match (parts.method.as_str(), parts.uri.path()) {
        ("GET", "/api/hello") => json_ok(&json!({ "app": site.name, "hello": caller.name })),
        (_, "/mcp" | "/mcp/") => {
            let tools = Tools { site, caller };
            let exchange = Exchange {
                sessions: &site.sessions,
                server: &tools,
                owner: &caller.name,
                address: "/mcp",
                method: parts.method.as_str(),
                headers: &parts.headers,
                pace: Pace {
                    control: Arc::clone(&site.control),
                    pause: site.workspace.stream_pause,
                },
                closing: &site.closing,
            };
            exchange.answer(&body)
        }
        _ => {
            let kind = "application/json";
            text(
                StatusCode::NOT_FOUND,
                kind,
                r#"{"detail":"Not Found"}"#.to_owned(),
            )
        }
    }
}

/// The app's own tools.
struct Tools<'a> {
    site: &'a AppSite,
    caller: &'a Caller,
}

impl ToolServer for Tools<'_> {
    fn name(&self) -> &str {
        &self.site.name
    }

    fn tools(&self) -> Vec<Value> {
        vec![
            tool("whoami", "Tells who calls.", &[]),
            tool("shout", "Repeats a text in capitals.", &["text"]),
        ]
    }

    fn call(&self, tool: &str, arguments: &Value) -> Result<Called, RpcFault> {
        match tool {
            "whoami" => Ok(Called::Said(self.caller.name.clone())),
            "shout" => match arguments.get("text").and_then(Value::as_str) {
                Some(text) => Ok(Called::Said(text.to_uppercase())),
                None => Ok(Called::Failed("text is missing".to_owned())),
            },
            _ => Err(RpcFault::unknown_tool(tool)),
        }
    }
}
