//! `outbound.tls`: http, https and HTTP/2 on one port, a certificate that strict verifiers take, and no other way to hang.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::{ME, options, program};
use crate::harness::secure::{Protocol, Short};
use crate::harness::{LOCAL_ID, LOCAL_SECRET, TestApp, with_app, within};

#[tokio::test]
async fn one_port_speaks_http_and_https_and_http2_and_names_the_scheme_in_use() {
    with_app(options(&json!({"tls": "on"})), async |app: &TestApp| {
        let session = app.session(&app.alice()).await;
        let bearer = format!("Bearer {session}");
        let headers = [("authorization", bearer.as_str())];
        let (secure, discovery) = (app.secure(), "/.well-known/databricks-config");
        for protocol in [Protocol::H1, Protocol::H2] {
            let answer = secure.fetch(protocol, Short::get(ME, &headers)).await;
            let identity = answer.header("x-embedded-identity");
            assert_eq!(identity, Some("user:alice@example.com"), "{protocol:?}");
            let told = secure.fetch(protocol, Short::get(discovery, &[])).await;
            let expected = format!("https://{}/oidc", app.addresses.outbound);
            assert_eq!(told.json()["oidc_endpoint"], expected);
        }
        for client in [app.outbound(), app.outbound().h2()] {
            let answer = client.get(ME).bearer(&session).fetch().await;
            assert_eq!(answer.status, 200);
            let told = client.get(discovery).fetch().await;
            let expected = format!("http://{}/oidc", app.addresses.outbound);
            assert_eq!(told.json()["oidc_endpoint"], expected);
        }
        // The pair is as good here, and a refusal is one.
        let form = Short {
            method: "POST",
            target: "/oidc/v1/token",
            headers: &[("content-type", "application/x-www-form-urlencoded")],
            body: &format!(
                "grant_type=client_credentials&client_id={LOCAL_ID}&client_secret={LOCAL_SECRET}"
            ),
        };
        let token = secure.fetch(Protocol::H1, form).await.json();
        assert!(token["access_token"].as_str().unwrap().starts_with("vka_"));
        let refused = secure.fetch(Protocol::H1, Short::get(ME, &[])).await;
        assert_eq!(refused.reason(), Some("local_token_missing"));
        let refused = secure
            .fetch(
                Protocol::H1,
                Short::get(ME, &[("origin", "https://x.example")]),
            )
            .await;
        assert_eq!(refused.reason(), Some("not_local"));
    })
    .await;
}

#[tokio::test]
async fn strict_verifiers_take_the_certificate() {
    with_app(options(&json!({"tls": "on"})), async |app: &TestApp| {
        let root = app.secure().root_file(app.directory());
        let port = app.addresses.outbound.port().to_string();
        let script = "
import http.client, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
for host in ('127.0.0.1', 'localhost'):
    client = http.client.HTTPSConnection(host, int(sys.argv[1]), context=context, timeout=9)
    client.request('GET', '/.well-known/databricks-config')
    assert client.getresponse().status == 200
print(ssl.OPENSSL_VERSION)
";
        let mut python = Command::new("python3");
        let (good, text) = program(python.args(["-c", script, &port]).arg(&root)).await;
        assert!(good, "{text}");
        for name in ["127.0.0.1", "localhost"] {
            let check = if name == "localhost" {
                "-verify_hostname"
            } else {
                "-verify_ip"
            };
            let mut openssl = Command::new("openssl");
            openssl
                .args([
                    "s_client",
                    "-connect",
                    &format!("127.0.0.1:{port}"),
                    "-CAfile",
                ])
                .arg(&root)
                .args(["-x509_strict", "-verify_return_error", check, name])
                .stdin(std::process::Stdio::null());
            let (good, text) = program(&mut openssl).await;
            assert!(
                good && text.contains("Verify return code: 0 (ok)"),
                "{text}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_handshake_is_within_the_time_of_a_head() {
    let options =
        options(&json!({"tls": "on"})).with(json!({"limits": {"request_head_time": "1s"}}));
    with_app(options, async |app: &TestApp| {
        for begun in [&b""[..], &[0x16], &[0x16, 3, 1, 2, 0, 1, 0], &[0x16; 600]] {
            let mut stream = app.secure().tcp().await;
            stream.write_all(begun).await.unwrap();
            let mut rest = Vec::new();
            let _ = within("the connection is closed", stream.read_to_end(&mut rest)).await;
            assert!(!rest.starts_with(b"HTTP/"), "{begun:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn without_it_there_is_no_https_and_no_root() {
    with_app(options(&json!({"tls": "off"})), async |app: &TestApp| {
        assert!(app.with_running(|running| running.root().is_none()));
        let hello = [0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0];
        let answer = app.outbound().raw(hello).await;
        assert_eq!(
            answer.answers(),
            answer.text().matches("HTTP/1.1 400").count()
        );
    })
    .await;
}

#[tokio::test]
async fn the_trust_file_holds_the_root_and_the_public_ones() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bundle.pem");
    let outbound = json!({"tls": "on", "trust_file": file});
    with_app(options(&outbound), async |app: &TestApp| {
        let own = std::fs::read_to_string(app.secure().root_file(app.directory())).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with(&own), "{text}");
        assert!(text.matches("BEGIN CERTIFICATE").count() > 20);
    })
    .await;
    let unused = TestApp::start(options(&json!({"trust_file": file}))).await;
    let problems = unused.err().expect("no CA, no file");
    assert_eq!(problems[0].key, "outbound.trust_file");
}
