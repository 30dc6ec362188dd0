//! The writer over sinks that fail, hang and heal: nothing forwarded without a record, no outcome lost.

use std::io;
use std::sync::{Mutex, MutexGuard, mpsc};

use proptest::prelude::*;

use super::*;
use crate::domain::audit::chain::Chain;
use crate::domain::audit::verify::Verifier;
use crate::domain::audit::{User, verify::report::Report};
use crate::domain::clock::{ManualClock, Timestamp};
use crate::domain::identity::UserId;

/// A sink in memory that does what the test says.
#[derive(Clone, Default)]
struct TestSink(Arc<Mutex<SinkState>>);

type Gate = (mpsc::Sender<()>, Arc<Mutex<mpsc::Receiver<()>>>);

#[derive(Default)]
struct SinkState {
    bytes: Vec<u8>,
    appends: usize,
    /// Appends that fail, counted from 1; `fail_all` fails every one.
    fail_at: Option<usize>,
    fail_all: bool,
    panics: bool,
    sync_fails: bool,
    moved: bool,
    /// While there is a gate, each append announces itself and waits for a word.
    gate: Option<Gate>,
}

impl TestSink {
    fn state(&self) -> MutexGuard<'_, SinkState> {
        self.0.lock().unwrap()
    }

    fn lines(&self) -> Vec<serde_json::Value> {
        let bytes = self.state().bytes.clone();
        bytes
            .split_inclusive(|b| *b == b'\n')
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    fn words(&self) -> Vec<String> {
        let word = |line: &serde_json::Value| match line["reason"].as_str() {
            Some(reason) => format!("{}:{reason}", line["event"].as_str().unwrap()),
            None => line["event"].as_str().unwrap().to_owned(),
        };
        self.lines().iter().map(word).collect()
    }

    fn verify(&self) -> Report {
        let bytes = self.state().bytes.clone();
        let mut verifier = Verifier::after(crate::domain::audit::chain::Link::START);
        bytes
            .split_inclusive(|b| *b == b'\n')
            .for_each(|line| verifier.push(line.strip_suffix(b"\n").unwrap()));
        verifier.finish(None)
    }

    /// Closes the gate: gives the end that hears of appends and the end that lets them go.
    fn gate(&self) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (arrived, hear) = mpsc::channel();
        let (release, wait) = mpsc::channel();
        self.state().gate = Some((arrived, Arc::new(Mutex::new(wait))));
        (hear, release)
    }
}

impl AuditSink for TestSink {
    fn append(&mut self, batch: &[u8], _: bool) -> io::Result<()> {
        let gate = self.state().gate.clone();
        if let Some((arrived, wait)) = gate {
            // A test that has ended neither listens nor holds anything back.
            let _ = arrived.send(());
            let _ = wait.lock().unwrap().recv();
        }
        let mut state = self.state();
        state.appends += 1;
        assert!(!state.panics, "as the test wants it");
        if state.fail_all || state.fail_at == Some(state.appends) {
            return Err(io::Error::other("no space left on device"));
        }
        state.bytes.extend_from_slice(batch);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<bool> {
        if std::mem::take(&mut self.state().sync_fails) {
            return Err(io::Error::other("input/output error"));
        }
        Ok(true)
    }

    fn check(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.state().moved) {
            return Err(io::Error::other("it was moved"));
        }
        Ok(())
    }
}

fn settings() -> AuditSettings {
    AuditSettings {
        sync_interval: Duration::from_millis(1),
        ..AuditSettings::new("unused".into())
    }
}

fn writer(sink: &TestSink, settings: &AuditSettings) -> (AuditWriter, Metrics) {
    let metrics = Metrics::new().unwrap();
    let resumed = Resumed {
        chain: Chain::default(),
        gaps: Vec::new(),
    };
    let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
    let sink = Box::new(sink.clone());
    let writer = AuditWriter::start_with(settings, sink, resumed, clock, metrics.clone());
    (writer.unwrap(), metrics)
}

fn call(number: u128) -> Record {
    let mut record = Record::new(Event::Intent);
    record.call = Some(Uuid::from_u128(number));
    record.user = Some(Arc::new(User {
        sub: UserId::parse(if number.is_multiple_of(2) {
            "alice"
        } else {
            "bob"
        })
        .unwrap(),
        email: None,
        verified: true,
        client_id: None,
        token_id: None,
    }));
    record
}

/// Asks until the answer is yes; the engine retries by itself.
async fn healed(writer: &AuditWriter, number: u128) -> Receipt {
    let ask = async {
        loop {
            match writer.intent(call(number)).await {
                Ok(receipt) => return receipt,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ask)
        .await
        .unwrap()
}

#[tokio::test]
async fn intent_outcome_and_notes_are_written_in_order_and_counted() {
    let sink = TestSink::default();
    let (writer, metrics) = writer(&sink, &settings());
    writer.note(Record::new(Event::Start));
    let receipt = writer.intent(call(1)).await.unwrap();
    assert_eq!(receipt.intent().unwrap().call, Some(Uuid::from_u128(1)));
    assert_eq!(
        sink.words(),
        ["start", "intent"],
        "written before the receipt"
    );
    let mut end = call(99);
    end.status = Some(200);
    writer.outcome(receipt, end);
    writer.note(Record::new(Event::Stop));
    writer.close().await.unwrap();
    assert_eq!(sink.words(), ["start", "intent", "outcome", "stop"]);
    let lines = sink.lines();
    assert_eq!(
        lines[2]["call"], lines[1]["call"],
        "the receipt knows its call"
    );
    let report = sink.verify();
    assert!(report.is_good());
    let status = writer.status();
    assert_eq!(
        (status.seq, status.head, status.written),
        (4, report.head.hash, 4)
    );
    assert!(!status.healthy, "closed");
    assert!(
        metrics
            .render()
            .contains("valetkey_audit_records_total{event=\"outcome\"} 1")
    );
}

fn signing(records: u64, interval: Duration) -> AuditSettings {
    let key = crate::runtime::audit_key::load(None).unwrap();
    AuditSettings {
        checkpoint: Some(CheckpointSettings {
            records,
            interval,
            ..CheckpointSettings::new(key)
        }),
        ..settings()
    }
}

#[tokio::test]
async fn checkpoints_come_by_number_and_at_the_end_and_are_counted() {
    let sink = TestSink::default();
    let settings = signing(3, Duration::from_secs(3600));
    let (writer, metrics) = writer(&sink, &settings);
    for number in 0..4 {
        let receipt = writer.intent(call(number)).await.unwrap();
        writer.outcome(receipt, call(number));
    }
    writer.close().await.unwrap();
    let words = sink.words();
    let places: Vec<usize> = (0..words.len())
        .filter(|at| words[*at] == "checkpoint")
        .collect();
    assert_eq!(places, [3, 7, 10]);
    let report = sink.verify();
    assert!(report.is_good(), "{:?}", report.breaks);
    assert_eq!((report.keys[0].checkpoints, report.unsigned()), (3, 0));
    assert_eq!(writer.status().key, Some(report.keys[0].key));
    assert_eq!((writer.status().seq, writer.status().written), (11, 11));
    let counted = "valetkey_audit_records_total{event=\"checkpoint\"} 3";
    assert!(metrics.render().contains(counted));
}

#[tokio::test]
async fn a_few_records_do_not_wait_for_their_signature_for_ever() {
    let sink = TestSink::default();
    let (writer, _) = writer(&sink, &signing(1_000, Duration::from_millis(20)));
    writer.note(Record::new(Event::Start));
    let signed = async {
        while sink.words() != ["start", "checkpoint"] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), signed)
        .await
        .unwrap();
    writer.close().await.unwrap();
    assert_eq!(sink.words(), ["start", "checkpoint"], "nothing came since");
}

#[tokio::test]
async fn a_checkpoint_that_could_not_be_written_is_made_anew() {
    let sink = TestSink::default();
    let (writer, _) = writer(&sink, &signing(2, Duration::from_secs(3600)));
    let receipt = writer.intent(call(1)).await.unwrap();
    sink.state().fail_all = true;
    writer.outcome(receipt, call(1));
    assert!(writer.intent(call(2)).await.is_err());
    sink.state().fail_all = false;
    let receipt = healed(&writer, 3).await;
    writer.outcome(receipt, call(3));
    writer.close().await.unwrap();
    let report = sink.verify();
    assert!(report.is_good(), "{:?}", report.breaks);
    assert!(report.keys[0].checkpoints >= 2 && report.unsigned() == 0);
    assert_eq!(sink.words().first().unwrap(), "intent");
}

#[tokio::test]
async fn after_closing_nothing_is_written() {
    let sink = TestSink::default();
    let (writer, _) = writer(&sink, &settings());
    let receipt = writer.intent(call(1)).await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(
        writer.intent(call(2)).await.err(),
        Some(AuditUnavailable::Closed)
    );
    writer.outcome(receipt, call(1));
    writer.note(Record::new(Event::Stop));
    assert_eq!(sink.words(), ["intent"]);
    assert_eq!(writer.status().failed, 3);
    writer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_share_a_write_and_keep_their_order() {
    const CALLS: u16 = 500;
    let sink = TestSink::default();
    let (writer, _) = writer(&sink, &settings());
    let writer = Arc::new(writer);
    let (arrived, release) = sink.gate();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..CALLS {
        let writer = Arc::clone(&writer);
        calls.spawn(async move {
            let receipt = writer.intent(call(number.into())).await.unwrap();
            writer.outcome(receipt, call(number.into()));
        });
    }
    tokio::task::spawn_blocking(move || arrived.recv().unwrap())
        .await
        .unwrap();
    // All others queue up behind the first write.
    while writer.shared.lock().places < 2 * usize::from(CALLS) {
        tokio::task::yield_now().await;
    }
    sink.state().gate = None;
    drop(release);
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    writer.close().await.unwrap();
    let report = sink.verify();
    assert!(report.is_good(), "{:?}", report.breaks);
    assert_eq!(report.records, 2 * u64::from(CALLS));
    assert!(
        sink.state().appends < usize::from(CALLS),
        "{}",
        sink.state().appends
    );
    let lines = sink.lines();
    for number in 0..CALLS {
        let id = Uuid::from_u128(number.into()).to_string();
        let events: Vec<_> = lines
            .iter()
            .filter(|l| l["call"] == *id)
            .map(|l| &l["event"])
            .collect();
        assert_eq!(events, ["intent", "outcome"]);
    }
    assert_eq!(writer.shared.lock().places, 0);
}

#[tokio::test]
async fn a_failing_sink_refuses_calls_keeps_outcomes_and_heals_by_itself() {
    let sink = TestSink::default();
    let (writer, metrics) = writer(&sink, &settings());
    let receipt = writer.intent(call(1)).await.unwrap();
    let before = writer.status();
    sink.state().fail_all = true;
    let refused = writer.intent(call(2)).await.err();
    assert_eq!(
        refused,
        Some(AuditUnavailable::Failing("no space left on device".into()))
    );
    writer.outcome(receipt, call(1));
    let status = writer.status();
    assert!(!status.healthy);
    assert_eq!(
        status.last_error.as_deref(),
        Some("no space left on device")
    );
    assert_eq!(
        (status.seq, status.written, status.failed),
        (before.seq, 1, 1)
    );
    assert!(metrics.render().contains("valetkey_audit_failures_total 1"));
    sink.state().fail_all = false;
    let receipt = healed(&writer, 3).await;
    assert!(writer.status().healthy);
    writer.outcome(receipt, call(3));
    writer.close().await.unwrap();
    assert_eq!(
        sink.words(),
        ["intent", "gap:write_failed", "outcome", "intent", "outcome"]
    );
    assert!(sink.verify().is_good());
    assert!(
        !sink
            .lines()
            .iter()
            .any(|l| l["call"] == *Uuid::from_u128(2).to_string())
    );
}

#[tokio::test]
async fn a_sink_that_hangs_refuses_within_the_bound_and_the_late_intent_says_it_was_not_forwarded()
{
    let sink = TestSink::default();
    let wait = Duration::from_millis(30);
    let settings = AuditSettings {
        write_wait_max: wait,
        ..settings()
    };
    let (writer, _) = writer(&sink, &settings);
    let (arrived, release) = sink.gate();
    assert_eq!(
        writer.intent(call(1)).await.err(),
        Some(AuditUnavailable::Slow(wait))
    );
    arrived.recv().unwrap();
    // Waits like the first, or is told at once; it is never sealed.
    assert_eq!(
        writer.intent(call(2)).await.err(),
        Some(AuditUnavailable::Slow(wait))
    );
    assert!(!writer.status().healthy);
    let waiting = writer.shared.lock().jobs.len();
    assert_eq!(
        writer.intent(call(3)).await.err(),
        Some(AuditUnavailable::Slow(wait))
    );
    let still = writer.shared.lock().jobs.len();
    assert_eq!(still, waiting, "known to hang: refused without queueing");
    assert_eq!(writer.close().await, Err(AuditUnavailable::Slow(wait)));
    sink.state().gate = None;
    drop(release);
    let mut ended = writer.shared.ended.subscribe();
    ended.wait_for(|ended| *ended).await.unwrap();
    assert_eq!(sink.words(), ["intent", "outcome:not_forwarded"]);
    assert!(sink.verify().is_good());
    assert_eq!(writer.shared.lock().places, 0);
}

#[tokio::test]
async fn a_full_queue_refuses_intents_and_drops_notes_but_takes_every_outcome() {
    let sink = TestSink::default();
    let settings = AuditSettings {
        queue_records_max: 8,
        ..settings()
    };
    let (writer, _) = writer(&sink, &settings);
    let mut receipts = Vec::new();
    for number in 0..3 {
        receipts.push(writer.intent(call(number)).await.unwrap());
    }
    let (arrived, release) = sink.gate();
    writer.note(Record::new(Event::Denial));
    arrived.recv().unwrap();
    for _ in 0..20 {
        writer.note(Record::new(Event::Denial));
    }
    let mut waiting = Vec::new();
    let full = loop {
        let intent = Box::pin(writer.intent(call(7)));
        match futures_util::future::select(intent, std::future::ready(())).await {
            futures_util::future::Either::Left((refused, _)) => break refused.err(),
            futures_util::future::Either::Right(((), waiter)) => waiting.push(waiter),
        }
    };
    assert_eq!(full, Some(AuditUnavailable::Full));
    for (number, receipt) in receipts.into_iter().enumerate() {
        writer.outcome(receipt, call(number as u128));
    }
    drop(waiting);
    sink.state().gate = None;
    drop(release);
    writer.close().await.unwrap();
    let words = sink.words();
    assert_eq!(words.iter().filter(|w| *w == "outcome").count(), 3);
    let gap = sink
        .lines()
        .into_iter()
        .find(|l| l["event"] == "gap")
        .unwrap();
    assert_eq!(gap["reason"], "queue_full");
    let notes = words.iter().filter(|w| *w == "denial").count() as u64;
    assert_eq!(gap["lost"].as_u64().unwrap() + notes, 21);
    assert!(sink.verify().is_good());
    assert_eq!(writer.shared.lock().places, 0);
}

#[tokio::test]
async fn with_continue_calls_go_on_and_the_log_catches_up_or_counts_what_it_lost() {
    let sink = TestSink::default();
    let settings = AuditSettings {
        on_failure: OnFailure::Continue,
        queue_records_max: 8,
        ..settings()
    };
    let (writer, _) = writer(&sink, &settings);
    sink.state().fail_all = true;
    for number in 0..10 {
        let receipt = writer.intent(call(number)).await.unwrap();
        writer.outcome(receipt, call(number));
    }
    assert!(!writer.status().healthy);
    sink.state().fail_all = false;
    writer.close().await.unwrap();
    let lines = sink.lines();
    assert_eq!(lines[0]["event"], "gap");
    let kept = lines.len() as u64 - 1;
    assert!((7..=8).contains(&kept), "{kept}");
    assert_eq!(lines[0]["lost"].as_u64(), Some(20 - kept));
    assert!(sink.verify().is_good());
}

#[tokio::test]
async fn a_receipt_that_is_dropped_leaves_an_outcome_that_says_so() {
    let sink = TestSink::default();
    let (writer, _) = writer(&sink, &settings());
    drop(writer.intent(call(2)).await.unwrap());
    writer.close().await.unwrap();
    assert_eq!(sink.words(), ["intent", "outcome:abandoned"]);
    assert_eq!(sink.lines()[1]["user"]["sub"], "alice");
}

#[tokio::test]
async fn a_failed_flush_and_a_moved_file_are_owned_up_to() {
    let sink = TestSink::default();
    let (writer, _) = writer(&sink, &settings());
    sink.state().sync_fails = true;
    let receipt = writer.intent(call(1)).await.unwrap();
    let flushed = async {
        while sink.state().appends < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), flushed)
        .await
        .unwrap();
    writer.outcome(receipt, call(1));
    assert_eq!(sink.words()[..2], ["intent", "gap:sync_failed"]);
    sink.state().moved = true;
    let moved = async {
        while sink.state().moved {
            writer.note(Record::new(Event::Denial));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), moved)
        .await
        .unwrap();
    writer.close().await.unwrap();
    assert!(sink.words().contains(&"gap:file_replaced".to_owned()));
    assert!(sink.verify().is_good());
}

#[tokio::test]
async fn a_dead_engine_refuses_at_once() {
    let sink = TestSink::default();
    let (writer, _) = writer(&sink, &settings());
    sink.state().panics = true;
    assert_eq!(
        writer.intent(call(1)).await.err(),
        Some(AuditUnavailable::Closed)
    );
    assert_eq!(
        writer.intent(call(2)).await.err(),
        Some(AuditUnavailable::Closed)
    );
    assert!(!writer.status().healthy);
    assert!(writer.close().await.is_err());
}

#[tokio::test]
async fn a_real_file_carries_on_over_rotations_restarts_and_crashes() {
    let folder = tempfile::tempdir().unwrap();
    let settings = AuditSettings {
        rotate_bytes: 4096,
        rotate_keep: 100,
        ..AuditSettings::new(folder.path().join("audit/valetkey.jsonl"))
    };
    let start = || {
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        AuditWriter::start(&settings, clock, Metrics::new().unwrap())
    };
    for sync in [AuditSync::Record, AuditSync::Interval, AuditSync::None] {
        let settings = AuditSettings {
            sync,
            ..settings.clone()
        };
        let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
        let writer = AuditWriter::start(&settings, clock, Metrics::new().unwrap()).unwrap();
        assert!(matches!(start().err(), Some(AuditFault::Locked { .. })));
        for number in 0..20 {
            let receipt = writer.intent(call(number)).await.unwrap();
            writer.outcome(receipt, call(number));
        }
        writer.close().await.unwrap();
        // What a crash in the middle of a write leaves behind.
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(&settings.file)
            .unwrap();
        io::Write::write_all(&mut file, b"{\"v\":1,\"se").unwrap();
    }
    let writer = start().unwrap();
    writer.close().await.unwrap();
    assert_eq!(writer.status().seq, 3 * 40 + 3);
    let mut verifier = Verifier::after(crate::domain::audit::chain::Link::START);
    let files = crate::runtime::audit_file::layout::log_files(&settings.file).unwrap();
    assert!(files.len() > 3);
    for path in files {
        verifier.next_file();
        let text = std::fs::read(path).unwrap();
        text.split_inclusive(|b| *b == b'\n')
            .for_each(|line| verifier.push(line.strip_suffix(b"\n").unwrap()));
    }
    let report = verifier.finish(None);
    assert!(report.is_good(), "{:?}", report.breaks);
    assert_eq!(
        (report.records, report.head.hash),
        (123, writer.status().head)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whichever_append_fails_a_call_is_granted_exactly_if_it_is_written(fail_at in 1usize..12, calls in 1u128..8) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let sink = TestSink::default();
            sink.state().fail_at = Some(fail_at);
            let (writer, _) = writer(&sink, &settings());
            let mut granted = Vec::new();
            for number in 0..calls {
                if let Ok(receipt) = writer.intent(call(number)).await {
                    granted.push(Uuid::from_u128(number).to_string());
                    writer.outcome(receipt, call(number));
                }
            }
            let _ = writer.close().await;
            let written = |event: &str| -> Vec<String> {
                let lines = sink.lines().into_iter().filter(|l| l["event"] == event);
                lines.map(|l| l["call"].as_str().unwrap().to_owned()).collect()
            };
            assert_eq!(written("intent"), granted);
            assert!(sink.verify().is_good());
            if sink.state().appends != fail_at {
                assert_eq!(written("outcome"), granted);
            }
        });
    }
}
