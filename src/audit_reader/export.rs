//! `valetkey audit export`: one user's records, unchanged, so that they can be verified alone; or anybody's as OCSF events.
//!
//! What is exported as JSON lines is the evidence itself; OCSF is a view of it for other tools.

use std::io;
use std::path::PathBuf;

use super::Filter;
use super::chunks::{Opened, Piece};
use super::quick::Quick;
use super::table::Entry;
use crate::domain::audit::chain::{Link, USER_CHAINS_RESTARTED};
use crate::domain::audit::line::Sealed;
use crate::domain::audit::ocsf;

/// In which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The lines as they are.
    Json,
    /// OCSF API Activity.
    Ocsf,
}

/// What was exported.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Records, the gaps among them included.
    pub records: u64,
    /// Whose, where one user's were asked for.
    pub subject: Option<String>,
    /// The first `user_seq`, and the last with its hash.
    pub span: Option<(u64, Link)>,
    /// Lines that are no records, and were left out.
    pub unreadable: u64,
}

/// Writes the records that pass. With `filter.user`, those of exactly one user, with the gaps that restart users' chains.
///
/// # Errors
/// When a file cannot be read or `out` not written, or when the user's e-mail address belongs to more than one subject.
pub fn export(
    files: &[PathBuf],
    filter: &Filter,
    format: Format,
    out: &mut dyn io::Write,
) -> io::Result<Exported> {
    let quick = Quick::of(filter);
    let mut exported = Exported::default();
    Opened::open(files)?.scan(
        |piece| Part::of(piece, filter, &quick, format),
        |part| {
            exported.add(&part)?;
            out.write_all(&part.shown)
        },
    )?;
    out.flush()?;
    Ok(exported)
}

impl Exported {
    fn add(&mut self, part: &Part) -> io::Result<()> {
        self.records += part.records;
        self.unreadable += part.unreadable;
        for subject in &part.subjects {
            let first = self.subject.get_or_insert_with(|| subject.clone());
            if first != subject {
                let message = format!(
                    "the address belongs to more than one user, such as {first:?} and {subject:?}: give the subject"
                );
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
        }
        if let Some((first, last)) = part.span {
            let first = self.span.map_or(first, |(first, _)| first);
            self.span = Some((first, last));
        }
        Ok(())
    }
}

/// What one piece has.
#[derive(Default)]
struct Part {
    records: u64,
    unreadable: u64,
    /// Two are as bad as more.
    subjects: Vec<String>,
    span: Option<(u64, Link)>,
    shown: Vec<u8>,
}

impl Part {
    fn of(piece: &Piece<'_>, filter: &Filter, quick: &Quick, format: Format) -> Self {
        let mut part = Self::default();
        for line in piece.lines() {
            // A gap belongs to every user's chain.
            if quick.may_pass(line) || (filter.user.is_some() && is_restart(line)) {
                part.add(line, filter, format);
            }
        }
        part
    }

    fn add(&mut self, line: &[u8], filter: &Filter, format: Format) {
        let Ok(entry) = serde_json::from_slice::<Entry<'_>>(line) else {
            self.unreadable += 1;
            return;
        };
        let of_every_user = filter.user.is_some()
            && entry.event == "gap"
            && entry.reason.as_deref() == Some(USER_CHAINS_RESTARTED)
            && filter.in_time(&entry.ts);
        if !of_every_user && !filter.passes(&entry) {
            return;
        }
        if let Some(user) = entry.user.as_ref().filter(|_| filter.user.is_some()) {
            if self.subjects.len() < 2 && !self.subjects.iter().any(|known| *known == user.sub) {
                self.subjects.push(user.sub.clone().into_owned());
            }
            if let Some((_, link, _)) = Sealed::read(line).ok().and_then(|sealed| sealed.user) {
                self.span = Some((self.span.map_or(link.seq, |(first, _)| first), link));
            }
        }
        match format {
            Format::Json => self.shown.extend_from_slice(line),
            Format::Ocsf => {
                let Some(event) = ocsf::event(line) else {
                    self.unreadable += 1;
                    return;
                };
                self.shown.extend_from_slice(event.as_bytes());
            }
        }
        self.shown.push(b'\n');
        self.records += 1;
    }
}

fn is_restart(line: &[u8]) -> bool {
    // Nothing else has the word with its quotes.
    std::str::from_utf8(line)
        .is_ok_and(|line| line.contains("\"reason\":\"user_chains_restarted\""))
}
