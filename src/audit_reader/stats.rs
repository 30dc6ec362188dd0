//! `valetkey audit stats`: per user and route, what was done, refused, moved and failed.
//!
//! Each piece is counted on a core of its own and added up; memory grows with users × routes, up to a limit.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use super::Filter;
use super::chunks::{Opened, Piece};
use super::quick::Quick;
use super::table::{Entry, cell, plain};

/// Rows that are kept; what belongs to further ones is counted together.
pub const STATS_ROWS_MAX: usize = 100_000;
/// The name of the row for those.
const OTHERS: &str = "(others)";

/// What is counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Calls that were forwarded: intents.
    pub calls: u64,
    /// Refusals.
    pub denials: u64,
    /// Calls that ended with a status of 400 or above, or without an answer.
    pub errors: u64,
    /// Body bytes to the workspace.
    pub bytes_sent: u64,
    /// Body bytes from the workspace.
    pub bytes_received: u64,
    /// Milliseconds of all calls that ended.
    pub duration_ms: u64,
    /// Calls that ended.
    pub ended: u64,
}

/// The rows and what they are made of.
#[derive(Debug, Default)]
pub struct Stats {
    rows: HashMap<(String, String), Row>,
    /// Lines that are no records.
    pub unreadable: u64,
}

/// Counts the records that pass.
///
/// # Errors
/// When a file cannot be read.
pub fn stats(files: &[PathBuf], filter: &Filter) -> io::Result<Stats> {
    let quick = Quick::of(filter);
    let mut all = Stats::default();
    Opened::open(files)?.scan(
        |piece| Stats::of(piece, filter, &quick),
        |part| {
            all.unreadable += part.unreadable;
            for (key, row) in part.rows {
                all.row(key).add(&row);
            }
            Ok(())
        },
    )?;
    Ok(all)
}

impl Row {
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.denials += other.denials;
        self.errors += other.errors;
        self.bytes_sent = self.bytes_sent.saturating_add(other.bytes_sent);
        self.bytes_received = self.bytes_received.saturating_add(other.bytes_received);
        self.duration_ms = self.duration_ms.saturating_add(other.duration_ms);
        self.ended += other.ended;
    }

    /// The mean time of a call.
    pub fn mean_ms(&self) -> u64 {
        self.duration_ms.checked_div(self.ended).unwrap_or(0)
    }
}

impl Stats {
    fn of(piece: &Piece<'_>, filter: &Filter, quick: &Quick) -> Self {
        let mut part = Self::default();
        for line in piece.lines().filter(|line| quick.may_pass(line)) {
            let Ok(entry) = serde_json::from_slice::<Entry<'_>>(line) else {
                part.unreadable += 1;
                continue;
            };
            if let Some(counted) = counted(&entry).filter(|_| filter.passes(&entry)) {
                let user = entry.user.as_ref();
                let user = user.map_or("-", |user| user.email.as_deref().unwrap_or(&user.sub));
                let route = entry.route.as_deref().unwrap_or("-");
                part.row((user.to_owned(), route.to_owned())).add(&counted);
            }
        }
        part
    }

    fn row(&mut self, key: (String, String)) -> &mut Row {
        let full = self.rows.len() >= STATS_ROWS_MAX && !self.rows.contains_key(&key);
        let key = if full {
            (OTHERS.to_owned(), OTHERS.to_owned())
        } else {
            key
        };
        self.rows.entry(key).or_default()
    }

    /// By user and route.
    pub fn rows(&self) -> Vec<(&str, &str, Row)> {
        let rows = self.rows.iter();
        let mut rows: Vec<_> = rows.map(|((u, r), row)| (&**u, &**r, *row)).collect();
        rows.sort_unstable_by_key(|(user, route, _)| (*user, *route));
        rows
    }

    /// A table.
    ///
    /// # Errors
    /// When `out` does not take it.
    pub fn table(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let columns = ["CALLS", "DENIALS", "ERRORS", "SENT", "RECEIVED", "MEAN MS"];
        let mut head = String::new();
        cell(&mut head, "USER", 32);
        cell(&mut head, "ROUTE", 24);
        for name in columns {
            head.push_str(&format!("{name:>12} "));
        }
        writeln!(out, "{}", head.trim_end())?;
        for (user, route, row) in self.rows() {
            let mut line = String::new();
            cell(&mut line, user, 32);
            cell(&mut line, route, 24);
            let numbers = [
                row.calls,
                row.denials,
                row.errors,
                row.bytes_sent,
                row.bytes_received,
                row.mean_ms(),
            ];
            for number in numbers {
                line.push_str(&format!("{number:>12} "));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        out.flush()
    }

    /// One JSON object in a line for each row.
    ///
    /// # Errors
    /// When `out` does not take it.
    pub fn json(&self, out: &mut dyn io::Write) -> io::Result<()> {
        for (user, route, row) in self.rows() {
            let mut shown = (String::new(), String::new());
            plain(&mut shown.0, user);
            plain(&mut shown.1, route);
            let value = serde_json::json!({
                "user": shown.0,
                "route": shown.1,
                "calls": row.calls,
                "denials": row.denials,
                "errors": row.errors,
                "bytes_sent": row.bytes_sent,
                "bytes_received": row.bytes_received,
                "mean_ms": row.mean_ms(),
            });
            writeln!(out, "{value}")?;
        }
        out.flush()
    }
}

fn counted(entry: &Entry<'_>) -> Option<Row> {
    let row = Row::default();
    match &*entry.event {
        "intent" => Some(Row { calls: 1, ..row }),
        "denial" | "token_rejected" => Some(Row { denials: 1, ..row }),
        "outcome" => Some(Row {
            errors: u64::from(entry.status.is_none_or(|status| status >= 400)),
            bytes_sent: entry.bytes_sent.unwrap_or(0),
            bytes_received: entry.bytes_received.unwrap_or(0),
            duration_ms: entry.duration_ms.unwrap_or(0),
            ended: 1,
            ..row
        }),
        _ => None,
    }
}
