//! `valetkey audit tail`: the last lines, and what comes after them, through rotations.
//!
//! Looks at the file from time to time instead of asking the system to be told: that works on every file system.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use super::query::{show_entry, show_head};
use super::table::Entry;
use super::{Show, about};
use crate::runtime::audit_file::layout::{Lines, rotated, same_file};

/// The most lines that `tail` shows of the past.
pub const TAIL_LINES_MAX: usize = 100_000;
/// Between two looks at a followed file.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);
/// The end of a file is searched for line feeds in blocks of this size.
const BLOCK_BYTES: usize = 64 * 1024;

/// Shows the last `count` lines; with `follow`, goes on through rotations until `stop` hears something or its other end is
/// dropped.
///
/// # Errors
/// When the log cannot be read or `out` not written.
pub fn tail(
    path: &Path,
    count: usize,
    show: Show,
    follow: Option<&mpsc::Receiver<()>>,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let mut open = Followed::open_before_last(path, count.clamp(1, TAIL_LINES_MAX))?;
    let mut last = VecDeque::new();
    let wanted = count.min(TAIL_LINES_MAX);
    open.read(|line| keep_last(&mut last, line, wanted.max(1)))?;
    for (_, older) in rotated(path)?.into_iter().rev() {
        let room = wanted.max(1).saturating_sub(last.len());
        if room == 0 {
            break;
        }
        let mut earlier = VecDeque::new();
        Followed::open_before_last(&older, room)?
            .read(|line| keep_last(&mut earlier, line, room))?;
        earlier
            .into_iter()
            .rev()
            .for_each(|line| last.push_front(line));
    }
    let mut shown = last.back().map_or(0, |line| seq_of(line));
    show_head(show, out)?;
    for line in last.iter().skip(last.len().saturating_sub(wanted)) {
        show_line(line, show, out)?;
    }
    out.flush()?;
    let Some(stop) = follow else {
        return Ok(());
    };
    loop {
        let moved = !same_file(path, &open.file)?;
        open.show(show, out, &mut shown)?;
        if moved {
            // Files that came and went between two looks are among the rotated ones.
            for (first, between) in rotated(path)? {
                if first > shown {
                    Followed::open(&between)?.show(show, out, &mut shown)?;
                }
            }
            match Followed::open(path) {
                Ok(next) => open = next,
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Err(cause),
            }
        }
        out.flush()?;
        match stop.recv_timeout(FOLLOW_INTERVAL) {
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// A file that is read again when it has grown.
struct Followed {
    file: File,
    lines: Lines<BufReader<File>>,
    /// The beginning of a line whose end is not written yet.
    part: Vec<u8>,
}

impl Followed {
    fn open(path: &Path) -> io::Result<Self> {
        Self::open_at(path, 0)
    }

    /// From where at least so many lines follow.
    fn open_before_last(path: &Path, lines: usize) -> io::Result<Self> {
        let mut file = File::open(path).map_err(|cause| about(path, &cause))?;
        let mut block = vec![0; BLOCK_BYTES];
        let (mut begin, mut seen) = (file.metadata()?.len(), 0);
        while begin > 0 && seen <= lines {
            let size = begin.min(BLOCK_BYTES as u64);
            begin -= size;
            let block = block
                .get_mut(..usize::try_from(size).unwrap_or(0))
                .unwrap_or_default();
            file.seek(SeekFrom::Start(begin))?;
            file.read_exact(block)?;
            seen += block.iter().filter(|byte| **byte == b'\n').count();
        }
        if begin == 0 {
            return Self::open(path);
        }
        // The block begins in the middle of a line that is not wanted.
        let mut followed = Self::open_at(path, begin)?;
        followed.lines.next_line()?;
        Ok(followed)
    }

    fn open_at(path: &Path, offset: u64) -> io::Result<Self> {
        let mut file = File::open(path).map_err(|cause| about(path, &cause))?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self {
            lines: Lines::new(BufReader::new(file.try_clone()?)),
            file,
            part: Vec::new(),
        })
    }

    fn read(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        while let Some((line, ended)) = self.lines.next_line()? {
            self.part.extend_from_slice(line);
            if ended {
                each(&self.part);
                self.part.clear();
            }
        }
        Ok(())
    }

    fn show(&mut self, show: Show, out: &mut dyn io::Write, shown: &mut u64) -> io::Result<()> {
        let mut done = Ok(());
        self.read(|line| {
            *shown = seq_of(line).max(*shown);
            if done.is_ok() {
                done = show_line(line, show, out);
            }
        })?;
        done
    }
}

fn keep_last(last: &mut VecDeque<Vec<u8>>, line: &[u8], count: usize) {
    if last.len() >= count {
        last.pop_front();
    }
    last.push_back(line.to_vec());
}

fn seq_of(line: &[u8]) -> u64 {
    serde_json::from_slice::<Entry<'_>>(line).map_or(0, |entry| entry.seq)
}

fn show_line(line: &[u8], show: Show, out: &mut dyn io::Write) -> io::Result<()> {
    match (serde_json::from_slice::<Entry<'_>>(line), show) {
        (Ok(entry), _) => show_entry(line, &entry, show, out),
        (Err(_), Show::Json) => out.write_all(line).and_then(|()| out.write_all(b"\n")),
        (Err(_), Show::Table { .. }) => writeln!(
            out,
            "(a line that is not a record; see: valetkey audit verify)"
        ),
    }
}
