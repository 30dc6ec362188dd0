//! Proof of one user's records, taken out of the log without the rest of it.
//!
//! Each record's own hash covers its `user_prev`, so the user's lines are a chain by themselves (`chain.rs`).

use super::super::chain::Link;
use super::super::line::Sealed;
use super::{BreakKind, Report, Verifier};

/// Verifies the records of one user, taken out of the log unchanged and in order, without the rest of it. Gaps that restart
/// the users' chains may stand among them.
pub fn verify_user_export<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Report {
    let mut verifier = Verifier::new();
    let mut owner: Option<Box<str>> = None;
    let mut restarted = false;
    for line in lines {
        verifier.line += 1;
        let sealed = match Sealed::read(line) {
            Ok(sealed) => sealed,
            Err(detail) => {
                verifier.unread += 1;
                verifier.report(BreakKind::Edited, None, detail.into());
                continue;
            }
        };
        verifier.records += 1;
        let Some((sub, link, prev)) = sealed.user else {
            restarted |= sealed.restarts_users;
            if !sealed.restarts_users {
                let detail = "it is not a record of a user".into();
                verifier.report(BreakKind::UserChain, Some(sealed.link.seq), detail);
            }
            continue;
        };
        if **owner.get_or_insert_with(|| (&*sub).into()) != *sub {
            let detail = "it is a record of another user".into();
            verifier.report(BreakKind::UserChain, Some(sealed.link.seq), detail);
            continue;
        }
        if std::mem::take(&mut restarted) {
            verifier.head = Some(Link::START);
        }
        verifier.place(&Sealed {
            link,
            prev,
            user: None,
            restarts_users: false,
        });
        verifier.records -= 1;
    }
    let mut report = verifier.finish(None);
    report.users = usize::from(owner.is_some());
    report
}
