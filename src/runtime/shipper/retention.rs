//! Which closed files may go from the disk: a pure plan, and its execution.
//!
//! With shipping on this takes the place of the writer's own deletion. Beyond the newest `keep` files only what is in the
//! volume goes; what is not stays, up to the stated backlog. Beyond that the oldest go unshipped, which the log owns up to.

use std::fs;
use std::io;

use super::segment::Closed;

/// What is to be removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan<'a> {
    /// In the volume.
    pub shipped: Vec<&'a Closed>,
    /// Nowhere else; with the number of records in each.
    pub unshipped: Vec<(&'a Closed, u64)>,
}

/// `files` are sorted by age, oldest first.
pub fn plan(
    files: &[Closed],
    keep: usize,
    backlog_bytes: u64,
    is_shipped: impl Fn(u64) -> bool,
) -> Plan<'_> {
    let old = files.len().saturating_sub(keep);
    let waiting = files.iter().filter(|file| !is_shipped(file.first));
    let mut backlog: u64 = waiting.map(|file| file.bytes).sum();
    let mut plan = Plan::default();
    for (file, next) in files.iter().zip(files.iter().skip(1)).take(old) {
        if is_shipped(file.first) {
            plan.shipped.push(file);
        } else if backlog > backlog_bytes {
            backlog -= file.bytes;
            plan.unshipped
                .push((file, next.first.saturating_sub(file.first)));
        }
    }
    plan
}

/// Removes a file; one that has gone already is no fault.
///
/// # Errors
/// What the system said.
pub fn remove(file: &Closed) -> io::Result<()> {
    match fs::remove_file(&file.path) {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => Err(fault),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of 10 bytes and 10 records each.
    fn files(count: u64) -> Vec<Closed> {
        (0..count)
            .map(|n| Closed {
                first: n * 10 + 1,
                path: format!("{n}").into(),
                bytes: 10,
            })
            .collect()
    }

    fn check(count: u64, keep: usize, backlog: u64, shipped: &[u64], expected: (&[u64], &[u64])) {
        let files = files(count);
        let plan = plan(&files, keep, backlog, |first| shipped.contains(&first));
        let gone: Vec<u64> = plan.shipped.iter().map(|file| file.first).collect();
        let lost: Vec<u64> = plan.unshipped.iter().map(|(file, _)| file.first).collect();
        assert_eq!((&*gone, &*lost), expected);
        assert!(plan.unshipped.iter().all(|(_, records)| *records == 10));
    }

    #[test]
    fn only_what_is_in_the_volume_goes_until_the_backlog_is_full() {
        check(3, 3, 0, &[1, 11, 21], (&[], &[]));
        check(5, 3, 1000, &[1, 11, 21], (&[1, 11], &[]));
        check(5, 3, 1000, &[11], (&[11], &[]));
        check(5, 3, 1000, &[], (&[], &[]));
    }

    #[test]
    fn beyond_the_backlog_the_oldest_go_but_never_the_newest_that_are_kept_anyway() {
        check(5, 3, 50, &[], (&[], &[]));
        check(5, 3, 49, &[], (&[], &[1]));
        check(5, 3, 30, &[], (&[], &[1, 11]));
        check(5, 3, 0, &[], (&[], &[1, 11]));
        check(5, 1, 20, &[1], (&[1], &[11, 21]));
        check(1, 1, 0, &[], (&[], &[]));
        check(0, 1, 0, &[], (&[], &[]));
    }
}
