//! A sealed line read back: its numbers and hashes, once its own hash is recomputed.
//!
//! Reads only what the chain needs; what people look for in a line is `audit_reader.rs`'s business. `verify.rs` puts lines
//! in their places.

use std::borrow::Cow;

use serde::Deserialize;

use super::Event;
use super::chain::{AUDIT_VERSION, Hash, Link, USER_CHAINS_RESTARTED};
use super::checkpoint::Checkpoint;

/// A line whose own hash is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed<'a> {
    /// Its number and hash.
    pub link: Link,
    /// The hash of the record before.
    pub prev: Hash,
    /// The user, with the record's place in the user's chain and the hash of the record before there.
    pub user: Option<(Cow<'a, str>, Link, Hash)>,
    /// What the log says of itself here, if it is a gap.
    pub gap: Option<Cow<'a, str>>,
    /// What is signed here, if it is a checkpoint.
    pub checkpoint: Option<Box<Checkpoint>>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    v: u64,
    seq: u64,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user: Option<WireUser<'a>>,
    user_seq: Option<u64>,
    user_prev: Option<&'a str>,
    prev: &'a str,
    #[serde(borrow)]
    checkpoint: Option<WireCheckpoint<'a>>,
}

#[derive(Deserialize)]
struct WireUser<'a> {
    #[serde(borrow)]
    sub: Cow<'a, str>,
}

#[derive(Deserialize)]
struct WireCheckpoint<'a> {
    records: u64,
    head: &'a str,
    key_id: &'a str,
    public_key: &'a str,
    signature: &'a str,
}

impl<'a> Sealed<'a> {
    /// Reads a line (without its line feed) and recomputes its hash.
    ///
    /// # Errors
    /// What is wrong with the line, in words.
    pub fn read(line: &'a [u8]) -> Result<Self, &'static str> {
        const MARK: &[u8] = b",\"hash\":\"";
        let tail = MARK.len() + 64 + b"\"}".len();
        let (sealed, tail) = line
            .len()
            .checked_sub(tail)
            .and_then(|at| line.split_at_checked(at))
            .ok_or("it is not a record")?;
        let stated = tail
            .strip_prefix(MARK)
            .and_then(|rest| rest.strip_suffix(b"\"}"))
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(Hash::parse)
            .ok_or("it does not end in a hash")?;
        if Hash::of(sealed) != stated {
            return Err("its hash does not fit its content");
        }
        let wire: Wire<'_> = serde_json::from_slice(line).map_err(|_| "it is not a record")?;
        wire.into_sealed(stated)
    }

    /// The same without the line.
    pub fn into_owned(self) -> Sealed<'static> {
        Sealed {
            link: self.link,
            prev: self.prev,
            user: self
                .user
                .map(|(sub, link, prev)| (Cow::Owned(sub.into_owned()), link, prev)),
            gap: self.gap.map(|reason| Cow::Owned(reason.into_owned())),
            checkpoint: self.checkpoint,
        }
    }

    /// Whether the users' chains begin anew here.
    pub fn restarts_users(&self) -> bool {
        self.gap.as_deref() == Some(USER_CHAINS_RESTARTED)
    }
}

impl<'a> Wire<'a> {
    fn into_sealed(self, hash: Hash) -> Result<Sealed<'a>, &'static str> {
        if self.v != AUDIT_VERSION {
            return Err("it has a version that this program does not know");
        }
        let prev = Hash::parse(self.prev).ok_or("its prev is not a hash")?;
        let link = |seq| Link { seq, hash };
        let user = match (self.user, self.user_seq, self.user_prev) {
            (None, None, None) => None,
            (Some(user), Some(seq), Some(prev)) => {
                let prev = Hash::parse(prev).ok_or("its user_prev is not a hash")?;
                Some((user.sub, link(seq), prev))
            }
            (_, _, _) => return Err("user, user_seq and user_prev are not all there"),
        };
        let gap = (self.event == Event::Gap.as_str()).then(|| self.reason.unwrap_or_default());
        let is_checkpoint = self.event == Event::Checkpoint.as_str();
        let checkpoint = match self.checkpoint {
            Some(stated) if is_checkpoint => Some(Box::new(stated.parse()?)),
            None if !is_checkpoint => None,
            Some(_) | None => {
                return Err("only a checkpoint carries a signature, and each one does");
            }
        };
        Ok(Sealed {
            link: link(self.seq),
            prev,
            user,
            gap,
            checkpoint,
        })
    }
}

impl WireCheckpoint<'_> {
    fn parse(&self) -> Result<Checkpoint, &'static str> {
        let read = Checkpoint::parse(self.records, self.head, self.public_key, self.signature);
        read.filter(|checkpoint| checkpoint.key.id() == self.key_id)
            .ok_or("its checkpoint has no right form")
    }
}
