//! The result of `audit verify` for people and for machines.
//!
//! Says what is proven and, as plainly, what is not: whose key signed, whether the reader named it, and what no signature
//! covers yet.

use std::io;
use std::path::PathBuf;

use super::prove::{Claim, name};
use crate::domain::audit::verify::report::{KeyUse, Report};

/// Keys that the text lists; a log whose sidecar makes a key at each start names many.
const KEYS_SHOWN_MAX: usize = 10;

/// The report as text.
///
/// # Errors
/// When `out` does not take it.
pub fn text(
    report: &Report,
    files: &[PathBuf],
    claim: &Claim,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    for place in &report.breaks {
        match name(files, place.file).filter(|_| place.line > 0) {
            Some(file) => writeln!(out, "{file}: {place}")?,
            None => writeln!(out, "{place}")?,
        }
    }
    let kept = report.breaks.len() as u64;
    if report.breaks_total > kept {
        writeln!(out, "… and {} more", report.breaks_total - kept)?;
    }
    let (seq, verdict) = match (&claim.user, report.is_good()) {
        (Some(_), true) => ("user_seq", "good"),
        (None, true) => ("seq", "good"),
        (Some(_), false) => ("user_seq", "BROKEN"),
        (None, false) => ("seq", "BROKEN"),
    };
    writeln!(
        out,
        "{verdict}: {} records ({seq} {} to {}), {} users, head {}",
        report.records, report.first_seq, report.head.seq, report.users, report.head.hash
    )?;
    for (reason, count) in &report.gaps {
        writeln!(
            out,
            "the log says of itself: {count} gap(s), {}",
            plain(reason)
        )?;
    }
    if claim.user.is_some() {
        return writeln!(
            out,
            "checkpoints sign the whole log, so an export shows edits, cuts and swaps; that its end is whole shows against --head"
        );
    }
    if report.first_seq > 1 {
        writeln!(
            out,
            "begins with record {}: older files were removed",
            report.first_seq
        )?;
    }
    signatures(report, claim, out)
}

fn signatures(report: &Report, claim: &Claim, out: &mut dyn io::Write) -> io::Result<()> {
    if report.keys.is_empty() {
        return writeln!(
            out,
            "nothing in it is signed: whoever can write the file could have rewritten all of it"
        );
    }
    for used in report.keys.iter().rev().take(KEYS_SHOWN_MAX) {
        let KeyUse {
            key,
            checkpoints,
            seqs: (first, last),
            pinned,
        } = used;
        let trust = if *pinned { "pinned" } else { "not pinned" };
        writeln!(
            out,
            "signed: {checkpoints} checkpoint(s), seq {first} to {last}, by key {} ({key}), {trust}",
            key.id()
        )?;
    }
    let more = report.keys.len().saturating_sub(KEYS_SHOWN_MAX);
    if more > 0 {
        writeln!(out, "… and {more} older keys")?;
    }
    if claim.keys.is_empty() {
        writeln!(
            out,
            "no key was pinned: compare it with the start log or /status, or give --key"
        )?;
    }
    match report.unsigned() {
        0 => Ok(()),
        tail => writeln!(out, "the last {tail} record(s) are not signed yet"),
    }
}

/// The report as JSON.
///
/// # Errors
/// When `out` does not take it.
pub fn json(report: &Report, files: &[PathBuf], out: &mut dyn io::Write) -> io::Result<()> {
    let breaks: Vec<serde_json::Value> = report
        .breaks
        .iter()
        .map(|place| {
            serde_json::json!({
                "file": name(files, place.file).filter(|_| place.line > 0),
                "line": place.line,
                "seq": place.seq,
                "kind": place.kind.as_str(),
                "detail": place.detail,
            })
        })
        .collect();
    let keys: Vec<serde_json::Value> = report
        .keys
        .iter()
        .map(|used| {
            serde_json::json!({
                "key_id": used.key.id(),
                "public_key": used.key.to_string(),
                "checkpoints": used.checkpoints,
                "first_seq": used.seqs.0,
                "last_seq": used.seqs.1,
                "pinned": used.pinned,
            })
        })
        .collect();
    let value = serde_json::json!({
        "good": report.is_good(),
        "records": report.records,
        "first_seq": report.first_seq,
        "last_seq": report.head.seq,
        "head": report.head.hash.to_string(),
        "users": report.users,
        "signed_to": report.signed_to,
        "unsigned": report.unsigned(),
        "keys": keys,
        "gaps": report.gaps,
        "breaks_total": report.breaks_total,
        "breaks": breaks,
    });
    writeln!(out, "{value}")
}

fn plain(text: &str) -> String {
    let mut shown = String::new();
    super::table::plain(&mut shown, text);
    shown
}
