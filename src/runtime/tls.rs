//! Which certificates are trusted, in one place, with one crypto provider. There is no switch that turns verification off.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore};

/// Why no TLS client could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// The extra roots could not be read.
    #[error(
        "cannot read certificates from {path}: {cause}; expected PEM with at least one CERTIFICATE block"
    )]
    CaFile {
        /// The file as configured.
        path: String,
        /// What the reader said.
        cause: String,
    },
    /// Neither the system nor the binary nor the configuration has a root.
    #[error(
        "no trusted root certificate: install ca-certificates, set workspace.ca_file, or build with the bundled-roots feature"
    )]
    NoRoots,
    /// The provider refused its own defaults.
    #[error("TLS set-up failed: {0}")]
    Rustls(#[from] rustls::Error),
}

/// A client configuration: TLS 1.2 or newer, names checked, the system's roots, the bundled ones, and `ca_file`.
///
/// # Errors
/// [`TlsFault`] when a root file cannot be read or no root is left.
pub fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, TlsFault> {
    let mut roots = RootCertStore::empty();
    // Partial failure is normal here: an unreadable system file is not a reason to refuse the others.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    #[cfg(feature = "bundled-roots")]
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = ca_file {
        let fault = |cause: String| TlsFault::CaFile {
            path: path.display().to_string(),
            cause,
        };
        let certificates = CertificateDer::pem_file_iter(path).map_err(|e| fault(e.to_string()))?;
        let mut found = 0;
        for certificate in certificates {
            roots
                .add(certificate.map_err(|e| fault(e.to_string()))?)
                .map_err(|e| fault(e.to_string()))?;
            found += 1;
        }
        if found == 0 {
            return Err(fault("no certificate found".into()));
        }
    }
    if roots.is_empty() {
        return Err(TlsFault::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
