//! The wheel: what is in it, how large it is, and the sample app installed from it into a clean environment, end to end.
//!
//! A wheel takes minutes to build, so `deploy/wheel/build.sh` does that beforehand; a wheel that is not there, or of other
//! sources, is not tested, aloud.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::json;
use tokio::process::Command;

use crate::databricks_app::App;
use crate::harness::{Folder, good, output_of, root, skipped, target, text_of};
use crate::venv;

/// What a Databricks App takes as one file.
const BYTES_MAX: u64 = 10 * 1024 * 1024;
/// What `build.sh` digests.
const SOURCES: [&str; 5] = [
    "src",
    "config",
    "Cargo.toml",
    "Cargo.lock",
    "deploy/wheel/pyproject.toml",
];

/// Every file that the wheel is made of, with the paths as `build.sh` sorts them.
fn sources(path: &Path, found: &mut BTreeSet<Vec<u8>>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), found);
        }
    } else {
        found.insert(path.as_os_str().as_bytes().to_vec());
    }
}

fn digest_of_sources() -> String {
    let mut files = BTreeSet::new();
    for name in SOURCES {
        sources(&root().join(name), &mut files);
    }
    let mut context = Context::new(&SHA256);
    for file in files {
        context.update(&fs::read(OsStr::from_bytes(&file)).unwrap());
    }
    let digest = context.finish();
    { digest.as_ref().iter() }
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The name that the sample app installs.
fn name() -> String {
    let requirements = text_of("databricks-app/requirements.txt");
    let line = requirements.lines().find(|line| line.ends_with(".whl"));
    line.unwrap().trim_start_matches("./").to_owned()
}

/// A wheel of these sources, if one was built.
fn wheel() -> Option<PathBuf> {
    let wheel = target().join("wheels").join(name());
    let made_of = fs::read_to_string(target().join("wheels/sources.sha256"));
    match made_of {
        Ok(digest) if wheel.exists() && digest.trim() == digest_of_sources() => Some(wheel),
        Ok(_) => {
            skipped("the wheel: it is of other sources (deploy/wheel/build.sh builds it)");
            None
        }
        Err(_) => {
            skipped("the wheel: there is none (deploy/wheel/build.sh builds it)");
            None
        }
    }
}

#[test]
fn the_wheel_is_for_the_machine_of_an_app() {
    // Ubuntu 22.04 has glibc 2.35.
    let name = name();
    let glibc = name.split("manylinux_2_").nth(1).unwrap();
    let glibc: u32 = glibc.split('_').next().unwrap().parse().unwrap();
    assert!(glibc <= 35, "{name}");
    let project = text_of("wheel/pyproject.toml");
    assert!(project.contains(&format!("compatibility = \"manylinux_2_{glibc}\"")));
}

#[tokio::test]
async fn the_wheel_holds_the_binary_alone_and_both_are_small_enough() {
    let Some(wheel) = wheel() else { return };
    assert!(fs::metadata(&wheel).unwrap().len() <= BYTES_MAX);
    let (folder, venv) = (Folder::new(), Folder::new());
    let mut unpack = Command::new("python3");
    unpack
        .args(["-m", "zipfile", "-e"])
        .arg(&wheel)
        .arg(folder.path());
    good(output_of(unpack).await);
    let mut inside: Vec<String> = { fs::read_dir(folder.path()).unwrap() }
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    inside.sort();
    let version = env!("CARGO_PKG_VERSION");
    let (data, info) = (
        format!("valetkey-{version}.data"),
        format!("valetkey-{version}.dist-info"),
    );
    assert_eq!(inside, [data.clone(), info]);
    let binary = fs::metadata(folder.file(&data).join("scripts/valetkey")).unwrap();
    assert!(binary.len() <= BYTES_MAX, "{} bytes", binary.len());

    venv::make(venv.path()).await;
    venv::install(venv.path(), &["--no-index", wheel.to_str().unwrap()]).await;
    let mut ask = Command::new(venv.file("bin/valetkey"));
    ask.arg("--version");
    assert_eq!(good(output_of(ask).await), format!("valetkey {version}\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sample_app_runs_from_a_clean_environment_with_the_wheel() {
    let Some(wheel) = wheel() else { return };
    // As on the platform: the app's folder with the wheel in it, and its requirements as they stand.
    let (build, environment) = (Folder::new(), Folder::new());
    let home = build.copy("databricks-app");
    fs::copy(&wheel, home.join(name())).unwrap();
    venv::make(environment.path()).await;
    let mut install = Command::new(environment.file("bin/python"));
    install
        .args(
            "-m pip install --quiet --disable-pip-version-check --no-input -r requirements.txt"
                .split(' '),
        )
        .current_dir(home);
    good(output_of(install).await);

    let programs = environment.file("bin");
    let app = App::start(programs.to_str().unwrap(), |_| {}).await;
    app.works_as_both_identities().await;
    let (status, said) = app.asks_for_a_foreign_warehouse().await;
    assert_eq!(
        (status, &said["error"]),
        (403, &json!("PermissionDenied")),
        "{said}"
    );
    app.traces_as_the_app().await;
    app.sidecar.stop().await;
}
