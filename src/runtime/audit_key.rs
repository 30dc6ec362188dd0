//! The key that signs the audit log's checkpoints: from a file, or made for this run.
//!
//! A key of one run proves that the log was written by the process whose public key the start log and `/status` told; a key
//! from a file outlives it, so that readers can pin it. What is signed is said in `domain/audit/checkpoint.rs`.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::Path;

use zeroize::Zeroizing;

use crate::domain::audit::checkpoint::{KeyFault, SigningKey};

/// The largest key file, in bytes.
pub const KEY_FILE_BYTES_MAX: u64 = 16 * 1024;

/// Why the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileFault {
    /// It cannot be read.
    #[error("the file cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is no file.
    #[error("it is not a regular file")]
    NotAFile,
    /// Others could have read or replaced it.
    #[error(
        "others can read or change it (mode {0:03o}), so what it signs proves nothing; chmod 600 it"
    )]
    Exposed(u32),
    /// No key in it.
    #[error("{0}; make one with: openssl genpkey -algorithm ed25519")]
    Key(#[from] KeyFault),
}

/// Reads the file, or makes a key where there is none.
///
/// # Errors
/// [`KeyFileFault`] says what to do.
pub fn load(path: Option<&Path>) -> Result<SigningKey, KeyFileFault> {
    let Some(path) = path else {
        return Ok(SigningKey::generate()?);
    };
    let file = File::open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(KeyFileFault::NotAFile);
    }
    check_mode(&about)?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(KEY_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(SigningKey::from_pkcs8(&bytes)?)
}

/// The group may read (mounted secrets come so), nobody else; and only the owner may write.
#[cfg(unix)]
fn check_mode(about: &Metadata) -> Result<(), KeyFileFault> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o027 == 0 {
        Ok(())
    } else {
        Err(KeyFileFault::Exposed(mode))
    }
}

#[cfg(not(unix))]
fn check_mode(_: &Metadata) -> Result<(), KeyFileFault> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const PEM: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIBrqF9I8beqO16vVtyfxFwEhm/XJj8t0iNUaV9Y1qkEh
-----END PRIVATE KEY-----
";

    #[test]
    fn a_file_is_taken_only_if_nobody_else_could_have_read_or_changed_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        fs::write(&path, PEM).unwrap();
        for (mode, good) in [
            (0o600, true),
            (0o400, true),
            (0o440, true),
            (0o644, false),
            (0o660, false),
            (0o604, false),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let loaded = load(Some(&path));
            assert_eq!(loaded.is_ok(), good, "{mode:o}");
            if let Err(fault) = loaded {
                assert!(fault.to_string().contains("chmod 600"), "{fault}");
            }
        }
    }

    #[test]
    fn what_is_no_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let says = |expected: &str| {
            let fault = load(Some(&path)).unwrap_err().to_string();
            assert!(fault.contains(expected), "{fault}");
        };
        says("No such file");
        fs::write(&path, "nothing").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        says("openssl genpkey");
        let folder = load(Some(folder.path())).unwrap_err();
        assert!(matches!(folder, KeyFileFault::NotAFile));
    }

    #[test]
    fn without_a_file_each_run_has_a_key_of_its_own() {
        assert_ne!(load(None).unwrap().public(), load(None).unwrap().public());
    }
}
