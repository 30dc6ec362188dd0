//! The path of a request, once, in the only reading it can have.
//!
//! Whatever two parsers could read differently is refused, and the bytes that were matched are the bytes that are forwarded
//! (SECURITY R20). What may stand escaped in a file name but nowhere else is kept apart per segment, and only templates that
//! say so match it. Knows no template and no policy. Read `template.rs` next.

use std::borrow::Cow;

/// The longest accepted path, in bytes.
pub const PATH_BYTES_MAX: usize = 8 * 1024;
/// The most segments a path may have.
pub const PATH_SEGMENTS_MAX: usize = 64;

/// Why a path was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// Does not start with `/`, such as `*` or an absolute form.
    #[error("the path does not start with a slash")]
    NotRooted,
    /// Longer than [`PATH_BYTES_MAX`] or more segments than [`PATH_SEGMENTS_MAX`].
    #[error("the path is too long")]
    TooLong,
    /// `//`, or nothing between two slashes.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `.` or `..`, raw or escaped, once or twice.
    #[error("the path has a dot segment")]
    DotSegment,
    /// A raw character that must be escaped, or `;`, `\`, a control character in any spelling.
    #[error("the path has a character that is not allowed")]
    Character,
    /// `%` without two hex digits, an escaped letter, digit, `-`, `.`, `_` or `~`, or escapes that are not UTF-8.
    #[error("the path has an escape that is not in canonical form")]
    Escape,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    start: usize,
    end: usize,
    /// The decoded text where it differs from the raw one.
    decoded: Option<Box<str>>,
    /// Holds an escaped `/ ? # ;`, a doubly escaped character, or ends in a dot or blank.
    delicate: bool,
}

/// A path that has one reading. Only [`CanonicalPath::parse`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalPath {
    raw: Box<str>,
    segments: Vec<Segment>,
}

impl CanonicalPath {
    /// Reads the path of a request target (without the query).
    ///
    /// # Errors
    /// [`PathFault`] names what could be read in two ways.
    pub fn parse(raw: &str) -> Result<Self, PathFault> {
        if raw.len() > PATH_BYTES_MAX {
            return Err(PathFault::TooLong);
        }
        let rest = raw.strip_prefix('/').ok_or(PathFault::NotRooted)?;
        // One slash at the end is a spelling that clients use (facts 6.1); it adds no segment.
        let inner = rest.strip_suffix('/').unwrap_or(rest);
        let mut segments = Vec::with_capacity(8);
        if !rest.is_empty() {
            let mut start = 1;
            for text in inner.split('/') {
                if segments.len() == PATH_SEGMENTS_MAX {
                    return Err(PathFault::TooLong);
                }
                segments.push(Segment::parse(text, start)?);
                start += text.len() + 1;
            }
        }
        Ok(Self {
            raw: raw.into(),
            segments,
        })
    }

    /// The bytes as they came, and as they are forwarded.
    pub fn as_str(&self) -> &str {
        &self.raw
    }

    /// The number of segments.
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether this is the root.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The decoded text of one segment.
    pub fn segment(&self, index: usize) -> Option<&str> {
        let segment = self.segments.get(index)?;
        segment
            .decoded
            .as_deref()
            .or_else(|| self.raw.get(segment.start..segment.end))
    }

    /// Everything from one segment on, decoded and joined by slashes.
    pub fn rest(&self, from: usize) -> Option<Cow<'_, str>> {
        let first = self.segments.get(from)?;
        let tail = self.segments.get(from..)?;
        if tail.iter().all(|s| s.decoded.is_none()) {
            let end = tail.last().map_or(first.end, |s| s.end);
            return self.raw.get(first.start..end).map(Cow::Borrowed);
        }
        let parts: Vec<&str> = (from..self.segments.len())
            .filter_map(|i| self.segment(i))
            .collect();
        Some(Cow::Owned(parts.join("/")))
    }

    /// Whether one segment holds characters that only a template with `%` accepts.
    pub fn is_delicate(&self, index: usize) -> bool {
        self.segments.get(index).is_some_and(|s| s.delicate)
    }

    /// Whether any segment does.
    pub fn has_delicate(&self) -> bool {
        self.segments.iter().any(|s| s.delicate)
    }
}

impl Segment {
    fn parse(text: &str, start: usize) -> Result<Self, PathFault> {
        let end = start + text.len();
        if text.is_empty() {
            return Err(PathFault::EmptySegment);
        }
        if let Some(bad) = text.bytes().find(|b| !is_raw(*b)) {
            debug_assert!(bad != b'/');
            return Err(PathFault::Character);
        }
        if !text.contains('%') {
            check_dots(text)?;
            return Ok(Self {
                start,
                end,
                decoded: None,
                delicate: text.ends_with('.'),
            });
        }
        let once = decode(text, true)?;
        check_decoded(&once)?;
        // A second decoding that some server might do must not turn the name into another path; where it cannot be decoded
        // again the name simply holds a per cent sign.
        let twice = if once.contains('%') {
            decode(&once, false).ok()
        } else {
            None
        };
        if let Some(twice) = &twice {
            check_decoded(twice)?;
        }
        let doubly = twice.is_some_and(|twice| twice != once);
        let delicate = doubly || once.ends_with(['.', ' ']) || once.contains(['/', '?', '#', ';']);
        Ok(Self {
            start,
            end,
            decoded: Some(once.into()),
            delicate,
        })
    }
}

/// `pchar` of RFC 3986 without `;`, and `%`. Everything else must be escaped.
fn is_raw(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b'='
                | b':'
                | b'@'
                | b'%'
        )
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// One round of percent-decoding. `canonical` also refuses escapes of characters that need none.
fn decode(text: &str, canonical: bool) -> Result<String, PathFault> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| {
            b.and_then(|b| char::from(b).to_digit(16))
                .and_then(|d| u8::try_from(d).ok())
        };
        let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
            return Err(PathFault::Escape);
        };
        let value = high * 16 + low;
        if canonical && is_unreserved(value) {
            return Err(if value == b'.' {
                PathFault::DotSegment
            } else {
                PathFault::Escape
            });
        }
        out.push(value);
    }
    String::from_utf8(out).map_err(|_| PathFault::Escape)
}

/// Whether a decoded text, such as a file path in a query or a body, reads the same to every server: no dot segment, no
/// backslash or look-alike, neither as it stands nor decoded once more.
///
/// # Errors
/// [`PathFault`] names what some server could read differently.
pub fn check_value(text: &str) -> Result<(), PathFault> {
    check_decoded(text)?;
    match decode(text, false) {
        Ok(again) if again != text => check_decoded(&again),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What no spelling may hide: control characters, backslashes, look-alikes of the characters that structure a path, and dot
/// segments, also between escaped slashes.
fn check_decoded(text: &str) -> Result<(), PathFault> {
    if text
        .chars()
        .any(|c| c.is_control() || c == '\\' || is_lookalike(c))
    {
        return Err(PathFault::Character);
    }
    text.split(['/', ';', '?', '#']).try_for_each(check_dots)
}

fn check_dots(segment: &str) -> Result<(), PathFault> {
    let trimmed = segment.trim();
    if !trimmed.is_empty() && trimmed.len() <= 2 && trimmed.bytes().all(|b| b == b'.') {
        Err(PathFault::DotSegment)
    } else {
        Ok(())
    }
}

/// Characters that compatibility normalisation (NFKC) turns into `. / \ % ; ? #`.
fn is_lookalike(c: char) -> bool {
    matches!(
        c,
        '\u{ff0e}'
            | '\u{2024}'
            | '\u{2025}'
            | '\u{fe30}'
            | '\u{2100}'
            | '\u{2101}'
            | '\u{2105}'
            | '\u{2106}'
            | '\u{2047}'
            | '\u{2048}'
            | '\u{2049}'
            | '\u{fe14}'
            | '\u{fe16}'
            | '\u{fe52}'
            | '\u{ff0f}'
            | '\u{2044}'
            | '\u{2215}'
            | '\u{ff3c}'
            | '\u{fe68}'
            | '\u{ff05}'
            | '\u{fe6a}'
            | '\u{ff1b}'
            | '\u{fe54}'
            | '\u{037e}'
            | '\u{ff1f}'
            | '\u{fe56}'
            | '\u{ff03}'
            | '\u{fe5f}'
            | '\u{2028}'
            | '\u{2029}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(path: &str, fault: PathFault) {
        assert_eq!(CanonicalPath::parse(path), Err(fault), "{path:?}");
    }

    #[test]
    fn ordinary_paths_keep_their_bytes_and_segments() {
        let path = CanonicalPath::parse("/api/2.0/fs/files/Volumes/a/b/c/x%20y%C3%BC.txt").unwrap();
        assert_eq!(
            path.as_str(),
            "/api/2.0/fs/files/Volumes/a/b/c/x%20y%C3%BC.txt"
        );
        assert_eq!(path.segment(8), Some("x yü.txt"));
        assert_eq!(path.rest(4).unwrap(), "Volumes/a/b/c/x yü.txt");
        assert_eq!(path.rest(9), None);
        assert!(!path.has_delicate());
        assert_eq!(CanonicalPath::parse("/").unwrap().len(), 0);
        assert_eq!(
            CanonicalPath::parse("/api/2.0/sql/statements/")
                .unwrap()
                .len(),
            4
        );
        assert_eq!(
            CanonicalPath::parse("/a/indexes/c.s.i:query")
                .unwrap()
                .segment(2),
            Some("c.s.i:query")
        );
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for path in ["", "*", "api", "http://x/y"] {
            refused(path, PathFault::NotRooted);
        }
        for path in ["//", "//x", "/a//b", "/a//", "///"] {
            refused(path, PathFault::EmptySegment);
        }
        for path in [
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/%2e",
            "/%2E%2e/b",
            "/a/.%2e/b",
            "/a/%252e%252e/b",
            "/a/%2f..%2fb",
            "/a/%252f..%252fb",
            "/a/..%3bx",
            "/%20..",
            "/..%20/",
        ] {
            refused(path, PathFault::DotSegment);
        }
        for path in [
            "/a;b",
            "/a\\b",
            "/a%5cb",
            "/a%5Cb",
            "/a%255cb",
            "/a%00",
            "/a%2500",
            "/a b",
            "/ü",
            "/a\tb",
            "/a%0d%0ab",
            "/a%7f",
            "/a<b",
            "/a\"b",
            "/a|b",
            "/a%EF%BC%8Fb",
            "/a%E2%80%A5",
            "/%EF%B8%B0/b",
            "/a%E2%84%80b",
            "/a%EF%B8%94b",
            "/a[b",
            "/a^b",
            "/{a}",
        ] {
            refused(path, PathFault::Character);
        }
        for path in [
            "/%",
            "/%4",
            "/%zz",
            "/%41",
            "/s%71l",
            "/%C0%AE",
            "/%E0%80%AF",
            "/%ff",
            "/a%5F",
        ] {
            refused(path, PathFault::Escape);
        }
        refused(
            &format!("/{}", "a".repeat(PATH_BYTES_MAX)),
            PathFault::TooLong,
        );
        refused(&"/a".repeat(PATH_SEGMENTS_MAX + 1), PathFault::TooLong);
    }

    #[test]
    fn escapes_that_only_file_names_may_hold_are_marked() {
        for path in [
            "/a%2Fb", "/a%252Fb", "/a%3Fb", "/a%23b", "/a%3Bb", "/a%2541", "/a.", "/a%20",
        ] {
            assert!(CanonicalPath::parse(path).unwrap().has_delicate(), "{path}");
        }
        for path in [
            "/100%25",
            "/a%20b",
            "/a%3Ab",
            "/a%2Bb",
            "/%C3%BC",
            "/50%25%20off",
        ] {
            assert!(
                !CanonicalPath::parse(path).unwrap().has_delicate(),
                "{path}"
            );
        }
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_a_fixed_point(path in "/[a-z0-9%./;?# \\\\]{0,24}") {
            if let Ok(parsed) = CanonicalPath::parse(&path) {
                prop_assert_eq!(parsed.as_str(), path.as_str());
                let again = CanonicalPath::parse(parsed.as_str()).unwrap();
                prop_assert_eq!(&again, &parsed);
                for i in 0..parsed.len() {
                    let segment = parsed.segment(i).unwrap();
                    prop_assert!(segment != "." && segment != ".." && !segment.contains('\\'));
                }
            }
        }
    }
}
