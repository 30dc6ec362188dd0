//! A closed audit file on its way: what lies on the disk, its name in the volume, and its bytes as an upload.
//!
//! Reads on blocking threads, piece by piece. Knows neither where a segment goes nor whether it is there already.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::domain::clock::Timestamp;
use crate::domain::volume::{ContentHasher, SegmentName};
use crate::runtime::audit_file::layout::{AUDIT_LINE_BYTES_MAX, rotated};
use crate::runtime::http_client::{Body, BoxError};

/// One piece of an upload.
const PIECE_BYTES: usize = 128 * 1024;
/// Pieces that wait for the network.
const PIECES_WAITING_MAX: usize = 4;

/// A file that is not written any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The number of its first record, which is in its name.
    pub first: u64,
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
}

/// The closed files of a log, oldest first. One that vanishes meanwhile is left out.
///
/// # Errors
/// When the directory cannot be read.
pub fn closed(audit_file: &Path) -> io::Result<Vec<Closed>> {
    let mut found = Vec::new();
    for (first, path) in rotated(audit_file)? {
        match fs::metadata(&path) {
            Ok(metadata) => found.push(Closed {
                first,
                path,
                bytes: metadata.len(),
            }),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(found)
}

/// A closed file whose bytes have been read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its name in the volume.
    pub name: SegmentName,
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
}

#[derive(Deserialize)]
struct Line {
    seq: u64,
    ts: Timestamp,
}

/// Reads a file once for its name. What is in it is not judged: a damaged file is evidence too, and goes as it is.
///
/// # Errors
/// When it cannot be read.
pub fn inspect(closed: &Closed) -> io::Result<Segment> {
    let mut file = File::open(&closed.path)?;
    let mut hasher = ContentHasher::default();
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        let read = file.read(&mut piece)?;
        let Some(piece) = piece.get(..read).filter(|piece| !piece.is_empty()) else {
            break;
        };
        hasher.update(piece);
        bytes += read as u64;
    }
    let last = last_line(&closed.path)?.map(|line| line.seq);
    Ok(Segment {
        name: SegmentName {
            first: closed.first,
            last: last.unwrap_or(closed.first).max(closed.first),
            hash: hasher.finish(),
        },
        path: closed.path.clone(),
        bytes,
    })
}

/// When its last record was written, as far as it says.
pub fn last_written(path: &Path) -> Option<Timestamp> {
    // Only a number on a dashboard depends on it; whoever reads the file for real will say what is wrong.
    last_line(path).ok().flatten().map(|line| line.ts)
}

fn last_line(path: &Path) -> io::Result<Option<Line>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let span = len.min(AUDIT_LINE_BYTES_MAX as u64);
    file.seek(SeekFrom::Start(len - span))?;
    let mut end = Vec::new();
    file.take(span).read_to_end(&mut end)?;
    let mut lines = end.rsplit(|byte| *byte == b'\n');
    Ok(lines.find_map(|line| serde_json::from_slice(line).ok()))
}

/// Why an upload's own side failed; set at most once.
pub type Trouble = Arc<OnceLock<String>>;

/// The bytes of a segment, read anew. The last of them are held back until they all turn out to be those of the name, so a file
/// that was changed meanwhile never arrives whole; `trouble` then says so.
pub fn body(segment: &Segment, trouble: &Trouble) -> Body {
    let (pieces, waiting) = mpsc::channel(PIECES_WAITING_MAX);
    let (segment, trouble) = (segment.clone(), Arc::clone(trouble));
    // Detached on purpose: it ends with the file, or when nobody takes the pieces any more.
    tokio::task::spawn_blocking(move || {
        if let Err(fault) = send(&segment, &pieces) {
            let _ = trouble.set(fault.to_string());
            let _ = pieces.blocking_send(Err(fault.into()));
        }
    });
    let frames = futures_util::stream::unfold(waiting, |mut waiting| async move {
        let piece: Result<Bytes, BoxError> = waiting.recv().await?;
        Some((piece.map(Frame::data), waiting))
    });
    StreamBody::new(frames).boxed_unsync()
}

fn send(segment: &Segment, pieces: &mpsc::Sender<Result<Bytes, BoxError>>) -> io::Result<()> {
    let changed = || io::Error::other("the file changed while it was read");
    let mut file = File::open(&segment.path)?.take(segment.bytes);
    let mut hasher = ContentHasher::default();
    let mut left = segment.bytes;
    while left > 0 {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = (&mut file)
            .take(PIECE_BYTES as u64)
            .read_to_end(&mut piece)?;
        if read == 0 {
            return Err(changed());
        }
        hasher.update(&piece);
        left -= read as u64;
        if left == 0 && std::mem::take(&mut hasher).finish() != segment.name.hash {
            return Err(changed());
        }
        if pieces.blocking_send(Ok(piece.into())).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
