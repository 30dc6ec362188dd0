//! Places in a Unity Catalog volume, and the names of audit segments there.
//!
//! Pure: paths and names, no bytes and no calls. `runtime/volume.rs` goes there.
//!
//! # A segment's name
//!
//! `<first>-<last>-<sha256>.jsonl`: the numbers of its first and last record, each of 16 digits so that names sort, and the
//! SHA-256 of its bytes. Equal names hold equal bytes, so a segment may be sent any number of times.

use std::fmt;

use aws_lc_rs::digest;

use super::identity::is_plain;

/// The longest name of a catalog, schema, volume, folder or file, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest path in a volume, in bytes.
pub const PATH_BYTES_MAX: usize = 1024;

const ROOT: &str = "/Volumes/";
/// Catalog, schema and volume.
const VOLUME_PARTS: usize = 3;
const SEGMENT_SUFFIX: &str = ".jsonl";

/// A place in a volume: `/Volumes/CATALOG/SCHEMA/VOLUME` and folders below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VolumePath(String);

impl VolumePath {
    /// Reads `CATALOG.SCHEMA.VOLUME`; `None` if it is none.
    pub fn of_volume(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split('.').collect();
        let good = |part: &&str| is_name(part) && !part.contains(char::is_whitespace);
        (parts.len() == VOLUME_PARTS && parts.iter().all(good))
            .then(|| Self(format!("{ROOT}{}", parts.join("/"))))
    }

    /// Reads a path that begins with `/Volumes/`; `None` if it is none, or could be read in two ways.
    pub fn parse(path: &str) -> Option<Self> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let parts: Vec<&str> = path.strip_prefix(ROOT)?.split('/').collect();
        let good = parts.len() >= VOLUME_PARTS && parts.iter().all(|part| is_name(part));
        (good && path.len() <= PATH_BYTES_MAX).then(|| Self(path.to_owned()))
    }

    /// What lies below: a name, or several with slashes between them. `None` if that leads anywhere else.
    pub fn join(&self, below: &str) -> Option<Self> {
        let leads_on = !below.is_empty() && !below.ends_with('/');
        Self::parse(&format!("{}/{below}", self.0)).filter(|_| leads_on)
    }

    /// The path itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What of it lies below `above`.
    pub fn below<'a>(&'a self, above: &Self) -> Option<&'a str> {
        self.0.strip_prefix(&above.0)?.strip_prefix('/')
    }

    /// The last name.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The folder above, as long as that is in the volume.
    pub fn parent(&self) -> Option<Self> {
        Self::parse(self.0.rsplit_once('/')?.0)
    }

    /// As it stands in a request: every byte but letters, digits, `-`, `.`, `_`, `~` and the slashes escaped.
    pub fn escaped(&self) -> String {
        let mut escaped = String::with_capacity(self.0.len());
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
                escaped.push(char::from(byte));
            } else {
                escaped.push_str(&format!("%{byte:02X}"));
            }
        }
        escaped
    }
}

impl fmt::Display for VolumePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether it may stand between two slashes.
fn is_name(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= NAME_BYTES_MAX
        && part != "."
        && part != ".."
        && !part.contains(['/', '\\'])
        && part.chars().all(is_plain)
}

/// A name for a folder that is made of what the environment says: what does not fit becomes `-`.
pub fn folder_name(text: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.chars()
        .take(64)
        .map(|c| if fits(c) { c } else { '-' })
        .collect()
}

/// The SHA-256 of a segment's bytes, in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash(String);

impl ContentHash {
    /// Reads 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 64 && text.bytes().all(hex)).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes a [`ContentHash`] piece by piece.
pub struct ContentHasher(digest::Context);

impl Default for ContentHasher {
    fn default() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }
}

impl ContentHasher {
    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of all that came.
    pub fn finish(self) -> ContentHash {
        let digest = self.0.finish();
        ContentHash(digest.as_ref().iter().map(|b| format!("{b:02x}")).collect())
    }
}

/// The name of a segment, made of what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentName {
    /// The number of its first record.
    pub first: u64,
    /// The number of its last record.
    pub last: u64,
    /// Of its bytes.
    pub hash: ContentHash,
}

impl SegmentName {
    /// Reads a name; `None` if it is not exactly one.
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(SEGMENT_SUFFIX)?.split('-');
        let mut number = || {
            let digits = parts.next()?;
            let good = digits.len() >= 16 && digits.bytes().all(|b| b.is_ascii_digit());
            digits.parse::<u64>().ok().filter(|_| good)
        };
        let (first, last) = (number()?, number()?);
        let hash = ContentHash::parse(parts.next()?)?;
        let segment = Self { first, last, hash };
        // One spelling only.
        (parts.next().is_none() && segment.to_string() == name).then_some(segment)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, hash } = self;
        write!(f, "{first:016}-{last:016}-{hash}{SEGMENT_SUFFIX}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_three_names_with_points_between_them() {
        let path = |name| VolumePath::of_volume(name).map(|path| path.to_string());
        assert_eq!(path("main.ops.audit").unwrap(), "/Volumes/main/ops/audit");
        assert_eq!(path("a-b.c_d.ü").unwrap(), "/Volumes/a-b/c_d/ü");
        let long = format!("a.b.{}", "x".repeat(256));
        for bad in [
            "", "a", "a.b", "a.b.c.d", "a..c", "a.b.", ".b.c", "a.b.c/d", "a b.c.d", "a.b.c\n",
            &long,
        ] {
            assert_eq!(path(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_path_stays_in_its_volume() {
        let volume = VolumePath::of_volume("a.b.c").unwrap();
        assert_eq!(volume.join("x/y").unwrap().as_str(), "/Volumes/a/b/c/x/y");
        for bad in [
            "",
            "..",
            "x/../y",
            "/x",
            "x//y",
            "x/",
            "x\\y",
            ".",
            "x/\u{202e}y",
            "x\n",
        ] {
            assert_eq!(volume.join(bad), None, "{bad:?}");
        }
        for bad in [
            "/Volumes/a/b",
            "/volumes/a/b/c",
            "Volumes/a/b/c",
            "/Volumes//b/c",
        ] {
            assert_eq!(VolumePath::parse(bad), None, "{bad:?}");
        }
        let long = format!("/Volumes/a/b/c/{}", "x/".repeat(600));
        assert_eq!(VolumePath::parse(&long), None);
        let deep = VolumePath::parse("/Volumes/a/b/c/x/y/").unwrap();
        assert_eq!(deep.below(&volume), Some("x/y"));
        assert_eq!((deep.name(), deep.parent().unwrap().name()), ("y", "x"));
        assert_eq!(volume.parent(), None);
        assert_eq!(
            VolumePath::parse("/Volumes/a/b/cc").unwrap().below(&volume),
            None
        );
    }

    #[test]
    fn what_a_request_could_misread_is_escaped() {
        let path = VolumePath::parse("/Volumes/a/b/c/x y%2F#?ü").unwrap();
        assert_eq!(path.escaped(), "/Volumes/a/b/c/x%20y%252F%23%3F%C3%BC");
    }

    #[test]
    fn names_of_segments_have_one_spelling() {
        let mut hasher = ContentHasher::default();
        hasher.update(b"ab");
        hasher.update(b"c");
        let hash = hasher.finish();
        let name = SegmentName {
            first: 1,
            last: 1234,
            hash,
        };
        let text = "0000000000000001-0000000000001234-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad.jsonl";
        assert_eq!(name.to_string(), text);
        assert_eq!(SegmentName::parse(text), Some(name));
        for bad in [
            text.replace(".jsonl", ".json"),
            text.replace("1234", "1234-"),
            text.replace("ba78", "BA78"),
            text.replace("0000000000001234", "1234"),
            format!("0{text}"),
            text.replace("0000000000000001", "+000000000000001"),
            format!("{text}.part"),
            String::new(),
        ] {
            assert_eq!(SegmentName::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn the_folder_of_an_app_is_one_plain_name() {
        assert_eq!(folder_name("my-app_1"), "my-app_1");
        assert_eq!(folder_name("../a b/\u{202e}é"), "---a-b---");
        assert_eq!(folder_name(&"x".repeat(100)).len(), 64);
    }
}
