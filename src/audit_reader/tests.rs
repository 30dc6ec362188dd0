//! Reading logs that are whole, broken, growing and rotating.

use std::io::Write as _;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::export::{Exported, Format};
use super::prove::{Claim, verify};
use super::query::query;
use super::table::Entry;
use super::tail::tail;
use super::*;
use crate::domain::audit::chain::{Chain, Link};
use crate::domain::audit::{Decision, Event, Record, Resource, User};
use crate::domain::identity::{UserEmail, UserId};
use crate::runtime::audit_file::{AuditFile, AuditSink as _};

const TABLE: Show = Show::Table { color: false };

struct Log {
    folder: tempfile::TempDir,
    file: AuditFile,
    chain: Chain,
}

impl Log {
    fn new(rotate_bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("valetkey.jsonl");
        Self {
            file: AuditFile::open(&path, rotate_bytes, 100).unwrap(),
            chain: Chain::default(),
            folder,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("valetkey.jsonl")
    }

    /// At minute `minute` of the epoch.
    fn write(&mut self, user: &str, decision: Decision, minute: i64) {
        let mut record = Record::new(match decision {
            Decision::Allow | Decision::WouldDeny => Event::Intent,
            Decision::Deny => Event::Denial,
        });
        record.user = Some(Arc::new(User {
            sub: UserId::parse(&format!("id-{user}")).unwrap(),
            email: UserEmail::parse(&format!("{user}@example.com")).ok(),
            verified: true,
            client_id: None,
            token_id: None,
        }));
        record.route = Some("sql".into());
        record.operation = Some("sql.statements.execute".into());
        record.resource = Some(Resource {
            kind: "sql_warehouse".into(),
            id: "12".into(),
        });
        record.decision = Some(decision);
        record.reason = (decision == Decision::Deny).then(|| "no_route".into());
        let now = Timestamp::from_second(minute * 60).unwrap();
        let mut buffer = Vec::new();
        self.chain.seal(&record, now, &mut buffer);
        self.chain.commit();
        self.file.append(&buffer, false).unwrap();
        self.file.rotate(&self.chain).unwrap();
    }

    fn some(rotate_bytes: u64) -> Self {
        let mut log = Self::new(rotate_bytes);
        for minute in 0..6 {
            let user = if minute % 2 == 0 { "Alice" } else { "bob" };
            let decision = if minute == 3 {
                Decision::Deny
            } else {
                Decision::Allow
            };
            log.write(user, decision, minute);
        }
        log
    }

    fn query(&self, filter: &Filter, show: Show) -> (Count, String) {
        let mut out = Vec::new();
        let files = files_of(&[self.path()]).unwrap();
        let count = query(&files, filter, show, &mut out).unwrap();
        (count, String::from_utf8(out).unwrap())
    }

    fn verify(&self, head: Option<Link>, json: bool) -> (bool, String) {
        let mut out = Vec::new();
        let files = files_of(&[self.path()]).unwrap();
        let claim = Claim {
            heads: head.into_iter().collect(),
            json,
            ..Claim::default()
        };
        let good = verify(&files, &claim, &mut out).unwrap();
        (good, String::from_utf8(out).unwrap())
    }
}

fn check(log: &Log, expected: u64, set: impl Fn(&mut Filter)) {
    let mut filter = Filter::default();
    set(&mut filter);
    let (count, json) = log.query(&filter, Show::Json);
    assert_eq!(count.matched, expected, "{filter:?}");
    assert_eq!(json.lines().count() as u64, expected);
}

#[test]
fn each_condition_selects_and_all_of_them_must_hold() {
    let log = Log::some(600);
    let at = |minute: i64| Some(Timestamp::from_second(minute * 60).unwrap());
    check(&log, 6, |_| {});
    check(&log, 3, |f| f.user = Some("ALICE@example.com".into()));
    check(&log, 3, |f| f.user = Some("id-BOB".into()));
    check(&log, 0, |f| f.user = Some("bo".into()));
    check(&log, 4, |f| f.since = at(2));
    check(&log, 2, |f| f.until = at(2));
    check(&log, 1, |f| f.decision = Some("deny".into()));
    check(&log, 1, |f| f.reason = Some("no_route".into()));
    check(&log, 5, |f| f.event = Some("intent".into()));
    check(&log, 6, |f| f.route = Some("sql".into()));
    check(&log, 6, |f| f.operation = Some("sql.*".into()));
    check(&log, 0, |f| f.operation = Some("sql".into()));
    check(&log, 6, |f| f.resource = Some("sql_warehouse/12".into()));
    check(&log, 6, |f| f.resource = Some("12".into()));
    check(&log, 0, |f| f.resource = Some("1".into()));
    check(&log, 0, |f| f.call = Some("x".into()));
    check(&log, 1, |f| {
        f.user = Some("bob@example.com".into());
        f.decision = Some("deny".into());
        f.since = at(3);
    });
}

#[test]
fn the_table_names_who_what_where_and_why() {
    let (_, table) = Log::some(1 << 20).query(&Filter::default(), TABLE);
    let denied = table.lines().nth(4).unwrap();
    assert!(table.starts_with("TIME "));
    for part in [
        "1970-01-01 00:03:00.000Z",
        "denial deny",
        "bob@example.com",
        "sql.statements.execute",
        "sql_warehouse/12",
        "no_route",
    ] {
        assert!(denied.contains(part), "{part} in {denied}");
    }
    assert!(!table.contains('\u{1b}'));
    let (_, colored) = Log::some(1 << 20).query(&Filter::default(), Show::Table { color: true });
    assert!(colored.contains("\u{1b}[31m"));
}

#[test]
fn an_edited_file_cannot_move_the_cursor() {
    let mut out = Vec::new();
    let line = r#"{"seq":1,"ts":"\u001b[2J","event":"x\u202ey","reason":"\u009b1A\r","path":"p"}"#;
    let entry: Entry<'_> = serde_json::from_str(line).unwrap();
    table::row(&mut out, &entry, false).unwrap();
    let row = String::from_utf8(out).unwrap();
    let body = row.strip_suffix('\n').unwrap();
    assert!(
        body.chars().all(crate::domain::identity::is_plain),
        "{row:?}"
    );
}

#[test]
fn bad_lines_are_counted_with_their_place_and_passed_over() {
    let log = Log::some(1 << 20);
    let text = std::fs::read_to_string(log.path()).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.insert(2, "not a record \u{1b}");
    std::fs::write(log.path(), format!("{}\n{{\"torn", lines.join("\n"))).unwrap();
    let (count, _) = log.query(&Filter::default(), TABLE);
    assert_eq!((count.matched, count.unreadable), (6, 1));
    assert_eq!(count.first_unreadable, Some((log.path(), 3)));
}

#[test]
fn verify_says_good_over_rotated_files_in_any_order_of_arguments() {
    let log = Log::some(600);
    let rotated = log_files(&log.path()).unwrap();
    assert!(rotated.len() > 2);
    let (good, text) = log.verify(Some(log.chain.head()), false);
    assert!(good, "{text}");
    assert!(text.contains("good: 6 records (seq 1 to 6), 2 users"));
    let mut pattern: Vec<PathBuf> = std::fs::read_dir(log.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    pattern.sort();
    assert_eq!(
        files_of(&pattern).unwrap(),
        files_of(&[log.path()]).unwrap()
    );
    let (good, json) = log.verify(None, true);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(good);
    assert_eq!(
        (value["good"].as_bool(), value["last_seq"].as_u64()),
        (Some(true), Some(6))
    );
    assert_eq!(value["head"], log.chain.head().hash.to_string());
}

/// A record that is not in the log any more.
fn later(log: &Log) -> Link {
    let head = log.chain.head();
    Link {
        seq: head.seq + 1,
        ..head
    }
}

#[test]
fn verify_names_file_line_and_kind_of_each_break() {
    let log = Log::some(600);
    let first = log_files(&log.path()).unwrap().remove(0);
    let text = std::fs::read_to_string(&first).unwrap();
    std::fs::write(&first, text.replacen("Alice", "Mallo", 1)).unwrap();
    let (good, text) = log.verify(None, false);
    assert!(!good);
    let place = format!("{}: line 1: edited:", first.display());
    assert!(text.contains(&place) && text.contains("BROKEN"), "{text}");
    let (_, json) = log.verify(Some(later(&log)), true);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["breaks"][0]["kind"], "edited");
    assert_eq!(value["breaks"][1]["kind"], "cut");
    assert_eq!(value["breaks_total"], 2);
}

#[test]
fn verify_finds_a_torn_end_and_a_missing_file() {
    let log = Log::some(1 << 20);
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(log.path())
        .unwrap();
    file.write_all(b"{\"v\":1,").unwrap();
    let (good, text) = log.verify(None, false);
    assert!(!good && text.contains("line 7: torn:"), "{text}");
    let missing = files_of(&[log.folder.path().join("nothing.jsonl")]).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    assert!(missing.to_string().contains("nothing.jsonl"));
}

/// Every value and none.
fn texts(values: &[&str]) -> Vec<Option<String>> {
    let some = values.iter().map(|value| Some((*value).to_owned()));
    some.chain([None]).collect()
}

fn many_filters() -> Vec<Filter> {
    let at = |seconds: i64, nanos: i32| Timestamp::new(seconds, nanos).ok();
    let users = [
        "id-alice",
        "ALICE@example.com",
        "id-ål\"ice",
        "日本@example.com",
        "id-A\\b",
        "no",
    ];
    let mut filters = Vec::new();
    for user in texts(&users) {
        for resource in texts(&["12", "sql_warehouse/12", "2", "x/12"]) {
            for operation in texts(&["sql.*", "*", "sql.statements.execute", "sql"]) {
                for since in [None, at(120, 0), at(120, 1), at(119, 999_999_999)] {
                    filters.push(Filter {
                        user: user.clone(),
                        resource: resource.clone(),
                        operation: operation.clone(),
                        until: since.and_then(|since| at(since.as_second() + 100, 0)),
                        since,
                        ..Filter::default()
                    });
                }
            }
        }
    }
    for word in texts(&["deny", "denial", "no_route", "sql", "\"", "nothing"]) {
        let mut one = |set: &dyn Fn(&mut Filter, Option<String>)| {
            let mut filter = Filter::default();
            set(&mut filter, word.clone());
            filters.push(filter);
        };
        one(&|f, w| f.decision = w);
        one(&|f, w| f.event = w);
        one(&|f, w| f.reason = w);
        one(&|f, w| f.route = w);
        one(&|f, w| f.call = w);
    }
    filters
}

/// What may be passed over must be exactly what would not pass.
#[test]
fn lines_that_are_passed_over_unread_would_not_pass() {
    let mut log = Log::some(1 << 20);
    for (at, user) in ["ål\"ice", "a\\b", "日本", "ALICE", "x,y"]
        .iter()
        .enumerate()
    {
        log.write(user, Decision::Allow, 60 + i64::try_from(at).unwrap());
    }
    let text = std::fs::read_to_string(log.path()).unwrap();
    let mut passed = 0;
    for filter in many_filters() {
        let quick = quick::Quick::of(&filter);
        for line in text.lines() {
            let entry: Entry<'_> = serde_json::from_str(line).unwrap();
            let passes = filter.passes(&entry);
            passed += usize::from(passes);
            assert!(
                quick.may_pass(line.as_bytes()) || !passes,
                "{filter:?}\n{line}"
            );
            // A line of another layout is always read.
            assert!(quick.may_pass(line.replacen(':', ": ", 1).as_bytes()));
        }
    }
    assert!(passed > 100, "{passed}");
}

fn export(log: &Log, filter: &Filter) -> (io::Result<Exported>, String) {
    let mut out = Vec::new();
    let files = files_of(&[log.path()]).unwrap();
    let done = export::export(&files, filter, Format::Json, &mut out);
    (done, String::from_utf8(out).unwrap())
}

#[test]
fn one_users_export_verifies_alone_and_only_as_that_users() {
    let log = Log::some(600);
    let filter = Filter {
        user: Some("alice@EXAMPLE.com".into()),
        ..Filter::default()
    };
    let (done, text) = export(&log, &filter);
    let done = done.unwrap();
    assert_eq!(
        (done.records, done.subject.as_deref()),
        (3, Some("id-Alice"))
    );
    let (first, last) = done.span.unwrap();
    assert_eq!((first, last.seq), (1, 3));
    let verify = |text: &str, user: &str, heads: Vec<Link>| {
        let path = log.folder.path().join("export.json");
        std::fs::write(&path, text).unwrap();
        let mut out = Vec::new();
        let claim = Claim {
            user: Some(user.to_owned()),
            heads,
            ..Claim::default()
        };
        let good = verify(&[path], &claim, &mut out).unwrap();
        (good, String::from_utf8(out).unwrap())
    };
    let (good, told) = verify(&text, "id-Alice", vec![last]);
    assert!(
        good && told.contains("good: 3 records (user_seq 1 to 3)"),
        "{told}"
    );
    let lines: Vec<&str> = text.lines().collect();
    let joined = |lines: &[&str]| format!("{}\n", lines.join("\n"));
    let bad = |text: &str, user: &str, heads| {
        let (good, told) = verify(text, user, heads);
        assert!(!good, "{told}");
    };
    bad(&text, "id-bob", vec![]);
    bad("", "id-Alice", vec![]);
    bad(&joined(&[lines[0], lines[2]]), "id-Alice", vec![]);
    bad(&joined(&[lines[1], lines[0], lines[2]]), "id-Alice", vec![]);
    bad(&joined(&lines[1..]), "id-Alice", vec![]);
    bad(&joined(&lines[..2]), "id-Alice", vec![last]);
    bad(&text.replacen("sql", "lqs", 1), "id-Alice", vec![]);
    bad(&text[..text.len() - 5], "id-Alice", vec![]);
    let whole: String = log_files(&log.path())
        .unwrap()
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    bad(&whole, "id-Alice", vec![]);
}

#[test]
fn an_address_of_two_users_is_not_exported_as_one() {
    let mut log = Log::some(1 << 20);
    log.write("ALICE", Decision::Allow, 7);
    let filter = Filter {
        user: Some("alice@example.com".into()),
        ..Filter::default()
    };
    let (done, _) = export(&log, &filter);
    let told = done.unwrap_err().to_string();
    assert!(
        told.contains("id-Alice") && told.contains("id-ALICE"),
        "{told}"
    );
}

#[test]
fn stats_count_per_user_and_route() {
    let log = Log::some(600);
    let files = files_of(&[log.path()]).unwrap();
    let stats = stats::stats(&files, &Filter::default()).unwrap();
    let rows = stats.rows();
    let calls = |row: &stats::Row| (row.calls, row.denials);
    let names: Vec<_> = rows
        .iter()
        .map(|(u, r, row)| (*u, *r, calls(row)))
        .collect();
    assert_eq!(
        names,
        [
            ("Alice@example.com", "sql", (3, 0)),
            ("bob@example.com", "sql", (2, 1))
        ]
    );
    let mut out = Vec::new();
    stats.table(&mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.starts_with("USER") && text.lines().count() == 3,
        "{text}"
    );
}

#[test]
fn the_last_lines_of_a_long_file_are_found_from_its_end() {
    let log = Log::new(1 << 30);
    let long = "x".repeat(1000);
    let lines: Vec<String> = (1..=1000)
        .map(|seq| format!("{{\"seq\":{seq},\"ts\":\"{long}\",\"event\":\"e\"}}"))
        .collect();
    std::fs::write(log.path(), format!("{}\n", lines.join("\n"))).unwrap();
    for count in [1, 2, 63, 64, 65, 128, 999, 1000, 1001] {
        let mut out = Vec::new();
        tail(&log.path(), count, Show::Json, None, &mut out).unwrap();
        let expected = lines[lines.len().saturating_sub(count)..].join("\n");
        assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}\n"));
    }
}

#[test]
fn moments_are_times_or_spans_before_now() {
    let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
    let check = |text: &str, expected: Option<&str>| {
        let moment = parse_moment(text, now).ok();
        assert_eq!(moment.map(|m| m.to_string()).as_deref(), expected, "{text}");
    };
    check("15m", Some("2026-11-23T09:45:00Z"));
    check("2h", Some("2026-11-23T08:00:00Z"));
    check("1h 30m", Some("2026-11-23T08:30:00Z"));
    check("7d", Some("2026-11-16T10:00:00Z"));
    check("2026-11-01T00:00:00+01:00", Some("2026-10-31T23:00:00Z"));
    for bad in ["", "15", "-15m", "yesterday", "2026-11-01", "99999999999d"] {
        check(bad, None);
    }
}

#[test]
fn tail_shows_the_last_lines_across_rotated_files() {
    let log = Log::some(600);
    let show = |count, show| {
        let mut out = Vec::new();
        tail(&log.path(), count, show, None, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let seqs = |text: String| -> Vec<u64> {
        text.lines()
            .map(|l| serde_json::from_str::<Entry<'_>>(l).unwrap().seq)
            .collect()
    };
    assert_eq!(seqs(show(4, Show::Json)), [3, 4, 5, 6]);
    assert_eq!(seqs(show(100, Show::Json)), [1, 2, 3, 4, 5, 6]);
    assert_eq!(seqs(show(0, Show::Json)), [0; 0]);
    assert_eq!(show(2, TABLE).lines().count(), 3);
}

/// Hands each line that is written to the test.
struct Told(mpsc::Sender<u64>);

impl io::Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Ok(entry) = serde_json::from_slice::<Entry<'_>>(bytes) {
            self.0.send(entry.seq).map_err(io::Error::other)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn following_goes_on_through_rotations_without_a_hole_until_it_is_stopped() {
    let mut log = Log::some(1200);
    let (told, hear) = mpsc::channel();
    let (stop, stopped) = mpsc::channel();
    let path = log.path();
    let follower =
        std::thread::spawn(move || tail(&path, 2, Show::Json, Some(&stopped), &mut Told(told)));
    let next = || hear.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!([next(), next()], [5, 6]);
    for _ in 7..40 {
        log.write("carol", Decision::Allow, 9);
    }
    for seq in 7..40 {
        assert_eq!(next(), seq);
    }
    stop.send(()).unwrap();
    follower.join().unwrap().unwrap();
}
