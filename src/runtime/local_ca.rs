//! The certificate authority of `outbound.tls` and `outbound.forward`: made at start, gone before anything is served.
//!
//! All names that the sidecar answers for are known at start, so the key signs their certificates and is wiped: nobody can
//! make another one, and it is never in a file. Certificates are as strict verifiers want them (OpenSSL's
//! `X509_STRICT`, which Python 3.13 switches on): key identifiers, critical constraints, usages, a name. One certificate
//! per host, so that an HTTP/2 client has no reason to send calls for one host through the tunnel to another.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SerialNumber, SignatureAlgorithm, SigningKey, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use uuid::Uuid;

use crate::domain::clock::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How far a client's clock may be behind.
const VALID_BEFORE: Duration = DAY;
/// How long the process may run; verifiers grow suspicious of more than 398 days in all.
const VALID_AFTER: Duration = Duration::from_secs(396 * 24 * 3600);
/// What is agreed on in the handshake.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum LocalCaFault {
    /// A host name that no certificate can hold.
    #[error("no local certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// No key, or no random number.
    #[error("no local certificate: the cryptographic library failed")]
    Crypto,
    /// The certificate that was made cannot be served with.
    #[error("no local certificate: {0}")]
    Rustls(#[from] rustls::Error),
}

/// A key on P-256; aws-lc wipes it when it is dropped.
struct Key(EcdsaKeyPair);

impl Key {
    fn new() -> Result<Self, LocalCaFault> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING);
        key.map(Self).map_err(|_| LocalCaFault::Crypto)
    }

    /// For rustls, which keeps it for as long as it serves.
    fn private(&self) -> Result<PrivateKeyDer<'static>, LocalCaFault> {
        let der = self.0.to_pkcs8v1().map_err(|_| LocalCaFault::Crypto)?;
        let der = PrivatePkcs8KeyDer::from(der.as_ref().to_vec());
        Ok(PrivateKeyDer::Pkcs8(der))
    }

    /// RFC 7093 section 2, method 1: of the public key's bits.
    fn identifier(&self) -> KeyIdMethod {
        let digest = digest(&SHA256, self.der_bytes());
        KeyIdMethod::PreSpecified(digest.as_ref().iter().take(20).copied().collect())
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signed = self.0.sign(&SystemRandom::new(), message);
        signed
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// Signs until it is dropped, which wipes its key.
pub struct LocalCa {
    params: CertificateParams,
    key: Key,
    certificate: Certificate,
    now: Timestamp,
}

impl LocalCa {
    /// A new one. `now` is the real time: the clients' clocks are what it must agree with.
    ///
    /// # Errors
    /// When the system gives no key.
    pub fn new(now: Timestamp) -> Result<Self, LocalCaFault> {
        // Each run has its own name: an agent may still have the root of an earlier one among its trusted ones.
        let name = format!("Valetkey local CA {}", Uuid::now_v7());
        let key = Key::new()?;
        let mut params = params(&[], &name, &key, now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            params,
            key,
            certificate,
            now,
        })
    }

    /// What clients have to trust.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// Serves as these hosts: names, or addresses without brackets.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate.
    pub fn serve_as(&self, hosts: &[&str]) -> Result<Arc<ServerConfig>, LocalCaFault> {
        let (key, name) = (Key::new()?, hosts.first().unwrap_or(&"valetkey"));
        let mut params = params(hosts, name, &key, self.now)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.private()?)?;
        server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).into();
        Ok(Arc::new(server))
    }
}

fn params(
    hosts: &[&str],
    common_name: &str,
    key: &Key,
    now: Timestamp,
) -> Result<CertificateParams, LocalCaFault> {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts)?;
    // At most 64 characters (RFC 5280 appendix A); the names that count are the alternative ones.
    let common_name: String = common_name.chars().take(64).collect();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let now = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or_default());
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(VALID_BEFORE);
    params.not_after = epoch + now + VALID_AFTER;
    params.use_authority_key_identifier_extension = true;
    params.key_identifier_method = key.identifier();
    let mut serial = [0; 16];
    rand::fill(&mut serial).map_err(|_| LocalCaFault::Crypto)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

    use super::*;

    const NOW: &str = "2026-11-25T12:00:00Z";

    fn handshake(root: &CertificateDer<'static>, server: Arc<ServerConfig>, host: &str) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(At(verifier, NOW.parse().unwrap())))
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(server).unwrap();
        let mut wire = Vec::new();
        while client.is_handshaking() || server.is_handshaking() {
            wire.clear();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut &*wire).unwrap();
            if server.process_new_packets().is_err() {
                return false;
            }
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut &*wire).unwrap();
            if client.process_new_packets().is_err() {
                return false;
            }
        }
        true
    }

    /// The usual verifier, at a given time.
    #[derive(Debug)]
    struct At(Arc<WebPkiServerVerifier>, Timestamp);

    impl ServerCertVerifier for At {
        fn verify_server_cert(
            &self,
            end_entity: &CertificateDer<'_>,
            intermediates: &[CertificateDer<'_>],
            name: &ServerName<'_>,
            ocsp: &[u8],
            _now: UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            let seconds = u64::try_from(self.1.as_second()).unwrap();
            let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            self.0
                .verify_server_cert(end_entity, intermediates, name, ocsp, now)
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            self.0
                .verify_tls12_signature(message, certificate, signature)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            self.0
                .verify_tls13_signature(message, certificate, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.0.supported_verify_schemes()
        }
    }

    #[test]
    fn a_certificate_is_good_for_its_own_hosts_and_under_its_own_root_alone() {
        let now = NOW.parse().unwrap();
        let (ca, other) = (LocalCa::new(now).unwrap(), LocalCa::new(now).unwrap());
        let loopback = ca.serve_as(&["127.0.0.1", "::1", "localhost"]).unwrap();
        let root = ca.certificate();
        for host in ["127.0.0.1", "::1", "localhost"] {
            assert!(handshake(&root, loopback.clone(), host), "{host}");
        }
        for host in ["127.0.0.2", "example.com"] {
            assert!(!handshake(&root, loopback.clone(), host), "{host}");
        }
        assert!(!handshake(&other.certificate(), loopback, "localhost"));
        let long = format!("{}.cloud.databricks.com", "x".repeat(63));
        let workspace = ca.serve_as(&[&long]).unwrap();
        assert!(handshake(&root, workspace, &long));
    }

    #[test]
    fn clocks_may_differ_by_a_day_and_the_process_may_run_for_a_year() {
        for (made, good) in [
            ("2026-11-26T11:00:00Z", true),
            ("2026-11-26T13:00:00Z", false),
            ("2025-11-26T00:00:00Z", true),
            ("2025-10-20T00:00:00Z", false),
        ] {
            let ca = LocalCa::new(made.parse().unwrap()).unwrap();
            let server = ca.serve_as(&["localhost"]).unwrap();
            assert_eq!(
                handshake(&ca.certificate(), server, "localhost"),
                good,
                "{made}"
            );
        }
    }

    #[test]
    fn a_host_that_fits_in_no_certificate_is_refused() {
        let ca = LocalCa::new(NOW.parse().unwrap()).unwrap();
        assert!(ca.serve_as(&["münchen.example"]).is_err());
    }
}
