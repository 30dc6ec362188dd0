//! The trust bundle of a child: a file that only this user may read, in a folder of its own, gone with us.
//!
//! Nothing in it is secret; it must not be changed by anybody else. Left behind after a SIGKILL it is of no use: the key of its
//! CA was gone before the child started. `runtime/trust_bundle.rs` makes the text, `environment.rs` names the file.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// Its name in its folder.
const FILE: &str = "ca-bundle.pem";

/// The folder with the bundle; dropping it removes both.
#[derive(Debug)]
pub struct TrustFile {
    folder: PathBuf,
    file: PathBuf,
}

impl TrustFile {
    /// Writes the text into a fresh folder below `temporary`.
    ///
    /// # Errors
    /// The system's.
    pub fn write(temporary: &Path, text: &str) -> io::Result<Self> {
        let folder = temporary.join(format!("valetkey-{}", Uuid::now_v7().simple()));
        // Fails where there is such a folder: nobody else's is ever used.
        DirBuilder::new().mode(0o700).create(&folder)?;
        let file = folder.join(FILE);
        let written = Self { folder, file };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut stream = options.open(&written.file)?;
        stream.write_all(text.as_bytes())?;
        Ok(written)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file
    }
}

impl Drop for TrustFile {
    fn drop(&mut self) {
        // The child may have removed it, or have put something beside it that is not ours to remove.
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_dir(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_there_for_its_owner_alone_and_then_gone() {
        let temporary = tempfile::tempdir().unwrap();
        let written = TrustFile::write(temporary.path(), "roots").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(fs::read_to_string(written.path()).unwrap(), "roots");
        assert_eq!(mode(written.path()), 0o600);
        assert_eq!(mode(written.path().parent().unwrap()), 0o700);
        drop(written);
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
        assert!(TrustFile::write(&temporary.path().join("nowhere"), "").is_err());
    }
}
