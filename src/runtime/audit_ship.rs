//! The audit log off the box: each closed file goes to a volume, in order, once, and again from where it was after a restart.
//!
//! A segment's name holds its content's digest, so a repeat writes the same bytes to the same place. The folder is the log's
//! own, named at its first start, so that sidecars share a volume. Knows files and bytes, not records; `volume.rs` is the wire.
//!
//! `…/LOG/0000000000000123-DIGEST.jsonl`: first `seq`, and the first 32 digits of the SHA-256.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::audit_file::layout::{beside, rotated};
use super::metrics::Metrics;
use crate::domain::clock::{Clock, Timestamp};

pub mod volume;

use volume::{Volume, VolumeFault};

/// How often a closed file is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After a failure, doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// Up to where a log is on its volume, and the name it has there.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    v: u64,
    log: String,
    shipped_to: u64,
}

/// Takes closed files to a volume.
pub struct Shipper {
    file: PathBuf,
    volume: Volume,
    state: State,
    shipped_to: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    made_folder: bool,
}

/// The name of this log on volumes, and up to where it is shipped: read, or made for a new log.
///
/// # Errors
/// When the state file cannot be read or written.
fn load(file: &Path) -> io::Result<State> {
    let path = beside(file, "shipped");
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => {
            let state = State {
                v: 1,
                log: Uuid::now_v7().to_string(),
                shipped_to: 0,
            };
            save(file, &state)?;
            Ok(state)
        }
        Err(fault) => Err(fault),
    }
}

fn save(file: &Path, state: &State) -> io::Result<()> {
    let fresh = beside(file, "shipped.new");
    fs::write(&fresh, serde_json::to_vec(state)?)?;
    File::open(&fresh)?.sync_data()?;
    fs::rename(fresh, beside(file, "shipped"))
}

impl Shipper {
    /// Picks up where an earlier run was. The file's folder must be there.
    ///
    /// # Errors
    /// When the state beside the file cannot be read or written.
    pub fn new(
        file: &Path,
        volume: Volume,
        shipped_to: Arc<AtomicU64>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let state = load(file)?;
        shipped_to.store(state.shipped_to, Ordering::Release);
        Ok(Self {
            file: file.to_owned(),
            volume,
            state,
            shipped_to,
            clock,
            metrics,
            made_folder: false,
        })
    }

    /// The log's folder on the volume.
    pub fn folder(&self) -> String {
        self.volume.path(&self.state.log)
    }

    /// Ships what is closed, as it is closed, until told to stop; gives itself back for the last ship.
    pub async fn run(mut self, stop: CancellationToken) -> Self {
        let mut pause = LOOK_EVERY;
        loop {
            tokio::select! {
                () = stop.cancelled() => return self,
                () = tokio::time::sleep(pause) => {}
            }
            let shipped = stop.run_until_cancelled(self.ship_all()).await;
            pause = match shipped {
                None => return self,
                Some(Ok(())) => LOOK_EVERY,
                Some(Err(_)) => (pause * 2).clamp(RETRY_FIRST, RETRY_LAST),
            };
        }
    }

    /// After the log was closed: what is left, again and again until the time is over. Says whether all of it is there.
    pub async fn finish(mut self, time: Duration) -> bool {
        let all = async {
            while self.ship_all().await.is_err() {
                tokio::time::sleep(RETRY_FIRST / 5).await;
            }
        };
        let done = tokio::time::timeout(time, all).await.is_ok();
        if !done {
            tracing::error!(
                "the last part of the audit log is not on the volume; the next start of this log ships it"
            );
        }
        done
    }

    /// Everything that is closed and not yet there, oldest first.
    ///
    /// # Errors
    /// The first fault; what came before it is there.
    pub async fn ship_all(&mut self) -> Result<(), VolumeFault> {
        loop {
            let waiting = self.waiting()?;
            self.measure(&waiting);
            let Some((first_seq, path)) = waiting.into_iter().next() else {
                return Ok(());
            };
            if let Err(fault) = self.ship(first_seq, &path).await {
                self.metrics.audit_ship_failure();
                tracing::warn!(%fault, segment = %path.display(), "the audit log could not be shipped; it is kept and tried again");
                return Err(fault);
            }
        }
    }

    fn waiting(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut files = rotated(&self.file)?;
        files.retain(|(first_seq, _)| *first_seq > self.state.shipped_to);
        Ok(files)
    }

    async fn ship(&mut self, first_seq: u64, path: &Path) -> Result<(), VolumeFault> {
        if !self.made_folder {
            self.volume.make_directory(&self.state.log).await?;
            self.made_folder = true;
        }
        let segment = path.to_owned();
        let digest = tokio::task::spawn_blocking(move || content_digest(&segment))
            .await
            .map_err(io::Error::other)??;
        let name = format!("{}/{first_seq:016}-{digest}.jsonl", self.state.log);
        self.volume.put(&name, path).await?;
        self.state.shipped_to = first_seq;
        // Lost, it is shipped once more to the same place.
        save(&self.file, &self.state)?;
        self.shipped_to.store(first_seq, Ordering::Release);
        self.metrics.audit_shipped();
        Ok(())
    }

    /// How many wait, and how long the oldest has.
    fn measure(&self, waiting: &[(u64, PathBuf)]) {
        let closed = waiting.first().and_then(|(_, path)| {
            let changed = fs::metadata(path).ok()?.modified().ok()?;
            Timestamp::try_from(changed).ok()
        });
        let lag = closed.map_or(0, |at| self.clock.now().as_second() - at.as_second());
        let waiting = i64::try_from(waiting.len()).unwrap_or(i64::MAX);
        self.metrics.audit_ship_lag(waiting, lag.max(0));
    }
}

/// The first 32 digits of the SHA-256 of a file.
///
/// # Errors
/// When it cannot be read.
pub fn content_digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut piece = vec![0; 256 * 1024];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            read => context.update(piece.get(..read).unwrap_or_default()),
        }
    }
    let digest = context.finish();
    let hex = digest.as_ref().iter().take(16);
    Ok(hex.map(|byte| format!("{byte:02x}")).collect())
}
