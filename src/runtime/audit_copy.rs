//! A copy of what was written to the audit file, for whoever keeps the standard output (a Databricks App does).
//!
//! The file is the evidence and decides what may go; the copy never holds it up. A reader that does not read loses lines, which
//! are counted. Lines as they are, or as OCSF events.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::time::Duration;

use super::audit_file::AuditSink;
use super::metrics::Metrics;
use crate::domain::audit::chain::Chain;
use crate::domain::audit::ocsf;

/// Batches that wait for a slow reader; each is at most about 1 MiB, and mostly a line or two.
pub const COPY_BATCHES_MAX: usize = 64;
/// How long the end waits for what is still to be copied.
const LAST_TIME: Duration = Duration::from_secs(1);

/// In which form lines are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFormat {
    /// As they are in the file.
    Json,
    /// OCSF API Activity.
    Ocsf,
}

/// A sink with a copy beside it.
pub struct Copied {
    sink: Box<dyn AuditSink>,
    batches: Option<SyncSender<Vec<u8>>>,
    ended: Receiver<()>,
    metrics: Metrics,
    lossy: bool,
}

impl Copied {
    /// Copies to the standard output.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn to_stdout(
        sink: Box<dyn AuditSink>,
        format: CopyFormat,
        metrics: Metrics,
    ) -> io::Result<Self> {
        Self::to(sink, format, metrics, Box::new(io::stdout()))
    }

    /// Copies to anything.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn to(
        sink: Box<dyn AuditSink>,
        format: CopyFormat,
        metrics: Metrics,
        out: Box<dyn Write + Send>,
    ) -> io::Result<Self> {
        let (batches, queue) = sync_channel(COPY_BATCHES_MAX);
        let (at_end, ended) = channel();
        let copying = metrics.clone();
        std::thread::Builder::new()
            .name("valetkey-copy".into())
            .spawn(move || {
                copy_all(&queue, format, out, &copying);
                // Nobody may be waiting.
                let _ = at_end.send(());
            })?;
        Ok(Self {
            sink,
            batches: Some(batches),
            ended,
            metrics,
            lossy: false,
        })
    }

    fn copy(&mut self, batch: &[u8]) {
        let Some(batches) = &self.batches else { return };
        match batches.try_send(batch.to_vec()) {
            Ok(()) => self.lossy = false,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                let lines = batch.iter().filter(|byte| **byte == b'\n').count();
                self.metrics.audit_copy_lost(lines as u64);
                if !std::mem::replace(&mut self.lossy, true) {
                    tracing::warn!(
                        "nobody reads the copy of the audit log fast enough; lines are missing there, not in the file"
                    );
                }
            }
        }
    }
}

/// One write for each line: on a pipe others write to the same, lines of up to 4 KiB then stay whole.
fn copy_all(
    queue: &Receiver<Vec<u8>>,
    format: CopyFormat,
    mut out: Box<dyn Write + Send>,
    metrics: &Metrics,
) {
    while let Ok(batch) = queue.recv() {
        for line in batch.split_inclusive(|byte| *byte == b'\n') {
            let written = match format {
                CopyFormat::Json => out.write_all(line),
                CopyFormat::Ocsf => match ocsf::event(line) {
                    Some(event) => out.write_all(format!("{event}\n").as_bytes()),
                    None => Err(io::ErrorKind::InvalidData.into()),
                },
            };
            if written.and_then(|()| out.flush()).is_err() {
                metrics.audit_copy_lost(1);
            }
        }
    }
}

impl AuditSink for Copied {
    fn append(&mut self, batch: &[u8], durable: bool) -> io::Result<()> {
        self.sink.append(batch, durable)?;
        self.copy(batch);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<bool> {
        self.sink.sync()
    }

    fn check(&mut self) -> io::Result<()> {
        self.sink.check()
    }

    fn is_full(&self) -> bool {
        self.sink.is_full()
    }

    fn rotate(&mut self, chain: &Chain) -> io::Result<()> {
        self.sink.rotate(chain)
    }

    fn finish(&mut self, chain: &Chain) -> io::Result<()> {
        let finished = self.sink.finish(chain);
        self.batches = None;
        if self.ended.recv_timeout(LAST_TIME).is_err() {
            tracing::warn!(
                "the copy of the audit log ends without its last lines: nobody reads it"
            );
        }
        finished
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Shared {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Takes everything, or nothing.
    struct Disk(bool);

    impl AuditSink for Disk {
        fn append(&mut self, _: &[u8], _: bool) -> io::Result<()> {
            if self.0 {
                Ok(())
            } else {
                Err(io::Error::other("no space"))
            }
        }

        fn sync(&mut self) -> io::Result<bool> {
            Ok(true)
        }
    }

    #[test]
    fn only_what_is_in_the_file_is_copied_and_all_of_it() {
        let (out, metrics) = (Shared::default(), Metrics::new().unwrap());
        for good in [true, false] {
            let copy = Box::new(out.clone());
            let sink = Box::new(Disk(good));
            let mut copied = Copied::to(sink, CopyFormat::Json, metrics.clone(), copy).unwrap();
            assert_eq!(copied.append(b"one\ntwo\n", false).is_ok(), good);
            assert_eq!(copied.append(b"three\n", false).is_ok(), good);
            copied.finish(&Chain::default()).unwrap();
        }
        assert_eq!(out.text(), "one\ntwo\nthree\n");
    }

    #[test]
    fn a_reader_that_does_not_read_holds_nothing_up_and_is_counted() {
        struct Stuck(mpsc::Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                // Until the test lets go.
                let _ = self.0.recv();
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (let_go, stuck) = mpsc::channel();
        let metrics = Metrics::new().unwrap();
        let (sink, out) = (Box::new(Disk(true)), Box::new(Stuck(stuck)));
        let mut copied = Copied::to(sink, CopyFormat::Json, metrics.clone(), out).unwrap();
        // One is with the writer, if it was quick; the queue holds the others.
        for _ in 0..COPY_BATCHES_MAX + 5 {
            copied.append(b"line\n", false).unwrap();
        }
        let lost = |count: usize| format!("valetkey_audit_copy_lost_total {count}\n");
        let told = metrics.render();
        assert!(told.contains(&lost(4)) || told.contains(&lost(5)), "{told}");
        drop(let_go);
        copied.finish(&Chain::default()).unwrap();
    }
}
