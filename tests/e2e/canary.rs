//! The canary test: no known secret in anything that the agent, its callers or an operator got to see.
//!
//! Looks through whole folders for whole secrets and for the signature of each token, which alone would complete a
//! token whose other parts are guessable. Names the place and the kind of secret, never the secret.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use valetkey::embedded::control::Control;
use valetkey::embedded::world::{LAKEBASE_CREDENTIAL_PREFIX, SECRET_VALUE_PREFIX};

/// Shorter values would be found by accident.
const SECRET_BYTES_MIN: usize = 12;

/// What is looked for, with a name that may be printed.
pub struct Canaries(Vec<(String, String)>);

impl Canaries {
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let mut known: Vec<(String, String)> = Vec::new();
        for (number, secret) in secrets.into_iter().enumerate() {
            assert!(
                secret.len() >= SECRET_BYTES_MIN,
                "secret {number} is too short to look for"
            );
            if let Some((_, signature)) = secret.rsplit_once('.')
                && signature.len() >= SECRET_BYTES_MIN
            {
                known.push((
                    format!("signature of secret {number}"),
                    signature.to_owned(),
                ));
            }
            known.push((format!("secret {number}"), secret));
        }
        known.sort_by(|a, b| a.1.cmp(&b.1));
        known.dedup_by(|a, b| a.1 == b.1);
        Self(known)
    }

    /// Where a secret was found in the files of a folder.
    pub fn found_in(&self, folder: &Path) -> Vec<String> {
        let files = files_below(folder);
        files
            .iter()
            .flat_map(|file| self.found_by(file, |_| true))
            .collect()
    }

    /// Which secrets stand in the lines of a file that count.
    pub fn found_by(&self, file: &Path, counts: impl Fn(&str) -> bool) -> Vec<String> {
        let bytes = fs::read(file).unwrap();
        // Secrets are ASCII, so what this replaces is no part of one.
        let text = String::from_utf8_lossy(&bytes);
        let text: Vec<&str> = text.split('\n').filter(|line| counts(line)).collect();
        let seen = self
            .0
            .iter()
            .filter(|(_, secret)| text.iter().any(|line| line.contains(secret)));
        seen.map(|(name, _)| format!("{name} in {}", file.display()))
            .collect()
    }
}

/// How every credential begins that the embedded workspace hands to the agent itself, as it is and as it is sent: a Lakebase
/// password, the value of a secret.
pub fn handed_out() -> Vec<String> {
    // As many bytes as base64 takes whole.
    let whole = SECRET_VALUE_PREFIX.len() / 3 * 3;
    vec![
        LAKEBASE_CREDENTIAL_PREFIX.to_owned(),
        SECRET_VALUE_PREFIX.to_owned(),
        STANDARD.encode(&SECRET_VALUE_PREFIX[..whole]),
    ]
}

/// Every credential that arrived at the embedded workspace: tokens it made, and the client's secret as Basic sends it.
pub fn credentials_seen(control: &Control) -> Vec<String> {
    let mut seen: Vec<String> = control
        .calls()
        .iter()
        .flat_map(|call| {
            call.header("authorization")
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter_map(|header| {
            header
                .split_once(' ')
                .map(|(_, credential)| credential.to_owned())
        })
        .collect();
    seen.sort();
    seen.dedup();
    seen
}

pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files
}

#[test]
fn a_secret_and_the_signature_of_a_token_are_found_wherever_they_are() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("deep")).unwrap();
    fs::write(
        folder.path().join("deep/log"),
        b"\xff..token: aaaa.bbbb.signature-of-it\n",
    )
    .unwrap();
    fs::write(folder.path().join("clean"), b"nothing").unwrap();
    let canaries = Canaries::new([
        "xxxx.yyyy.signature-of-it".to_owned(),
        "another-secret".to_owned(),
    ]);
    let found = canaries.found_in(folder.path());
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("signature of secret 0 in ") && found[0].ends_with("deep/log"));
}
