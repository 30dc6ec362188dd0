//! Reading the audit log: what the commands share, without the printing, which is the command line's.
//!
//! Streams every file; a line that cannot be read is reported and passed over. Knows the line (`audit_reader/table.rs`), not
//! how it came about. There is one file below for each command, and `audit_reader/chunks.rs` under those that read all of it.

use std::io;
use std::path::{Path, PathBuf};

use crate::domain::clock::{SignedDuration, Timestamp};
use crate::runtime::audit_file::layout::{is_companion, log_files};
use crate::runtime::audit_file::resume::first_seq;

pub mod chunks;
pub mod export;
pub mod prove;
pub mod query;
mod quick;
pub mod stats;
pub mod table;
pub mod tail;
mod told;

use table::Entry;

/// How lines are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// The lines as they are in the file.
    Json,
    /// A table.
    Table {
        /// With colours of the terminal.
        color: bool,
    },
}

/// Which records `query` shows: all conditions that are set must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Subject or e-mail address, in any letter case.
    pub user: Option<String>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// The route's name.
    pub route: Option<String>,
    /// An operation, or a family such as `mlflow.*`.
    pub operation: Option<String>,
    /// `type/id`, or the id alone.
    pub resource: Option<String>,
    /// `allow` or `deny`.
    pub decision: Option<String>,
    /// The reason's word.
    pub reason: Option<String>,
    /// The call's id.
    pub call: Option<String>,
    /// The event's word.
    pub event: Option<String>,
}

/// What `query` went through.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Count {
    /// Records shown.
    pub matched: u64,
    /// Lines that are not records.
    pub unreadable: u64,
    /// The first of them: file and line.
    pub first_unreadable: Option<(PathBuf, u64)>,
}

/// The files that the arguments mean, oldest first: the audit file stands for its rotated ones too, and what else a shell
/// pattern such as `valetkey.jsonl*` catches is left out.
///
/// # Errors
/// When a path does not exist or cannot be read.
pub fn files_of(paths: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths.iter().filter(|path| !is_companion(path)) {
        let named = log_files(path).map_err(|cause| about(path, &cause))?;
        if named.is_empty() {
            let missing = io::Error::new(io::ErrorKind::NotFound, "there is no such audit log");
            return Err(about(path, &missing));
        }
        files.extend(named);
    }
    let mut numbered = Vec::new();
    for path in files {
        // A file without records sorts behind: it is the one that has just been begun.
        let first = first_seq(&path).map_err(|cause| about(&path, &cause))?;
        numbered.push((if first == 0 { u64::MAX } else { first }, path));
    }
    numbered.sort();
    numbered.dedup();
    Ok(numbered.into_iter().map(|(_, path)| path).collect())
}

/// Reads `--since` and `--until`: an RFC 3339 time, or a time span before now such as `15m`, `2h` or `7d`.
///
/// # Errors
/// A sentence that says what is expected.
pub fn parse_moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment);
    }
    let days = text
        .strip_suffix('d')
        .and_then(|days| days.parse::<u32>().ok())
        .map(|days| SignedDuration::from_hours(24 * i64::from(days)));
    days.or_else(|| text.parse::<SignedDuration>().ok())
        .filter(|span| !span.is_negative())
        .and_then(|span| now.saturating_sub(span).ok())
        .ok_or_else(|| {
            format!("{text:?} is neither a time such as 2026-11-23T10:00:00Z nor a span such as 15m, 2h or 7d")
        })
}

impl Filter {
    /// Whether a record is asked for.
    pub fn passes(&self, entry: &Entry<'_>) -> bool {
        let is = |wanted: &Option<String>, value: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| value == Some(wanted))
        };
        let user = self.user.as_deref().is_none_or(|wanted| {
            entry.user.as_ref().is_some_and(|user| {
                [Some(&*user.sub), user.email.as_deref()]
                    .into_iter()
                    .flatten()
                    .any(|name| name.to_lowercase() == wanted.to_lowercase())
            })
        });
        let operation = self.operation.as_deref().is_none_or(|wanted| {
            let value = entry.operation.as_deref().unwrap_or_default();
            match wanted.strip_suffix('*') {
                Some(family) => value.starts_with(family) && !value.is_empty(),
                None => value == wanted,
            }
        });
        let resource = self.resource.as_deref().is_none_or(|wanted| {
            let value = entry.resource.as_ref();
            value.is_some_and(|value| value.id == wanted || value.name() == wanted)
        });
        user && operation
            && resource
            && self.in_time(&entry.ts)
            && is(&self.route, entry.route.as_deref())
            && is(&self.decision, entry.decision.as_deref())
            && is(&self.reason, entry.reason.as_deref())
            && is(&self.call, entry.call.as_deref())
            && is(&self.event, Some(&entry.event))
    }

    fn in_time(&self, ts: &str) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        ts.parse::<Timestamp>().is_ok_and(|ts| {
            self.since.is_none_or(|since| ts >= since) && self.until.is_none_or(|until| ts < until)
        })
    }
}

/// Names the file in the error; keeps its kind.
fn about(path: &Path, cause: &io::Error) -> io::Error {
    io::Error::new(cause.kind(), format!("{}: {cause}", path.display()))
}

#[cfg(test)]
mod tests;
