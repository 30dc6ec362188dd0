//! Fetching a shipped audit log back from its volume: every segment is read, checked against its name, and kept.
//!
//! The way back of `runtime/shipper.rs`. What a listing says is not believed: a path must lie where it was listed, and bytes
//! must have the hash of their name. The chain across segments is `audit_reader/prove.rs`'s business, the printing the
//! command line's.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::domain::clock::Timestamp;
use crate::domain::volume::{ContentHash, ContentHasher, SegmentName, VolumePath};
use crate::runtime::audit_file::resume::first_seq;
use crate::runtime::http_client::Body;
use crate::runtime::shipper::segment::{Closed, inspect};
use crate::runtime::volume::{Entry, VolumeFault, Volumes};

/// Folders within folders.
const DEPTH_MAX: usize = 8;
/// Folders that are looked into.
const FOLDERS_MAX: usize = 10_000;
/// How often a call is tried; between two tries lies a pause that doubles from [`PAUSE_MIN`] on.
const TRIES_MAX: u32 = 5;
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause that is waited for when the workspace asks for one.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A download in which nothing moves for so long has broken off.
const STILL_TIME_MAX: Duration = Duration::from_secs(60);
/// Pieces of a download that wait for the disk.
const PIECES_WAITING_MAX: usize = 8;

/// Why nothing more can be fetched.
#[derive(Debug, thiserror::Error)]
pub enum PullFault {
    /// The volume.
    #[error("{place}: {cause}")]
    Volume {
        /// What was asked for.
        place: String,
        /// What came of it.
        cause: VolumeFault,
    },
    /// The disk.
    #[error("{path}: {cause}")]
    Disk {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// More than this program walks through.
    #[error("{0}: more folders than are looked into; name one further down with --from")]
    TooDeep(String),
}

/// One log: a chain, in a folder of its own.
#[derive(Debug, Default)]
pub struct Log {
    /// Where it is in the volume.
    pub from: String,
    /// Its segments here, in order.
    pub files: Vec<PathBuf>,
    /// How many of them were fetched just now; the others were here.
    pub fetched: usize,
    /// What is wrong with single segments.
    pub problems: Vec<String>,
}

/// Fetches every log below a folder into `to`. With `since`, segments that arrived before are left out: all their records are
/// older.
///
/// # Errors
/// [`PullFault`]; what was fetched until then stays.
pub async fn fetch(
    volumes: &Volumes,
    from: &VolumePath,
    to: &Path,
    since: Option<Timestamp>,
) -> Result<Vec<Log>, PullFault> {
    let mut logs = Vec::new();
    for (folder, segments) in walk(volumes, from, since).await? {
        let below = folder.below(from).unwrap_or_default();
        // Names of a volume path hold neither slashes nor dots alone.
        let here = below
            .split('/')
            .fold(to.to_owned(), |path, name| path.join(name));
        let disk = |cause| PullFault::Disk {
            path: here.clone(),
            cause,
        };
        fs::create_dir_all(&here).map_err(disk)?;
        let mut log = Log {
            from: folder.to_string(),
            ..Log::default()
        };
        for name in segments {
            one(volumes, &folder, &here, &name, &mut log).await?;
        }
        logs.push(log);
    }
    Ok(logs)
}

/// Every folder that holds segments, with their names in order.
async fn walk(
    volumes: &Volumes,
    from: &VolumePath,
    since: Option<Timestamp>,
) -> Result<BTreeMap<VolumePath, Vec<SegmentName>>, PullFault> {
    let mut found = BTreeMap::new();
    let mut ahead = vec![(from.clone(), 0)];
    let mut seen = 0;
    while let Some((folder, depth)) = ahead.pop() {
        seen += 1;
        if seen > FOLDERS_MAX || depth > DEPTH_MAX {
            return Err(PullFault::TooDeep(folder.to_string()));
        }
        let entries = list(volumes, &folder).await?;
        let mut segments = Vec::new();
        for entry in entries {
            let Some(path) = VolumePath::parse(&entry.path) else {
                continue;
            };
            if path.parent().as_ref() != Some(&folder) {
                continue;
            }
            if entry.is_directory {
                ahead.push((path, depth + 1));
            } else if is_wanted(&entry, since) {
                segments.extend(SegmentName::parse(path.name()));
            }
        }
        segments.sort();
        if !segments.is_empty() {
            found.insert(folder, segments);
        }
    }
    Ok(found)
}

fn is_wanted(entry: &Entry, since: Option<Timestamp>) -> bool {
    since.is_none_or(|since| entry.last_modified >= since.as_millisecond())
}

/// One segment: fetched unless it is here, and its name compared with what is in it.
async fn one(
    volumes: &Volumes,
    folder: &VolumePath,
    here: &Path,
    name: &SegmentName,
    log: &mut Log,
) -> Result<(), PullFault> {
    let text = name.to_string();
    let path = here.join(&text);
    let disk = |cause| PullFault::Disk {
        path: path.clone(),
        cause,
    };
    let Some(source) = folder.join(&text) else {
        return Ok(());
    };
    let mut matches = path.try_exists().map_err(disk)? && is_named_rightly(&path, name).await?;
    if !matches {
        matches = download(volumes, &source, &path, name).await?;
        log.fetched += 1;
        if matches && !is_named_rightly(&path, name).await? {
            log.problems.push(format!(
                "{text}: the numbers of its first and last record are not those in it"
            ));
        }
    }
    if !matches {
        log.problems
            .push(format!("{text}: its bytes are not those of its name"));
    }
    log.files.push(path);
    Ok(())
}

/// Whether the name is the one that its content would be given.
async fn is_named_rightly(path: &Path, name: &SegmentName) -> Result<bool, PullFault> {
    let (path, name) = (path.to_owned(), name.clone());
    let inspected = spawn_blocking({
        let path = path.clone();
        move || {
            let first = first_seq(&path)?;
            let bytes = fs::metadata(&path)?.len();
            inspect(&Closed { first, path, bytes })
        }
    });
    let inspected = inspected.await.map_err(io::Error::other).flatten();
    let segment = inspected.map_err(|cause| PullFault::Disk { path, cause })?;
    Ok(segment.name == name)
}

/// Fetches a segment by way of a file beside it, so that what has the name is whole. Says whether its bytes are those of the
/// name; where they are not it is kept all the same, as evidence.
async fn download(
    volumes: &Volumes,
    source: &VolumePath,
    path: &Path,
    name: &SegmentName,
) -> Result<bool, PullFault> {
    let disk = |cause| PullFault::Disk {
        path: path.to_owned(),
        cause,
    };
    let part = path.with_extension("part");
    let mut tries = Tries::default();
    loop {
        let saved = match volumes.get(source).await {
            Ok(body) => save(body, &part).await.map_err(disk)?,
            Err(fault) => Err(fault),
        };
        match saved {
            // Once more: a page of a proxy or a login is no segment either.
            Ok(hash) if hash != name.hash && tries.wrong == 0 => {
                tries.wrong += 1;
            }
            Ok(hash) => {
                fs::rename(&part, path).map_err(disk)?;
                return Ok(hash == name.hash);
            }
            Err(fault) => tries.after(source, fault).await?,
        }
    }
}

/// Asks until there is an answer, or none to be hoped for.
async fn list(volumes: &Volumes, folder: &VolumePath) -> Result<Vec<Entry>, PullFault> {
    let mut tries = Tries::default();
    loop {
        match volumes.list(folder).await {
            Ok(entries) => return Ok(entries),
            Err(fault) => tries.after(folder, fault).await?,
        }
    }
}

/// How often something was tried.
#[derive(Default)]
struct Tries {
    failed: u32,
    wrong: u32,
}

impl Tries {
    /// Waits, or gives up.
    async fn after(&mut self, place: &VolumePath, cause: VolumeFault) -> Result<(), PullFault> {
        self.failed += 1;
        let hopeless = match &cause {
            VolumeFault::Credential(fault) => fault.needs_operator(),
            VolumeFault::Busy { .. } | VolumeFault::Unreachable(_) => false,
            VolumeFault::Token(_)
            | VolumeFault::Denied(_)
            | VolumeFault::Missing(_)
            | VolumeFault::Exists
            | VolumeFault::Refused(_) => true,
        };
        if hopeless || self.failed >= TRIES_MAX {
            let place = place.to_string();
            return Err(PullFault::Volume { place, cause });
        }
        let grown = PAUSE_MIN.saturating_mul(1 << (self.failed - 1).min(8));
        let pause = cause.retry_after().unwrap_or(grown).min(PAUSE_MAX);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Writes a body to a file as it comes, and gives the hash of it; the inner fault is the network's.
async fn save(body: Body, path: &Path) -> io::Result<Result<ContentHash, VolumeFault>> {
    let (pieces, waiting) = mpsc::channel(PIECES_WAITING_MAX);
    let path = path.to_owned();
    let writer = spawn_blocking(move || write(&path, waiting));
    let received = receive(body, pieces).await;
    let written = writer.await.map_err(io::Error::other)??;
    Ok(received.map(|()| written))
}

async fn receive(mut body: Body, pieces: mpsc::Sender<Bytes>) -> Result<(), VolumeFault> {
    let broken = |what: &'static str| VolumeFault::Unreachable(what.into());
    loop {
        match tokio::time::timeout(STILL_TIME_MAX, body.frame()).await {
            Ok(None) => return Ok(()),
            Ok(Some(Ok(frame))) => {
                if let Ok(piece) = frame.into_data()
                    && pieces.send(piece).await.is_err()
                {
                    return Ok(()); // the writer gave up, and says why
                }
            }
            Ok(Some(Err(_))) => return Err(broken("the download broke off")),
            Err(_) => return Err(broken("the download stood still")),
        }
    }
}

fn write(path: &Path, mut waiting: mpsc::Receiver<Bytes>) -> io::Result<ContentHash> {
    let mut file = File::create(path)?;
    let mut hasher = ContentHasher::default();
    while let Some(piece) = waiting.blocking_recv() {
        hasher.update(&piece);
        file.write_all(&piece)?;
    }
    Ok(hasher.finish())
}
