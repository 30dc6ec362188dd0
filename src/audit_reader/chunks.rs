//! Files in pieces over all cores: each piece read and worked on by a thread, its result taken in order.
//!
//! Memory is bounded by threads × pieces whatever the size of the log. Knows lines as bytes, not records. A line belongs to
//! the piece in which it begins; of one longer than `AUDIT_LINE_BYTES_MAX` only the beginning is looked at.

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::about;
use crate::runtime::audit_file::layout::AUDIT_LINE_BYTES_MAX;

/// One piece; several times the longest line.
pub const PIECE_BYTES: usize = 1024 * 1024;
/// More threads than this only wait for the disk.
const THREADS_MAX: usize = 8;

/// A log, opened at one moment: a rotation meanwhile hides nothing.
pub struct Opened {
    files: Vec<(PathBuf, File, u64)>,
}

/// Whole lines, one after the other.
pub struct Piece<'a> {
    /// The file, from 0.
    pub file: usize,
    /// Whether it is the file's first piece.
    pub first: bool,
    lines: &'a [u8],
    /// Where in the file an incomplete last line begins.
    pub torn_at: Option<u64>,
}

impl<'a> Piece<'a> {
    /// Its lines without their line feeds; the incomplete one is not among them.
    pub fn lines(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.lines;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let end = find_line_feed(rest).unwrap_or(rest.len());
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            Some(line.get(..AUDIT_LINE_BYTES_MAX).unwrap_or(line))
        })
    }
}

/// The standard library searches a slice for one byte word by word.
fn find_line_feed(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    for block in bytes.chunks(64) {
        if block.contains(&b'\n') {
            return block.iter().position(|b| *b == b'\n').map(|p| at + p);
        }
        at += block.len();
    }
    None
}

impl Opened {
    /// Opens them all.
    ///
    /// # Errors
    /// Names the file that cannot be opened.
    pub fn open(paths: &[PathBuf]) -> io::Result<Self> {
        let open = |path: &PathBuf| {
            let file = File::open(path).map_err(|cause| about(path, &cause))?;
            let len = file.metadata()?.len();
            Ok((path.clone(), file, len))
        };
        Ok(Self {
            files: paths.iter().map(open).collect::<io::Result<_>>()?,
        })
    }

    /// The line that begins at this place of a file, if it has an end by now.
    ///
    /// # Errors
    /// What reading said.
    pub fn line_at(&self, index: usize, offset: u64) -> io::Result<Option<Vec<u8>>> {
        let Some((_, file, _)) = self.files.get(index) else {
            return Ok(None);
        };
        let mut line = vec![0; AUDIT_LINE_BYTES_MAX];
        let got = read_at(file, offset, &mut line)?;
        line.truncate(got);
        let end = find_line_feed(&line);
        line.truncate(end.unwrap_or(0));
        Ok(end.map(|_| line))
    }

    /// Runs `work` over every piece on all cores and gives the results to `take` in order, until it has enough.
    ///
    /// # Errors
    /// What reading or `take` said.
    pub fn scan<T: Send>(
        &self,
        work: impl Fn(&Piece<'_>) -> T + Sync,
        mut take: impl FnMut(T) -> io::Result<()>,
    ) -> io::Result<()> {
        let pieces = self.pieces();
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = cores.clamp(1, THREADS_MAX);
        std::thread::scope(|scope| {
            let results: Vec<Receiver<io::Result<T>>> = (0..threads)
                .map(|nth| {
                    let (send, results) = sync_channel(1);
                    let (pieces, work) = (&pieces, &work);
                    scope.spawn(move || {
                        self.work_on(pieces.iter().skip(nth).step_by(threads), work, &send);
                    });
                    results
                })
                .collect();
            // Each thread has every so-manieth piece, so turns give them in order. Whoever is not listened to any more ends.
            let turns = results.iter().cycle().take(pieces.len());
            for result in turns {
                let gone = || Err(io::Error::other("a reading thread panicked"));
                take(result.recv().unwrap_or_else(|_| gone())?)?;
            }
            Ok(())
        })
    }

    fn pieces(&self) -> Vec<(usize, u64)> {
        let pieces = self
            .files
            .iter()
            .enumerate()
            .flat_map(|(index, (_, _, len))| {
                // An empty file is a piece too: it has a first line at its beginning, if one comes.
                let count = len.div_ceil(PIECE_BYTES as u64).max(1);
                (0..count).map(move |nth| (index, nth * PIECE_BYTES as u64))
            });
        pieces.collect()
    }

    fn work_on<'p, T>(
        &self,
        pieces: impl Iterator<Item = &'p (usize, u64)>,
        work: &(impl Fn(&Piece<'_>) -> T + Sync),
        send: &SyncSender<io::Result<T>>,
    ) {
        let mut buffer = Vec::new();
        for (index, offset) in pieces {
            let Some((path, file, len)) = self.files.get(*index) else {
                return;
            };
            let read = read_piece(file, *offset, *len, &mut buffer)
                .map_err(|cause| about(path, &cause))
                .map(|(lines, torn_at)| {
                    work(&Piece {
                        file: *index,
                        first: *offset == 0,
                        lines,
                        torn_at,
                    })
                });
            if send.send(read).is_err() {
                return;
            }
        }
    }
}

/// The lines that begin in the piece at `offset`, and where a last one begins that has no end.
fn read_piece<'b>(
    file: &File,
    offset: u64,
    len: u64,
    buffer: &'b mut Vec<u8>,
) -> io::Result<(&'b [u8], Option<u64>)> {
    // One byte more in front tells whether a line begins with the piece.
    let start = offset.saturating_sub(1);
    let piece = (PIECE_BYTES + usize::from(offset > 0)).min(until(len, start));
    buffer.resize(piece, 0);
    let got = read_at(file, start, buffer)?;
    buffer.truncate(got);
    let begin = if offset == 0 {
        Some(0)
    } else {
        find_line_feed(buffer).map(|at| at + 1)
    };
    let Some(begin) = begin.filter(|begin| *begin < buffer.len()) else {
        return Ok((&[], None));
    };
    let mut torn_at = None;
    if buffer.last() != Some(&b'\n') {
        let ended = read_on(file, start, len, buffer)?;
        let last = buffer
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        let last = last.max(begin);
        if !ended {
            torn_at = Some(start + last as u64);
            buffer.truncate(last);
        }
    }
    Ok((buffer.get(begin..).unwrap_or_default(), torn_at))
}

/// Reads the rest of the last line, as far as a line may go. Says whether it ended, or went too far.
fn read_on(file: &File, start: u64, len: u64, buffer: &mut Vec<u8>) -> io::Result<bool> {
    const STEP: usize = 16 * 1024;
    let limit = buffer.len() + AUDIT_LINE_BYTES_MAX;
    while buffer.len() < limit {
        let (from, before) = (start + buffer.len() as u64, buffer.len());
        buffer.resize(before + STEP.min(until(len, from)), 0);
        let fresh = buffer.get_mut(before..).unwrap_or_default();
        let got = read_at(file, from, fresh)?;
        buffer.truncate(before + got);
        let fresh = buffer.get(before..).unwrap_or_default();
        if let Some(end) = find_line_feed(fresh) {
            buffer.truncate(before + end + 1);
            return Ok(true);
        }
        if got == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn until(len: u64, from: u64) -> usize {
    usize::try_from(len.saturating_sub(from)).unwrap_or(usize::MAX)
}

#[cfg(unix)]
fn read_at(file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    use std::os::unix::fs::FileExt as _;
    let mut got = 0;
    while let Some(rest) = into.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(got)
}

#[cfg(not(unix))]
fn read_at(file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    use std::os::windows::fs::FileExt as _;
    let mut got = 0;
    while let Some(rest) = into.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match file.seek_read(rest, offset + got as u64)? {
            0 => break,
            more => got += more,
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the pieces give, against what a simple split gives.
    fn check(text: &[u8]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, text).unwrap();
        let opened = Opened::open(&[path.clone(), path]).unwrap();
        let mut lines: Vec<(usize, Vec<u8>)> = Vec::new();
        let mut torn = Vec::new();
        let work = |piece: &Piece<'_>| {
            let own: Vec<(usize, Vec<u8>)> = piece
                .lines()
                .map(|line| (piece.file, line.to_vec()))
                .collect();
            (own, piece.torn_at)
        };
        let take = |(own, torn_at): (Vec<_>, Option<u64>)| {
            lines.extend(own);
            torn.extend(torn_at);
            Ok(())
        };
        opened.scan(work, take).unwrap();
        let mut expected: Vec<&[u8]> = text.split(|b| *b == b'\n').collect();
        let rest = expected.pop().unwrap();
        let cut = |line: &&[u8]| line[..line.len().min(AUDIT_LINE_BYTES_MAX)].to_vec();
        let once: Vec<Vec<u8>> = expected.iter().map(cut).collect();
        let both: Vec<(usize, Vec<u8>)> = [0, 1]
            .into_iter()
            .flat_map(|file| once.iter().map(move |line| (file, line.clone())))
            .collect();
        assert!(
            lines == both,
            "{} lines, expected {}",
            lines.len(),
            both.len()
        );
        let at = (text.len() - rest.len()) as u64;
        assert_eq!(torn, vec![at; if rest.is_empty() { 0 } else { 2 }]);
    }

    #[test]
    fn every_line_is_seen_once_and_in_order_wherever_the_pieces_are_cut() {
        check(b"");
        check(b"\n");
        check(b"a");
        check(b"a\nb\n\nc\n");
        check(b"a\nb");
        for length in [1, 7, 4093, 65_536, 200_000] {
            let line = [&vec![b'x'; length][..], b"\n"].concat();
            check(&line.repeat(3 * PIECE_BYTES / line.len() + 1));
        }
        for around in [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1] {
            let mut text = vec![b'y'; around - 1];
            for at in (0..text.len()).step_by(1000) {
                text[at] = b'\n';
            }
            text.push(b'\n');
            check(&text);
            text.extend_from_slice(b"torn");
            check(&text);
        }
    }

    #[test]
    fn a_line_without_end_takes_no_memory_and_hides_nothing_behind_it() {
        let mut text = b"first\n".to_vec();
        text.extend(std::iter::repeat_n(b'z', 3 * PIECE_BYTES));
        text.extend_from_slice(b"\nlast\n");
        check(&text);
    }

    #[test]
    fn who_has_enough_ends_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, b"line\n".repeat(PIECE_BYTES)).unwrap();
        let opened = Opened::open(&[path]).unwrap();
        let enough = opened.scan(|_| (), |()| Err(io::ErrorKind::BrokenPipe.into()));
        assert_eq!(enough.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
