//! `valetkey audit query`: the lines that fit, in order, over gigabytes.
//!
//! Each piece is filtered on a core of its own; what it shows is written in order.

use std::io;
use std::path::PathBuf;

use super::chunks::{Opened, Piece};
use super::quick::Quick;
use super::table::{self, Entry};
use super::{Count, Filter, Show};

/// Shows the records of `files` that pass the filter, in order.
///
/// # Errors
/// When a file cannot be read or `out` not written.
pub fn query(
    files: &[PathBuf],
    filter: &Filter,
    show: Show,
    out: &mut dyn io::Write,
) -> io::Result<Count> {
    let (mut count, quick) = (Count::default(), Quick::of(filter));
    show_head(show, out)?;
    let mut lines_before = 0;
    Opened::open(files)?.scan(
        |piece| Found::in_piece(piece, filter, &quick, show),
        |found| {
            if found.first {
                lines_before = 0;
            }
            count.matched += found.matched;
            count.unreadable += found.unreadable;
            if let (Some(line), Some(path)) = (found.first_unreadable, files.get(found.file)) {
                let place = || (path.clone(), lines_before + line);
                count.first_unreadable.get_or_insert_with(place);
            }
            lines_before += found.lines;
            out.write_all(&found.shown)
        },
    )?;
    out.flush()?;
    Ok(count)
}

/// What one piece has.
#[derive(Default)]
struct Found {
    file: usize,
    first: bool,
    lines: u64,
    matched: u64,
    unreadable: u64,
    first_unreadable: Option<u64>,
    shown: Vec<u8>,
}

impl Found {
    fn in_piece(piece: &Piece<'_>, filter: &Filter, quick: &Quick, show: Show) -> Self {
        let mut found = Self {
            file: piece.file,
            first: piece.first,
            ..Self::default()
        };
        for line in piece.lines() {
            found.lines += 1;
            if !quick.may_pass(line) {
                continue;
            }
            match serde_json::from_slice::<Entry<'_>>(line) {
                Ok(entry) if filter.passes(&entry) => {
                    found.matched += 1;
                    // Writing into a Vec cannot fail.
                    let _ = show_entry(line, &entry, show, &mut found.shown);
                }
                Ok(_) => {}
                Err(_) => {
                    found.unreadable += 1;
                    found.first_unreadable.get_or_insert(found.lines);
                }
            }
        }
        found
    }
}

/// The first row of a table.
///
/// # Errors
/// When `out` does not take it.
pub fn show_head(show: Show, out: &mut dyn io::Write) -> io::Result<()> {
    match show {
        Show::Json => Ok(()),
        Show::Table { .. } => table::head(out),
    }
}

/// One record.
///
/// # Errors
/// When `out` does not take it.
pub fn show_entry(
    line: &[u8],
    entry: &Entry<'_>,
    show: Show,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    match show {
        Show::Json => out.write_all(line).and_then(|()| out.write_all(b"\n")),
        Show::Table { color } => table::row(out, entry, color),
    }
}
