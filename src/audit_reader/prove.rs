//! `valetkey audit verify`: the chain over all files, or one user's own chain.
//!
//! Lines are read and hashed on all cores, and put in their places in order. The proof itself is `domain/audit/verify.rs`;
//! `audit_reader/told.rs` says the result.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::chunks::{Opened, Piece};
use super::told;
use crate::domain::audit::chain::{Hash, Link};
use crate::domain::audit::checkpoint::PublicKey;
use crate::domain::audit::line::Sealed;
use crate::domain::audit::verify::Verifier;
use crate::domain::audit::verify::export::ExportVerifier;
use crate::domain::audit::verify::report::{BreakKind, Report};
use crate::runtime::audit_file::layout::first_seq_in_name;
use crate::runtime::audit_file::resume::noted_head;

/// How often, and how long each time, `verify` waits for a last line that may be being written right now.
const TORN_LOOKS: usize = 20;
const TORN_WAIT: Duration = Duration::from_millis(10);

/// What is to be proven.
#[derive(Debug, Default, Clone)]
pub struct Claim {
    /// Only checkpoints by these keys count, and there must be one.
    pub keys: Vec<PublicKey>,
    /// Records noted elsewhere, such as from `/status`: they must be there.
    pub heads: Vec<Link>,
    /// The files are the records of this user alone: subject.
    pub user: Option<String>,
    /// What came before the first record may be missing.
    pub partial: bool,
    /// For machines.
    pub json: bool,
}

/// Reads `SEQ:HASH`, or the hash alone is not enough.
///
/// # Errors
/// A sentence that says what is expected.
pub fn parse_head(text: &str) -> Result<Link, String> {
    let parsed = text.split_once(':').and_then(|(seq, hash)| {
        Some(Link {
            seq: seq.parse().ok()?,
            hash: Hash::parse(hash)?,
        })
    });
    parsed.ok_or_else(|| {
        format!("{text:?} is no SEQ:HASH, such as audit.seq and audit.head of /status")
    })
}

/// Reads a public key: 64 hex digits, or a file with what `openssl pkey -pubout` wrote.
///
/// # Errors
/// A sentence that says what is expected.
pub fn parse_key(text: &str) -> Result<PublicKey, String> {
    if let Some(key) = PublicKey::parse(text) {
        return Ok(key);
    }
    let read = std::fs::read_to_string(text).map_err(|cause| {
        format!(
            "{text:?} is neither a public key of 64 hex digits nor a file that can be read: {cause}"
        )
    })?;
    PublicKey::from_pem(&read).ok_or_else(|| format!("{text:?} holds no Ed25519 public key in PEM"))
}

/// Verifies the chain over `files` and says what is wrong and where.
///
/// # Errors
/// When a file cannot be read or `out` not written.
pub fn verify(files: &[PathBuf], claim: &Claim, out: &mut dyn io::Write) -> io::Result<bool> {
    let report = if let Some(user) = &claim.user {
        prove_user(files, user, claim)?
    } else {
        prove_log(files, claim)?
    };
    let written = if claim.json {
        told::json(&report, files, out)
    } else {
        told::text(&report, files, claim, out)
    };
    match written.and_then(|()| out.flush()) {
        // A reader that has gone (`| head`) does not make a broken log good.
        Err(fault) if fault.kind() != io::ErrorKind::BrokenPipe => Err(fault),
        Ok(()) | Err(_) => Ok(report.is_good()),
    }
}

fn prove_log(files: &[PathBuf], claim: &Claim) -> io::Result<Report> {
    let mut known = claim.heads.clone();
    // What the sidecar noted at its last rotation or stop, where it lies beside the log.
    known.extend(files.last().and_then(|newest| noted_head(newest)));
    let mut verifier = Verifier::new().pinned(claim.keys.clone()).knowing(known);
    if !claim.partial {
        let named = files.first().and_then(|oldest| first_seq_in_name(oldest));
        verifier = verifier.beginning_at(named.unwrap_or(1));
    }
    follow(files, &mut verifier)?;
    Ok(verifier.finish(None))
}

fn prove_user(files: &[PathBuf], user: &str, claim: &Claim) -> io::Result<Report> {
    let mut verifier = ExportVerifier::new(claim.heads.clone());
    if !claim.partial {
        verifier = verifier.whole();
    }
    follow(files, &mut verifier)?;
    let owner = verifier.owner().map(str::to_owned);
    let mut report = verifier.finish();
    if owner.as_deref() != Some(user) {
        report.add(
            BreakKind::UserChain,
            owner.map_or_else(
                || "there is no record of a user".to_owned(),
                |_| "the records are of another user; --user takes the subject".to_owned(),
            ),
        );
    }
    Ok(report)
}

/// Whoever puts lines in their places.
trait Follow {
    fn next_file(&mut self);
    fn push(&mut self, line: Result<Sealed<'_>, &'static str>);
    fn torn(&mut self);
}

impl Follow for Verifier {
    fn next_file(&mut self) {
        Self::next_file(self);
    }

    fn push(&mut self, line: Result<Sealed<'_>, &'static str>) {
        self.push_read(line);
    }

    fn torn(&mut self) {
        self.push_torn();
    }
}

impl Follow for ExportVerifier {
    fn next_file(&mut self) {
        Self::next_file(self);
    }

    fn push(&mut self, line: Result<Sealed<'_>, &'static str>) {
        self.push_read(line);
    }

    fn torn(&mut self) {
        self.push_torn();
    }
}

/// The lines of one piece, read.
struct Read {
    file: usize,
    first: bool,
    lines: Vec<Result<Sealed<'static>, &'static str>>,
    torn_at: Option<u64>,
}

impl Read {
    fn of(piece: &Piece<'_>) -> Self {
        let read = |line| Sealed::read(line).map(Sealed::into_owned);
        Self {
            file: piece.file,
            first: piece.first,
            lines: piece.lines().map(read).collect(),
            torn_at: piece.torn_at,
        }
    }
}

fn follow(files: &[PathBuf], verifier: &mut impl Follow) -> io::Result<()> {
    let log = Opened::open(files)?;
    log.scan(Read::of, |read| {
        if read.first && read.file > 0 {
            verifier.next_file();
        }
        read.lines.into_iter().for_each(|line| verifier.push(line));
        let Some(at) = read.torn_at else {
            return Ok(());
        };
        let live = read.file + 1 == files.len();
        match if live {
            wait_for_rest(&log, read.file, at)?
        } else {
            None
        } {
            Some(line) => verifier.push(Sealed::read(&line)),
            None => verifier.torn(),
        }
        Ok(())
    })
}

/// Gives a line that was being written the time to be ended.
fn wait_for_rest(log: &Opened, file: usize, at: u64) -> io::Result<Option<Vec<u8>>> {
    for look in 0..TORN_LOOKS {
        if look > 0 {
            std::thread::park_timeout(TORN_WAIT);
        }
        if let Some(line) = log.line_at(file, at)? {
            return Ok(Some(line));
        }
    }
    Ok(None)
}

/// A file by its name, for messages.
pub(super) fn name(files: &[PathBuf], index: usize) -> Option<String> {
    files
        .get(index)
        .map(|path: &PathBuf| Path::display(path).to_string())
}
