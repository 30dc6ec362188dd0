//! What is in the volume already, kept beside the log so that a restart goes on where the last run ended.
//!
//! A lost or damaged ledger costs no record: everything that is still on the disk goes once more, under a new log id, and the
//! old copy stays where it is. Knows files by the number of their first record only.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::segment::Closed;
use crate::domain::volume::VolumePath;
use crate::runtime::audit_file::layout::beside;
use crate::runtime::audit_file::{private_file, sync_folder};

const LEDGER_VERSION: u64 = 1;

/// The file's shape.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    v: u64,
    /// Names this log among those of the same app: one disk, one chain, one folder.
    log: String,
    /// Where the files went.
    to: String,
    /// The first numbers of those that are there and still here.
    shipped: BTreeSet<u64>,
}

/// The ledger of one log and one destination.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    written: Written,
}

impl Written {
    fn begin(log: String, to: &VolumePath) -> Self {
        Self {
            v: LEDGER_VERSION,
            log,
            to: to.to_string(),
            shipped: BTreeSet::new(),
        }
    }
}

impl Ledger {
    /// Begins one for a new log, whatever lies there.
    pub fn new(audit_file: &Path, to: &VolumePath) -> Self {
        Self {
            path: beside(audit_file, "shipped"),
            written: Written::begin(new_id(), to),
        }
    }

    /// Reads it, or begins one. After a change of the destination everything that is here goes there.
    pub fn open(audit_file: &Path, to: &VolumePath) -> Self {
        let path = beside(audit_file, "shipped");
        let read = fs::read(&path);
        if let Err(fault) = &read
            && fault.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %fault, "what was shipped is not known any more; all that is here goes again");
        }
        let written = read.ok().and_then(|bytes| {
            let written = serde_json::from_slice::<Written>(&bytes).ok();
            let written = written.filter(|written| {
                written.v == LEDGER_VERSION && Uuid::try_parse(&written.log).is_ok()
            });
            if written.is_none() {
                tracing::warn!(path = %path.display(), "the list of shipped files is damaged; all that is here goes again");
            }
            written
        });
        let written = match written {
            Some(written) if written.to == to.as_str() => written,
            Some(other) => Written::begin(other.log, to),
            None => Written::begin(new_id(), to),
        };
        Self { path, written }
    }

    /// The id of the log: a UUIDv7, so that logs sort by their beginning.
    pub fn log(&self) -> &str {
        &self.written.log
    }

    /// Whether a file is in the volume.
    pub fn has(&self, first: u64) -> bool {
        self.written.shipped.contains(&first)
    }

    /// A file has arrived.
    pub fn add(&mut self, first: u64) {
        self.written.shipped.insert(first);
    }

    /// Forgets files that are not here any more.
    pub fn keep_only(&mut self, here: &[Closed]) {
        let here: BTreeSet<u64> = here.iter().map(|file| file.first).collect();
        self.written.shipped.retain(|first| here.contains(first));
    }

    /// As it stands, for a thread that may wait for the disk.
    ///
    /// # Errors
    /// Never, as its shape is JSON.
    pub fn page(&self) -> io::Result<Page> {
        Ok(Page {
            path: self.path.clone(),
            bytes: serde_json::to_vec(&self.written)?,
        })
    }
}

/// The ledger's text, to be written.
pub struct Page {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Page {
    /// Writes it: whole or not at all.
    ///
    /// # Errors
    /// What the system said.
    pub fn save(&self) -> io::Result<()> {
        let mut fresh = self.path.clone().into_os_string();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        if fresh.try_exists()? {
            fs::remove_file(&fresh)?;
        }
        let mut file = private_file(&fresh)?;
        file.write_all(&self.bytes)?;
        file.sync_data()?;
        fs::rename(&fresh, &self.path)?;
        sync_folder(&self.path);
        Ok(())
    }
}

fn new_id() -> String {
    Uuid::now_v7().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> VolumePath {
        VolumePath::of_volume(text).unwrap()
    }

    #[test]
    fn it_outlives_a_restart_but_not_a_change_of_the_destination() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("valetkey.jsonl");
        let mut ledger = Ledger::open(&log, &place("a.b.c"));
        ledger.add(1);
        ledger.add(70);
        ledger.page().unwrap().save().unwrap();
        ledger.page().unwrap().save().unwrap();
        let again = Ledger::open(&log, &place("a.b.c"));
        assert_eq!(again.log(), ledger.log());
        assert!(again.has(1) && again.has(70) && !again.has(2));
        let moved = Ledger::open(&log, &place("a.b.d"));
        assert_eq!(moved.log(), ledger.log());
        assert!(!moved.has(1));
    }

    #[test]
    fn a_damaged_one_is_begun_anew_under_another_id() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("valetkey.jsonl");
        let mut ledger = Ledger::open(&log, &place("a.b.c"));
        ledger.add(1);
        ledger.page().unwrap().save().unwrap();
        for damage in [
            "",
            "{\"v\":1",
            "{\"v\":2,\"log\":\"x\",\"to\":\"y\",\"shipped\":[]}",
        ] {
            fs::write(beside(&log, "shipped"), damage).unwrap();
            let again = Ledger::open(&log, &place("a.b.c"));
            assert!(!again.has(1) && again.log() != ledger.log(), "{damage}");
        }
    }

    #[test]
    fn it_forgets_what_is_not_here() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&folder.path().join("l"), &place("a.b.c"));
        ledger.add(1);
        ledger.add(5);
        let here = Closed {
            first: 5,
            path: PathBuf::new(),
            bytes: 0,
        };
        ledger.keep_only(&[here]);
        assert!(!ledger.has(1) && ledger.has(5));
    }
}
