//! Proof of a chain: lines in, every break with its place out.
//!
//! Streams: memory grows with users and breaks, not with lines. Knows neither files nor the writer; what a line must look
//! like is said in `chain.rs`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::chain::{Hash, Link};
use super::checkpoint::PublicKey;
use super::line::Sealed;

use report::{Break, BreakKind, Report};
use seals::Seals;

pub mod export;
pub mod report;
mod seals;

/// Breaks that are kept with their place; further ones are only counted.
pub const BREAKS_KEPT_MAX: usize = 1000;
/// Users whose chain is followed; far more than the writer keeps.
pub const VERIFY_USERS_MAX: usize = 1_000_000;

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
    /// Whether a first record that is not number 1 must be explained.
    whole: bool,
    /// Records that are known to have been written: noted elsewhere, in the order of their numbers.
    known: Vec<Link>,
    seals: Seals,
    gaps: BTreeMap<Box<str>, u64>,
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
            whole: false,
            known: Vec::new(),
            seals: Seals::default(),
            gaps: BTreeMap::new(),
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

    /// Trusts only checkpoints by these keys, and wants one.
    #[must_use]
    pub fn pinned(mut self, keys: Vec<PublicKey>) -> Self {
        self.seals.pin(keys);
        self
    }

    /// These records were seen in the log at an earlier time: they must still be in it.
    #[must_use]
    pub fn knowing(mut self, mut links: Vec<Link>) -> Self {
        links.sort_by_key(|link| std::cmp::Reverse(link.seq));
        self.known = links;
        self
    }

    /// Nothing may be missing at the beginning: the first record has this number (that of its file's name), or begins a log.
    #[must_use]
    pub fn beginning_at(mut self, seq: u64) -> Self {
        self.whole = true;
        self.first_seq = seq;
        self
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
        self.push_read(Sealed::read(line));
    }

    /// The same where somebody else has read the line.
    pub fn push_read(&mut self, line: Result<Sealed<'_>, &'static str>) {
        self.line += 1;
        match line {
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
        self.line = 0;
        if let Some(end) = end.filter(|end| *end != head) {
            let detail = format!(
                "it ends with record {} but should end with {}",
                head.seq, end.seq
            );
            self.report(BreakKind::Cut, None, detail.into());
        }
        if let Some(known) = self.known.first().copied() {
            let detail = format!(
                "it ends with record {} but record {} was written",
                head.seq, known.seq
            );
            self.report(BreakKind::Cut, None, detail.into());
        }
        if self.seals.is_missing() {
            let detail = "nothing in it is signed by a pinned key".into();
            self.report(BreakKind::Key, None, detail);
        }
        let (keys, signed_to) = self.seals.finish();
        Report {
            records: self.records,
            first_seq: if self.records > 0 { self.first_seq } else { 0 },
            head,
            users: self.users.len(),
            keys,
            signed_to,
            gaps: self.gaps,
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
        let seq = sealed.link.seq;
        let named = std::mem::replace(&mut self.first_seq, seq);
        self.from_start = seq == 1;
        // A file that was taken away whole is owned up to by the first record of the one that followed it.
        let explained = seq.saturating_sub(self.unread) <= named || sealed.gap.is_some();
        if self.whole && !explained {
            let detail = format!("it begins with record {seq}; what came before is missing");
            self.report(BreakKind::Cut, Some(seq), detail.into());
        }
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
        self.look_closer(sealed);
        if sealed.restarts_users() {
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

    /// What only some records have: a signature, a word of the log about itself, a number that was noted elsewhere.
    fn look_closer(&mut self, sealed: &Sealed<'_>) {
        let seq = sealed.link.seq;
        if let Some(checkpoint) = &sealed.checkpoint
            && let Err((kind, detail)) = self.seals.check(sealed, checkpoint)
        {
            self.report(kind, Some(seq), detail.into());
        }
        if let Some(reason) = &sealed.gap {
            if let Some(count) = self.gaps.get_mut(&**reason) {
                *count += 1;
            } else if self.gaps.len() < BREAKS_KEPT_MAX {
                self.gaps.insert((&**reason).into(), 1);
            }
        }
        while let Some(known) = self.known.pop_if(|known| known.seq <= seq) {
            if known.seq == seq && known.hash != sealed.link.hash {
                let detail = "another record with this number was written".into();
                self.report(BreakKind::Edited, Some(seq), detail);
            }
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
