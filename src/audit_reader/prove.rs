//! `valetkey audit verify`: the chain over all files, and the report as text or JSON.
//!
//! The proof itself is `domain/audit/verify.rs`.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::PathBuf;
use std::time::Duration;

use super::open_all;
use crate::domain::audit::chain::Link;
use crate::domain::audit::verify::{Report, Verifier};
use crate::runtime::audit_file::layout::Lines;

/// How often, and how long each time, `verify` waits for a last line that may be being written right now.
const TORN_LOOKS: usize = 20;
const TORN_WAIT: Duration = Duration::from_millis(10);

/// Verifies the chain over `files` and says what is wrong and where. With `end` (from `/status`, or noted elsewhere) a cut
/// end is found too.
///
/// # Errors
/// When a file cannot be read or `out` not written.
pub fn verify(
    files: &[PathBuf],
    end: Option<Link>,
    json: bool,
    out: &mut dyn io::Write,
) -> io::Result<bool> {
    let mut verifier = Verifier::new();
    // All are opened first: a rotation meanwhile must not hide one.
    for (index, file) in open_all(files)?.into_iter().enumerate() {
        verifier.next_file();
        let mut lines = Lines::new(BufReader::new(file));
        loop {
            let torn = match lines.next_line()? {
                None => break,
                Some((line, true)) => {
                    verifier.push(line);
                    continue;
                }
                Some((line, false)) => line.to_vec(),
            };
            let live = index + 1 == files.len();
            match if live {
                wait_for_rest(&mut lines, torn)?
            } else {
                None
            } {
                Some(line) => verifier.push(&line),
                None => verifier.push_torn(),
            }
        }
    }
    let report = verifier.finish(end);
    let written = if json {
        write_report_json(&report, files, out)
    } else {
        write_report(&report, files, out)
    };
    match written.and_then(|()| out.flush()) {
        // A reader that has gone (`| head`) does not make a broken log good.
        Err(fault) if fault.kind() != io::ErrorKind::BrokenPipe => Err(fault),
        Ok(()) | Err(_) => Ok(report.is_good()),
    }
}

/// Gives a line that was being written the time to be ended.
fn wait_for_rest(
    lines: &mut Lines<BufReader<File>>,
    mut line: Vec<u8>,
) -> io::Result<Option<Vec<u8>>> {
    for _ in 0..TORN_LOOKS {
        std::thread::park_timeout(TORN_WAIT);
        if let Some((rest, ended)) = lines.next_line()? {
            line.extend_from_slice(rest);
            if ended {
                return Ok(Some(line));
            }
        }
    }
    Ok(None)
}

fn write_report(report: &Report, files: &[PathBuf], out: &mut dyn io::Write) -> io::Result<()> {
    for place in &report.breaks {
        let file = files.get(place.file).map(|f| f.display());
        match file.filter(|_| place.line > 0) {
            Some(file) => writeln!(out, "{file}: {place}")?,
            None => writeln!(out, "{place}")?,
        }
    }
    let kept = report.breaks.len() as u64;
    if report.breaks_total > kept {
        writeln!(out, "… and {} more", report.breaks_total - kept)?;
    }
    writeln!(
        out,
        "{}: {} records (seq {} to {}), {} users, head {}",
        if report.is_good() { "good" } else { "BROKEN" },
        report.records,
        report.first_seq,
        report.head.seq,
        report.users,
        report.head.hash
    )
}

fn write_report_json(
    report: &Report,
    files: &[PathBuf],
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let breaks: Vec<serde_json::Value> = report
        .breaks
        .iter()
        .map(|place| {
            serde_json::json!({
                "file": files.get(place.file).map(|f| f.display().to_string()),
                "line": place.line,
                "seq": place.seq,
                "kind": place.kind.as_str(),
                "detail": place.detail,
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
        "breaks_total": report.breaks_total,
        "breaks": breaks,
    });
    writeln!(out, "{value}")
}
