//! The chain's properties: nothing changed verifies, anything changed is found, whatever the strings are.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::chain::{AUDIT_USERS_MAX, Chain, Hash, Link};
use super::checkpoint::{PublicKey, SigningKey};
use super::json::AUDIT_FIELD_CHARS_MAX;
use super::verify::Verifier;
use super::verify::export::verify_user_export;
use super::verify::report::{BreakKind, Report};
use super::*;
use crate::domain::clock::Timestamp;

mod mutations;

fn user(name: &str) -> Option<Arc<User>> {
    Some(Arc::new(User {
        sub: UserId::parse(name).unwrap(),
        email: UserEmail::parse("a@example.com").ok(),
        verified: true,
        client_id: None,
        token_id: Some("0123456789abcdef".into()),
    }))
}

fn record(event: Event, name: Option<&str>) -> Record {
    let mut record = Record::new(event);
    record.user = name.and_then(user);
    record.route = Some("sql".into());
    record
}

/// Seals one record per entry; the entry names the user.
fn seal(users: &[Option<&str>]) -> Vec<Vec<u8>> {
    let mut chain = Chain::default();
    let mut out = Vec::new();
    for name in users {
        chain.seal(
            &record(Event::Intent, *name),
            Timestamp::UNIX_EPOCH,
            &mut out,
        );
        chain.commit();
    }
    lines(&out)
}

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes
        .split_inclusive(|b| *b == b'\n')
        .map(|l| l.strip_suffix(b"\n").unwrap().to_vec())
        .collect()
}

fn verify(lines: &[Vec<u8>]) -> Report {
    let mut verifier = Verifier::new();
    lines.iter().for_each(|line| verifier.push(line));
    verifier.finish(None)
}

fn kinds(report: &Report) -> Vec<(u64, BreakKind)> {
    report.breaks.iter().map(|b| (b.line, b.kind)).collect()
}

#[test]
fn a_line_has_the_documented_members_in_order_and_a_hash_that_standard_tools_recompute() {
    let mut full = record(Event::Outcome, Some("alice@example.com"));
    full.call = Some(Uuid::nil());
    full.request_id = Some("r1".into());
    full.session = Some("s1".into());
    full.identity = Some(Identity::User);
    full.operation = Some("sql.statements.execute".into());
    full.resource = Some(Resource {
        kind: "sql_warehouse".into(),
        id: "12".into(),
    });
    full.method = Some("POST".into());
    full.path = Some("/api/2.0/sql/statements?token=secret#x".into());
    full.mcp = Some(Mcp {
        method: "tools/call".into(),
        tool: Some("t".into()),
    });
    full.decision = Some(Decision::Allow);
    full.status = Some(200);
    full.bytes_sent = Some(0);
    full.bytes_received = Some(u64::MAX);
    full.duration_ms = Some(10);
    let mut out = Vec::new();
    let mut chain = Chain::default();
    let at: Timestamp = "2026-11-23T10:00:00.5Z".parse().unwrap();
    chain.seal(&full, at, &mut out);
    let zero = "0".repeat(64);
    let sealed = format!(
        "{{\"v\":1,\"seq\":1,\"ts\":\"2026-11-23T10:00:00.500000Z\",\"event\":\"outcome\",\
         \"call\":\"00000000-0000-0000-0000-000000000000\",\"request_id\":\"r1\",\"session\":\"s1\",\
         \"user\":{{\"sub\":\"alice@example.com\",\"email\":\"a@example.com\",\"verified\":true,\
         \"token_id\":\"0123456789abcdef\"}},\"identity\":\"user\",\"route\":\"sql\",\
         \"operation\":\"sql.statements.execute\",\"resource\":{{\"type\":\"sql_warehouse\",\"id\":\"12\"}},\
         \"method\":\"POST\",\"path\":\"/api/2.0/sql/statements\",\
         \"mcp\":{{\"method\":\"tools/call\",\"tool\":\"t\"}},\"decision\":\"allow\",\"status\":200,\
         \"bytes_sent\":0,\"bytes_received\":18446744073709551615,\"duration_ms\":10,\
         \"user_seq\":1,\"user_prev\":\"{zero}\",\"prev\":\"{zero}\""
    );
    let hash = Hash::of(sealed.as_bytes());
    assert_eq!(
        String::from_utf8(out).unwrap(),
        format!("{sealed},\"hash\":\"{hash}\"}}\n")
    );
    assert_eq!(chain.head(), Link { seq: 1, hash });
    // The empty string's SHA-256, as sha256sum prints it.
    assert_eq!(
        Hash::of(b"").to_string(),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    assert_eq!(Hash::parse(&hash.to_string()), Some(hash));
    assert_eq!(Hash::parse(&"A".repeat(64)), None);
}

#[test]
fn every_event_word_reads_back() {
    for event in Event::ALL {
        assert_eq!(Event::parse(event.as_str()), Some(event));
        assert_eq!(Event::ALL[event as usize], event);
    }
    assert_eq!(Event::parse("nothing"), None);
}

#[test]
fn breaks_are_named_for_what_they_are() {
    let good = seal(&[Some("a"), Some("b"), None, Some("a"), Some("b"), Some("a")]);
    assert!(verify(&good).is_good());

    let mut edited = good.clone();
    edited[2] = String::from_utf8(good[2].clone())
        .unwrap()
        .replace("sql", "lqs")
        .into_bytes();
    assert_eq!(kinds(&verify(&edited)), [(3, BreakKind::Edited)]);

    let mut dropped = good.clone();
    dropped.remove(2);
    assert_eq!(kinds(&verify(&dropped)), [(3, BreakKind::Gap(1))]);

    let mut swapped = good.clone();
    swapped.swap(1, 2);
    assert_eq!(
        kinds(&verify(&swapped)),
        [(2, BreakKind::Swapped), (3, BreakKind::Swapped)]
    );

    let mut twice = good.clone();
    twice.insert(3, good[2].clone());
    assert_eq!(kinds(&verify(&twice)), [(4, BreakKind::Duplicated)]);

    let mut short = Verifier::new();
    good[..5].iter().for_each(|line| short.push(line));
    let end = verify(&good).head;
    assert_eq!(kinds(&short.finish(Some(end))), [(0, BreakKind::Cut)]);

    let mut torn = Verifier::new();
    good[..5].iter().for_each(|line| torn.push(line));
    torn.push_torn();
    assert_eq!(kinds(&torn.finish(None)), [(6, BreakKind::Torn)]);

    let first = verify(&good[..2]).head;
    let mut later = Verifier::after(first);
    good[3..].iter().for_each(|line| later.push(line));
    assert_eq!(kinds(&later.finish(None)), [(1, BreakKind::Cut)]);
}

#[test]
fn a_line_rewritten_with_a_fresh_hash_is_found_at_its_successor() {
    let mut forged = seal(&[Some("a"), Some("b"), Some("a")]);
    let text = String::from_utf8(forged[1].clone()).unwrap();
    let sealed = text
        .rsplit_once(",\"hash\":")
        .unwrap()
        .0
        .replace("sql", "xxx");
    let hash = Hash::of(sealed.as_bytes());
    forged[1] = format!("{sealed},\"hash\":\"{hash}\"}}").into_bytes();
    assert_eq!(kinds(&verify(&forged)), [(3, BreakKind::Edited)]);
}

#[test]
fn a_user_chain_that_was_rewritten_alone_is_found() {
    // A writer that forgot alice: the global chain is right, hers is not.
    let mut out = Vec::new();
    let mut chain = Chain::default();
    chain.seal(
        &record(Event::Intent, Some("alice")),
        Timestamp::UNIX_EPOCH,
        &mut out,
    );
    let mut forgetful = Chain::resume(chain.head(), HashMap::new());
    forgetful.seal(
        &record(Event::Intent, Some("alice")),
        Timestamp::UNIX_EPOCH,
        &mut out,
    );
    assert_eq!(kinds(&verify(&lines(&out))), [(2, BreakKind::UserChain)]);
}

/// Five records and a checkpoint behind the third and the last.
fn signed(key: &SigningKey) -> Vec<Vec<u8>> {
    let (mut chain, mut out) = (Chain::default(), Vec::new());
    for (n, name) in ["a", "b", "a", "b", "a"].into_iter().enumerate() {
        let now = Timestamp::UNIX_EPOCH;
        chain.seal(&record(Event::Intent, Some(name)), now, &mut out);
        if n == 2 || n == 4 {
            chain.checkpoint(key, now, &mut out);
        }
    }
    lines(&out)
}

fn verify_pinned(lines: &[Vec<u8>], keys: &[PublicKey]) -> Report {
    let mut verifier = Verifier::new().pinned(keys.to_vec());
    lines.iter().for_each(|line| verifier.push(line));
    verifier.finish(None)
}

#[test]
fn checkpoints_say_who_signed_and_up_to_where() {
    let (key, other) = (
        SigningKey::generate().unwrap(),
        SigningKey::generate().unwrap(),
    );
    let log = signed(&key);
    let text = String::from_utf8(log[3].clone()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["event"], "checkpoint");
    assert_eq!(value["checkpoint"]["records"], 3);
    assert_eq!(value["checkpoint"]["head"], value["prev"]);
    assert_eq!(value["checkpoint"]["key_id"], key.public().id());
    let report = verify(&log);
    assert!(report.is_good(), "{:?}", report.breaks);
    let used = report.keys[0];
    assert_eq!(
        (used.checkpoints, used.seqs, used.pinned),
        (2, (4, 7), false)
    );
    assert_eq!((report.signed_to, report.unsigned()), (7, 0));
    assert_eq!(verify(&log[..6]).unsigned(), 2);
    assert!(verify_pinned(&log, &[other.public(), key.public()]).is_good());
    let foreign = verify_pinned(&log, &[other.public()]);
    assert_eq!(kinds(&foreign), [(4, BreakKind::Key), (7, BreakKind::Key)]);
    let nothing = verify_pinned(&log[..3], &[key.public()]);
    assert_eq!(kinds(&nothing), [(0, BreakKind::Key)]);
}

/// Whoever rewrites the log can compute every hash anew, but not sign.
#[test]
fn a_log_that_was_rewritten_with_all_its_hashes_is_found_at_its_checkpoints() {
    let (key, thief) = (
        SigningKey::generate().unwrap(),
        SigningKey::generate().unwrap(),
    );
    let log = signed(&key);
    let original = String::from_utf8(log[3].clone()).unwrap();
    let mark = ",\"checkpoint\":";
    let (_, old) = original.split_once(mark).unwrap();
    let (old, _) = old.split_once('}').unwrap();
    // The same records but for one route, chained by the thief, with the old signature put into the new checkpoint.
    let (mut chain, mut out) = (Chain::default(), Vec::new());
    for name in ["a", "b", "a"] {
        let mut forged = record(Event::Intent, Some(name));
        forged.route = Some("harmless".into());
        chain.seal(&forged, Timestamp::UNIX_EPOCH, &mut out);
    }
    let head = chain.head();
    chain.checkpoint(&thief, Timestamp::UNIX_EPOCH, &mut out);
    let mut forged = lines(&out);
    assert!(
        verify(&forged).is_good(),
        "without a pinned key that shows only in the key's name"
    );
    assert_eq!(
        kinds(&verify_pinned(&forged, &[key.public()])),
        [(4, BreakKind::Key)]
    );
    let text = String::from_utf8(forged[3].clone()).unwrap();
    let (sealed, _) = text.rsplit_once(",\"hash\":").unwrap();
    let (before, rest) = sealed.split_once(mark).unwrap();
    let (_, after) = rest.split_once('}').unwrap();
    let old = old.replace(
        &format!("\"head\":\"{}\"", verify(&log[..3]).head.hash),
        &format!("\"head\":\"{}\"", head.hash),
    );
    let sealed = format!("{before}{mark}{old}}}{after}");
    let hash = Hash::of(sealed.as_bytes());
    forged[3] = format!("{sealed},\"hash\":\"{hash}\"}}").into_bytes();
    assert_eq!(kinds(&verify(&forged)), [(4, BreakKind::Signature)]);
    // And the old checkpoint as it was says another head.
    forged[3] = log[3].clone();
    assert!(!verify(&forged).is_good());
}

#[test]
fn records_that_were_noted_elsewhere_must_be_there() {
    let log = seal(&[Some("a"), Some("b"), None, Some("a")]);
    let whole = verify(&log);
    let check = |known: Link, lines: &[Vec<u8>]| {
        let mut verifier = Verifier::new().knowing(vec![known]);
        lines.iter().for_each(|line| verifier.push(line));
        kinds(&verifier.finish(None))
    };
    let middle = verify(&log[..2]).head;
    assert_eq!(check(whole.head, &log), []);
    assert_eq!(check(middle, &log), []);
    assert_eq!(check(whole.head, &log[..3]), [(0, BreakKind::Cut)]);
    let other = Link {
        hash: whole.head.hash,
        ..middle
    };
    assert_eq!(check(other, &log), [(2, BreakKind::Edited)]);
    // Older than what is left: removed in good order.
    assert_eq!(check(middle, &log[2..]), []);
}

#[test]
fn a_beginning_that_nothing_explains_is_a_cut() {
    let log = seal(&[Some("a"), Some("b"), None, Some("a")]);
    let check = |named: u64, lines: &[Vec<u8>]| {
        let mut verifier = Verifier::new().beginning_at(named);
        lines.iter().for_each(|line| verifier.push(line));
        let report = verifier.finish(None);
        assert_eq!(
            report.first_seq,
            if lines.is_empty() {
                0
            } else {
                5 - lines.len() as u64
            }
        );
        kinds(&report)
    };
    assert_eq!(check(1, &log), []);
    assert_eq!(check(1, &[]), []);
    assert_eq!(check(1, &log[1..]), [(1, BreakKind::Cut)]);
    assert_eq!(check(2, &log[1..]), []);
    assert_eq!(check(2, &log[2..]), [(1, BreakKind::Cut)]);
}

#[test]
fn more_users_than_the_table_holds_begin_anew_and_the_log_says_so() {
    let mut chain = Chain::default().with_users_max(2);
    let mut out = Vec::new();
    for name in ["a", "b", "a", "c", "a", "c", "b", "a"] {
        chain.seal(
            &record(Event::Intent, Some(name)),
            Timestamp::UNIX_EPOCH,
            &mut out,
        );
        chain.commit();
    }
    let all = lines(&out);
    let report = verify(&all);
    assert!(report.is_good(), "{:?}", report.breaks);
    assert_eq!(report.records, 10);
    assert!(chain.users().len() <= 2 && AUDIT_USERS_MAX > 2);
    let of_a: Vec<&[u8]> = all
        .iter()
        .filter(|l| {
            let text = String::from_utf8_lossy(l);
            text.contains("\"sub\":\"a\"") || text.contains("user_chains_restarted")
        })
        .map(Vec::as_slice)
        .collect();
    let export = verify_user_export(of_a.iter().copied());
    assert!(export.is_good(), "{:?}", export.breaks);
    assert!(
        !verify_user_export(
            of_a.into_iter()
                .filter(|l| !l.windows(9).any(|w| w == b"restarted"))
        )
        .is_good()
    );
}

#[test]
fn a_rollback_leaves_no_trace() {
    let mut chain = Chain::default().with_users_max(2);
    let mut kept = Vec::new();
    for name in ["a", "b"] {
        chain.seal(
            &record(Event::Intent, Some(name)),
            Timestamp::UNIX_EPOCH,
            &mut kept,
        );
    }
    chain.commit();
    let (head, users) = (chain.head(), chain.users().clone());
    let mut lost = Vec::new();
    for name in ["a", "c", "a", "d", "a"] {
        chain.seal(
            &record(Event::Intent, Some(name)),
            Timestamp::UNIX_EPOCH,
            &mut lost,
        );
    }
    chain.rollback();
    assert_eq!((chain.head(), chain.users()), (head, &users));
    chain.seal(
        &record(Event::Intent, Some("a")),
        Timestamp::UNIX_EPOCH,
        &mut kept,
    );
    chain.commit();
    assert!(verify(&lines(&kept)).is_good());
}

#[test]
fn hostile_text_stays_one_valid_line_without_control_characters() {
    let hostile = [
        "a\r\nb",
        "\u{1b}[31mred",
        "\0\u{7f}\u{85}\u{9f}",
        "x\u{202e}y\u{2066}z\u{2028}\u{2029}\u{200b}\u{feff}",
        "\",\"hash\":\"0\"}",
        "\\\\u0041\\",
        "\u{e0041}\u{fffa}",
        "Ålice 日本 🚗",
    ];
    for text in hostile {
        let mut record = record(Event::Denial, None);
        record.path = Some(text.to_owned().into());
        record.reason = Some(text.to_owned().into());
        let mut out = Vec::new();
        Chain::default().seal(&record, Timestamp::UNIX_EPOCH, &mut out);
        let line = String::from_utf8(out).unwrap();
        let body = line.strip_suffix('\n').unwrap();
        assert!(
            body.chars().all(crate::domain::identity::is_plain),
            "{body}"
        );
        assert!(!body.contains(['\u{e0041}', '\u{fffa}']));
        let value: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(value["reason"], text);
        assert!(verify(&[body.as_bytes().to_vec()]).is_good());
    }
}

#[test]
fn an_over_long_field_is_cut_and_says_by_how_much() {
    let mut record = record(Event::Denial, None);
    record.path = Some("/é".repeat(AUDIT_FIELD_CHARS_MAX).into());
    let mut out = Vec::new();
    Chain::default().seal(&record, Timestamp::UNIX_EPOCH, &mut out);
    let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let path = value["path"].as_str().unwrap();
    assert!(path.ends_with(&format!("…[cut {AUDIT_FIELD_CHARS_MAX}]")));
    assert!(path.chars().count() < AUDIT_FIELD_CHARS_MAX + 20);
}

const NAMES: [Option<&str>; 4] = [Some("alice"), Some("bob"), Some("eve"), None];

fn a_log() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(0..NAMES.len(), 2..24)
        .prop_map(|who| seal(&who.into_iter().map(|i| NAMES[i]).collect::<Vec<_>>()))
}

proptest! {
    #[test]
    fn an_untouched_log_verifies_whole_split_and_per_user(log in a_log(), at in any::<prop::sample::Index>()) {
        let whole = verify(&log);
        prop_assert!(whole.is_good());
        prop_assert_eq!(whole.records, log.len() as u64);
        let (old, new) = log.split_at(at.index(log.len()));
        let mut later = Verifier::after(verify(old).head);
        new.iter().for_each(|line| later.push(line));
        prop_assert!(later.finish(Some(whole.head)).is_good());
        prop_assert!(verify(new).is_good(), "a log whose oldest part was removed");
        for name in NAMES.into_iter().flatten() {
            let mark = format!("\"sub\":\"{name}\"");
            let own: Vec<_> = log.iter().filter(|l| String::from_utf8_lossy(l).contains(&mark)).collect();
            let export = verify_user_export(own.iter().map(|l| l.as_slice()));
            prop_assert!(export.is_good());
            prop_assert_eq!(export.records, own.len() as u64);
            if own.len() > 2 {
                let holed = own.iter().enumerate().filter(|(i, _)| *i != 1).map(|(_, l)| l.as_slice());
                prop_assert!(!verify_user_export(holed).is_good());
            }
        }
    }

    #[test]
    fn any_changed_byte_is_found(log in a_log(), line in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut log = log;
        let line = line.index(log.len());
        let byte = byte.index(log[line].len());
        prop_assume!(log[line][byte] != to && to != b'\n');
        log[line][byte] = to;
        let report = verify(&log);
        prop_assert_eq!(kinds(&report), vec![(line as u64 + 1, BreakKind::Edited)]);
    }

    #[test]
    fn any_drop_duplicate_swap_or_truncation_is_found(log in a_log(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(), how in 0..4) {
        let end = verify(&log).head;
        let (a, b) = (a.index(log.len()), b.index(log.len()));
        let mut changed = log.clone();
        match how {
            0 => drop(changed.remove(a)),
            1 => changed.insert(b.max(a + 1).min(log.len()), log[a].clone()),
            2 => changed.swap(a, b),
            _ => changed[a].truncate(log[a].len() * b / log.len()),
        }
        prop_assume!(changed != log);
        let mut verifier = Verifier::after(Link::START);
        changed.iter().for_each(|line| verifier.push(line));
        let report = verifier.finish(Some(end));
        prop_assert!(!report.is_good());
        prop_assert!(report.breaks.len() <= log.len());
    }

    #[test]
    fn any_text_makes_one_valid_line(text in any::<String>(), tool in any::<String>()) {
        let mut record = record(Event::Denial, None);
        record.mcp = Some(Mcp { method: text.clone().into(), tool: Some(tool.into()) });
        let mut out = Vec::new();
        Chain::default().seal(&record, Timestamp::UNIX_EPOCH, &mut out);
        prop_assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(value["mcp"]["method"].as_str(), Some(text.as_str()));
        let members: HashSet<&String> = value.as_object().unwrap().keys().collect();
        prop_assert_eq!(members.len(), 8);
    }
}
