//! Proof of a chain: lines in, every break with its place out.
//!
//! Streams: memory grows with users and breaks, not with lines. Knows neither files nor the writer; what a line must look
//! like is said in `chain.rs`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use super::chain::{Hash, Link};
use super::line::Sealed;

pub mod export;

/// Breaks that are kept with their place; further ones are only counted.
pub const BREAKS_KEPT_MAX: usize = 1000;
/// Users whose chain is followed; far more than the writer keeps.
pub const VERIFY_USERS_MAX: usize = 1_000_000;

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
    /// The first [`BREAKS_KEPT_MAX`] breaks.
    pub breaks: Vec<Break>,
    /// All breaks.
    pub breaks_total: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.breaks_total == 0
    }
}

/// Follows the chain line by line.
#[derive(Debug)]
pub struct Verifier {
    file: usize,
    line: u64,
    /// The last record that stood in its place; `None` before the first when the beginning is unknown.
    head: Option<Link>,
    /// Unreadable lines since then: each may have been one record.
    unread: u64,
    first_seq: u64,
    records: u64,
    /// Whether every user who is new here must begin with 1.
    from_start: bool,
    users: HashMap<Box<str>, UserLink>,
    missing: Vec<Missing>,
    breaks: Vec<Break>,
    breaks_total: u64,
}

#[derive(Debug)]
struct UserLink {
    link: Link,
    /// The number of breaks when it was seen: a later break explains a user's chain that does not fit.
    breaks_then: u64,
}

#[derive(Debug)]
struct Missing {
    first: u64,
    last: u64,
    found: u64,
    at: usize,
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new()
    }
}

impl Verifier {
    /// Accepts any beginning: the oldest files may have been removed in good order.
    pub fn new() -> Self {
        Self {
            file: 0,
            line: 0,
            head: None,
            unread: 0,
            first_seq: 0,
            records: 0,
            from_start: false,
            users: HashMap::new(),
            missing: Vec::new(),
            breaks: Vec::new(),
            breaks_total: 0,
        }
    }

    /// Carries on after the end of an earlier log.
    pub fn after(head: Link) -> Self {
        Self {
            head: Some(head),
            ..Self::new()
        }
    }

    /// Carries on after `head` where the last record of every user is known as well.
    pub fn resume(head: Link, users: impl IntoIterator<Item = (Box<str>, Link)>) -> Self {
        let users = users.into_iter().map(|(sub, link)| {
            let known = UserLink {
                link,
                breaks_then: 0,
            };
            (sub, known)
        });
        Self {
            from_start: true,
            users: users.collect(),
            ..Self::after(head)
        }
    }

    /// The next file begins: lines count from 1 again, the chain goes on.
    pub fn next_file(&mut self) {
        if self.line > 0 {
            self.file += 1;
        }
        self.line = 0;
    }

    /// A whole line, without its line feed.
    pub fn push(&mut self, line: &[u8]) {
        self.line += 1;
        match Sealed::read(line) {
            Ok(sealed) => self.place(&sealed),
            Err(detail) => {
                self.unread += 1;
                self.report(BreakKind::Edited, None, detail.into());
            }
        }
    }

    /// The rest of a file behind its last line feed.
    pub fn push_torn(&mut self) {
        self.line += 1;
        self.unread += 1;
        self.report(
            BreakKind::Torn,
            None,
            "the line is incomplete: torn by a crash, or being written right now".into(),
        );
    }

    /// The last record in its place, [`Link::START`] without one.
    pub fn head(&self) -> Link {
        self.head.unwrap_or(Link::START)
    }

    /// The last record of each user.
    pub fn users(&self) -> impl Iterator<Item = (&str, Link)> {
        self.users.iter().map(|(sub, user)| (&**sub, user.link))
    }

    /// The result. With `end`, the log must reach exactly that record: only so a cut end can be seen.
    pub fn finish(mut self, end: Option<Link>) -> Report {
        for missing in std::mem::take(&mut self.missing) {
            if missing.found > missing.last - missing.first
                && let Some(place) = self.breaks.get_mut(missing.at)
            {
                place.kind = BreakKind::Swapped;
                place.detail = "the line was written after lines that now follow it".into();
            }
        }
        let head = self.head();
        if let Some(end) = end.filter(|end| *end != head) {
            self.line = 0;
            let detail = format!(
                "it ends with record {} but should end with {}",
                head.seq, end.seq
            );
            self.report(BreakKind::Cut, None, detail.into());
        }
        Report {
            records: self.records,
            first_seq: self.first_seq,
            head,
            users: self.users.len(),
            breaks: self.breaks,
            breaks_total: self.breaks_total,
        }
    }

    fn place(&mut self, sealed: &Sealed<'_>) {
        self.records += 1;
        let seq = sealed.link.seq;
        let Some(head) = self.head else {
            return self.place_first(sealed);
        };
        if self.records == 1 {
            self.first_seq = seq;
        }
        let expected = head.seq + 1;
        if seq < expected {
            return self.place_earlier(seq);
        }
        let missing = (seq - expected).saturating_sub(self.unread);
        if missing > 0 {
            let (kind, detail) = if self.records == 1 {
                let detail = format!("it begins with record {seq} instead of {expected}");
                (BreakKind::Cut, detail)
            } else {
                let detail = format!("{missing} missing before it, from {expected} on");
                (BreakKind::Gap(missing), detail)
            };
            if self.breaks.len() < BREAKS_KEPT_MAX && self.records > 1 {
                self.missing.push(Missing {
                    first: expected,
                    last: seq - 1,
                    found: 0,
                    at: self.breaks.len(),
                });
            }
            self.report(kind, Some(seq), detail.into());
        } else if self.unread == 0 && sealed.prev != head.hash {
            self.report(
                BreakKind::Edited,
                Some(seq),
                "the record before it is not the one it was chained to".into(),
            );
        }
        self.stand(sealed);
    }

    fn place_first(&mut self, sealed: &Sealed<'_>) {
        self.first_seq = sealed.link.seq;
        self.from_start = sealed.link.seq == 1;
        if self.from_start != (sealed.prev == Hash::ZERO) {
            self.report(
                BreakKind::Edited,
                Some(sealed.link.seq),
                "only the very first record has no predecessor".into(),
            );
        }
        self.stand(sealed);
    }

    /// A number below the expected one: moved here from where it is missing, or there twice.
    fn place_earlier(&mut self, seq: u64) {
        let home = self
            .missing
            .iter_mut()
            .find(|m| (m.first..=m.last).contains(&seq) && m.found <= m.last - m.first);
        match home {
            Some(missing) => {
                missing.found += 1;
                let detail = "the line was written before lines that now precede it".into();
                self.report(BreakKind::Swapped, Some(seq), detail);
            }
            None => {
                let detail = "a record with this number stands before it".into();
                self.report(BreakKind::Duplicated, Some(seq), detail);
            }
        }
    }

    /// The line is taken as it is: what follows is measured against it.
    fn stand(&mut self, sealed: &Sealed<'_>) {
        self.head = Some(sealed.link);
        self.unread = 0;
        if sealed.restarts_users {
            self.users.clear();
            self.from_start = true;
        }
        let Some((sub, link, prev)) = &sealed.user else {
            return;
        };
        let known = self.users.get(&**sub);
        let explained = self.breaks_total > known.map_or(0, |user| user.breaks_then);
        let fits = match known {
            Some(before) => link.seq == before.link.seq + 1 && *prev == before.link.hash,
            None if self.from_start || link.seq <= 1 => link.seq == 1 && *prev == Hash::ZERO,
            None => *prev != Hash::ZERO,
        };
        if !fits && !explained {
            self.report(
                BreakKind::UserChain,
                Some(sealed.link.seq),
                "it does not follow the record before of the same user".into(),
            );
        }
        let now = UserLink {
            link: *link,
            breaks_then: self.breaks_total,
        };
        let room = self.users.len() < VERIFY_USERS_MAX;
        match self.users.get_mut(&**sub) {
            Some(user) => *user = now,
            None if room => {
                self.users.insert((&**sub).into(), now);
            }
            None => self.from_start = false,
        }
    }

    fn report(&mut self, kind: BreakKind, seq: Option<u64>, detail: Cow<'static, str>) {
        self.breaks_total += 1;
        if self.breaks.len() < BREAKS_KEPT_MAX {
            self.breaks.push(Break {
                file: self.file,
                line: self.line,
                seq,
                kind,
                detail,
            });
        }
    }
}
