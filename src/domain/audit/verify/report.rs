//! What a run over the lines found: broken places, whose signatures, and what the log says of itself.
//!
//! Data for people and machines; `verify.rs` fills it, the command line shows it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use super::super::chain::Link;
use super::super::checkpoint::PublicKey;

/// What is wrong at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakKind {
    /// The line is not what was sealed, or not the successor of the line before it.
    Edited,
    /// So many records are missing before this line.
    Gap(u64),
    /// The log ends before the stated head, or does not begin where the one before it ended.
    Cut,
    /// The line stands in another place than it was written at.
    Swapped,
    /// The number was there already.
    Duplicated,
    /// The last line is incomplete.
    Torn,
    /// The line does not follow the record before of the same user.
    UserChain,
    /// The checkpoint's signature does not vouch for the record before it.
    Signature,
    /// The checkpoint is signed by another key than the pinned ones, or there is none.
    Key,
}

impl BreakKind {
    /// One word for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Edited => "edited",
            Self::Gap(_) => "gap",
            Self::Cut => "cut",
            Self::Swapped => "swapped",
            Self::Duplicated => "duplicated",
            Self::Torn => "torn",
            Self::UserChain => "user_chain",
            Self::Signature => "signature",
            Self::Key => "key",
        }
    }
}

/// One broken place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// Which file, counted from 0 in the order given.
    pub file: usize,
    /// Which line of it, from 1; 0 for the end of the log.
    pub line: u64,
    /// The record's number, where it can be told.
    pub seq: Option<u64>,
    /// What is wrong.
    pub kind: BreakKind,
    /// The same in words.
    pub detail: Cow<'static, str>,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str("end of the log")?,
            line => write!(f, "line {line}")?,
        }
        if let Some(seq) = self.seq {
            write!(f, " (seq {seq})")?;
        }
        write!(f, ": {}: {}", self.kind.as_str(), self.detail)
    }
}

/// What one key signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUse {
    /// Whose.
    pub key: PublicKey,
    /// How many checkpoints.
    pub checkpoints: u64,
    /// The numbers of the first and the last of them.
    pub seqs: (u64, u64),
    /// Whether it is one of the pinned keys.
    pub pinned: bool,
}

/// What a run over the lines found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Lines that are records with a right hash.
    pub records: u64,
    /// Number of the first record, 0 if there is none.
    pub first_seq: u64,
    /// The last record.
    pub head: Link,
    /// Users seen.
    pub users: usize,
    /// Who signed, in the order of their first checkpoint.
    pub keys: Vec<KeyUse>,
    /// The last record that a good checkpoint vouches for; 0 if none does.
    pub signed_to: u64,
    /// What the log says of itself: how many gap records of each reason.
    pub gaps: BTreeMap<Box<str>, u64>,
    /// The first [`super::BREAKS_KEPT_MAX`] breaks.
    pub breaks: Vec<Break>,
    /// All breaks.
    pub breaks_total: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.breaks_total == 0
    }

    /// One more thing that is wrong, of the whole.
    pub fn add(&mut self, kind: BreakKind, detail: String) {
        self.breaks_total += 1;
        if self.breaks.len() < super::BREAKS_KEPT_MAX {
            self.breaks.push(Break {
                file: 0,
                line: 0,
                seq: None,
                kind,
                detail: detail.into(),
            });
        }
    }

    /// Records at the end that no checkpoint vouches for.
    pub fn unsigned(&self) -> u64 {
        self.head.seq.saturating_sub(self.signed_to)
    }
}
