//! TLS to the workspace: names and dates are checked for its APIs, its keys and its token endpoint alike (SECURITY R29).

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tempfile::TempDir;
use valetkey::embedded::workspace::WorkspaceOptions;

use crate::harness::{TestApp, TestOptions, with_app};

/// A workspace's certificate, and the file with the root that issued it.
struct Issued {
    server: Arc<ServerConfig>,
    ca_file: PathBuf,
    _directory: TempDir,
}

fn issue(name: &str, expired: bool) -> Issued {
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
    if expired {
        leaf.not_before = date_time_ymd(2020, 1, 1);
        leaf.not_after = date_time_ymd(2021, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = leaf.signed_by(&key, &root).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("root.pem");
    std::fs::write(&ca_file, root.pem()).unwrap();
    Issued {
        server: Arc::new(server),
        ca_file,
        _directory: directory,
    }
}

fn options(issued: &Issued, trusted: bool) -> TestOptions {
    let routes = json!([{"name": "me", "operation": "identity.me", "as": "caller"}]);
    let workspace = WorkspaceOptions {
        tls: Some(Arc::clone(&issued.server)),
        host: "localhost".into(),
        ..WorkspaceOptions::default()
    };
    let options = TestOptions {
        workspace,
        ..TestOptions::routes(routes)
    };
    if trusted {
        options.with(json!({"workspace": {"ca_file": issued.ca_file}}))
    } else {
        options
    }
}

#[tokio::test]
async fn a_workspace_behind_a_trusted_certificate_is_reached() {
    let issued = issue("localhost", false);
    with_app(options(&issued, true), async |app: &TestApp| {
        let me = "/api/2.0/preview/scim/v2/Me";
        let session = app.session(&app.alice()).await;
        let as_user = app.outbound().get(me).bearer(&session).fetch().await;
        assert_eq!(
            as_user.header("x-embedded-identity"),
            Some("user:alice@example.com")
        );
        let as_app = app
            .outbound()
            .get(me)
            .bearer(&app.app_token().await)
            .fetch()
            .await;
        assert_eq!(as_app.header("x-embedded-identity"), Some("app"));
    })
    .await;
}

#[tokio::test]
async fn no_byte_of_http_goes_to_a_workspace_that_cannot_prove_its_name() {
    for (what, issued, trusted) in [
        ("an unknown root", issue("localhost", false), false),
        ("another name", issue("other.example", false), true),
        ("an expired certificate", issue("localhost", true), true),
    ] {
        with_app(options(&issued, trusted), async |app: &TestApp| {
            let answer = app.inbound().get("/echo").user(&app.alice()).fetch().await;
            assert_eq!(
                (answer.status, answer.reason()),
                (503, Some("issuer_unavailable")),
                "{what}"
            );
            let own = app.app_token().await;
            let answer = app
                .outbound()
                .get("/api/2.0/preview/scim/v2/Me")
                .bearer(&own)
                .fetch()
                .await;
            assert_eq!(
                (answer.status, answer.reason()),
                (502, Some("token_endpoint_unavailable")),
                "{what}"
            );
            assert!(app.control().calls().is_empty(), "{what}");
            assert_eq!(
                (app.control().key_fetches(), app.control().token_requests()),
                (0, 0),
                "{what}"
            );
        })
        .await;
    }
}
