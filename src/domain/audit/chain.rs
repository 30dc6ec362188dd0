//! The chain: a record in, one sealed JSON line out.
//!
//! Knows neither files nor time (`now` is an argument). `verify.rs` is its counterpart.
//!
//! # What a line is, for auditors
//!
//! `{"v":1,"seq":N,"ts":"…","event":"…", … ,"user_seq":M,"user_prev":"…","prev":"…","hash":"…"}` and a line feed.
//!
//! - `hash` is the last member. It is the SHA-256, in lower-case hex, of the bytes of the line before `,"hash":`:
//!   `printf %s "${line%,\"hash\":*}" | sha256sum`.
//! - `prev` is the `hash` of the record before, in any file; 64 zeros for the very first. It lies inside the hashed bytes,
//!   so each hash vouches for all that came before.
//! - `seq` counts from 1 and never starts anew.
//! - A record with a `user` also carries `user_seq` (from 1) and `user_prev`, the `hash` of the record before with the same
//!   `user.sub` (64 zeros for the first). Both lie inside the hashed bytes too. So the lines of one user, taken out
//!   unchanged, are a chain of their own: recompute each `hash`, follow `user_prev`, count `user_seq`.
//! - A `checkpoint` carries a signature over all that came before: `checkpoint.rs`.
//! - A `gap` with reason `user_chains_restarted` says that from there on every user counts from 1 again.
//!
//! `v` changes when any of this does. New members and new events may appear without that.

use std::collections::HashMap;
use std::fmt;
use std::io::Write as _;

use aws_lc_rs::digest;

use super::super::clock::Timestamp;
use super::super::identity::UserId;
use super::checkpoint::{Checkpoint, SigningKey};
use super::json::{push_hex, push_number, push_string};
use super::{Event, Record, Resource, Text};

/// The version of the line's format.
pub const AUDIT_VERSION: u64 = 1;
/// The JSON Schema of a line (draft 2020-12).
pub const RECORD_SCHEMA: &str = include_str!("../../../config/audit.schema.json");
/// Users whose last record is remembered; at about 150 bytes each this bounds the memory to some 8 MiB.
pub const AUDIT_USERS_MAX: usize = 50_000;
/// Why the users' chains begin anew: more than [`AUDIT_USERS_MAX`] of them.
pub const USER_CHAINS_RESTARTED: &str = "user_chains_restarted";

/// The SHA-256 that seals a record.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// What stands in `prev` where nothing came before.
    pub const ZERO: Self = Self([0; 32]);

    /// The hash of the bytes before `,"hash":`.
    pub fn of(sealed: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, sealed).as_ref());
        Self(bytes)
    }

    /// Reads 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        hex_bytes(text).map(Self)
    }
}

/// Reads exactly `2 * N` lower-case hex digits.
pub(super) fn hex_bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(bytes)
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The end of a chain: the number and hash of its last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// `seq` or `user_seq` of the last record; 0 before the first.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Link {
    /// Before the first record.
    pub const START: Self = Self {
        seq: 0,
        hash: Hash::ZERO,
    };
}

/// The state from which the next record is sealed.
#[derive(Debug)]
pub struct Chain {
    head: Link,
    users: HashMap<UserId, Link>,
    users_max: usize,
    undo: Undo,
}

/// What [`Chain::rollback`] restores.
#[derive(Debug)]
struct Undo {
    head: Link,
    changed: Vec<(UserId, Option<Link>)>,
    cleared: Option<HashMap<UserId, Link>>,
}

impl Default for Chain {
    fn default() -> Self {
        Self::resume(Link::START, HashMap::new())
    }
}

impl Chain {
    /// Carries on after `head`, with the last record of each user.
    pub fn resume(head: Link, users: HashMap<UserId, Link>) -> Self {
        Self {
            head,
            users,
            users_max: AUDIT_USERS_MAX,
            undo: Undo {
                head,
                changed: Vec::new(),
                cleared: None,
            },
        }
    }

    /// With another limit than [`AUDIT_USERS_MAX`].
    #[must_use]
    pub fn with_users_max(mut self, users_max: usize) -> Self {
        self.users_max = users_max.max(1);
        self
    }

    /// The last sealed record.
    pub fn head(&self) -> Link {
        self.head
    }

    /// The last record of each user.
    pub fn users(&self) -> &HashMap<UserId, Link> {
        &self.users
    }

    /// Appends the record's line to `out` (and before it, where the users' table is full, the gap that says so).
    /// Nothing is final before [`Chain::commit`].
    pub fn seal(&mut self, record: &Record, now: Timestamp, out: &mut Vec<u8>) {
        let Some(user) = &record.user else {
            self.seal_line(record, now, None, out);
            return;
        };
        let before = self.users.get(&user.sub).copied();
        if before.is_none() && self.users.len() >= self.users_max {
            let gap = Record::gap(USER_CHAINS_RESTARTED, None);
            self.seal_line(&gap, now, None, out);
            let users = std::mem::take(&mut self.users);
            self.undo.cleared.get_or_insert(users);
        }
        let link = before.unwrap_or(Link::START);
        let hash = self.seal_line(record, now, Some(link), out);
        let next = Link {
            seq: link.seq + 1,
            hash,
        };
        if self.undo.cleared.is_none() {
            self.undo.changed.push((user.sub.clone(), before));
        }
        match self.users.get_mut(&user.sub) {
            Some(known) => *known = next,
            None => {
                self.users.insert(user.sub.clone(), next);
            }
        }
    }

    /// Appends a checkpoint of the head, signed with `key`.
    pub fn checkpoint(&mut self, key: &SigningKey, now: Timestamp, out: &mut Vec<u8>) {
        let mut record = Record::new(Event::Checkpoint);
        record.checkpoint = Some(Box::new(key.sign(self.head)));
        self.seal_line(&record, now, None, out);
    }

    /// What was sealed since the last commit is written: it stands.
    pub fn commit(&mut self) {
        self.undo.head = self.head;
        self.undo.changed.clear();
        self.undo.cleared = None;
    }

    /// What was sealed since the last commit could not be written: it never was.
    pub fn rollback(&mut self) {
        self.head = self.undo.head;
        if let Some(users) = self.undo.cleared.take() {
            self.users = users;
        }
        for (sub, before) in self.undo.changed.drain(..).rev() {
            match before {
                Some(link) => self.users.insert(sub, link),
                None => self.users.remove(&sub),
            };
        }
    }

    fn seal_line(
        &mut self,
        record: &Record,
        now: Timestamp,
        user: Option<Link>,
        out: &mut Vec<u8>,
    ) -> Hash {
        let start = out.len();
        out.extend_from_slice(b"{\"v\":");
        push_number(out, AUDIT_VERSION);
        number(out, "seq", Some(self.head.seq + 1));
        // Writing into a Vec cannot fail.
        let _ = write!(out, ",\"ts\":\"{now:.6}\"");
        word(out, "event", Some(record.event.as_str()));
        push_fields(record, out);
        if let Some(link) = user {
            number(out, "user_seq", Some(link.seq + 1));
            hex(out, "user_prev", link.hash);
        }
        hex(out, "prev", self.head.hash);
        let hash = Hash::of(out.get(start..).unwrap_or_default());
        hex(out, "hash", hash);
        out.extend_from_slice(b"}\n");
        self.head = Link {
            seq: self.head.seq + 1,
            hash,
        };
        hash
    }
}

/// Everything between `event` and the chains, in the order of PRODUCT 7.
fn push_fields(record: &Record, out: &mut Vec<u8>) {
    if let Some(call) = record.call {
        key(out, "call");
        out.push(b'"');
        let mut buffer = uuid::Uuid::encode_buffer();
        out.extend_from_slice(call.hyphenated().encode_lower(&mut buffer).as_bytes());
        out.push(b'"');
    }
    text(out, "request_id", record.request_id.as_ref());
    text(out, "trace_id", record.trace_id.as_ref());
    text(out, "session", record.session.as_ref());
    if let Some(user) = &record.user {
        out.extend_from_slice(b",\"user\":{\"sub\":");
        push_string(out, user.sub.as_str());
        if let Some(email) = &user.email {
            string(out, "email", email.as_str());
        }
        key(out, "verified");
        out.extend_from_slice(if user.verified { b"true" } else { b"false" });
        if let Some(client) = &user.client_id {
            string(out, "client_id", client.as_str());
        }
        text(out, "token_id", user.token_id.as_ref());
        out.push(b'}');
    }
    word(out, "identity", record.identity.map(|i| i.as_str()));
    text(out, "route", record.route.as_ref());
    text(out, "operation", record.operation.as_ref());
    resource(out, "resource", record.resource.as_ref());
    resource(out, "follow_up", record.follow_up.as_ref());
    text(out, "method", record.method.as_ref());
    if let Some(path) = &record.path {
        let path = path.as_str();
        string(out, "path", path.split(['?', '#']).next().unwrap_or(path));
    }
    if let Some(mcp) = &record.mcp {
        out.extend_from_slice(b",\"mcp\":{\"method\":");
        push_string(out, mcp.method.as_str());
        text(out, "tool", mcp.tool.as_ref());
        out.push(b'}');
    }
    word(out, "decision", record.decision.map(|d| d.as_str()));
    text(out, "reason", record.reason.as_ref());
    number(out, "status", record.status.map(u64::from));
    text(
        out,
        "upstream_request_id",
        record.upstream_request_id.as_ref(),
    );
    number(out, "bytes_sent", record.bytes_sent);
    number(out, "bytes_received", record.bytes_received);
    number(out, "duration_ms", record.duration_ms);
    number(out, "lost", record.lost);
    if let Some(checkpoint) = &record.checkpoint {
        push_checkpoint(checkpoint, out);
    }
}

fn push_checkpoint(checkpoint: &Checkpoint, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"checkpoint\":{\"records\":");
    push_number(out, checkpoint.head.seq);
    hex(out, "head", checkpoint.head.hash);
    string(out, "key_id", &checkpoint.key.id());
    string(out, "public_key", &checkpoint.key.to_string());
    string(out, "signature", &checkpoint.signature());
    out.push(b'}');
}

fn key(out: &mut Vec<u8>, name: &'static str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn string(out: &mut Vec<u8>, name: &'static str, value: &str) {
    key(out, name);
    push_string(out, value);
}

fn text(out: &mut Vec<u8>, name: &'static str, value: Option<&Text>) {
    if let Some(value) = value {
        string(out, name, value.as_str());
    }
}

fn resource(out: &mut Vec<u8>, name: &'static str, value: Option<&Resource>) {
    if let Some(resource) = value {
        key(out, name);
        out.extend_from_slice(b"{\"type\":");
        push_string(out, resource.kind.as_str());
        string(out, "id", resource.id.as_str());
        out.push(b'}');
    }
}

fn word(out: &mut Vec<u8>, name: &'static str, value: Option<&'static str>) {
    if let Some(value) = value {
        key(out, name);
        out.push(b'"');
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
    }
}

fn number(out: &mut Vec<u8>, name: &'static str, value: Option<u64>) {
    if let Some(value) = value {
        key(out, name);
        push_number(out, value);
    }
}

fn hex(out: &mut Vec<u8>, name: &'static str, hash: Hash) {
    key(out, name);
    out.push(b'"');
    push_hex(out, &hash.0);
    out.push(b'"');
}
