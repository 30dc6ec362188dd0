//! `audit tail`, `query` and `verify` on the log that a real run left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::process::Process;
use crate::harness::{ALICE, Folder, until, within};

/// The folder, and in it the log of a demo: two users, the app, refusals.
async fn log() -> (Folder, PathBuf) {
    let folder = Folder::new();
    let out = folder.run(&["demo", "--once"]).await.good();
    let line = out.lines().find_map(|line| line.strip_prefix("audit log"));
    let log = PathBuf::from(line.unwrap().trim());
    (folder, log)
}

fn lines(log: &Path) -> Vec<String> {
    let text = fs::read_to_string(log).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The file's lines whose record is so.
fn lines_with(log: &Path, is_so: impl Fn(&Value) -> bool) -> Vec<String> {
    let mut all = lines(log);
    all.retain(|line| is_so(&serde_json::from_str(line).unwrap()));
    all
}

#[tokio::test]
async fn queries_show_exactly_the_lines_of_the_file_that_fit() {
    let (folder, log) = log().await;
    let file = log.to_str().unwrap();
    let is = |name: &'static str, value: &'static str| move |r: &Value| r[name] == value;
    for (conditions, expected) in [
        (vec![], lines(&log)),
        (
            vec!["--user", ALICE],
            lines_with(&log, |r| r["user"]["email"] == ALICE),
        ),
        (
            vec!["--user", "ALICE@example.com"],
            lines_with(&log, |r| r["user"]["sub"] == ALICE),
        ),
        (
            vec!["--decision", "deny"],
            lines_with(&log, is("decision", "deny")),
        ),
        (
            vec!["--route", "user-sql"],
            lines_with(&log, is("route", "user-sql")),
        ),
        (
            vec!["--reason", "no_route"],
            lines_with(&log, is("reason", "no_route")),
        ),
        (
            vec!["--event", "outcome"],
            lines_with(&log, is("event", "outcome")),
        ),
        (
            vec!["--operation", "mlflow.*"],
            lines_with(&log, |r| {
                r["operation"]
                    .as_str()
                    .is_some_and(|o| o.starts_with("mlflow."))
            }),
        ),
        (
            vec!["--resource", "serving_endpoint/demo-chat"],
            lines_with(&log, |r| r["resource"]["id"] == "demo-chat"),
        ),
        (
            vec!["--user", ALICE, "--route", "user-sql", "--event", "intent"],
            lines_with(&log, |r| {
                r["user"]["email"] == ALICE && r["route"] == "user-sql" && r["event"] == "intent"
            }),
        ),
        (vec!["--since", "1h"], lines(&log)),
        (vec!["--since", "2020-01-01T00:00:00Z"], lines(&log)),
    ] {
        assert!(!expected.is_empty(), "{conditions:?}");
        let all = [&["audit", "query", "--json", file], &conditions[..]].concat();
        let out = folder.run(&all).await.good();
        assert_eq!(out.lines().collect::<Vec<_>>(), expected, "{conditions:?}");
    }
    for nothing in [
        ["--since", "2999-01-01T00:00:00Z"],
        ["--until", "1h"],
        ["--user", "mallory@example.com"],
    ] {
        let all = [&["audit", "query", "--json", file], &nothing[..]].concat();
        assert_eq!(folder.run(&all).await.good(), "", "{nothing:?}");
    }
}

#[tokio::test]
async fn the_time_of_a_record_is_a_bound_for_queries() {
    let (folder, log) = log().await;
    let file = log.to_str().unwrap();
    let all = lines(&log);
    let middle: Value = serde_json::from_str(&all[all.len() / 2]).unwrap();
    let moment = middle["ts"].as_str().unwrap();
    let since = ["audit", "query", "--json", "--since", moment, file];
    let until = ["audit", "query", "--json", "--until", moment, file];
    let later = folder.run(&since).await.good();
    let earlier = folder.run(&until).await.good();
    assert!(later.contains(&all[all.len() / 2]));
    assert_eq!(
        format!("{earlier}{later}"),
        fs::read_to_string(&log).unwrap()
    );
    let wrong = folder
        .run(&["audit", "query", "--since", "tomorrow", file])
        .await;
    wrong.expect(64).says(&["tomorrow", "15m"]);
}

#[tokio::test]
async fn tables_name_who_as_whom_which_route_and_why() {
    let (folder, log) = log().await;
    let file = log.to_str().unwrap();
    let table = folder
        .run(&["audit", "query", "--route", "user-sql", file])
        .await
        .good();
    let (head, rows) = table.split_once('\n').unwrap();
    assert!(
        head.starts_with("TIME") && head.ends_with("REASON"),
        "{head}"
    );
    for words in [
        ["intent allow", ALICE, "user-sql"],
        ["denial deny", "none", "user_required"],
    ] {
        let fits = |row: &str| words.iter().all(|word| row.contains(word));
        assert!(rows.lines().any(fits), "{words:?} in\n{table}");
    }
    assert!(!table.contains('\u{1b}'), "colours are for terminals");
}

#[tokio::test]
async fn tail_shows_the_last_records() {
    let (folder, log) = log().await;
    let file = log.to_str().unwrap();
    let all = lines(&log);
    let last = folder
        .run(&["audit", "tail", "--json", "-n", "3", file])
        .await
        .good();
    assert_eq!(last.lines().collect::<Vec<_>>(), all[all.len() - 3..]);
    let table = folder.run(&["audit", "tail", "-n", "2", file]).await.good();
    assert_eq!(table.lines().count(), 3, "{table}");
    let words: Vec<bool> = table
        .lines()
        .skip(1)
        .zip([" stop ", " checkpoint "])
        .map(|(row, word)| row.contains(word))
        .collect();
    assert_eq!(words, [true, true], "{table}");
}

#[tokio::test]
async fn tail_follows_what_is_written_afterwards() {
    let (folder, log) = log().await;
    let all = lines(&log);
    let (begun, rest) = all.split_at(5);
    let growing = folder.write("growing.jsonl", &format!("{}\n", begun.join("\n")));
    let arguments = ["audit", "tail", "-f", "--json", "growing.jsonl"];
    let tail = Process::start(folder.valetkey(&arguments));
    let shows = async |expected: &[String]| {
        until("tail shows it", async || {
            let out = tail.out();
            (out.lines().collect::<Vec<_>>() == expected).then_some(())
        })
        .await;
    };
    shows(begun).await;
    let mut file = fs::OpenOptions::new().append(true).open(growing).unwrap();
    let rest = rest.join("\n");
    let (half, other) = rest.split_at(rest.len() / 2);
    std::io::Write::write_all(&mut file, half.as_bytes()).unwrap();
    std::io::Write::write_all(&mut file, format!("{other}\n").as_bytes()).unwrap();
    shows(&all).await;
    // Not SIGINT: a test run in the background has it ignored, and so has what it starts.
    tail.signal(Signal::SIGTERM);
    assert_eq!(tail.end().await.err, "");
}

#[tokio::test]
async fn verify_says_which_record_was_tampered_with() {
    let (folder, log) = log().await;
    let all = lines(&log);
    let seq = |line: &str| serde_json::from_str::<Value>(line).unwrap()["seq"].clone();
    let mut edited = all.clone();
    edited[8] = edited[8].replacen("\"decision\":\"allow\"", "\"decision\":\"deny\"", 1);
    assert_ne!(edited[8], all[8], "{}", all[8]);
    let mut cut = all.clone();
    let gone = cut.remove(5);
    let mut swapped = all.clone();
    swapped.swap(6, 7);
    for (name, text, line, number) in [
        ("edited", edited, 9, seq(&all[8])),
        ("cut", cut, 6, seq(&gone)),
        ("swapped", swapped, 7, seq(&all[6])),
    ] {
        let file = folder.write(&format!("{name}.jsonl"), &format!("{}\n", text.join("\n")));
        let file = file.to_str().unwrap();
        let ended = folder.run(&["audit", "verify", file]).await.expect(1);
        let place = format!("line {line}");
        assert!(ended.out.contains("BROKEN"), "{name}: {}", ended.out);
        assert!(
            ended.out.contains(&place) && ended.out.contains(&number.to_string()),
            "{name}: {}",
            ended.out
        );
        let told = folder
            .run(&["audit", "verify", "--json", file])
            .await
            .expect(1)
            .out;
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["good"], false);
        assert_eq!(told["breaks"][0]["line"], line, "{name}: {told:#}");
    }
}

#[tokio::test]
async fn the_readmes_one_liner_recomputes_a_hash_with_standard_tools() {
    let (_folder, log) = log().await;
    let readme = include_str!("../../README.md");
    let one_liner = "printf %s \"${line%,\\\"hash\\\":*}\" | sha256sum";
    assert!(readme.contains(one_liner));
    let line = lines(&log).swap_remove(3);
    let mut shell = tokio::process::Command::new("bash");
    shell
        .args(["-c", one_liner])
        .env_clear()
        .env("PATH", crate::harness::PATH)
        .env("line", &line);
    let out = Process::start(shell).end().await.good();
    let record: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(out.split_whitespace().next(), record["hash"].as_str());
}

#[tokio::test]
async fn a_missing_log_is_told_by_name() {
    let folder = Folder::new();
    folder.write_config(&crate::harness::config_without_workspace());
    for command in ["tail", "query", "verify"] {
        let named = folder.run(&["audit", command, "nowhere.jsonl"]).await;
        named.expect(64).says(&["nowhere.jsonl", "o such"]);
        // Without a name it is the configured one.
        let configured = folder.run(&["audit", command]).await;
        configured.expect(64).says(&["audit.jsonl", "o such"]);
    }
}

/// Exit code and standard error where nobody reads the standard output.
async fn unread(folder: &Folder, arguments: &[&str], log: &Path) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = folder.valetkey(&[&["audit"], arguments].concat());
    let error = folder.file("err");
    command
        .arg(log)
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(fs::File::create(&error).unwrap());
    let status = within("it ends", command.status()).await.unwrap();
    (status.code(), fs::read_to_string(error).unwrap())
}

#[tokio::test]
async fn a_reader_that_has_gone_ends_every_command_quietly_and_changes_no_verdict() {
    let (folder, log) = log().await;
    for arguments in [
        &["tail", "-n", "20"][..],
        &["query", "--json"],
        &["query"],
        &["verify"],
    ] {
        let ended = unread(&folder, arguments, &log).await;
        assert_eq!(ended, (Some(0), String::new()), "{arguments:?}");
    }
    let edited = lines(&log).join("\n").replacen("allow", "deny", 1);
    let edited = folder.write("edited.jsonl", &format!("{edited}\n"));
    for arguments in [&["verify"][..], &["verify", "--json"]] {
        let ended = unread(&folder, arguments, &edited).await;
        assert_eq!(ended, (Some(1), String::new()), "{arguments:?}");
    }
}

#[tokio::test]
async fn an_export_verifies_alone_and_stats_agree_with_the_log() {
    let (folder, log) = log().await;
    let file = log.to_str().unwrap();
    let exported = folder
        .run(&["audit", "export", "--user", ALICE, file])
        .await;
    let (command, text) = (exported.err.clone(), exported.good());
    let own: Vec<String> = lines_with(&log, |r| r["user"]["sub"] == ALICE);
    assert_eq!(text.lines().collect::<Vec<_>>(), own);
    // Standard error says how to verify it.
    let head = command.split("--head ").nth(1).unwrap();
    let head = head.split_whitespace().next().unwrap();
    folder.write("alice.jsonl", &text);
    let verify = ["audit", "verify", "--user", ALICE, "--head", head];
    let verify = |file: &'static str| [&verify[..], &[file]].concat();
    folder.run(&verify("alice.jsonl")).await.good();
    let (cut, _) = text.trim_end().rsplit_once('\n').unwrap();
    folder.write("cut.jsonl", &format!("{cut}\n"));
    let told = folder.run(&verify("cut.jsonl")).await.expect(1);
    told.says(&["cut", "BROKEN"]);

    let stats = folder.run(&["audit", "stats", "--json", file]).await.good();
    let rows: Vec<Value> = stats
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let sum = |name: &str| -> u64 {
        let values = rows.iter().map(|row| row[name].as_u64().unwrap());
        values.sum()
    };
    let count = |event: &str| lines_with(&log, |r| r["event"] == event).len() as u64;
    assert_eq!(count("intent"), sum("calls"));
    assert_eq!(count("denial") + count("token_rejected"), sum("denials"));
    assert!(rows.iter().any(|row| row["user"] == ALICE));
    let table = folder.run(&["audit", "stats", file]).await.good();
    assert_eq!(table.lines().count(), rows.len() + 1);
}

#[tokio::test]
async fn a_pinned_key_is_the_only_one_that_counts() {
    let folder = Folder::new();
    let key = |name: &'static str| {
        let mut make = tokio::process::Command::new("openssl");
        make.args(["genpkey", "-algorithm", "ed25519", "-out"])
            .arg(folder.file(name));
        make
    };
    for name in ["key.pem", "other.pem"] {
        Process::start(key(name)).end().await.expect(0);
        let mut public = tokio::process::Command::new("openssl");
        public
            .args(["pkey", "-pubout", "-in"])
            .arg(folder.file(name))
            .arg("-out")
            .arg(folder.file(&format!("{name}.pub")));
        Process::start(public).end().await.expect(0);
    }
    let mut config = crate::harness::config_without_workspace();
    config["audit"]["key_file"] = "key.pem".into();
    folder.write_config(&config);
    let mut sidecar = Process::start(folder.valetkey(&["serve"]));
    let listening = sidecar.listening().await;
    let status = crate::harness::web::get(listening.admin, "/status", &[]).await;
    let told = status.json()["audit"]["public_key"].clone();
    let logged = sidecar
        .logged("audit checkpoints are signed by this key")
        .await;
    assert_eq!(logged["public_key"], told);
    sidecar.stop().await.expect(0);
    let verify = async |key: &str| {
        folder
            .run(&["audit", "verify", "--key", key, "audit.jsonl"])
            .await
    };
    let good = verify(told.as_str().unwrap()).await.expect(0);
    good.says(&["good", ", pinned"]);
    verify("key.pem.pub").await.expect(0);
    let bad = verify("other.pem.pub").await.expect(1);
    bad.says(&["a key that is not pinned"]);
    verify("key.pem").await.expect(64);
    let unpinned = folder.run(&["audit", "verify", "audit.jsonl"]).await;
    unpinned
        .expect(0)
        .says(&["not pinned", "no key was pinned"]);
    // The signature is checked with nothing but openssl.
    let record = folder.records().pop().unwrap();
    let signed = &record["checkpoint"];
    let (records, head) = (&signed["records"], signed["head"].as_str().unwrap());
    let message = format!("valetkey audit checkpoint v1\n{records}\n{head}\n");
    folder.write("message", &message);
    let hex = signed["signature"].as_str().unwrap();
    let bytes: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect();
    fs::write(folder.file("signature"), bytes).unwrap();
    let mut check = tokio::process::Command::new("openssl");
    check.current_dir(folder.path()).args(
        "pkeyutl -verify -pubin -inkey key.pem.pub -rawin -in message -sigfile signature"
            .split(' '),
    );
    Process::start(check).end().await.expect(0);
    // A key that others can read signs nothing.
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder.file("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let refused = folder.run(&["serve"]).await.expect(78);
    refused.says(&["audit.key_file", "key.pem", "chmod 600"]);
}

#[tokio::test]
async fn standard_output_gets_a_copy_of_what_is_in_the_file() {
    for (format, class) in [("json", Value::Null), ("ocsf", Value::from(6003))] {
        let folder = Folder::new();
        let mut config = crate::harness::config_without_workspace();
        config["audit"]["stdout"] = true.into();
        config["audit"]["format"] = format.into();
        folder.write_config(&config);
        let mut sidecar = Process::start(folder.valetkey(&["serve"]));
        sidecar.listening().await;
        let out = sidecar.stop().await.good();
        let copied: Vec<Value> = out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let records = folder.records();
        assert_eq!(copied.len(), records.len(), "{out}");
        for (copy, record) in copied.iter().zip(&records) {
            assert_eq!(copy["class_uid"], class);
            if format == "json" {
                assert_eq!(copy, record);
            } else {
                assert_eq!(copy["metadata"]["uid"], record["hash"]);
            }
        }
    }
    let folder = Folder::new();
    let mut config = crate::harness::config_without_workspace();
    config["audit"]["format"] = "ocsf".into();
    folder.write_config(&config);
    let refused = folder.run(&["check"]).await.expect(78);
    refused.says(&["audit.format", "set audit.stdout: true"]);
    let schema = folder.run(&["schema", "--audit"]).await.good();
    assert_eq!(schema, include_str!("../../config/audit.schema.json"));
}
