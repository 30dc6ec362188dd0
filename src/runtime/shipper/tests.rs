//! Shipping against a volume in memory that loses answers, refuses, hangs and garbles as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use tokio::sync::Notify;

use super::segment::Trouble;
use super::*;
use crate::domain::audit::Event;
use crate::domain::clock::{ManualClock, SignedDuration};
use crate::domain::identity::Origin;
use crate::runtime::app_tokens::{AppScopes, AppTokens};
use crate::runtime::audit_file::layout::beside;
use crate::runtime::audit_writer::AuditSettings;
use crate::runtime::http_client::{Body, HttpSend, SendFault, empty, full};
use crate::runtime::single_flight::BoxFuture;
use crate::runtime::token_script::Script;
use crate::runtime::upstream::Door;

/// What befalls one call.
#[derive(Debug, Clone)]
enum Fate {
    /// Nothing.
    Fine,
    /// This status, and a wish for a pause of so many seconds.
    Status(u16, Option<u64>),
    /// The connection breaks before anything was done.
    LostBefore,
    /// It is done, and the answer is lost.
    LostAfter,
    /// Half of it is stored before the connection breaks.
    Torn,
    /// A login page with status 200, and nothing done.
    Page,
    /// The answer comes after so many seconds.
    Slow(u64),
    /// The sidecar is killed before, or after, it is done.
    Killed(bool),
}

/// A volume.
#[derive(Default)]
struct Fake {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    fates: Mutex<VecDeque<Fate>>,
    /// Every call: method and path.
    calls: Mutex<Vec<String>>,
    killed: Notify,
}

impl Fake {
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        lock(&self.files).clone()
    }

    fn calls(&self, method: &str) -> usize {
        let calls = lock(&self.calls);
        calls.iter().filter(|c| c.starts_with(method)).count()
    }

    /// A volume that works.
    fn serve(&self, method: &Method, path: &str, overwrite: bool, body: Vec<u8>) -> Response<Body> {
        let status = |code: u16, text: &str| {
            let body = full(text.to_owned());
            Response::builder().status(code).body(body).unwrap()
        };
        if path.contains("/directories/") {
            return status(204, "");
        }
        let mut files = lock(&self.files);
        let len = files.get(path).map(Vec::len);
        match (method.as_str(), len) {
            ("PUT", Some(_)) if !overwrite => {
                status(409, r#"{"error_code":"ALREADY_EXISTS","message":"x"}"#)
            }
            ("PUT", _) => {
                files.insert(path.to_owned(), body);
                status(204, "")
            }
            ("HEAD", Some(len)) => Response::builder()
                .header("content-length", len)
                .body(empty())
                .unwrap(),
            _ => status(404, r#"{"error_code":"NOT_FOUND"}"#),
        }
    }
}

impl HttpSend for Fake {
    fn send(&self, request: Request<Body>) -> BoxFuture<'_, Result<Response<Body>, SendFault>> {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let path = parts.uri.path().to_owned();
            assert_eq!(parts.uri.host(), Some("w.example"));
            assert!(parts.headers.get("authorization").unwrap().is_sensitive());
            let overwrite = parts.uri.query() == Some("overwrite=true");
            lock(&self.calls).push(format!("{} {path}", parts.method));
            let fate = lock(&self.fates).pop_front().unwrap_or(Fate::Fine);
            let broken = || SendFault::Broken("reset".into());
            let body = body
                .collect()
                .await
                .map_err(SendFault::Broken)?
                .to_bytes()
                .to_vec();
            if let Some(said) = parts.headers.get("content-length") {
                assert_eq!(said.to_str().unwrap(), body.len().to_string());
            }
            let serve = |body| self.serve(&parts.method, &path, overwrite, body);
            match fate {
                Fate::Fine => Ok(serve(body)),
                Fate::Status(code, pause) => {
                    let mut answer = Response::builder().status(code);
                    if let Some(pause) = pause {
                        answer = answer.header("retry-after", pause);
                    }
                    Ok(answer.body(full(r#"{"error_code":"SOME_WORD"}"#)).unwrap())
                }
                Fate::LostBefore => Err(broken()),
                Fate::LostAfter => {
                    serve(body);
                    Err(broken())
                }
                Fate::Torn => {
                    let half = body.len() / 2;
                    serve(body[..half].to_vec());
                    Err(broken())
                }
                Fate::Page => Ok(Response::builder()
                    .header("content-length", 6)
                    .body(full("<html>"))
                    .unwrap()),
                Fate::Slow(seconds) => {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    Ok(serve(body))
                }
                Fate::Killed(after) => {
                    if after {
                        serve(body);
                    }
                    self.killed.notify_one();
                    std::future::pending().await
                }
            }
        })
    }
}

/// A log on the disk, a volume, and a shipper between them.
struct Rig {
    _folder: tempfile::TempDir,
    volume: Arc<Fake>,
    tokens: Arc<Script>,
    clock: Arc<ManualClock>,
    writer: Arc<AuditWriter>,
    metrics: Metrics,
    settings: ShipSettings,
}

impl Rig {
    /// The writer is a thread of its own, in real time.
    async fn new(segments: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let audit_file = folder.path().join("valetkey.jsonl");
        let clock = Arc::new(ManualClock::at("2026-11-23T12:00:00Z".parse().unwrap()));
        let metrics = Metrics::new().unwrap();
        let settings = AuditSettings {
            rotate_keep: usize::MAX,
            rotate_at_close: true,
            ..AuditSettings::new(audit_file.clone())
        };
        let wall = Arc::clone(&clock) as Arc<dyn Clock>;
        let writer = AuditWriter::start(&settings, wall, metrics.clone()).unwrap();
        let rig = Self {
            volume: Arc::default(),
            tokens: Script::new(),
            clock,
            writer: Arc::new(writer),
            metrics,
            settings: ShipSettings {
                audit_file,
                folder: VolumePath::of_volume("main.ops.audit").unwrap(),
                every: Duration::from_secs(600),
                keep: 14,
                backlog_bytes: 1 << 30,
            },
            _folder: folder,
        };
        for _ in 0..segments {
            rig.close_one().await;
        }
        rig
    }

    /// Two more records, in a closed file.
    async fn close_one(&self) {
        let mut rotations = self.writer.rotations();
        for event in [Event::Start, Event::Stop] {
            self.writer.note(Record::new(event));
        }
        self.writer.rotate();
        rotations.changed().await.unwrap();
    }

    fn fates(&self, fates: impl IntoIterator<Item = Fate>) {
        lock(&self.volume.fates).extend(fates);
    }

    fn volumes(&self) -> Volumes {
        let origin = Origin::parse("https://w.example").unwrap();
        let http = Arc::clone(&self.volume) as Arc<dyn HttpSend>;
        let (endpoint, _) = self.tokens.endpoint(true);
        let wall = Arc::clone(&self.tokens.clock) as Arc<dyn Clock>;
        let tokens = AppTokens::new(endpoint, AppScopes::PerRoute, wall);
        Volumes::new(Door::to_origin(http, &origin).unwrap(), tokens)
    }

    /// As a start would make it.
    fn shipper(&self) -> Shipper {
        let shipper = Shipper::new(
            Prepared::look(self.settings.clone()),
            self.volumes(),
            Arc::clone(&self.writer),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            self.metrics.clone(),
        );
        shipper.start();
        shipper
    }

    /// Until nothing waits, through any number of kills. Paused time makes the looks free.
    async fn ship_all(&self) -> Shipper {
        let mut shipper = self.shipper();
        for _ in 0..100_000 {
            tokio::select! {
                () = self.volume.killed.notified() => {
                    drop(shipper);
                    shipper = self.shipper();
                }
                () = tokio::time::sleep(Duration::from_secs(10)) => {}
            }
            let status = shipper.status();
            if status.shipped > 0 && status.pending == 0 {
                return shipper;
            }
            if self.all_are_there() {
                return shipper;
            }
        }
        panic!("never done: {:?}", shipper.status());
    }

    fn closed(&self) -> Vec<Closed> {
        segment::closed(&self.settings.audit_file).unwrap()
    }

    fn all_are_there(&self) -> bool {
        self.volume.files() == self.expected()
    }

    /// Every closed file under its name.
    fn expected(&self) -> BTreeMap<String, Vec<u8>> {
        let ledger = Ledger::open(&self.settings.audit_file, &self.settings.folder);
        let log = ledger.log();
        let segments = self.closed();
        let segments = segments.iter().map(|file| segment::inspect(file).unwrap());
        segments
            .map(|s| {
                let path = format!("/api/2.0/fs/files/Volumes/main/ops/audit/{log}/{}", s.name);
                (path, std::fs::read(s.path).unwrap())
            })
            .collect()
    }

    /// Each is there, whole, and nothing else is.
    fn assert_exactly_once(&self) {
        let (found, expected) = (self.volume.files(), self.expected());
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected));
        assert!(found == expected, "the bytes differ");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn closed_files_go_in_order_under_the_name_of_their_content() {
    let rig = Rig::new(3).await;
    let shipper = rig.ship_all().await;
    rig.assert_exactly_once();
    assert_eq!(rig.volume.calls("PUT /api/2.0/fs/files/"), 3);
    let names: Vec<String> = rig.volume.files().into_keys().collect();
    let first = names[0].rsplit('/').next().unwrap();
    assert!(
        first.starts_with("0000000000000001-0000000000000002-"),
        "{first}"
    );
    let status = shipper.status();
    assert_eq!(
        (status.shipped, status.failed, status.failing),
        (3, 0, None)
    );
    let text = rig.metrics.render();
    for line in [
        "valetkey_audit_ship_segments_total{result=\"shipped\"} 3",
        "valetkey_audit_ship_segments_total{result=\"failed\"} 0",
        "valetkey_audit_ship_pending_segments 0",
        "valetkey_audit_ship_lag_seconds 0",
    ] {
        assert!(text.contains(line), "{line}:\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_start_ships_nothing_twice_and_asks_for_nothing() {
    let rig = Rig::new(2).await;
    drop(rig.ship_all().await);
    let calls = lock(&rig.volume.calls).len();
    let again = rig.shipper();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(
        (again.status().pending, lock(&rig.volume.calls).len()),
        (0, calls)
    );
    // Without the ledger the log has a new id, and all goes there once more: nothing is lost, nothing is mixed.
    drop(again);
    std::fs::remove_file(beside(&rig.settings.audit_file, "shipped")).unwrap();
    drop(rig.ship_all().await);
    assert_eq!(rig.volume.files().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_asked_for_is_kept_and_others_grow() {
    let rig = Rig::new(1).await;
    rig.fates([Fate::Fine, Fate::Status(429, Some(120))]);
    let begun = Instant::now();
    let shipper = rig.shipper();
    tokio::time::sleep(Duration::from_secs(119)).await;
    assert_eq!(rig.volume.calls("PUT /api/2.0/fs/files/"), 1);
    let status = shipper.status();
    assert!(status.failing.unwrap().contains("busy (429 SOME_WORD)"));
    drop(shipper);
    drop(rig.ship_all().await);
    rig.assert_exactly_once();
    assert!(begun.elapsed() >= Duration::from_secs(119));

    let rig = Rig::new(1).await;
    rig.fates(std::iter::repeat_n(Fate::Status(500, None), 8));
    let begun = Instant::now();
    drop(rig.ship_all().await);
    // 1 + 2 + 4 + 8 + 16 + 32 + 60 + 60 seconds, less at most a quarter.
    let waited = begun.elapsed().as_secs();
    assert!((137..=190).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn a_missing_grant_is_named_and_does_not_stop_what_comes_after_it() {
    let rig = Rig::new(2).await;
    rig.fates([Fate::Status(403, None)]);
    let shipper = rig.shipper();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let status = shipper.status();
    assert_eq!((status.pending, status.failed), (2, 1));
    assert!(status.failing.unwrap().contains("WRITE VOLUME"));
    drop(shipper);
    let shipper = rig.ship_all().await;
    assert_eq!(shipper.status().failing, None);
    rig.assert_exactly_once();
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replaced_at_once() {
    let rig = Rig::new(1).await;
    rig.fates([Fate::Fine, Fate::Status(401, None)]);
    let shipper = rig.ship_all().await;
    assert_eq!(shipper.status().failed, 0);
    assert_eq!(rig.tokens.count(), 2);
    assert_eq!(
        rig.tokens
            .last(|seen| seen.field("scope").unwrap().to_owned()),
        "files"
    );
    rig.assert_exactly_once();
}

#[tokio::test(start_paused = true)]
async fn one_file_that_is_refused_does_not_hold_up_the_others() {
    let rig = Rig::new(3).await;
    rig.fates([Fate::Fine, Fate::Status(400, None)]);
    let shipper = rig.shipper();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let status = shipper.status();
    assert_eq!((status.shipped, status.pending, status.failed), (2, 1, 1));
    drop(shipper);
    drop(rig.ship_all().await);
    rig.assert_exactly_once();
}

#[tokio::test(start_paused = true)]
async fn the_lag_is_the_age_of_the_oldest_that_waits() {
    let rig = Rig::new(2).await;
    rig.fates(std::iter::repeat_n(Fate::LostBefore, 1000));
    let shipper = rig.shipper();
    tokio::time::sleep(Duration::from_secs(5)).await;
    rig.clock.advance(SignedDuration::from_secs(90));
    let status = shipper.status();
    assert_eq!((status.pending, status.lag_seconds), (2, 90));
    assert!(
        rig.metrics
            .render()
            .contains("valetkey_audit_ship_lag_seconds 90")
    );
    lock(&rig.volume.fates).clear();
    drop(shipper);
    let shipper = rig.ship_all().await;
    assert_eq!(shipper.status().lag_seconds, 0);
}

/// Sorted by age.
fn first_numbers(rig: &Rig) -> Vec<u64> {
    rig.closed().iter().map(|file| file.first).collect()
}

#[tokio::test(start_paused = true)]
async fn nothing_unshipped_is_removed_before_the_backlog_is_full_and_then_the_log_says_so() {
    let mut rig = Rig::new(5).await;
    rig.settings.keep = 2;
    let bytes: u64 = rig.closed().iter().map(|file| file.bytes).sum();
    rig.settings.backlog_bytes = bytes;
    rig.fates(std::iter::repeat_n(Fate::LostBefore, 100_000));
    let shipper = rig.shipper();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(first_numbers(&rig), [1, 3, 5, 7, 9]);
    drop(shipper);
    rig.settings.backlog_bytes = bytes / 2;
    let shipper = rig.shipper();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(first_numbers(&rig), [7, 9]);
    assert_eq!(shipper.status().dropped, 3);
    drop(shipper);
    tokio::time::resume();
    rig.writer.close().await.unwrap();
    let last = rig.closed().pop().unwrap();
    let text = std::fs::read_to_string(last.path).unwrap();
    assert!(text.contains("\"event\":\"gap\"") && text.contains(UNSHIPPED_REMOVED));
    assert!(text.contains("\"lost\":6"), "{text}");
    let metrics = rig.metrics.render();
    assert!(metrics.contains("valetkey_audit_ship_segments_total{result=\"dropped\"} 3"));
}

#[tokio::test(start_paused = true)]
async fn what_has_arrived_goes_from_the_disk_beyond_what_is_kept() {
    let mut rig = Rig::new(5).await;
    rig.settings.keep = 2;
    let shipper = rig.shipper();
    for _ in 0..1000 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if first_numbers(&rig) == [7, 9] {
            break;
        }
    }
    assert_eq!(first_numbers(&rig), [7, 9]);
    assert_eq!(rig.volume.files().len(), 5);
    assert_eq!((shipper.status().shipped, shipper.status().dropped), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn a_file_is_closed_after_its_time_and_the_end_ships_the_rest() {
    let rig = Rig::new(0).await;
    let shipper = rig.shipper();
    let mut rotations = rig.writer.rotations();
    rig.writer.note(Record::new(Event::Start));
    let begun = Instant::now();
    rotations.changed().await.unwrap();
    assert!(begun.elapsed() >= rig.settings.every);
    rig.writer.note(Record::new(Event::Stop));
    tokio::time::resume(); // closing has a limit, and the writer is not on this clock
    rig.writer.close().await.unwrap();
    let by = Instant::now() + Duration::from_secs(10);
    shipper.finish(by).await;
    rig.assert_exactly_once();
    assert_eq!(rig.volume.files().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_end_is_bounded_and_the_next_start_goes_on() {
    let rig = Rig::new(2).await;
    rig.fates(std::iter::repeat_n(Fate::Status(503, Some(300)), 1000));
    let shipper = rig.shipper();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    shipper.finish(begun + Duration::from_secs(3)).await;
    let took = begun.elapsed();
    assert!((3..5).contains(&took.as_secs()), "{took:?}");
    // Short pauses, since there is no later.
    assert!(lock(&rig.volume.calls).len() >= 5);
    lock(&rig.volume.fates).clear();
    drop(rig.ship_all().await);
    rig.assert_exactly_once();
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changes_under_way_never_arrives_whole() {
    let rig = Rig::new(1).await;
    let [file] = &rig.closed()[..] else { panic!() };
    let before = segment::inspect(file).unwrap();
    let text = std::fs::read_to_string(&file.path).unwrap();
    for changed in [text.replace("start", "stort"), text[1..].to_owned()] {
        std::fs::write(&file.path, changed).unwrap();
        let trouble = Trouble::default();
        let sent = segment::body(&before, &trouble).collect().await;
        assert!(sent.is_err());
        assert!(trouble.get().unwrap().contains("changed"));
    }
    // As it is now, it goes: a damaged file is evidence too.
    drop(rig.ship_all().await);
    assert_eq!(rig.volume.files().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_log_in_an_old_place_has_a_folder_of_its_own() {
    let rig = Rig::new(1).await;
    drop(rig.ship_all().await);
    let first = Ledger::open(&rig.settings.audit_file, &rig.settings.folder);
    remove_log(&rig.settings.audit_file);
    let prepared = Prepared::look(rig.settings.clone());
    assert_ne!(prepared.ledger.log(), first.log());
}

fn remove_log(audit_file: &Path) {
    for file in segment::closed(audit_file).unwrap() {
        std::fs::remove_file(file.path).unwrap();
    }
    std::fs::remove_file(audit_file).unwrap();
}

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        2 => Just(Fate::Fine),
        3 => prop::sample::select(vec![400, 401, 403, 404, 408, 409, 429, 500, 502, 503, 504])
            .prop_flat_map(|code| (Just(code), prop::option::of(0..400u64)))
            .prop_map(|(code, pause)| Fate::Status(code, pause)),
        2 => Just(Fate::LostBefore),
        2 => Just(Fate::LostAfter),
        2 => Just(Fate::Torn),
        1 => Just(Fate::Page),
        1 => (0..200u64).prop_map(Fate::Slow),
        2 => any::<bool>().prop_map(Fate::Killed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_befalls_the_calls_each_file_arrives_exactly_once_and_whole(
        segments in 1..4u64,
        fates in prop::collection::vec(any_fate(), 0..16),
    ) {
        runtime().block_on(async {
            let rig = Rig::new(segments).await;
            rig.fates(fates);
            let shipper = rig.ship_all().await;
            drop(shipper);
            rig.assert_exactly_once();
        });
    }
}
