//! A line as people read it: the wire twin of a record, and one row of a table.
//!
//! Shows nothing on a terminal that could move its cursor: the file may have been edited by anybody.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

use serde::Deserialize;

use crate::domain::identity::is_plain;

/// What readers look for in a line. Members that are absent or unknown do no harm.
#[derive(Debug, Deserialize)]
pub struct Entry<'a> {
    /// Its number.
    pub seq: u64,
    /// When it was sealed.
    #[serde(borrow)]
    pub ts: Cow<'a, str>,
    /// What happened.
    #[serde(borrow)]
    pub event: Cow<'a, str>,
    /// The call's id.
    #[serde(borrow, default)]
    pub call: Option<Cow<'a, str>>,
    /// On whose behalf.
    #[serde(borrow, default)]
    pub user: Option<EntryUser<'a>>,
    /// As whom.
    #[serde(borrow, default)]
    pub identity: Option<Cow<'a, str>>,
    /// Which route decided.
    #[serde(borrow, default)]
    pub route: Option<Cow<'a, str>>,
    /// Which operation.
    #[serde(borrow, default)]
    pub operation: Option<Cow<'a, str>>,
    /// Which resource.
    #[serde(borrow, default)]
    pub resource: Option<EntryResource<'a>>,
    /// The HTTP method.
    #[serde(borrow, default)]
    pub method: Option<Cow<'a, str>>,
    /// The path.
    #[serde(borrow, default)]
    pub path: Option<Cow<'a, str>>,
    /// `allow` or `deny`.
    #[serde(borrow, default)]
    pub decision: Option<Cow<'a, str>>,
    /// Why.
    #[serde(borrow, default)]
    pub reason: Option<Cow<'a, str>>,
    /// The HTTP status.
    #[serde(default)]
    pub status: Option<u16>,
    /// How long.
    #[serde(default)]
    pub duration_ms: Option<u64>,
    /// Body bytes to the workspace.
    #[serde(default)]
    pub bytes_sent: Option<u64>,
    /// Body bytes from the workspace.
    #[serde(default)]
    pub bytes_received: Option<u64>,
    /// Records that are missing.
    #[serde(default)]
    pub lost: Option<u64>,
}

/// The user of a line.
#[derive(Debug, Deserialize)]
pub struct EntryUser<'a> {
    /// The subject.
    #[serde(borrow)]
    pub sub: Cow<'a, str>,
    /// The e-mail address.
    #[serde(borrow, default)]
    pub email: Option<Cow<'a, str>>,
}

/// The resource of a line.
#[derive(Debug, Deserialize)]
pub struct EntryResource<'a> {
    /// Its type.
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    /// Its id.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
}

impl EntryResource<'_> {
    /// As it is written in the policy.
    pub fn name(&self) -> String {
        format!("{}/{}", self.kind, self.id)
    }
}

/// Widths of the columns before the last, in characters; longer texts are cut.
const COLUMNS: [(&str, usize); 9] = [
    ("TIME", 24),
    ("EVENT", 15),
    ("USER", 28),
    ("AS", 4),
    ("ROUTE", 18),
    ("OPERATION", 28),
    ("RESOURCE", 32),
    ("CODE", 4),
    ("MS", 6),
];
const LAST_COLUMN: &str = "REASON";

/// The table's first row.
///
/// # Errors
/// When `out` does not take it.
pub fn head(out: &mut dyn io::Write) -> io::Result<()> {
    let mut row = String::new();
    for (name, width) in COLUMNS {
        cell(&mut row, name, width);
    }
    writeln!(out, "{row}{LAST_COLUMN}")
}

/// One record.
///
/// # Errors
/// When `out` does not take it.
pub fn row(out: &mut dyn io::Write, entry: &Entry<'_>, color: bool) -> io::Result<()> {
    let text = |value: &Option<Cow<'_, str>>| value.as_deref().unwrap_or("-").to_owned();
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let event = match &entry.decision {
        Some(decision) => format!("{} {decision}", entry.event),
        None => entry.event.clone().into_owned(),
    };
    let user = entry
        .user
        .as_ref()
        .map_or("-", |user| user.email.as_deref().unwrap_or(&user.sub));
    let operation = match (&entry.operation, &entry.method, &entry.path) {
        (Some(operation), _, _) => operation.clone().into_owned(),
        (None, Some(method), Some(path)) => format!("{method} {path}"),
        (None, _, path) => text(path),
    };
    let resource = entry.resource.as_ref().map(EntryResource::name);
    let values = [
        short_time(&entry.ts),
        event,
        user.to_owned(),
        text(&entry.identity),
        text(&entry.route),
        operation,
        resource.unwrap_or_else(|| "-".to_owned()),
        number(entry.status.map(u64::from)),
        number(entry.duration_ms),
    ];
    let mut row = String::new();
    for (value, (_, width)) in values.iter().zip(COLUMNS) {
        cell(&mut row, value, width);
    }
    plain(&mut row, entry.reason.as_deref().unwrap_or("-"));
    if let Some(lost) = entry.lost {
        // Writing into a String cannot fail.
        let _ = write!(row, " ({lost} lost)");
    }
    match tint(entry).filter(|_| color) {
        Some(tint) => writeln!(out, "\u{1b}[{tint}m{row}\u{1b}[0m"),
        None => writeln!(out, "{row}"),
    }
}

/// Red for what was refused, yellow for what would have been, for what is wrong with the log itself, and for what ended badly.
fn tint(entry: &Entry<'_>) -> Option<u8> {
    match (&*entry.event, entry.decision.as_deref(), entry.status) {
        ("denial" | "token_rejected" | "policy_refused", _, _) | (_, Some("deny"), _) => Some(31),
        ("gap", _, _) | (_, Some("would_deny"), _) | (_, _, Some(500..)) => Some(33),
        (_, _, _) => None,
    }
}

/// Milliseconds are enough for people: `2026-11-23T10:00:00.123456Z` to `2026-11-23 10:00:00.123Z`.
fn short_time(ts: &str) -> String {
    match (ts.get(..10), ts.get(11..23), ts.ends_with('Z')) {
        (Some(day), Some(time), true) => format!("{day} {time}Z"),
        (_, _, _) => ts.to_owned(),
    }
}

/// A value in a column of so many characters, and a space.
pub fn cell(row: &mut String, value: &str, width: usize) {
    let mut shown = String::new();
    plain(&mut shown, value);
    let count = shown.chars().count();
    if count > width {
        row.extend(shown.chars().take(width - 1));
        row.push('…');
    } else {
        row.push_str(&shown);
        row.extend(std::iter::repeat_n(' ', width - count));
    }
    row.push(' ');
}

/// Characters that a terminal would act on are shown as escapes.
pub fn plain(row: &mut String, value: &str) {
    for character in value.chars() {
        if is_plain(character) {
            row.push(character);
        } else {
            row.extend(character.escape_unicode());
        }
    }
}
