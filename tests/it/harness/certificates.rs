//! Certificates made for one test: a root in a file, and a far side's own.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;

/// A far side's certificate, and the file with the root that issued it.
pub struct Issued {
    /// Serves with the certificate.
    pub server: Arc<ServerConfig>,
    /// The root, in PEM.
    pub ca_file: PathBuf,
    _directory: TempDir,
}

/// A certificate for this host name, under a root of its own.
pub fn issue(name: &str, expired: bool) -> Issued {
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
