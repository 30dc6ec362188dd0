//! A client that speaks TLS to the outbound listener, directly or inside a CONNECT tunnel, and trusts its local CA alone.
//!
//! Whatever comes back is kept for the leak check, as with the client in the clear.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use valetkey::runtime::http_client::{Body, empty, full};

use super::client::{Answer, Exposed, Raw};
use super::within;

/// Which protocol is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
}

/// A client of one outbound listener.
pub struct SecureClient {
    address: SocketAddr,
    root: CertificateDer<'static>,
    exposed: Arc<Exposed>,
}

/// A request in short: method, target, headers, body.
#[derive(Clone, Copy)]
pub struct Short<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a str,
}

impl<'a> Short<'a> {
    pub fn get(target: &'a str, headers: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            method: "GET",
            target,
            headers,
            body: "",
        }
    }
}

impl SecureClient {
    pub fn new(address: SocketAddr, root: CertificateDer<'static>, exposed: Arc<Exposed>) -> Self {
        Self {
            address,
            root,
            exposed,
        }
    }

    /// Writes the root into a file, for clients of other makes.
    pub fn root_file(&self, folder: &Path) -> PathBuf {
        let text = STANDARD.encode(&self.root);
        let lines: Vec<&str> = (0..text.len().div_ceil(64))
            .map(|n| &text[n * 64..text.len().min(n * 64 + 64)])
            .collect();
        let pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        );
        let file = folder.join("local-ca.pem");
        std::fs::write(&file, pem).unwrap();
        file
    }

    /// A bare connection to the listener.
    pub async fn tcp(&self) -> TcpStream {
        within("a connection", TcpStream::connect(self.address))
            .await
            .unwrap()
    }

    /// Asks for a tunnel with this very head; the stream with the status, and the whole answer where it is a refusal.
    pub async fn connect_with(&self, head: &str) -> (TcpStream, u16, String) {
        let mut stream = self.tcp().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        let mut byte = [0];
        while !read.ends_with(b"\r\n\r\n") {
            let count = within("an answer to CONNECT", stream.read(&mut byte)).await;
            match count {
                Ok(1) => read.push(byte[0]),
                Ok(_) | Err(_) => break,
            }
        }
        let text = String::from_utf8_lossy(&read).into_owned();
        let status = text.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
        let mut text = text;
        if status != 200 {
            let mut rest = Vec::new();
            let _ = within("the connection is closed", stream.read_to_end(&mut rest)).await;
            text.push_str(&String::from_utf8_lossy(&rest));
        }
        self.exposed.note("answer to CONNECT", text.as_bytes());
        (stream, status, text)
    }

    /// Asks for a tunnel as clients do.
    pub async fn connect(&self, place: &str) -> (TcpStream, u16, String) {
        let head = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n");
        self.connect_with(&head).await
    }

    /// A tunnel that must come about.
    pub async fn tunnel(&self, place: &str) -> TcpStream {
        let (stream, status, text) = self.connect(place).await;
        assert_eq!(status, 200, "{text}");
        stream
    }

    /// TLS on a stream.
    ///
    /// # Errors
    /// When the handshake fails.
    pub async fn try_secure(
        &self,
        stream: TcpStream,
        host: &str,
        protocol: Protocol,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let offered: &[u8] = match protocol {
            Protocol::H1 => b"http/1.1",
            Protocol::H2 => b"h2",
        };
        config.alpn_protocols = vec![offered.to_vec()];
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = within("a handshake", connector.connect(name, stream)).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(offered));
        Ok(stream)
    }

    /// One request to the listener itself.
    pub async fn fetch(&self, protocol: Protocol, short: Short<'_>) -> Answer {
        let stream = self.tcp().await;
        let stream = self.try_secure(stream, "127.0.0.1", protocol).await;
        let authority = self.address.to_string();
        self.ask(stream.unwrap(), protocol, &authority, short).await
    }

    /// One request inside a tunnel.
    pub async fn fetch_through(&self, place: &str, protocol: Protocol, short: Short<'_>) -> Answer {
        let stream = self.tunnel(place).await;
        let host = place.rsplit_once(':').unwrap().0;
        let stream = self.try_secure(stream, host, protocol).await.unwrap();
        self.ask(stream, protocol, place, short).await
    }

    async fn ask(
        &self,
        stream: TlsStream<TcpStream>,
        protocol: Protocol,
        authority: &str,
        short: Short<'_>,
    ) -> Answer {
        let mut request = Request::builder().method(short.method);
        request = match protocol {
            Protocol::H1 => request.uri(short.target).header("host", authority),
            Protocol::H2 => request.uri(format!("https://{authority}{}", short.target)),
        };
        for (name, value) in short.headers {
            request = request.header(*name, *value);
        }
        let body: Body = if short.body.is_empty() {
            empty()
        } else {
            full(short.body.to_owned())
        };
        let request = request.body(body).unwrap();
        let io = TokioIo::new(stream);
        let response = match protocol {
            Protocol::H1 => {
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(io).await.unwrap();
                tokio::spawn(connection);
                within("an answer", sender.send_request(request))
                    .await
                    .unwrap()
            }
            Protocol::H2 => {
                let (mut sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                        .await
                        .unwrap();
                tokio::spawn(connection);
                within("an answer", sender.send_request(request))
                    .await
                    .unwrap()
            }
        };
        let (parts, body) = response.into_parts();
        let body = within("the body", body.collect()).await.unwrap().to_bytes();
        let place = format!("secure answer to {} {}", short.method, short.target);
        self.note(&place, &parts.headers, &body);
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    }

    fn note(&self, place: &str, headers: &HeaderMap, body: &[u8]) {
        for value in headers.values() {
            self.exposed.note(place, value.as_bytes());
        }
        self.exposed.note(place, body);
    }

    /// Sends these bytes inside TLS inside a tunnel and reads until the sidecar closes, which it must.
    pub async fn raw_through(&self, place: &str, bytes: &str) -> Raw {
        let stream = self.tunnel(place).await;
        let host = place.rsplit_once(':').unwrap().0;
        let mut stream = self.try_secure(stream, host, Protocol::H1).await.unwrap();
        let _ = stream.write_all(bytes.as_bytes()).await;
        let mut answer = Vec::new();
        let end = within("the connection is closed", stream.read_to_end(&mut answer)).await;
        drop(end);
        self.exposed.note("raw client inside a tunnel", &answer);
        Raw(answer)
    }
}
