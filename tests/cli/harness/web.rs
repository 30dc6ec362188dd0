//! One request on a connection of its own.

use std::net::SocketAddr;

use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use valetkey::embedded::workspace::Workspace;

use super::{LOCAL_ID, LOCAL_SECRET, token, within};

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Sends a request; an error where nobody listens or the connection breaks.
pub async fn send(
    address: SocketAddr,
    method: Method,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Answer, String> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://{address}{target}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.to_owned().into())).unwrap();
    let client: Client<_, Full<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let exchange = async {
        let fault = |fault: &dyn std::error::Error| fault.to_string();
        let (head, body) = client
            .request(request)
            .await
            .map_err(|e| fault(&e))?
            .into_parts();
        let bytes = body.collect().await.map_err(|e| fault(&e))?.to_bytes();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8(bytes.to_vec()).unwrap(),
        })
    };
    within("an answer", exchange).await
}

pub async fn get(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Answer {
    send(address, Method::GET, target, headers, "")
        .await
        .unwrap()
}

/// What the front door forwards for a user.
pub async fn as_user(
    inbound: SocketAddr,
    target: &str,
    workspace: &Workspace,
    user: &str,
) -> Answer {
    let token = token(workspace, user);
    get(inbound, target, &[("x-forwarded-access-token", &token)]).await
}

/// Asks for a local app token as an SDK beside `serve` does.
pub async fn app_token(outbound: SocketAddr, secret: &str) -> Answer {
    let form = format!(
        "grant_type=client_credentials&client_id={LOCAL_ID}&client_secret={secret}&scope=all-apis"
    );
    let kind = ("content-type", "application/x-www-form-urlencoded");
    send(outbound, Method::POST, "/oidc/v1/token", &[kind], &form)
        .await
        .unwrap()
}

/// Makes a call as the app, with a token fetched for it.
pub async fn as_app(outbound: SocketAddr, target: &str) -> Answer {
    let token = app_token(outbound, LOCAL_SECRET).await.expect(200).json();
    let bearer = format!("Bearer {}", token["access_token"].as_str().unwrap());
    get(outbound, target, &[("authorization", &bearer)]).await
}
