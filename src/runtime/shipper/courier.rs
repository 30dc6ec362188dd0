//! The one who carries: a segment after the other to the volume, and what to do when one does not get there.
//!
//! Owned by the shipper's one task. Does not know when it is sent: `shipper.rs` does.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use tokio::task::spawn_blocking;

use super::ledger::Ledger;
use super::segment::{self, Closed, Segment, Trouble};
use super::{Shared, lock};
use crate::domain::volume::VolumePath;
use crate::runtime::volume::{VolumeFault, Volumes};

/// The first pause after a failure; it doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause that nobody asked for.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The longest pause while the sidecar ends.
const LAST_PAUSE_MAX: Duration = Duration::from_millis(500);

/// What the task owns.
pub struct Courier {
    /// What has arrived.
    pub ledger: Ledger,
    /// An earlier run left a file open.
    pub left_over: bool,
    /// Of this log.
    pub folder: VolumePath,
    folder_made: bool,
    /// In a row.
    pub failures: u32,
}

/// How a segment came to be in the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Just now.
    Shipped,
    /// It was there.
    Present,
    /// It is no longer here, so there is nothing to ship.
    Gone,
}

/// Why a segment did not arrive.
enum Setback {
    /// This one alone: the others may do better.
    Segment(String),
    /// The way there: the others would do no better.
    Way(VolumeFault),
}

impl Courier {
    /// Has carried nothing yet.
    pub fn new(ledger: Ledger, left_over: bool, folder: VolumePath) -> Self {
        Self {
            ledger,
            left_over,
            folder,
            folder_made: false,
            failures: 0,
        }
    }

    /// Ships what it can, oldest first. After a setback gives the pause that was asked for, or none in particular.
    pub async fn ship_all(
        &mut self,
        shared: &Arc<Shared>,
        waiting: &[Closed],
    ) -> Option<Option<Duration>> {
        let mut setback = None;
        for file in waiting {
            let cause = match self.ship(shared, file).await {
                Ok(how) => {
                    self.ledger.add(file.first);
                    if let Err(cause) = self.note().await {
                        tracing::warn!(%cause, "what was shipped cannot be noted; after a restart it is looked up in the volume");
                    }
                    shared.arrived(file, how);
                    continue;
                }
                Err(Setback::Segment(cause)) => {
                    setback = Some(None);
                    cause
                }
                Err(Setback::Way(fault)) => {
                    setback = Some(fault.retry_after());
                    // The folder may be what is missing.
                    self.folder_made = false;
                    shared.setback(file, &fault.to_string());
                    break;
                }
            };
            shared.setback(file, &cause);
        }
        if setback.is_none() && lock(&shared.state).status.failing.take().is_some() {
            tracing::info!("the audit log is shipped again");
        }
        setback
    }

    async fn ship(&mut self, shared: &Arc<Shared>, file: &Closed) -> Result<Arrival, Setback> {
        let here = file.clone();
        let inspected = spawn_blocking(move || segment::inspect(&here)).await;
        let segment = match inspected.map_err(|fault| Setback::Segment(fault.to_string()))? {
            Ok(segment) => segment,
            Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => return Ok(Arrival::Gone),
            Err(fault) => return Err(Setback::Segment(fault.to_string())),
        };
        let volumes = &shared.volumes;
        if !self.folder_made {
            // Before the first upload: after a crash the same folder must be found again.
            let noted = self.note().await;
            noted.map_err(|cause| {
                Setback::Segment(format!(
                    "the list of shipped files cannot be written: {cause}"
                ))
            })?;
            let made = volumes.make_folder(&self.folder).await;
            made.map_err(Setback::Way)?;
            self.folder_made = true;
        }
        let name = segment.name.to_string();
        let target = self.folder.join(&name);
        let target = target.ok_or_else(|| Setback::Segment("its name is no name".into()))?;
        let how = match put(volumes, &target, &segment, false).await {
            Ok(()) => Arrival::Shipped,
            Err(Setback::Way(VolumeFault::Exists)) => Arrival::Present,
            Err(setback) => return Err(setback),
        };
        // Whatever was answered: it is there when it can be seen there, whole.
        if is_whole(volumes, &target, &segment).await? {
            return Ok(how);
        }
        if how == Arrival::Present {
            put(volumes, &target, &segment, true).await?;
            if is_whole(volumes, &target, &segment).await? {
                return Ok(Arrival::Shipped);
            }
        }
        let what = "the file did not arrive whole".into();
        Err(Setback::Way(VolumeFault::Unreachable(what)))
    }

    async fn note(&self) -> std::io::Result<()> {
        let page = self.ledger.page()?;
        spawn_blocking(move || page.save())
            .await
            .map_err(std::io::Error::other)?
    }

    /// Until the next try, `asked` by the workspace or growing.
    pub fn pause(&mut self, asked: Option<Duration>, last: bool) -> Duration {
        let grown = PAUSE_MIN.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let grown = grown.min(PAUSE_MAX);
        let mut random = [0u8; 1];
        // Without randomness there is simply no jitter.
        let _ = rand::fill(&mut random);
        let jitter = grown.mul_f64(0.25 * f64::from(random[0]) / 255.0);
        let pause = asked.unwrap_or_else(|| grown.saturating_sub(jitter));
        if last {
            pause.min(LAST_PAUSE_MAX)
        } else {
            pause
        }
    }
}

async fn put(
    volumes: &Volumes,
    target: &VolumePath,
    segment: &Segment,
    overwrite: bool,
) -> Result<(), Setback> {
    let trouble = Trouble::default();
    let body = || segment::body(segment, &trouble);
    let put = volumes.put(target, segment.bytes, &body, overwrite).await;
    match (put, trouble.get()) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(cause)) => Err(Setback::Segment(cause.clone())),
        // What is wrong with this one need not be wrong with the next.
        (Err(VolumeFault::Refused(said)), None) => {
            Err(Setback::Segment(VolumeFault::Refused(said).to_string()))
        }
        (Err(fault), None) => Err(Setback::Way(fault)),
    }
}

async fn is_whole(
    volumes: &Volumes,
    target: &VolumePath,
    segment: &Segment,
) -> Result<bool, Setback> {
    let size = volumes.size(target).await.map_err(Setback::Way)?;
    Ok(size == Some(segment.bytes))
}
