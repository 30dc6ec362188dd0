//! The audit file: created private, locked, appended whole batches or nothing, rotated by size.
//!
//! Knows lines as bytes only; `audit_writer.rs` owns chain and queue, `audit_file/resume.rs` finds the chain again at start,
//! `audit_file/layout.rs` says what lies on the disk.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crate::domain::audit::chain::Chain;

use layout::{beside, folder, is_deleted, rotated, same_file};

pub mod layout;
pub mod resume;

/// Why the writer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AuditFault {
    /// The directory is missing and cannot be made.
    #[error(
        "the audit directory {path} cannot be created: {cause}; create it writable for this user or set audit.file"
    )]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file cannot be opened for appending.
    #[error(
        "the audit file {path} cannot be written: {cause}; make it writable for this user or set audit.file"
    )]
    Open {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Another writer holds it.
    #[error(
        "the audit file {path} belongs to a running valetkey; stop that one or set another audit.file"
    )]
    Locked {
        /// Which.
        path: PathBuf,
    },
    /// What is there cannot be read, so the chain cannot go on.
    #[error(
        "the audit log {path} cannot be read back to continue its chain: {cause}; make it readable for this user or move the log away"
    )]
    Resume {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// No thread for the writer.
    #[error("the audit writer's thread cannot be started: {0}; raise the limit on processes")]
    Thread(io::Error),
}

/// Where batches of lines go. The file is the real one; tests have failing and slow ones.
pub trait AuditSink: Send {
    /// Appends the whole batch (flushed to disk if `durable`), or leaves everything as it was.
    ///
    /// # Errors
    /// What the system said; the batch then counts as never written.
    fn append(&mut self, batch: &[u8], durable: bool) -> io::Result<()>;

    /// Begins to flush to disk what was appended, without holding up the appends that follow; says whether all is flushed.
    /// Where not, it is asked again later.
    ///
    /// # Errors
    /// What the system said of this flush or of the one before.
    fn sync(&mut self) -> io::Result<bool>;

    /// Whether readers still find what is written here.
    ///
    /// # Errors
    /// Why not.
    fn check(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Whether rotation is due.
    fn is_full(&self) -> bool {
        false
    }

    /// Between batches, once it is full: rotation.
    ///
    /// # Errors
    /// What the system said; the old file then stays in use.
    fn rotate(&mut self, chain: &Chain) -> io::Result<()> {
        let _ = chain;
        Ok(())
    }

    /// The last call: everything is to be on disk afterwards.
    ///
    /// # Errors
    /// What the system said.
    fn finish(&mut self, chain: &Chain) -> io::Result<()> {
        let _ = chain;
        self.sync().map(drop)
    }
}

/// The real sink.
#[derive(Debug)]
pub struct AuditFile {
    path: PathBuf,
    file: File,
    /// Keeps a second writer out; the file itself changes with rotation.
    _lock: File,
    len: u64,
    /// The flush that is under way: on a thread of its own, since it may take as long as the disk likes.
    flush: Option<JoinHandle<io::Result<()>>>,
    unflushed: bool,
    /// Bytes of a failed batch may lie behind `len`.
    dirty_end: bool,
    /// The path names another file, or none.
    replaced: bool,
    rotate_bytes: u64,
    rotate_keep: usize,
    rotate_at: u64,
}

/// The file whose lock a writer of this log holds.
pub fn lock_of(path: &Path) -> PathBuf {
    beside(path, "lock")
}

impl AuditFile {
    /// Makes what is missing, private to this user, and locks out a second writer.
    ///
    /// # Errors
    /// [`AuditFault`] names path, cause and remedy.
    pub fn open(path: &Path, rotate_bytes: u64, rotate_keep: usize) -> Result<Self, AuditFault> {
        if let Some(folder) = folder(path) {
            private_folder(folder).map_err(|cause| AuditFault::Directory {
                path: folder.into(),
                cause,
            })?;
        }
        let fault = |cause| AuditFault::Open {
            path: path.into(),
            cause,
        };
        let lock = private_file(&lock_of(path)).map_err(fault)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(AuditFault::Locked { path: path.into() }),
            Err(TryLockError::Error(cause)) => return Err(fault(cause)),
        }
        let (file, len) = open_regular(path).map_err(fault)?;
        Ok(Self {
            path: path.into(),
            file,
            _lock: lock,
            len,
            flush: None,
            unflushed: false,
            dirty_end: false,
            replaced: false,
            rotate_bytes: rotate_bytes.max(1),
            rotate_keep,
            rotate_at: rotate_bytes.max(1),
        })
    }

    fn reopen(&mut self) -> io::Result<()> {
        (self.file, self.len) = open_regular(&self.path)?;
        self.dirty_end = false;
        self.replaced = false;
        Ok(())
    }

    fn rotate_now(&mut self, chain: &Chain) -> io::Result<()> {
        let first_seq = resume::first_seq(&self.path)?;
        let name = beside(&self.path, &format!("{first_seq:016}"));
        if name.try_exists()? {
            return Err(io::Error::other(
                "a rotated file of that name is there already",
            ));
        }
        self.file.sync_data()?;
        fs::rename(&self.path, &name)?;
        match open_regular(&self.path) {
            Ok((file, len)) => {
                self.file = file;
                self.len = len;
            }
            Err(cause) => {
                // The old file stays the one being written, under its own name.
                fs::rename(&name, &self.path)?;
                return Err(cause);
            }
        }
        self.rotate_at = self.rotate_bytes;
        sync_folder(&self.path);
        resume::save(&self.path, chain, self.len)?;
        let rotated = rotated(&self.path)?;
        let surplus = rotated.len().saturating_sub(self.rotate_keep);
        rotated
            .iter()
            .take(surplus)
            .try_for_each(|(_, path)| fs::remove_file(path))
    }
}

impl AuditSink for AuditFile {
    fn append(&mut self, batch: &[u8], durable: bool) -> io::Result<()> {
        if self.replaced {
            self.reopen()?;
        }
        if self.dirty_end {
            self.file.set_len(self.len)?;
            self.dirty_end = false;
        }
        let mut written = self.file.write_all(batch).and_then(|()| {
            // Asked after the write: what is acknowledged was in a file that could be found.
            if is_deleted(&self.file)? {
                return Err(io::Error::other("it was deleted"));
            }
            Ok(())
        });
        if durable && written.is_ok() {
            written = self.file.sync_data();
        }
        match written {
            Ok(()) => {
                self.len += batch.len() as u64;
                self.unflushed = !durable;
                Ok(())
            }
            Err(cause) => {
                self.dirty_end = self.file.set_len(self.len).is_err();
                Err(cause)
            }
        }
    }

    fn sync(&mut self) -> io::Result<bool> {
        match self.flush.take() {
            Some(flush) if !flush.is_finished() => {
                self.flush = Some(flush);
                return Ok(false);
            }
            Some(flush) => flush
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the flushing thread panicked")))?,
            None => {}
        }
        if !std::mem::take(&mut self.unflushed) {
            return Ok(true);
        }
        let file = self.file.try_clone()?;
        let thread = std::thread::Builder::new().name("valetkey-flush".into());
        self.flush = Some(thread.spawn(move || file.sync_data())?);
        Ok(false)
    }

    fn check(&mut self) -> io::Result<()> {
        self.replaced = !same_file(&self.path, &self.file)?;
        if self.replaced {
            return Err(io::Error::other("it was moved, deleted or replaced"));
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.len >= self.rotate_at
    }

    fn rotate(&mut self, chain: &Chain) -> io::Result<()> {
        if !self.is_full() {
            return Ok(());
        }
        let done = self.rotate_now(chain);
        if done.is_err() {
            // Not at every batch: the next try comes when the file has grown by an eighth.
            self.rotate_at = self.len.saturating_add(self.rotate_bytes / 8);
        }
        done
    }

    fn finish(&mut self, chain: &Chain) -> io::Result<()> {
        self.file.sync_data()?;
        resume::save(&self.path, chain, self.len)
    }
}

fn open_regular(path: &Path) -> io::Result<(File, u64)> {
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::other("it is not a regular file"));
    }
    let file = private_file(path)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

/// Appends, creates with mode 0600; never widens or narrows what is there.
fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn private_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// A rename survives a power loss only once its directory is flushed. Where that is not possible the rename still happened.
fn sync_folder(path: &Path) {
    let folder = folder(path).unwrap_or_else(|| Path::new("."));
    if let Err(cause) = File::open(folder).and_then(|folder| folder.sync_all()) {
        tracing::debug!(folder = %folder.display(), %cause, "the audit directory cannot be flushed");
    }
}

#[cfg(test)]
mod tests;
