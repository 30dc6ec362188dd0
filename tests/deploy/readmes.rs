//! The READMEs of `deploy/`: one screen each, no link into nowhere, and only commands that the binary has.

use std::fs;
use std::path::PathBuf;

use crate::harness::{Folder, deploy, output_of};

/// One screen.
const LINES_MAX: usize = 60;

fn readmes() -> Vec<PathBuf> {
    let folders = fs::read_dir(deploy()).unwrap();
    let mut found: Vec<PathBuf> = { folders.map(|entry| entry.unwrap().path()) }
        .filter(|path| path.is_dir())
        .map(|path| path.join("README.md"))
        .collect();
    found.push(deploy().join("README.md"));
    assert_eq!(found.len(), 8, "{found:?}");
    found
}

#[test]
fn every_place_has_a_readme_of_one_screen_that_the_index_names() {
    let index = fs::read_to_string(deploy().join("README.md")).unwrap();
    for readme in readmes() {
        let text = fs::read_to_string(&readme).unwrap();
        let lines = text.lines().count();
        assert!(
            (5..=LINES_MAX).contains(&lines),
            "{}: {lines} lines",
            readme.display()
        );
        let folder = readme.parent().unwrap();
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            let there = link.starts_with("https://") || folder.join(link).exists();
            assert!(there, "{}: {link}", readme.display());
        }
        if folder != deploy() {
            let name = folder.file_name().unwrap().to_str().unwrap();
            assert!(index.contains(&format!("({name}/README.md)")), "{name}");
        }
    }
}

#[tokio::test]
async fn every_command_named_here_is_one_of_the_binary() {
    let folder = Folder::new();
    let mut commands = Vec::new();
    let mut files = readmes();
    files.push(deploy().join("prometheus/alerts.yml"));
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for line in text.split(['`', '\n']).map(str::trim) {
            let Some(rest) = line.strip_prefix("valetkey ") else {
                continue;
            };
            let words = rest.split_whitespace();
            let words =
                words.take_while(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
            commands.push(
                words
                    .take_while(|word| !word.starts_with("--"))
                    .collect::<Vec<_>>()
                    .join(" "),
            );
        }
    }
    commands.retain(|command| !command.is_empty());
    commands.sort();
    commands.dedup();
    assert!(commands.len() >= 4, "{commands:?}");
    for command in commands {
        let mut words: Vec<&str> = command.split(' ').collect();
        words.push("--help");
        let output = output_of(folder.valetkey(&words)).await.unwrap();
        assert!(output.status.success(), "valetkey {command}");
    }
}
