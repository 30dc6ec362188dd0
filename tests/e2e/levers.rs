//! A small HTTP door by which the Python suite holds and releases the streams of the embedded workspace.
//!
//! `POST /hold`, `/release`, `/flow`; see `Levers` in conftest.py. Loopback only, for the length of one run.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use valetkey::embedded::control::Control;
use valetkey::embedded::workspace::Workspace;

/// Serves until dropped.
pub struct Levers {
    /// Where.
    pub url: String,
    _serving: JoinSet<()>,
}

impl Levers {
    pub async fn attach(workspace: Arc<Workspace>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            // One suite, which asks one thing at a time: a connection after the other will do.
            while let Ok((stream, _)) = listener.accept().await {
                let served = service_fn(|request| {
                    let status = pull(workspace.control(), &request);
                    async move { answer(status) }
                });
                // The client's hanging up is its business.
                let _ = http1::Builder::new()
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), served)
                    .await;
            }
        });
        Self {
            url,
            _serving: serving,
        }
    }
}

fn pull(control: &Control, request: &Request<Incoming>) -> StatusCode {
    match request.uri().path() {
        "/hold" => control.hold_streams(),
        "/release" => control.release_event(),
        "/flow" => control.release_streams(),
        _ => return StatusCode::NOT_FOUND,
    }
    StatusCode::NO_CONTENT
}

fn answer(status: StatusCode) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    Ok(response)
}
