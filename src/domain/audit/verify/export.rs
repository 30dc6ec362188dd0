//! Proof of one user's records, taken out of the log without the rest of it.
//!
//! Each record's own hash covers its `user_prev`, so the user's lines are a chain by themselves (`chain.rs`). What proves that
//! its end was not cut is the number and hash of the user's last record, noted elsewhere.

use super::super::chain::Link;
use super::super::line::Sealed;
use super::Verifier;
use super::report::{BreakKind, Report};

/// Follows one user's chain line by line. Gaps that restart the users' chains may stand among the lines.
#[derive(Debug)]
pub struct ExportVerifier {
    verifier: Verifier,
    owner: Option<Box<str>>,
    restarted: bool,
}

impl Default for ExportVerifier {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl ExportVerifier {
    /// `known` are links of the user's own chain: `user_seq` and hash.
    pub fn new(known: Vec<Link>) -> Self {
        Self {
            verifier: Verifier::new().knowing(known),
            owner: None,
            restarted: false,
        }
    }

    /// The first record must be the user's first one.
    #[must_use]
    pub fn whole(mut self) -> Self {
        self.verifier = self.verifier.beginning_at(1);
        self
    }

    /// The next file begins.
    pub fn next_file(&mut self) {
        self.verifier.next_file();
    }

    /// A whole line, without its line feed.
    pub fn push(&mut self, line: &[u8]) {
        self.push_read(Sealed::read(line));
    }

    /// The same where somebody else has read the line.
    pub fn push_read(&mut self, line: Result<Sealed<'_>, &'static str>) {
        let verifier = &mut self.verifier;
        verifier.line += 1;
        let sealed = match line {
            Ok(sealed) => sealed,
            Err(detail) => {
                verifier.unread += 1;
                return verifier.report(BreakKind::Edited, None, detail.into());
            }
        };
        let seq = Some(sealed.link.seq);
        let restarts = sealed.restarts_users();
        let Some((sub, link, prev)) = sealed.user else {
            self.restarted |= restarts;
            if restarts {
                verifier.records += 1;
            } else {
                let detail = "it is not a record of a user".into();
                verifier.report(BreakKind::UserChain, seq, detail);
            }
            return;
        };
        if **self.owner.get_or_insert_with(|| (&*sub).into()) != *sub {
            let detail = "it is a record of another user".into();
            return verifier.report(BreakKind::UserChain, seq, detail);
        }
        if std::mem::take(&mut self.restarted) {
            verifier.head = Some(Link::START);
        }
        verifier.place(&Sealed {
            link,
            prev,
            user: None,
            gap: None,
            checkpoint: None,
        });
    }

    /// The rest of a file behind its last line feed.
    pub fn push_torn(&mut self) {
        self.verifier.push_torn();
    }

    /// Whose records they are.
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// The result, in numbers of the user's own chain.
    pub fn finish(self) -> Report {
        let mut report = self.verifier.finish(None);
        report.users = usize::from(self.owner.is_some());
        report
    }
}

/// Verifies the records of one user, taken out of the log unchanged and in order, without the rest of it.
pub fn verify_user_export<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Report {
    let mut verifier = ExportVerifier::default();
    lines.into_iter().for_each(|line| verifier.push(line));
    verifier.finish()
}
