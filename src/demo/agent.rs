//! The sample agent: a few tools, each one call to Databricks, written as any agent would write them.
//!
//! It gets a request from the sidecar, takes the token it finds there for the user's calls and the local client credentials
//! for the app's, and knows no real secret.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::embedded::world::{CHAT_ENDPOINT, EXPERIMENT, INDEX, WAREHOUSE, WAREHOUSE_RESTRICTED};
use crate::proxy::local_oidc::LocalClient;
use crate::runtime::http_client::{Body, full};

use super::ask::Http;

/// One thing the agent can do.
pub struct Tool {
    /// The path under `/tools/`.
    pub name: &'static str,
    /// Whether it uses the user's token or the app's credentials.
    pub as_user: bool,
    method: Method,
    path: String,
    body: Option<Value>,
}

/// The tools of the sample agent.
pub fn tools() -> Vec<Tool> {
    let sql = |name, warehouse: &str, statement: &str, as_user| Tool {
        name,
        as_user,
        method: Method::POST,
        path: "/api/2.0/sql/statements".into(),
        body: Some(
            json!({"warehouse_id": warehouse, "statement": statement, "wait_timeout": "10s"}),
        ),
    };
    let get = |name, path: String, as_user| Tool {
        name,
        as_user,
        method: Method::GET,
        path,
        body: None,
    };
    let search = json!({"query_text": "refunds", "columns": ["id", "text"], "num_results": 1});
    let chat = json!({"model": CHAT_ENDPOINT, "messages": [{"role": "user", "content": "Hello"}]});
    vec![
        get("me", "/api/2.0/preview/scim/v2/Me".into(), true),
        sql(
            "orders",
            WAREHOUSE,
            "select count(*) from main.sales.orders",
            true,
        ),
        Tool {
            body: Some(search),
            method: Method::POST,
            ..get(
                "search",
                format!("/api/2.0/vector-search/indexes/{INDEX}/query"),
                true,
            )
        },
        Tool {
            body: Some(chat),
            method: Method::POST,
            ..get("chat", "/serving-endpoints/chat/completions".into(), true)
        },
        sql("other-warehouse", WAREHOUSE_RESTRICTED, "select 1", true),
        Tool {
            method: Method::POST,
            body: Some(json!({"comment": "for me"})),
            ..get("make-token", "/api/2.0/token/create".into(), true)
        },
        get(
            "climb",
            "/api/2.0/fs/files/Volumes/main/sales/files/..%2f..%2fsecret".into(),
            true,
        ),
        get(
            "traces",
            format!("/api/2.0/mlflow/experiments/get?experiment_id={EXPERIMENT}"),
            false,
        ),
        sql(
            "orders-as-app",
            WAREHOUSE,
            "select count(*) from main.sales.orders",
            false,
        ),
    ]
}

/// The agent's socket, and its life.
pub struct Agent {
    listener: Arc<TcpListener>,
    address: SocketAddr,
    stop: CancellationToken,
    _end: DropGuard,
}

impl Agent {
    /// Binds a port of its own.
    pub async fn bind() -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        Ok(Self {
            listener: Arc::new(listener),
            address,
            _end: stop.clone().drop_guard(),
            stop,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until dropped. `host` and `credentials` are what `DATABRICKS_HOST`, `_CLIENT_ID` and `_CLIENT_SECRET` say.
    pub fn serve(&self, host: SocketAddr, credentials: LocalClient) {
        let (listener, stop) = (Arc::clone(&self.listener), self.stop.clone());
        let sdk = Arc::new(Sdk {
            host,
            credentials,
            http: Http::default(),
            tools: tools(),
        });
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let Ok((stream, _)) = accepted else { continue };
                let sdk = Arc::clone(&sdk);
                tokio::spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let sdk = Arc::clone(&sdk);
                        async move { Ok::<_, std::convert::Infallible>(sdk.answer(request).await) }
                    });
                    // A connection that breaks off concerns nobody else.
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
    }
}

struct Sdk {
    host: SocketAddr,
    credentials: LocalClient,
    http: Http,
    tools: Vec<Tool>,
}

impl Sdk {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let name = request
            .uri()
            .path()
            .strip_prefix("/tools/")
            .unwrap_or_default();
        let Some(tool) = self.tools.iter().find(|tool| tool.name == name) else {
            let names: Vec<&str> = self.tools.iter().map(|tool| tool.name).collect();
            return document(StatusCode::NOT_FOUND, &json!({"tools": names}));
        };
        let token = if tool.as_user {
            request.headers().get("x-forwarded-access-token").cloned()
        } else {
            self.app_token().await
        };
        let Some(token) = token else {
            return document(
                StatusCode::UNAUTHORIZED,
                &json!({"error": "no token for this tool"}),
            );
        };
        match self.call(tool, &token).await {
            Ok(answer) => document(StatusCode::OK, &answer),
            Err(fault) => document(StatusCode::BAD_GATEWAY, &json!({"error": fault})),
        }
    }

    async fn call(&self, tool: &Tool, token: &HeaderValue) -> Result<Value, String> {
        let bearer = [b"Bearer ", token.as_bytes()].concat();
        let body = tool
            .body
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let request = Request::builder()
            .method(tool.method.clone())
            .uri(format!("http://{}{}", self.host, tool.path))
            .header("authorization", bearer)
            .header("content-type", "application/json")
            .body(full(body))
            .map_err(|fault| fault.to_string())?;
        let (head, json) = self.http.ask(request).await?;
        let header = |name: &str| {
            head.headers
                .get(name)
                .and_then(|v| v.to_str().ok())
                .map(str::to_owned)
        };
        Ok(json!({
            "status": head.status.as_u16(),
            "seen_as": header("x-embedded-identity"),
            "refused_by_sidecar": header("x-valetkey-error"),
            "answer": json,
        }))
    }

    /// What the SDK does with client id and secret: one call to the local token endpoint.
    async fn app_token(&self) -> Option<HeaderValue> {
        let form: String = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", &self.credentials.id)
            .append_pair("client_secret", self.credentials.secret.expose())
            .finish();
        let request = Request::post(format!("http://{}/oidc/v1/token", self.host))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(full(form))
            .ok()?;
        let (_, json) = self.http.ask(request).await.ok()?;
        HeaderValue::from_str(json.get("access_token")?.as_str()?).ok()
    }
}

fn document(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(full(format!("{body}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
