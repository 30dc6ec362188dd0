//! Off the box: closed audit files reach a volume of the embedded workspace exactly once, whatever befalls the way (PRODUCT 7).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use valetkey::app::ship::volumes;
use valetkey::audit_pull::{Log, fetch};
use valetkey::audit_reader::prove::{Claim, verify};
use valetkey::config::Config;
use valetkey::domain::audit::{Event, Record};
use valetkey::domain::clock::Clock;
use valetkey::domain::volume::VolumePath;
use valetkey::embedded::control::{Fault, Place};
use valetkey::embedded::seen::Seen;
use valetkey::embedded::world;
use valetkey::runtime::agent_gate::ProbePace;
use valetkey::runtime::metrics::Metrics;
use valetkey::runtime::shipper::ShipStatus;
use valetkey::runtime::volume::{VolumeFault, Volumes};

use crate::harness::{
    APP_ID, ENVIRONMENT, TestApp, TestOptions, bind, environment, until, with_app, within,
};

const VOLUME: &str = world::VOLUME_NAME;
const FOLDER: &str = "/Volumes/main/sales/files/valetkey";
const FILES: &str = "/api/2.0/fs/files/Volumes/";

/// Shipping, with a time to close that no test reaches unless it wants to.
fn shipping() -> TestOptions {
    TestOptions::default().with(json!({"audit": {"ship": {"volume": VOLUME, "every": "1d"}}}))
}

fn status(app: &TestApp) -> ShipStatus {
    app.with_running(|running| running.shipper().expect("it ships").status())
}

/// Another record, in a file that is closed now.
async fn close_one(app: &TestApp) {
    let audit = &app.proxy.sinks.audit;
    let mut rotations = audit.rotations();
    audit.note(Record::new(Event::PolicyLoaded));
    audit.rotate();
    within("the file is closed", rotations.changed())
        .await
        .expect("the writer lives");
}

/// Lets the shipper try again at once after each failure, until so many files have arrived.
async fn until_shipped(app: &TestApp, files: u64) {
    let begun = Instant::now();
    let mut failed = status(app).failed;
    loop {
        until("a change", || {
            let now = status(app);
            (now.pending == 0 && now.shipped >= files) || now.failed > failed
        })
        .await;
        let now = status(app);
        if now.pending == 0 && now.shipped >= files {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{now:?}");
        failed = now.failed;
        app.advance(61).await;
    }
}

/// The volumes as an auditor sees them, with the same configuration as the sidecar.
fn reader(app: &TestApp) -> Volumes {
    let text =
        json!({"workspace": {"host": app.workspace.url(), "id": app.workspace.workspace_id()}});
    let config = Config::parse(&text.to_string(), None, &environment()).unwrap();
    let clock = Arc::clone(&app.clock) as Arc<dyn Clock>;
    volumes(&config, &clock, &Metrics::new().unwrap()).unwrap()
}

async fn pull(app: &TestApp, to: &str) -> Vec<Log> {
    let from = VolumePath::parse(FOLDER).unwrap();
    let to = app.directory().join(to);
    let volumes = reader(app);
    let fetched = fetch(&volumes, &from, &to, None);
    within("the log is fetched", fetched).await.unwrap()
}

/// The closed files on the disk, in order.
fn closed(audit_file: &Path) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(audit_file.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let suffix = path.extension().and_then(|e| e.to_str());
            suffix.is_some_and(|s| s.len() == 16 && s.bytes().all(|b| b.is_ascii_digit()))
        })
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

/// What is in the volume is what was closed on the disk: each file once, byte for byte, and a chain.
async fn assert_exactly_once(app: &TestApp, files: usize) {
    let logs = pull(app, "pulled").await;
    let [log] = &logs[..] else {
        panic!("{} logs", logs.len())
    };
    assert!(log.problems.is_empty(), "{:?}", log.problems);
    let there: Vec<Vec<u8>> = log
        .files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect();
    assert!(there == closed(&app.audit_file), "the bytes differ");
    assert_eq!(there.len(), files);
    let mut told = Vec::new();
    let good = verify(&log.files, &Claim::default(), &mut told).unwrap();
    assert!(good, "{}", String::from_utf8_lossy(&told));
    // No name was ever stored twice.
    let mut stored: BTreeMap<String, usize> = BTreeMap::new();
    for call in app.control().calls() {
        if call.method == "PUT" && call.target.starts_with(FILES) && call.status == Some(204) {
            *stored.entry(call.target).or_default() += 1;
        }
    }
    assert!(stored.values().all(|n| *n == 1), "{stored:?}");
    assert_eq!(stored.len(), files);
}

#[tokio::test]
async fn every_closed_file_and_the_tail_at_the_stop_are_in_the_volume() {
    with_app(shipping(), async |app| {
        let session = app.session(&app.alice()).await;
        for _ in 0..3 {
            let ask = app.outbound().get("/api/2.0/preview/scim/v2/Me");
            assert_eq!(ask.bearer(&session).fetch().await.status, 200);
            close_one(app).await;
        }
        until_shipped(app, 3).await;
        let metrics = app.metrics().await;
        assert!(metrics.contains("valetkey_audit_ship_segments_total{result=\"shipped\"} 3"));
        assert!(metrics.contains("valetkey_audit_ship_pending_segments 0"));
        let page = app.admin().get("/status").fetch().await.json();
        let ship = &page["audit"]["ship"];
        let place = format!("{FOLDER}/{APP_ID}/");
        assert!(
            ship["destination"].as_str().unwrap().starts_with(&place),
            "{ship}"
        );
        assert_eq!(
            (&ship["shipped"], &ship["last_error"]),
            (&json!(3), &Value::Null)
        );
        app.stop().await;
        assert_exactly_once(app, 4).await;
        // As the app, with no more scope than that, and on behalf of nobody.
        let calls = app.control().calls();
        let uploads: Vec<_> = calls
            .iter()
            .filter(|c| c.target.starts_with(FILES))
            .collect();
        for call in uploads {
            let Seen::App { scopes } = &call.identity else {
                panic!("{call:?}")
            };
            assert_eq!(scopes.to_string(), "files");
        }
        let all = closed(&app.audit_file).concat();
        assert!(!String::from_utf8_lossy(&all).contains("fs/files"));
        assert!(String::from_utf8_lossy(&all).contains("\"event\":\"stop\""));
    })
    .await;
}

#[tokio::test]
async fn an_open_file_is_closed_and_shipped_after_its_time() {
    let options = shipping().with(json!({"audit": {"ship": {"every": "30s"}}}));
    with_app(options, async |app| {
        app.advance(31).await;
        until_shipped(app, 1).await;
        // Nothing new, nothing closed.
        app.advance(31).await;
        assert_eq!(status(app).shipped, 1);
        app.stop().await;
        assert_exactly_once(app, 2).await;
    })
    .await;
}

#[tokio::test]
async fn whatever_the_workspace_does_each_file_arrives_exactly_once() {
    with_app(shipping(), async |app| {
        let api = [
            Fault::status(500),
            Fault::status(503),
            Fault::retry_after(429, 30),
            Fault::Close,
            Fault::CloseAfter,
            Fault::Garbage,
            Fault::Delay(Duration::from_millis(50)),
            Fault::status(404),
        ];
        let mut files = 0;
        for fault in api {
            for times in [1, 2, 3] {
                app.control().fail_next(Place::Api, fault.clone(), times);
                close_one(app).await;
                files += 1;
                until_shipped(app, files).await;
            }
        }
        // Refused tokens, and an issuer that gives none for a while.
        app.control().revoke_app_tokens();
        close_one(app).await;
        until_shipped(app, files + 1).await;
        app.control().revoke_app_tokens();
        app.control().fail_next(Place::Token, Fault::status(503), 2);
        close_one(app).await;
        until_shipped(app, files + 2).await;
        app.stop().await;
        // keep: 14; what is in the volume may go from the disk.
        let logs = pull(app, "pulled").await;
        assert_eq!(logs[0].files.len() as u64, files + 3);
        assert!(logs[0].problems.is_empty());
        let mut told = Vec::new();
        assert!(verify(&logs[0].files, &Claim::default(), &mut told).unwrap());
        let kept = closed(&app.audit_file);
        assert!((14..=16).contains(&kept.len()), "{}", kept.len());
        let there: Vec<Vec<u8>> = logs[0]
            .files
            .iter()
            .map(|f| std::fs::read(f).unwrap())
            .collect();
        assert!(there.ends_with(&kept));
    })
    .await;
}

#[tokio::test]
async fn a_file_larger_than_any_buffer_survives_a_reset_under_way() {
    with_app(shipping(), async |app| {
        let audit = &app.proxy.sinks.audit;
        let mut rotations = audit.rotations();
        for _ in 0..12_000 {
            let mut record = Record::new(Event::Denial);
            record.path = Some("x".repeat(200).into());
            audit.note(record);
        }
        audit.rotate();
        app.control().fail_next(Place::Api, Fault::Close, 3);
        within("it is closed", rotations.changed()).await.unwrap();
        until_shipped(app, 1).await;
        app.stop().await;
        assert!(closed(&app.audit_file)[0].len() > 4 << 20);
        assert_exactly_once(app, 2).await;
    })
    .await;
}

/// A sidecar again, over the log that the first one left.
async fn restarted(app: &TestApp) -> valetkey::app::Running {
    let text = json!({
        "workspace": {"host": app.workspace.url(), "id": app.workspace.workspace_id()},
        "inbound": {"listen": "127.0.0.1:0", "agent": "http://127.0.0.1:1"},
        "outbound": {"listen": "127.0.0.1:0"},
        "admin": {"listen": "127.0.0.1:0"},
        "audit": {"file": app.audit_file, "ship": {"volume": VOLUME, "every": "1d"}},
        "limits": {"drain_time": "5s"},
    });
    let config = Config::parse(&text.to_string(), None, &environment()).unwrap();
    bind(&config, &app.clock)
        .await
        .unwrap()
        .start(ProbePace::CHILD)
}

#[tokio::test]
async fn a_stop_while_the_workspace_hangs_is_bounded_and_the_next_start_goes_on() {
    with_app(shipping(), async |app| {
        app.control().fail(Place::Api, Fault::Hang);
        close_one(app).await;
        let reached = app
            .control()
            .wait_until(|c| !c.calls_to("/api/2.0/fs/").is_empty());
        within("a call hangs", reached).await;
        let begun = Instant::now();
        app.stop().await;
        assert!(begun.elapsed() < Duration::from_secs(5), "drain_time is 2s");
        assert_eq!(closed(&app.audit_file).len(), 2);
        app.control().heal(Place::Api);
        let again = restarted(app).await;
        let shipper = Arc::clone(again.shipper().unwrap());
        until("what was left arrives", || {
            let status = shipper.status();
            status.pending == 0 && status.shipped >= 2
        })
        .await;
        within("it stops", again.stop()).await;
        assert_exactly_once(app, 3).await;
    })
    .await;
}

#[tokio::test]
async fn an_upload_whose_answer_was_lost_in_the_crash_is_found_and_not_repeated() {
    with_app(shipping(), async |app| {
        // The folder is made, the file is put, and nobody hears of it; then the sidecar is gone.
        close_one(app).await;
        until_shipped(app, 1).await;
        app.control().fail(Place::Api, Fault::CloseAfter);
        close_one(app).await;
        until("it was put", || {
            let puts = app.control().calls_to(FILES);
            puts.iter()
                .filter(|c| c.method == "PUT" && c.status == Some(204))
                .count()
                == 2
        })
        .await;
        app.stop().await;
        app.control().heal(Place::Api);
        let again = restarted(app).await;
        let shipper = Arc::clone(again.shipper().unwrap());
        until("all is there", || {
            let status = shipper.status();
            status.pending == 0 && status.shipped >= 1
        })
        .await;
        within("it stops", again.stop()).await;
        assert_exactly_once(app, 4).await;
    })
    .await;
}

#[tokio::test]
async fn without_a_grant_the_reason_is_told_and_calls_are_served_all_the_same() {
    let options = shipping().with(json!({"audit": {"ship": {"volume": "main.hr.private"}}}));
    with_app(options, async |app| {
        close_one(app).await;
        until("it fails", || status(app).failed > 0).await;
        let (code, page) = app.readyz().await;
        assert_eq!(code, 200, "{page}");
        let checks = page["checks"].as_array().unwrap();
        let check = checks.iter().find(|c| c["name"] == "audit_ship").unwrap();
        let detail = check["detail"].as_str().unwrap();
        assert!(
            detail.contains("WRITE VOLUME") && detail.contains("1 files wait"),
            "{detail}"
        );
        let session = app.session(&app.alice()).await;
        let ask = app.outbound().get("/api/2.0/preview/scim/v2/Me");
        assert_eq!(ask.bearer(&session).fetch().await.status, 200);
        let metrics = app.metrics().await;
        assert!(metrics.contains("valetkey_audit_ship_pending_segments 1"));
        assert!(!metrics.contains("valetkey_audit_ship_segments_total{result=\"failed\"} 0"));
    })
    .await;
}

#[tokio::test]
async fn without_the_apps_credential_nothing_can_be_shipped_and_nothing_starts() {
    let options = TestOptions {
        environment: ENVIRONMENT[..0].to_vec(),
        ..shipping()
    };
    let Err(problems) = TestApp::start(options).await else {
        panic!("it must not start")
    };
    assert_eq!(problems[0].key, "audit.ship");
    assert!(problems[0].message.contains("credential"), "{problems:?}");
}

#[tokio::test]
async fn what_was_changed_or_removed_in_the_volume_is_found_by_the_one_who_fetches_it() {
    with_app(shipping(), async |app| {
        for _ in 0..3 {
            close_one(app).await;
        }
        until_shipped(app, 3).await;
        app.stop().await;
        let logs = pull(app, "first").await;
        let volumes = reader(app);
        let name = |n: usize| {
            logs[0].files[n]
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        };
        let folder = VolumePath::parse(&logs[0].from).unwrap();
        let file = folder.join(&name(1)).unwrap();
        let text = std::fs::read_to_string(&logs[0].files[1]).unwrap();
        let changed = text.replace("policy_loaded", "policy_lOaded");
        let len = changed.len() as u64;
        let body = || valetkey::runtime::http_client::full(changed.clone());
        let kept = volumes.put(&file, len, &body, false).await;
        assert_eq!(kept, Err(VolumeFault::Exists));
        volumes.put(&file, len, &body, true).await.unwrap();
        // What was fetched before is not believed to be what is there now, nor fetched anew.
        let again = pull(app, "first").await;
        assert_eq!((again[0].fetched, again[0].problems.len()), (0, 0));
        let anew = pull(app, "second").await;
        assert_eq!(anew[0].problems.len(), 1);
        assert!(
            anew[0].problems[0].contains(&name(1)),
            "{:?}",
            anew[0].problems
        );
        let mut told = Vec::new();
        assert!(!verify(&anew[0].files, &Claim::default(), &mut told).unwrap());
        // One that is missing leaves a gap in the numbers.
        let without: Vec<PathBuf> = [0, 2, 3].map(|n| logs[0].files[n].clone()).to_vec();
        assert!(!verify(&without, &Claim::default(), &mut told).unwrap());
        assert!(verify(&logs[0].files, &Claim::default(), &mut told).unwrap());
    })
    .await;
}
