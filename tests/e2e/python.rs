//! A virtual environment per generation of clients, made once from pinned requirements and kept under `target/e2e`.
//!
//! The name holds a digest of requirements and interpreter, so a changed list makes a new one. Knows nothing of Valetkey.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::process::Command;

/// Names a Python to use instead of the one on the path.
const PYTHON_VARIABLE: &str = "VALETKEY_E2E_PYTHON";
const PYTHONS: [&str; 6] = [
    "python3",
    "python3.13",
    "python3.12",
    "python3.11",
    "python3.10",
    "python",
];
/// For a slow line; half a minute is usual.
const INSTALL_TIME_MAX: Duration = Duration::from_secs(600);
const ASK_TIME_MAX: Duration = Duration::from_secs(30);
/// Written last: an environment without it is half made.
const DONE: &str = "done";

/// Which clients.
#[derive(Debug, Clone, Copy)]
pub enum Generation {
    /// With databricks-openai, whose dependencies hold databricks-sdk at 0.94.
    Capped,
    /// The newest databricks-sdk.
    Newest,
    /// No clients: what checks the audit log's formats.
    Formats,
}

impl Generation {
    fn requirements(self) -> PathBuf {
        suite_folder().join(match self {
            Self::Capped => "requirements-0.94.txt",
            Self::Newest => "requirements-newest.txt",
            Self::Formats => "requirements-formats.txt",
        })
    }
}

/// Where the Python files are.
pub fn suite_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e")
}

/// A folder below `target` for what is made here.
pub fn work_folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .unwrap()
        .join("e2e");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The interpreter of a ready environment.
pub async fn environment(generation: Generation) -> PathBuf {
    let requirements = generation.requirements();
    let (python, version) = find_python().await;
    let mut recipe = fs::read(&requirements).unwrap();
    recipe.extend_from_slice(version.as_bytes());
    let hash = digest(&SHA256, &recipe);
    let name: String = hash.as_ref()[..6]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let folder = work_folder().join(format!("venv-{name}"));
    let interpreter = folder.join("bin/python");

    // Another test run in the same target folder may be at it.
    let lock = File::create(folder.with_extension("lock")).unwrap();
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock));
    let _lock = lock.await.unwrap().unwrap();
    if folder.join(DONE).exists() {
        return interpreter;
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    let make = ["-m".into(), "venv".into(), folder.clone().into_os_string()];
    must(&python, &make, ASK_TIME_MAX * 4).await;
    let mut install: Vec<OsString> = "-m pip install --quiet --disable-pip-version-check --no-input --no-deps --only-binary :all: -r"
        .split(' ')
        .map(OsString::from)
        .collect();
    install.push(requirements.into_os_string());
    must(interpreter.as_os_str(), &install, INSTALL_TIME_MAX).await;
    File::create(folder.join(DONE)).unwrap();
    interpreter
}

/// A Python that is new enough, and its version.
async fn find_python() -> (OsString, String) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test driver is configured by its environment"
    )]
    let named = std::env::var(PYTHON_VARIABLE).ok();
    let candidates: Vec<OsString> = match named {
        Some(one) => vec![one.into()],
        None => PYTHONS.iter().map(OsString::from).collect(),
    };
    // Ends well only where the version suffices and environments can be made.
    let question =
        "import ensurepip, sys, venv; print(sys.version); sys.exit(sys.version_info < (3, 10))";
    for candidate in &candidates {
        let asked = run(candidate, &["-c".into(), question.into()], ASK_TIME_MAX).await;
        if let Ok(output) = asked
            && output.status.success()
        {
            let version = String::from_utf8_lossy(&output.stdout).into_owned();
            return (candidate.clone(), version);
        }
    }
    panic!(
        "no Python 3.10 or newer with venv and ensurepip among {candidates:?}: install one (Debian: python3-venv), or name one in {PYTHON_VARIABLE}"
    );
}

async fn must(program: &std::ffi::OsStr, arguments: &[OsString], limit: Duration) {
    let output = run(program, arguments, limit).await.unwrap();
    assert!(
        output.status.success(),
        "{program:?} {arguments:?} failed (the first run needs the package index):\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

async fn run(
    program: &std::ffi::OsStr,
    arguments: &[OsString],
    limit: Duration,
) -> std::io::Result<Output> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    match tokio::time::timeout(limit, command.output()).await {
        Ok(output) => output,
        Err(_) => panic!("{program:?} {arguments:?} took longer than {limit:?}"),
    }
}
