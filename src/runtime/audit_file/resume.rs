//! Finding the chain again at start: repair a torn end, verify, continue (SECURITY R34).
//!
//! The last link of every user is needed too. It lies in the `heads` file, written at each rotation and stop, so that a
//! start reads only what came later: nothing after a clean stop, at most the current file after a crash. Without a fitting
//! `heads` file the whole log is read once (streaming; some seconds per GiB). The `heads` file is not believed further than
//! the log bears it out, and a forged one only breaks the chains of users, where `verify` finds it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::layout::{AUDIT_LINE_BYTES_MAX, Lines, beside, rotated};
use super::{AuditFault, AuditFile, private_file, sync_folder};
use crate::domain::audit::Record;
use crate::domain::audit::chain::{Chain, Hash, Link};
use crate::domain::audit::line::Sealed;
use crate::domain::audit::verify::Verifier;
use crate::domain::identity::UserId;

/// Reason of a gap: a crash left an incomplete last line, which was set aside.
pub const TORN_LINE: &str = "torn_line";
/// Reason of a gap: what is there does not verify; `audit verify` says where.
pub const CHAIN_BROKEN: &str = "chain_broken";
/// Reason of a gap: records that were known to be written are no longer there; their numbers stay missing.
pub const TAIL_MISSING: &str = "tail_missing";

/// The state at one place of the log.
#[derive(Debug, Serialize, Deserialize)]
struct Heads {
    v: u64,
    seq: u64,
    hash: String,
    /// Bytes of the current file that lie before this state.
    offset: u64,
    users: Vec<(String, u64, String)>,
}

const HEADS_VERSION: u64 = 1;

/// The chain to carry on, and what the log has to say of itself first.
#[derive(Debug)]
pub struct Resumed {
    /// Sealed from here on.
    pub chain: Chain,
    /// Gaps to record before anything else.
    pub gaps: Vec<Record>,
}

/// Reads the end of the log behind `file`, repairs it, and gives the chain to carry on.
///
/// # Errors
/// [`AuditFault::Resume`] if something there cannot be read or repaired.
pub fn resume(file: &mut AuditFile) -> Result<Resumed, AuditFault> {
    try_resume(file).map_err(|cause| AuditFault::Resume {
        path: file.path.clone(),
        cause,
    })
}

fn try_resume(file: &mut AuditFile) -> io::Result<Resumed> {
    let path = file.path.clone();
    let heads = load(&path);
    let fitting = match &heads {
        Some(heads) => fits(heads, &path, file.len)?,
        None => false,
    };
    let (mut verifier, offset) = match heads.as_ref().filter(|_| fitting) {
        Some(heads) => (Verifier::resume(heads.link(), heads.users()), heads.offset),
        None => (Verifier::new(), 0),
    };
    if !fitting {
        for (_, old) in rotated(&path)? {
            if scan(&old, 0, &mut verifier)? < fs::metadata(&old)?.len() {
                verifier.push_torn();
            }
            verifier.next_file();
        }
    }
    let end = scan(&path, offset, &mut verifier)?;
    let mut head = verifier.head();
    let users: HashMap<UserId, Link> = verifier
        .users()
        .filter_map(|(sub, link)| Some((UserId::parse(sub).ok()?, link)))
        .collect();
    let mut gaps = Vec::new();
    if !verifier.finish(None).is_good() {
        gaps.push(Record::gap(CHAIN_BROKEN, None));
    }
    if let Some(heads) = heads.filter(|heads| heads.seq > head.seq) {
        gaps.push(Record::gap(TAIL_MISSING, Some(heads.seq - head.seq)));
        head = heads.link();
    }
    if end < file.len {
        set_aside(file, end, head.seq + 1)?;
        gaps.push(Record::gap(TORN_LINE, None));
    }
    Ok(Resumed {
        chain: Chain::resume(head, users),
        gaps,
    })
}

/// The number of the first record in a file; 0 if it has none.
///
/// # Errors
/// When the file cannot be read.
pub fn first_seq(path: &Path) -> io::Result<u64> {
    let mut lines = Lines::new(BufReader::new(File::open(path)?));
    while let Some((line, _)) = lines.next_line()? {
        if let Ok(sealed) = Sealed::read(line) {
            return Ok(sealed.link.seq);
        }
    }
    Ok(0)
}

/// The head that the `heads` file beside a log notes: of the last rotation or stop.
pub fn noted_head(path: &Path) -> Option<Link> {
    load(path).map(|heads| heads.link())
}

/// Writes the `heads` file: whole or not at all.
///
/// # Errors
/// What the system said. Nothing is lost then but time at the next start.
pub fn save(path: &Path, chain: &Chain, offset: u64) -> io::Result<()> {
    let heads = Heads {
        v: HEADS_VERSION,
        seq: chain.head().seq,
        hash: chain.head().hash.to_string(),
        offset,
        users: chain
            .users()
            .iter()
            .map(|(sub, link)| (sub.as_str().to_owned(), link.seq, link.hash.to_string()))
            .collect(),
    };
    let fresh = beside(path, "heads.new");
    if fresh.try_exists()? {
        fs::remove_file(&fresh)?;
    }
    let mut file = private_file(&fresh)?;
    file.write_all(&serde_json::to_vec(&heads)?)?;
    file.sync_data()?;
    fs::rename(&fresh, beside(path, "heads"))?;
    sync_folder(path);
    Ok(())
}

impl Heads {
    fn link(&self) -> Link {
        Link {
            seq: self.seq,
            hash: Hash::parse(&self.hash).unwrap_or(Hash::ZERO),
        }
    }

    fn users(&self) -> impl Iterator<Item = (Box<str>, Link)> + '_ {
        self.users.iter().filter_map(|(sub, seq, hash)| {
            let hash = Hash::parse(hash)?;
            Some((sub.as_str().into(), Link { seq: *seq, hash }))
        })
    }
}

/// A missing or damaged file is as good as none: the log itself is read instead.
fn load(path: &Path) -> Option<Heads> {
    let bytes = fs::read(beside(path, "heads")).ok()?;
    let heads: Heads = serde_json::from_slice(&bytes).ok()?;
    (heads.v == HEADS_VERSION && Hash::parse(&heads.hash).is_some()).then_some(heads)
}

/// Whether the log says the same at the place that `heads` speaks of: the record before `offset`, which is the last of the
/// newest rotated file when `offset` is 0.
fn fits(heads: &Heads, path: &Path, len: u64) -> io::Result<bool> {
    if heads.offset > len {
        return Ok(false);
    }
    let last = if heads.offset > 0 {
        last_before(path, heads.offset)?
    } else {
        match rotated(path)?.pop() {
            Some((_, newest)) => last_before(&newest, fs::metadata(&newest)?.len())?,
            None => Some(Link::START),
        }
    };
    Ok(last == Some(heads.link()))
}

/// The record whose line ends at `offset`.
fn last_before(path: &Path, offset: u64) -> io::Result<Option<Link>> {
    let span = offset.min(AUDIT_LINE_BYTES_MAX as u64);
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset - span))?;
    let mut bytes = Vec::new();
    file.take(span).read_to_end(&mut bytes)?;
    let Some(whole) = bytes.strip_suffix(b"\n") else {
        return Ok(None);
    };
    let line = whole.rsplit(|byte| *byte == b'\n').next();
    Ok(line
        .and_then(|line| Sealed::read(line).ok())
        .map(|sealed| sealed.link))
}

/// Feeds the whole lines from `offset` on; gives the place behind the last of them.
fn scan(path: &Path, offset: u64, verifier: &mut Verifier) -> io::Result<u64> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut lines = Lines::new(BufReader::with_capacity(AUDIT_LINE_BYTES_MAX, file));
    let mut end = offset;
    loop {
        match lines.next_line()? {
            Some((line, true)) => verifier.push(line),
            Some((_, false)) | None => return Ok(end),
        }
        end = offset + lines.position();
    }
}

/// Moves the bytes behind the last whole line to a file of their own.
fn set_aside(file: &mut AuditFile, end: u64, seq: u64) -> io::Result<()> {
    let mut source = File::open(&file.path)?;
    source.seek(SeekFrom::Start(end))?;
    let mut aside = private_file(&beside(&file.path, &format!("torn.{seq:016}")))?;
    io::copy(&mut source, &mut aside)?;
    aside.sync_data()?;
    file.file.set_len(end)?;
    file.file.sync_data()?;
    file.len = end;
    Ok(())
}
