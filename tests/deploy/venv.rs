//! A virtual environment from pinned requirements, made once and kept under `target/deploy`.
//!
//! The name holds a digest of what goes in and of the interpreter, so a changed list makes a new one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use tokio::process::Command;

use crate::harness::{good, output_of, target};

/// Written last: an environment without it is half made.
const DONE: &str = "done";

/// The folder of a ready environment with these packages; the lines are those of a requirements file.
pub async fn with(requirements: &str) -> PathBuf {
    let question = "import sys; print(sys.version); sys.exit(sys.version_info < (3, 10))";
    let mut ask = Command::new("python3");
    ask.args(["-c", question]);
    let version = good(output_of(ask).await);

    let hash = digest(&SHA256, format!("{version}{requirements}").as_bytes());
    let name: String = { hash.as_ref()[..6].iter() }
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let folder = target().join("deploy").join(format!("venv-{name}"));
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    // Another test, or another test run in the same target folder, may be at it.
    let lock = File::create(folder.with_extension("lock")).unwrap();
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock));
    let _lock = lock.await.unwrap().unwrap();
    if folder.join(DONE).exists() {
        return folder;
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    make(&folder).await;
    let list = folder.join("requirements.txt");
    fs::write(&list, requirements).unwrap();
    install(&folder, &["-r", list.to_str().unwrap()]).await;
    File::create(folder.join(DONE)).unwrap();
    folder
}

/// An empty environment.
pub async fn make(folder: &Path) {
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(folder);
    good(output_of(make).await);
}

/// Installs into an environment, wheels only.
pub async fn install(folder: &Path, what: &[&str]) {
    let mut install = Command::new(folder.join("bin/python"));
    install
        .args(
            "-m pip install --quiet --disable-pip-version-check --no-input --only-binary :all:"
                .split(' '),
        )
        .args(what);
    good(output_of(install).await);
}
