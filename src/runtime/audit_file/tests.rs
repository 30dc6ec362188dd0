//! The file on a real disk: private, locked, rotated, and picked up again whatever state it was left in.

use std::collections::HashMap;

use super::layout::{AUDIT_LINE_BYTES_MAX, Lines, log_files};
use super::resume::{CHAIN_BROKEN, Resumed, TAIL_MISSING, TORN_LINE, resume};
use super::*;
use crate::domain::audit::chain::Link;
use crate::domain::audit::verify::{Verifier, report::Report};
use crate::domain::audit::{Event, Record, User};
use crate::domain::clock::Timestamp;
use crate::domain::identity::UserId;

struct Log {
    folder: tempfile::TempDir,
    rotate_bytes: u64,
}

/// A writer without its thread.
struct Open {
    file: AuditFile,
    chain: Chain,
    gaps: Vec<String>,
}

impl Log {
    fn new(rotate_bytes: u64) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            rotate_bytes,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("a/b/valetkey.jsonl")
    }

    fn open(&self) -> Open {
        let mut file = AuditFile::open(&self.path(), self.rotate_bytes, 3).unwrap();
        let Resumed { mut chain, gaps } = resume(&mut file).unwrap();
        let words = gaps
            .iter()
            .map(|g| g.reason.as_ref().unwrap().as_str().to_owned());
        let words = words.collect();
        let mut buffer = Vec::new();
        for gap in &gaps {
            chain.seal(gap, Timestamp::UNIX_EPOCH, &mut buffer);
        }
        chain.commit();
        file.append(&buffer, false).unwrap();
        Open {
            file,
            chain,
            gaps: words,
        }
    }

    fn verify(&self) -> Report {
        let mut verifier = Verifier::new();
        for path in log_files(&self.path()).unwrap() {
            verifier.next_file();
            let mut lines = Lines::new(io::BufReader::new(File::open(path).unwrap()));
            while let Some((line, ended)) = lines.next_line().unwrap() {
                assert!(ended);
                verifier.push(line);
            }
        }
        verifier.finish(None)
    }
}

impl Open {
    fn write(&mut self, users: &[&str]) {
        for name in users {
            let mut record = Record::new(Event::Denial);
            record.user = Some(std::sync::Arc::new(User {
                sub: UserId::parse(name).unwrap(),
                email: None,
                verified: true,
                client_id: None,
                token_id: None,
            }));
            let mut buffer = Vec::new();
            self.chain.seal(&record, Timestamp::UNIX_EPOCH, &mut buffer);
            self.file.append(&buffer, false).unwrap();
            self.chain.commit();
            self.file.rotate(&self.chain).unwrap();
        }
    }

    fn stop(mut self) {
        self.file.finish(&self.chain).unwrap();
    }

    fn state(&self) -> (Link, HashMap<UserId, Link>) {
        (self.chain.head(), self.chain.users().clone())
    }
}

#[test]
fn missing_folders_and_files_are_made_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let log = Log::new(1 << 20);
    let _open = log.open();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&log.path()), 0o600);
    assert_eq!(mode(log.path().parent().unwrap()), 0o700);
}

#[test]
fn a_second_writer_is_refused_until_the_first_has_gone() {
    let log = Log::new(1 << 20);
    let first = log.open();
    let second = AuditFile::open(&log.path(), 1, 1).unwrap_err();
    assert!(matches!(second, AuditFault::Locked { .. }), "{second}");
    assert!(second.to_string().contains("running valetkey"));
    drop(first);
    drop(log.open());
}

#[test]
fn a_place_that_cannot_be_written_is_named_with_cause_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let below = AuditFile::open(&file.join("x/valetkey.jsonl"), 1, 1).unwrap_err();
    assert!(matches!(below, AuditFault::Directory { .. }));
    let text = below.to_string();
    assert!(
        text.contains("file/x") && text.contains("Not a directory") && text.contains("audit.file"),
        "{text}"
    );
    let taken = AuditFile::open(folder.path(), 1, 1)
        .unwrap_err()
        .to_string();
    assert!(taken.contains("not a regular file"), "{taken}");
}

#[test]
fn a_clean_stop_and_a_crash_both_carry_on_with_the_same_chains() {
    let log = Log::new(1 << 20);
    let mut open = log.open();
    open.write(&["a", "b", "a"]);
    let state = open.state();
    open.stop();
    let mut open = log.open();
    assert_eq!((open.state(), open.gaps.len()), (state, 0));
    open.write(&["b", "c"]);
    let state = open.state();
    drop(open); // without the last call, as a crash would
    let open = log.open();
    assert_eq!((open.state(), open.gaps.len()), (state.clone(), 0));
    drop(open);
    fs::remove_file(beside(&log.path(), "heads")).unwrap();
    assert_eq!(log.open().state(), state, "from the log alone");
    fs::write(beside(&log.path(), "heads"), "{\"v\":1,\"seq\":9").unwrap();
    assert_eq!(log.open().state(), state, "past damaged heads");
    assert!(log.verify().is_good());
}

#[test]
fn a_torn_last_line_is_set_aside_and_owned_up_to() {
    let log = Log::new(1 << 20);
    let mut open = log.open();
    open.write(&["a", "b"]);
    let state = open.state();
    drop(open);
    let whole = fs::read(log.path()).unwrap();
    let torn = &whole[..100];
    fs::write(log.path(), [&whole, torn].concat()).unwrap();
    let mut open = log.open();
    assert_eq!(open.gaps, [TORN_LINE]);
    assert_eq!(open.chain.users(), &state.1);
    open.write(&["a"]);
    drop(open);
    let aside = beside(&log.path(), &format!("torn.{:016}", 3));
    assert_eq!(fs::read(aside).unwrap(), torn);
    let report = log.verify();
    assert!(report.is_good(), "{:?}", report.breaks);
    assert_eq!(report.records, 4);
}

#[test]
fn an_edit_made_while_the_sidecar_was_down_is_recorded_and_stays_visible() {
    let log = Log::new(1 << 20);
    let mut open = log.open();
    open.write(&["a", "b", "c"]);
    drop(open);
    let text = fs::read_to_string(log.path()).unwrap();
    fs::write(log.path(), text.replace("\"sub\":\"b\"", "\"sub\":\"x\"")).unwrap();
    let mut open = log.open();
    assert_eq!(open.gaps, [CHAIN_BROKEN]);
    open.write(&["a"]);
    drop(open);
    let report = log.verify();
    assert_eq!(report.breaks.len(), 1, "{:?}", report.breaks);
    assert_eq!(report.breaks[0].line, 2);
}

#[test]
fn an_end_that_was_cut_after_a_clean_stop_is_recorded_and_stays_visible() {
    let log = Log::new(1 << 20);
    let mut open = log.open();
    open.write(&["a", "b", "c"]);
    open.stop();
    let text = fs::read_to_string(log.path()).unwrap();
    let kept: Vec<&str> = text.split_inclusive('\n').take(1).collect();
    fs::write(log.path(), kept.concat()).unwrap();
    let mut open = log.open();
    assert_eq!(open.gaps, [TAIL_MISSING]);
    open.write(&["b"]);
    drop(open);
    let report = log.verify();
    assert!(!report.is_good());
    assert_eq!(
        report.head.seq, 5,
        "the numbers of the lost ones are not given again"
    );
}

#[test]
fn rotation_carries_both_chains_and_keeps_so_many_files() {
    let log = Log::new(700);
    let mut open = log.open();
    let users: Vec<&str> = ["rare"].into_iter().chain(["a", "b"].repeat(10)).collect();
    open.write(&users);
    let state = open.state();
    drop(open);
    let rotated = rotated(&log.path()).unwrap();
    assert_eq!(rotated.len(), 3);
    assert!(rotated.is_sorted());
    for (first, path) in &rotated {
        assert_eq!(resume::first_seq(path).unwrap(), *first);
    }
    let report = log.verify();
    assert!(report.is_good(), "{:?}", report.breaks);
    assert!(report.first_seq > 1);
    assert_eq!(report.head, state.0);
    let open = log.open();
    assert_eq!(open.state(), state, "also the user whose records are gone");
}

#[test]
fn a_start_between_rotation_and_the_next_record_carries_on() {
    let log = Log::new(1);
    let mut open = log.open();
    open.write(&["a", "b"]);
    let state = open.state();
    drop(open);
    assert_eq!(fs::metadata(log.path()).unwrap().len(), 0);
    let open = log.open();
    assert_eq!((open.state(), open.gaps.len()), (state.clone(), 0));
    drop(open);
    fs::remove_file(beside(&log.path(), "heads")).unwrap();
    assert_eq!(log.open().state(), state);
}

#[test]
fn a_file_that_was_taken_away_is_noticed_and_begun_anew() {
    let log = Log::new(1 << 20);
    let mut open = log.open();
    open.write(&["a"]);
    open.file.check().unwrap();
    fs::rename(log.path(), log.path().with_extension("gone")).unwrap();
    open.file.check().unwrap_err();
    open.write(&["a"]);
    open.file.check().unwrap();
    assert_eq!(log.verify().first_seq, 2);
}

#[test]
fn a_flush_runs_beside_and_reports_when_it_is_done() {
    let log = Log::new(1 << 20);
    let mut open = log.open();
    open.write(&["a"]);
    assert!(!open.file.sync().unwrap());
    let done = (0..1_000_000).any(|_| {
        std::thread::yield_now();
        open.file.sync().unwrap()
    });
    assert!(done);
}

#[test]
fn over_long_and_unended_lines_are_bounded_and_told() {
    let long = vec![b'x'; AUDIT_LINE_BYTES_MAX * 2];
    let text = [b"a\n", long.as_slice(), b"\nb\n\nc"].concat();
    let mut lines = Lines::new(text.as_slice());
    let mut seen = Vec::new();
    while let Some((line, ended)) = lines.next_line().unwrap() {
        seen.push((line.len(), ended));
    }
    assert_eq!(
        seen,
        [
            (1, true),
            (AUDIT_LINE_BYTES_MAX, true),
            (1, true),
            (0, true),
            (1, false)
        ]
    );
    assert_eq!(lines.position(), text.len() as u64);
}

#[test]
fn a_disk_that_turned_read_only_takes_nothing_and_is_written_again_when_it_turns_back() {
    let log = Log::new(1 << 20);
    let mut open = log.open();
    open.write(&["a", "b"]);
    let whole = fs::read(log.path()).unwrap();
    // The same inode, without the right to write: what a remounted disk answers.
    let writable = std::mem::replace(&mut open.file.file, File::open(log.path()).unwrap());
    let mut buffer = Vec::new();
    let gap = Record::gap(TORN_LINE, None);
    open.chain.seal(&gap, Timestamp::UNIX_EPOCH, &mut buffer);
    assert!(open.file.append(&buffer, true).is_err());
    open.chain.rollback();
    assert_eq!(fs::read(log.path()).unwrap(), whole);
    open.file.file = writable;
    open.write(&["a"]);
    let report = log.verify();
    assert!(report.is_good(), "{:?}", report.breaks);
    assert_eq!(report.records, 3);
}

#[test]
fn what_is_written_to_a_deleted_file_counts_as_not_written() {
    let log = Log::new(1 << 20);
    let mut open = log.open();
    open.write(&["a"]);
    fs::remove_file(log.path()).unwrap();
    let mut buffer = Vec::new();
    let gap = Record::gap(TORN_LINE, None);
    open.chain.seal(&gap, Timestamp::UNIX_EPOCH, &mut buffer);
    assert!(open.file.append(&buffer, false).is_err());
    assert!(open.file.check().is_err());
    open.file.append(&buffer, false).unwrap();
    assert_eq!(
        fs::read(log.path()).unwrap(),
        buffer,
        "in a file that is there"
    );
}
