//! What lies on the disk, and reading it line by line: shared by the writer's start and by the readers of the log.
//!
//! Knows names and bytes, not records.
//!
//! # On disk
//!
//! | name | what |
//! |---|---|
//! | `valetkey.jsonl` | the file being written |
//! | `valetkey.jsonl.0000000000000123` | a rotated file, named after its first `seq`; sorts by age |
//! | `valetkey.jsonl.heads` | the chain's and every user's last link at the last rotation or stop, so that a start reads little |
//! | `valetkey.jsonl.lock` | held while a writer lives |
//! | `valetkey.jsonl.torn.0000000000000123` | an incomplete last line that a crash left, set aside before record 123 |

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, Read as _};
use std::path::{Path, PathBuf};

/// The longest line that is read whole. A record with every field at its limit and every character escaped fits.
pub const AUDIT_LINE_BYTES_MAX: usize = 256 * 1024;

/// The log in the order it was written: rotated files by age, then the current one (if it is there).
///
/// # Errors
/// When the directory cannot be read.
pub fn log_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = rotated(path)?.into_iter().map(|(_, path)| path).collect();
    if path.try_exists()? {
        files.push(path.into());
    }
    Ok(files)
}

/// Rotated files with the number of their first record, oldest first.
///
/// # Errors
/// When the directory cannot be read.
pub fn rotated(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let name = path.file_name().unwrap_or_default();
    let mut found = Vec::new();
    for entry in fs::read_dir(folder(path).unwrap_or_else(|| Path::new(".")))? {
        let entry = entry?.path();
        let first_seq = entry
            .file_stem()
            .filter(|stem| *stem == name)
            .and_then(|_| entry.extension()?.to_str())
            .filter(|suffix| suffix.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok());
        if let Some(first_seq) = first_seq {
            found.push((first_seq, entry));
        }
    }
    found.sort();
    Ok(found)
}

/// The number of its first record that a rotated file's name states.
pub fn first_seq_in_name(path: &Path) -> Option<u64> {
    let digits = path.extension()?.to_str()?;
    let all = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| all)
}

/// Lines of any reader, each at most [`AUDIT_LINE_BYTES_MAX`] long; of a longer one the beginning.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    position: u64,
}

impl<R: BufRead> Lines<R> {
    /// Nothing is read yet.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            line: Vec::new(),
            position: 0,
        }
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next line without its line feed, and whether it had one; `None` at the end.
    ///
    /// # Errors
    /// What the reader said.
    pub fn next_line(&mut self) -> io::Result<Option<(&[u8], bool)>> {
        self.line.clear();
        let limit = AUDIT_LINE_BYTES_MAX as u64;
        let read = (&mut self.reader)
            .take(limit)
            .read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        self.position += read as u64;
        let mut ended = self.line.last() == Some(&b'\n');
        if ended {
            self.line.pop();
        } else if read == AUDIT_LINE_BYTES_MAX {
            let skipped = self.reader.skip_until(b'\n')?;
            self.position += skipped as u64;
            ended = skipped > 0;
        }
        Ok(Some((&self.line, ended)))
    }
}

/// `valetkey.jsonl` and `lock` make `valetkey.jsonl.lock`.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// The directory of a file; `None` for the working directory.
pub fn folder(path: &Path) -> Option<&Path> {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
}

/// Whether the path still names the open file.
///
/// # Errors
/// When the open file cannot be asked.
#[cfg(unix)]
pub fn same_file(path: &Path, file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let held = file.metadata()?;
    Ok(
        fs::metadata(path)
            .is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino())),
    )
}

/// Whether the path still names a file: where there are no inodes, no more can be told.
///
/// # Errors
/// When the directory cannot be asked.
#[cfg(not(unix))]
pub fn same_file(path: &Path, _: &File) -> io::Result<bool> {
    path.try_exists()
}

/// Whether no name leads to the open file any more: what is written there is lost when it is closed.
///
/// # Errors
/// When the open file cannot be asked.
#[cfg(unix)]
pub fn is_deleted(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(file.metadata()?.nlink() == 0)
}

/// Whether no name leads to the open file any more: where there are no inodes, an open file is not deleted.
///
/// # Errors
/// Never.
#[cfg(not(unix))]
pub fn is_deleted(_: &File) -> io::Result<bool> {
    Ok(false)
}

/// Whether the name is that of a file beside the log which holds no records of it.
pub fn is_companion(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    [".heads", ".heads.new", ".lock"]
        .iter()
        .any(|suffix| name.ends_with(suffix))
        || name.contains(".torn.")
}
