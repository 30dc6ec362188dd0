//! Thousands of single changes to a log, each of which must be found, and the untouched one, on which nothing may be.
//!
//! Seeded, so that a failure repeats. The reader knows what a careful one does: the key, a head from `/status`, and the names
//! of the files.

use super::*;

const FILES: usize = 3;
const RECORDS_EACH: usize = 14;
const MUTATIONS: usize = 6_000;

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        // Steele, Lea, Flood: SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % limit as u64).unwrap()
    }
}

/// Rotated files and the current one, each with a checkpoint at its end.
fn files(key: &SigningKey, dice: &mut Dice) -> (Vec<Vec<u8>>, Link) {
    let mut chain = Chain::default();
    let names = [Some("alice"), Some("bob"), Some("eve"), None];
    let files = (0..FILES)
        .map(|_| {
            let mut out = Vec::new();
            for _ in 0..RECORDS_EACH {
                let name = names[dice.below(names.len())];
                let mut record = record(Event::Outcome, name);
                record.status = Some(200);
                record.duration_ms = Some(dice.below(1000) as u64);
                chain.seal(&record, Timestamp::UNIX_EPOCH, &mut out);
            }
            chain.checkpoint(key, Timestamp::UNIX_EPOCH, &mut out);
            chain.commit();
            out
        })
        .collect();
    (files, chain.head())
}

fn judge(files: &[Vec<u8>], key: &SigningKey, head: Link) -> Report {
    let mut verifier = Verifier::new()
        .pinned(vec![key.public()])
        .knowing(vec![head])
        .beginning_at(1);
    for file in files {
        verifier.next_file();
        for line in file.split_inclusive(|byte| *byte == b'\n') {
            match line.strip_suffix(b"\n") {
                Some(line) => verifier.push(line),
                None => verifier.push_torn(),
            }
        }
    }
    verifier.finish(None)
}

/// One change somewhere; its name.
fn change(files: &mut Vec<Vec<u8>>, dice: &mut Dice) -> &'static str {
    match dice.below(14) {
        kind @ 0..8 => change_bytes(files, dice, kind),
        kind => change_lines(files, dice, kind),
    }
}

fn change_bytes(files: &mut Vec<Vec<u8>>, dice: &mut Dice, kind: usize) -> &'static str {
    let (at, other) = (dice.below(files.len()), dice.below(files.len()));
    let byte = dice.below(files[at].len());
    let fresh = u8::try_from(dice.below(256)).unwrap();
    match kind {
        0 => {
            files[at][byte] = fresh;
            "a byte is another"
        }
        1 => {
            files[at][byte] ^= 1 << dice.below(8);
            "a bit is another"
        }
        2 => {
            files[at].remove(byte);
            "a byte is gone"
        }
        3 => {
            files[at].insert(byte, fresh);
            "a byte is there that was not"
        }
        4 => {
            files[at].truncate(byte);
            "a file is cut"
        }
        5 => {
            files[at].drain(..byte);
            "a file lost its beginning"
        }
        6 => {
            files.remove(at);
            "a file is gone"
        }
        _ => {
            files.swap(at, other);
            "two files changed places"
        }
    }
}

fn change_lines(files: &mut [Vec<u8>], dice: &mut Dice, kind: usize) -> &'static str {
    let at = dice.below(files.len());
    let mut lines = super::lines(&files[at]);
    let (one, two) = (dice.below(lines.len()), dice.below(lines.len()));
    let what = match kind {
        8 => {
            lines.remove(one);
            "a line is gone"
        }
        9 => {
            let again = lines[one].clone();
            lines.insert(two, again);
            "a line is there twice"
        }
        10 => {
            lines.swap(one, two);
            "two lines changed places"
        }
        11 => {
            lines.truncate(one);
            "the last lines are gone"
        }
        12 => {
            lines[one] = resealed(&lines[one], dice);
            "a line is another, with a hash that fits"
        }
        _ => {
            lines.drain(one.min(two)..one.max(two));
            "a stretch is gone"
        }
    };
    let ended = lines.iter().map(|line| [line.as_slice(), b"\n"].concat());
    files[at] = ended.collect::<Vec<_>>().concat();
    what
}

/// What somebody does who knows the format: another value, and the hash anew.
fn resealed(line: &[u8], dice: &mut Dice) -> Vec<u8> {
    let text = std::str::from_utf8(line).unwrap();
    let (sealed, _) = text.rsplit_once(",\"hash\":").unwrap();
    let (from, to) = [
        ("\"status\":200", "\"status\":403"),
        ("\"sub\":\"alice\"", "\"sub\":\"bob\""),
        ("\"route\":\"sql\"", "\"route\":\"x\""),
        ("\"seq\":", "\"seq\":1"),
        ("\"ts\":\"1970", "\"ts\":\"1971"),
    ][dice.below(5)];
    let sealed = sealed.replacen(from, to, 1);
    let hash = Hash::of(sealed.as_bytes());
    format!("{sealed},\"hash\":\"{hash}\"}}").into_bytes()
}

#[test]
fn every_one_of_thousands_of_changes_is_found_and_none_on_the_untouched_log() {
    let key = SigningKey::generate().unwrap();
    let mut dice = Dice(20_261_125);
    let (whole, head) = files(&key, &mut dice);
    let untouched = judge(&whole, &key, head);
    assert!(untouched.is_good(), "{:?}", untouched.breaks);
    assert_eq!(untouched.head, head);
    let mut made = HashMap::new();
    for nth in 0..MUTATIONS {
        let mut changed = whole.clone();
        let what = change(&mut changed, &mut dice);
        if changed == whole {
            continue;
        }
        *made.entry(what).or_insert(0) += 1;
        let report = judge(&changed, &key, head);
        assert!(!report.is_good(), "change {nth}: {what}");
        let place = &report.breaks[0];
        assert!(place.file < FILES && place.line <= 40, "{what}: {place}");
        let named = place.seq.is_some() || place.line > 0 || !place.detail.is_empty();
        assert!(named, "{what}: {place}");
    }
    let few: Vec<_> = made.iter().filter(|(_, count)| **count < 100).collect();
    assert!(made.len() == 14 && few.is_empty(), "{made:?}");
}

/// The whole rest rewritten, hashes and all, from any place on: only a checkpoint can tell, and it does.
#[test]
fn rewriting_all_that_follows_with_fitting_hashes_is_found_by_the_signatures() {
    let (key, thief) = (
        SigningKey::generate().unwrap(),
        SigningKey::generate().unwrap(),
    );
    let mut dice = Dice(7);
    let (whole, _) = files(&key, &mut dice);
    let all: Vec<Vec<u8>> = whole.iter().flat_map(|file| super::lines(file)).collect();
    for _ in 0..200 {
        let from = dice.below(all.len() - 1);
        let mut head = verify(&all[..from]).head;
        let mut forged = all[..from].to_vec();
        for (nth, line) in all[from..].iter().enumerate() {
            let text = std::str::from_utf8(line).unwrap();
            let (sealed, _) = text.rsplit_once(",\"hash\":").unwrap();
            let (sealed, _) = sealed.rsplit_once(",\"prev\":").unwrap();
            let sealed = if nth == 0 {
                sealed.replacen("\"ts\":\"1970", "\"ts\":\"1971", 1)
            } else {
                sealed.to_owned()
            };
            let sealed = format!("{sealed},\"prev\":\"{}\"", head.hash);
            head = Link {
                seq: head.seq + 1,
                hash: Hash::of(sealed.as_bytes()),
            };
            forged.push(format!("{sealed},\"hash\":\"{}\"}}", head.hash).into_bytes());
        }
        let found = verify_pinned(&forged, &[key.public()]);
        let signature = |place: &crate::domain::audit::verify::report::Break| {
            place.kind == BreakKind::Signature
        };
        assert!(found.breaks.iter().any(signature), "from {from}");
        assert!(!verify_pinned(&forged, &[thief.public()]).is_good());
    }
}

type Set = fn(&mut Record, Text);

/// Where each text that comes from outside stands in the line.
const FIELDS: [(&str, Set); 14] = [
    ("/request_id", |r, t| r.request_id = Some(t)),
    ("/trace_id", |r, t| r.trace_id = Some(t)),
    ("/session", |r, t| r.session = Some(t)),
    ("/route", |r, t| r.route = Some(t)),
    ("/operation", |r, t| r.operation = Some(t)),
    ("/resource/type", |r, t| {
        r.resource = Some(Resource {
            kind: t,
            id: "x".into(),
        })
    }),
    ("/resource/id", |r, t| {
        r.resource = Some(Resource {
            kind: "x".into(),
            id: t,
        })
    }),
    ("/follow_up/id", |r, t| {
        r.follow_up = Some(Resource {
            kind: "x".into(),
            id: t,
        })
    }),
    ("/method", |r, t| r.method = Some(t)),
    ("/path", |r, t| r.path = Some(t)),
    ("/mcp/method", |r, t| {
        r.mcp = Some(Mcp {
            method: t,
            tool: None,
        })
    }),
    ("/mcp/tool", |r, t| {
        r.mcp = Some(Mcp {
            method: "x".into(),
            tool: Some(t),
        })
    }),
    ("/reason", |r, t| r.reason = Some(t)),
    ("/upstream_request_id", |r, t| {
        r.upstream_request_id = Some(t)
    }),
];

fn hostile_texts() -> Vec<String> {
    let mut texts: Vec<String> = (0..=0x2ff)
        .filter_map(char::from_u32)
        .map(|c| format!("a{c}b"))
        .collect();
    texts.extend(
        [
            "\r\n{\"v\":1}",
            "\u{1b}]0;x\u{7}",
            "\",\"hash\":\"",
            "\\",
            "\u{2028}\u{202e}\u{feff}",
            "🚗\u{e0041}\u{10ffff}",
        ]
        .map(str::to_owned),
    );
    texts.push("\u{1b}\"\\é".repeat(10_000));
    // Bytes that are no UTF-8 never get this far as a text; this is what a lossy reading makes of them.
    texts.push(String::from_utf8_lossy(b"\xff\xfe\xc3\x28\xed\xa0\x80").into_owned());
    texts
}

/// Each field by itself: whatever text it holds, the line is one JSON object that says just that.
#[test]
fn no_field_can_break_out_of_its_line() {
    let texts = hostile_texts();
    for (pointer, set) in FIELDS {
        for text in &texts {
            let mut record = Record::new(Event::Denial);
            set(&mut record, text.clone().into());
            let mut out = Vec::new();
            Chain::default().seal(&record, Timestamp::UNIX_EPOCH, &mut out);
            let line = String::from_utf8(out).unwrap();
            let body = line.strip_suffix('\n').unwrap();
            assert!(
                body.chars().all(crate::domain::identity::is_plain),
                "{pointer}"
            );
            assert!(body.len() < crate::domain::audit::json::AUDIT_FIELD_CHARS_MAX * 8);
            let value: serde_json::Value = serde_json::from_str(body).unwrap();
            let said = value.pointer(pointer).unwrap().as_str().unwrap();
            let expected = match (pointer, text.split(['?', '#']).next()) {
                ("/path", Some(path)) => path,
                (_, _) => text,
            };
            let whole = expected.chars().count() <= AUDIT_FIELD_CHARS_MAX;
            assert!(said == expected || !whole, "{pointer}: {text:?}");
            assert!(verify(&[body.as_bytes().to_vec()]).is_good());
        }
    }
}
