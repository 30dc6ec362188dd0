//! Uploaded files, on disk in a private scratch directory that goes away with the workspace.
//!
//! Never holds a whole file in memory: one blocking thread per transfer moves pieces. Knows nothing of HTTP or grants.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::sync::mpsc;

use crate::embedded::control::lock;
use crate::runtime::http_client::{Body, BoxError};

/// The platform's limit for one file.
const FILE_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;
/// All files together.
const STORE_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// One piece of a download.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces that wait for the slower side.
const PIECES_WAITING_MAX: usize = 4;

/// One stored file.
#[derive(Debug, Clone)]
pub(in crate::embedded) struct Stored {
    pub(in crate::embedded) bytes: u64,
    pub(in crate::embedded) changed_ms: i64,
    place: Arc<OnDisk>,
}

/// Removed from disk when nobody refers to it any more; a download in progress keeps its descriptor.
#[derive(Debug)]
struct OnDisk(PathBuf);

impl Drop for OnDisk {
    fn drop(&mut self) {
        // The directory goes at the end anyway.
        let _ = fs::remove_file(&self.0);
    }
}

/// Why a file was not stored.
#[derive(Debug, thiserror::Error)]
pub(in crate::embedded) enum StoreFault {
    /// The sender broke off.
    #[error("the upload broke off")]
    Sender,
    /// Over a limit.
    #[error("the file is larger than the embedded workspace keeps")]
    TooLarge,
    /// The disk refused.
    #[error(
        "the scratch directory could not be written: {0}; free some space or set WorkspaceOptions.scratch"
    )]
    Disk(#[from] io::Error),
}

/// All files and directories, by their full path.
pub(in crate::embedded) struct FileStore {
    root: PathBuf,
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    files: BTreeMap<String, Stored>,
    directories: BTreeSet<String>,
    bytes: u64,
}

impl FileStore {
    /// A store below `scratch`; nothing is created before the first upload.
    pub(in crate::embedded) fn under(scratch: &Path) -> Self {
        let name = format!("valetkey-embedded-{}", uuid::Uuid::now_v7().simple());
        Self {
            root: scratch.join(name),
            index: Mutex::default(),
        }
    }

    /// The file at a path.
    pub(in crate::embedded) fn find(&self, path: &str) -> Option<Stored> {
        lock(&self.index).files.get(path).cloned()
    }

    /// Stores a body, replacing what was there.
    pub(in crate::embedded) async fn put(
        &self,
        path: &str,
        body: Body,
        now_ms: i64,
    ) -> Result<(), StoreFault> {
        let place = self.root.join(uuid::Uuid::now_v7().simple().to_string());
        let root = self.root.clone();
        let (pieces, waiting) = mpsc::channel(PIECES_WAITING_MAX);
        let place = Arc::new(OnDisk(place));
        let target = Arc::clone(&place);
        let writer = tokio::task::spawn_blocking(move || write_all(&root, &target.0, waiting));
        let sent = send_all(body, pieces).await;
        let written = writer.await.map_err(io::Error::other)?;
        sent?;
        let stored = Stored {
            bytes: written?,
            changed_ms: now_ms,
            place,
        };
        let mut index = lock(&self.index);
        let before = index.files.get(path).map_or(0, |old| old.bytes);
        let total = index.bytes - before + stored.bytes;
        if total > STORE_BYTES_MAX {
            return Err(StoreFault::TooLarge);
        }
        index.bytes = total;
        index.files.insert(path.to_owned(), stored);
        Ok(())
    }

    /// Removes a file; says whether it was there.
    pub(in crate::embedded) fn remove(&self, path: &str) -> bool {
        let mut index = lock(&self.index);
        let removed = index.files.remove(path);
        if let Some(old) = &removed {
            index.bytes -= old.bytes;
        }
        removed.is_some()
    }

    /// Makes an (empty) directory.
    pub(in crate::embedded) fn make_directory(&self, path: &str) {
        lock(&self.index).directories.insert(path.to_owned());
    }

    /// Removes an empty directory; says whether it was there.
    pub(in crate::embedded) fn remove_directory(&self, path: &str) -> bool {
        lock(&self.index).directories.remove(path)
    }

    /// What lies directly below a directory: name, and the file where it is one. `None` where there is no such directory.
    pub(in crate::embedded) fn list(
        &self,
        directory: &str,
    ) -> Option<BTreeMap<String, Option<Stored>>> {
        let index = lock(&self.index);
        let below = format!("{directory}/");
        let mut found = BTreeMap::new();
        let files = index.files.iter().map(|(path, file)| (path, Some(file)));
        for (path, file) in files.chain(index.directories.iter().map(|d| (d, None))) {
            let Some(rest) = path.strip_prefix(&below) else {
                continue;
            };
            match rest.split_once('/') {
                Some((name, _)) => drop(found.entry(name.to_owned()).or_insert(None)),
                None => drop(found.insert(rest.to_owned(), file.cloned())),
            }
        }
        (!found.is_empty() || index.directories.contains(directory)).then_some(found)
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        // Absent where nothing was uploaded.
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Stored {
    /// The bytes from `start` on, `count` of them.
    pub(in crate::embedded) fn read(&self, start: u64, count: u64) -> Body {
        let (pieces, waiting) = mpsc::channel(PIECES_WAITING_MAX);
        let place = Arc::clone(&self.place);
        // Detached on purpose: it ends when the file does or when the reader goes away.
        tokio::task::spawn_blocking(move || {
            if let Err(fault) = read_pieces(&place.0, start, count, &pieces) {
                let _ = pieces.blocking_send(Err(fault.into()));
            }
        });
        let frames = futures_util::stream::unfold(waiting, |mut waiting| async move {
            let piece: Result<Bytes, BoxError> = waiting.recv().await?;
            Some((piece.map(Frame::data), waiting))
        });
        StreamBody::new(frames).boxed_unsync()
    }
}

async fn send_all(mut body: Body, pieces: mpsc::Sender<Bytes>) -> Result<(), StoreFault> {
    let mut bytes = 0u64;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| StoreFault::Sender)?;
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        bytes = bytes.saturating_add(piece.len() as u64);
        if bytes > FILE_BYTES_MAX {
            return Err(StoreFault::TooLarge);
        }
        if pieces.send(piece).await.is_err() {
            // The writer has given up and will say why.
            return Ok(());
        }
    }
    Ok(())
}

fn write_all(root: &Path, place: &Path, mut waiting: mpsc::Receiver<Bytes>) -> io::Result<u64> {
    make_private_directory(root)?;
    let mut file = File::options().write(true).create_new(true).open(place)?;
    let mut bytes = 0u64;
    while let Some(piece) = waiting.blocking_recv() {
        file.write_all(&piece)?;
        bytes += piece.len() as u64;
    }
    Ok(bytes)
}

fn make_private_directory(root: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(root)
}

fn read_pieces(
    place: &Path,
    start: u64,
    count: u64,
    pieces: &mpsc::Sender<Result<Bytes, BoxError>>,
) -> io::Result<()> {
    let mut file = File::open(place)?;
    file.seek(SeekFrom::Start(start))?;
    let mut left = file.take(count);
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        if left
            .by_ref()
            .take(PIECE_BYTES as u64)
            .read_to_end(&mut piece)?
            == 0
        {
            return Ok(());
        }
        if pieces.blocking_send(Ok(piece.into())).is_err() {
            return Ok(());
        }
    }
}
