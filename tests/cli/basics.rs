//! What needs no configuration: help, version, schema, completions, bad usage; and that the README tells of them truly.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::Value;

use crate::harness::Folder;
use crate::harness::process::Process;

/// The README as it was compiled in.
const README: &str = include_str!("../../README.md");

#[tokio::test]
async fn help_and_version_are_good() {
    let folder = Folder::new();
    let help = folder.run(&["--help"]).await.good();
    assert!(help.contains("Usage: valetkey <COMMAND>"), "{help}");
    let version = folder.run(&["--version"]).await.good();
    assert_eq!(version, format!("valetkey {}\n", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn bad_usage_is_64_and_says_what_was_meant() {
    let folder = Folder::new();
    for (arguments, words) in [
        (vec![], vec!["Usage: valetkey"]),
        (vec!["chekc"], vec!["chekc", "check"]),
        (vec!["check", "--jsno"], vec!["--jsno", "--json"]),
        (vec!["run"], vec!["CMD"]),
        (vec!["run", "python"], vec!["python", "--"]),
        (vec!["audit"], vec!["tail", "query", "verify"]),
        (vec!["audit", "query", "--decision", "maybe"], vec!["maybe"]),
        (vec!["completions", "tcsh"], vec!["tcsh", "bash"]),
        (
            vec!["explain", "--as", "root", "GET", "/"],
            vec!["root", "user", "app"],
        ),
    ] {
        let ended = folder.run(&arguments).await.expect(64);
        ended.says(&words);
        assert_eq!(ended.out, "", "{arguments:?}");
    }
}

#[tokio::test]
async fn the_schema_is_json_with_every_section() {
    let text = Folder::new().run(&["schema"]).await.good();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let sections = schema["properties"].as_object().unwrap();
    let sections: BTreeSet<&str> = sections.keys().map(String::as_str).collect();
    for section in [
        "workspace",
        "inbound",
        "users",
        "app",
        "outbound",
        "routes",
        "mode",
        "audit",
        "admin",
        "log",
        "limits",
    ] {
        assert!(sections.contains(section), "{section} in {sections:?}");
    }
    assert_eq!(schema["additionalProperties"], false);
}

#[tokio::test]
async fn the_completion_script_is_one_that_bash_can_read() {
    let folder = Folder::new();
    let script = folder.run(&["completions", "bash"]).await.good();
    assert!(script.contains("healthcheck"));
    let path = folder.write("valetkey.bash", &script);
    let mut bash = tokio::process::Command::new("bash");
    bash.args(["-n".as_ref(), path.as_os_str()]).env_clear();
    Process::start(bash).end().await.good();
}

#[tokio::test]
async fn output_into_a_closed_pipe_ends_quietly() {
    let folder = Folder::new();
    for arguments in [vec!["schema"], vec!["--help"], vec!["demo", "--once"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = folder.valetkey(&arguments);
        let error = folder.file("err");
        command
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(std::fs::File::create(&error).unwrap());
        let status = crate::harness::within("it ends", command.status())
            .await
            .unwrap();
        let error = std::fs::read_to_string(error).unwrap();
        assert_eq!(
            (status.code(), error.as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
}

/// The code blocks of the README in this language.
fn blocks_of_the_readme(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let mut blocks = README
        .split(&fence as &str)
        .collect::<Vec<_>>()
        .split_off(1);
    for block in &mut blocks {
        *block = block.split("```").next().unwrap();
    }
    blocks
}

#[tokio::test]
async fn what_the_readme_invites_to_run_runs() {
    let folder = Folder::new();
    let lines = blocks_of_the_readme("sh").into_iter().flat_map(str::lines);
    let commands: Vec<Vec<&str>> = lines
        .filter_map(|line| line.strip_prefix("cargo run --release -- "))
        .map(|line| line.split('#').next().unwrap().split_whitespace().collect())
        .collect();
    assert_eq!(commands, [["demo", "--once"]]);
    for command in commands {
        folder.run(&command).await.good();
    }
}

#[tokio::test]
async fn the_configurations_of_the_readme_and_of_the_example_file_are_good() {
    let folder = Folder::new();
    let example = include_str!("../../config/valetkey.yaml");
    let readme = blocks_of_the_readme("yaml");
    let policies = readme.into_iter().filter(|block| block.contains("routes:"));
    let mut count = 0;
    for text in policies.chain([example]) {
        folder.write("valetkey.yaml", text);
        let mut check = folder.valetkey(&["check"]);
        check
            .env("DATABRICKS_HOST", "my-workspace.cloud.databricks.com")
            .env("DATABRICKS_WORKSPACE_ID", "1234567890")
            .env("DATABRICKS_CLIENT_ID", "the-app")
            .env("DATABRICKS_CLIENT_SECRET", "the-secret-of-the-app")
            .env("AGENT_CLIENT_ID", "the-agent")
            .env("AGENT_CLIENT_SECRET", "the-secret-of-the-agent");
        let table = Process::start(check).end().await.good();
        assert!(!table.contains("warning"), "{table}");
        count += 1;
    }
    assert_eq!(count, 3);
}

/// The command lines in the README's table of commands, as words.
fn commands_of_the_readme() -> Vec<Vec<&'static str>> {
    let rows = README
        .lines()
        .filter(|line| line.starts_with("| `valetkey "));
    let commands = rows.flat_map(|row| row.split('|').nth(1).unwrap().split("`, `"));
    commands
        .map(|command| {
            let command = command.trim().trim_matches('`');
            command.trim_start_matches("valetkey ").split(' ').collect()
        })
        .collect()
}

#[tokio::test]
async fn every_command_and_option_of_the_readme_exists_and_none_is_left_out() {
    let folder = Folder::new();
    let commands = commands_of_the_readme();
    assert!(commands.len() > 7, "{commands:?}");
    for words in &commands {
        let help = folder.run(&[words[0], "--help"]).await.good();
        for word in &words[1..] {
            let word = word.trim_matches(['[', ']']);
            if word.starts_with("--") && word != "--" {
                assert!(help.contains(word), "{word} of {words:?}:\n{help}");
            }
            for part in word.split(['|', '\\']).filter(|_| words[0] == "audit") {
                assert!(help.contains(part), "{part} of {words:?}:\n{help}");
            }
        }
    }
    let help = folder.run(&["--help"]).await.good();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed: BTreeSet<&str> = listed
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let told: BTreeSet<&str> = commands.iter().map(|words| words[0]).collect();
    assert_eq!(listed, told);
}
