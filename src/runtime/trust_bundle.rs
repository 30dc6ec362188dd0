//! The bundle of roots for the agent: the sidecar's own, those of the system, and those that the environment named before.
//!
//! The variables that carry it replace a client's own store, so the public roots have to be in it. Only certificates are
//! taken out of files; a key that stands beside one is not. Text in, text out: who may read the file is the writer's affair.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

/// Where systems keep the roots in one file; also read where `SSL_CERT_FILE` makes the native store something else.
const SYSTEM_FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Files of one folder that are read.
const FOLDER_FILES_MAX: usize = 1000;
/// Characters of a line of PEM (RFC 7468 section 2).
const PEM_LINE: usize = 64;

/// A growing bundle, each certificate once.
#[derive(Debug, Default)]
pub struct TrustBundle(Vec<CertificateDer<'static>>);

impl TrustBundle {
    /// The roots of the system.
    pub fn of_the_system() -> Self {
        let mut bundle = Self::default();
        bundle.extend(rustls_native_certs::load_native_certs().certs);
        for file in SYSTEM_FILES {
            bundle.add_file(Path::new(file));
        }
        bundle
    }

    /// Adds the certificates of a file, or of the files of a folder; says whether there was one.
    pub fn add_path(&mut self, path: &Path) -> bool {
        if !path.is_dir() {
            return self.add_file(path);
        }
        let Ok(entries) = std::fs::read_dir(path) else {
            return false;
        };
        let mut any = false;
        for entry in entries.flatten().take(FOLDER_FILES_MAX) {
            any |= self.add_file(&entry.path());
        }
        any
    }

    fn add_file(&mut self, file: &Path) -> bool {
        // What is no certificate, or not there, is passed over: partly readable stores are the rule.
        let found: Vec<_> = CertificateDer::pem_file_iter(file)
            .map(|found| found.flatten().collect())
            .unwrap_or_default();
        let any = !found.is_empty();
        self.extend(found);
        any
    }

    fn extend(&mut self, more: impl IntoIterator<Item = CertificateDer<'static>>) {
        let mut known: std::collections::HashSet<_> = self.0.iter().cloned().collect();
        let fresh = more.into_iter().filter(|one| known.insert(one.clone()));
        self.0.extend(fresh.collect::<Vec<_>>());
    }

    /// Whether no root was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of it in PEM, the sidecar's own root first.
    pub fn with_own(&self, own: &CertificateDer<'_>) -> String {
        let mut text = String::new();
        for certificate in std::iter::once(own).chain(&self.0) {
            text.push_str("-----BEGIN CERTIFICATE-----\n");
            let mut rest = STANDARD.encode(certificate);
            while !rest.is_empty() {
                let after = rest.split_off(rest.len().min(PEM_LINE));
                text.push_str(&rest);
                text.push('\n');
                rest = after;
            }
            text.push_str("-----END CERTIFICATE-----\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::local_ca::LocalCa;

    #[test]
    fn certificates_stand_in_it_once_and_keys_never() {
        let root = || {
            LocalCa::new("2026-11-25T12:00:00Z".parse().unwrap())
                .unwrap()
                .certificate()
        };
        let (own, first, second) = (root(), root(), root());
        let folder = tempfile::tempdir().unwrap();
        let mut named = TrustBundle::default();
        named.extend([first.clone()]);
        let key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
        let text = format!("# a comment\n{}{key}", named.with_own(&second));
        let file = folder.path().join("a.pem");
        std::fs::write(&file, text).unwrap();
        std::fs::write(folder.path().join("README"), "nothing").unwrap();

        let mut bundle = TrustBundle::default();
        assert!(bundle.is_empty());
        assert!(bundle.add_path(&file) && bundle.add_path(folder.path()));
        assert!(!bundle.add_path(&folder.path().join("README")));
        assert!(!bundle.add_path(&folder.path().join("nowhere")));
        let text = bundle.with_own(&own);
        assert!(!text.contains("PRIVATE") && !text.contains("c2VjcmV0"));
        assert!(text.lines().all(|line| line.len() <= PEM_LINE));
        let read: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
            .map(Result::unwrap)
            .collect();
        assert_eq!(read, [own, second, first]);
    }
}
