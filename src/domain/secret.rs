//! Secrets and the digests that stand in for them.
//!
//! Knows nothing of what a secret is for. Must not implement `Serialize`, `Display`, `PartialEq` or `Deref`: the only
//! way out is [`Secret::expose`], and `tests/tidy.rs` lists the files that may call it. Read `identity.rs` next.

use std::fmt;

use aws_lc_rs::{constant_time, digest, rand};
use zeroize::Zeroizing;

/// A value that must never be printed. Memory is overwritten on drop; `Debug` shows a fixed word.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership, so that no second copy stays behind.
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value itself. Every caller is listed in `tests/tidy.rs`.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// SHA-256 of the value: what maps and caches are keyed by.
    pub fn digest(&self) -> Digest {
        Digest::of(&[self.0.as_bytes()])
    }

    /// Compares in constant time, so that a wrong guess tells nothing by how long it took.
    pub fn matches(&self, presented: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(self.0.as_bytes(), presented).is_ok()
    }

    /// `prefix` followed by 256 random bits in base64url: a local token that secret scanners recognise.
    ///
    /// # Errors
    /// When the system's random source fails; nothing weaker is used instead.
    pub fn random(prefix: &str) -> Result<Self, RandomUnavailable> {
        use base64::Engine as _;
        let mut bytes = Zeroizing::new([0u8; 32]);
        rand::fill(bytes.as_mut_slice()).map_err(|_| RandomUnavailable)?;
        let mut text = String::with_capacity(prefix.len() + 43);
        text.push_str(prefix);
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode_string(*bytes, &mut text);
        Ok(Self::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

/// The system could not give random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system's random source failed")]
pub struct RandomUnavailable;

/// A SHA-256 digest over length-prefixed parts, so that `("ab","c")` and `("a","bc")` differ.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of all parts in order.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut bytes = [0u8; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }

    /// The raw bytes, as a part of another digest.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The first 16 hex digits: enough to correlate two records, useless to find the value.
    pub fn short(&self) -> String {
        use fmt::Write as _;
        self.0
            .iter()
            .take(8)
            .fold(String::with_capacity(16), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({}…)", self.short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_value() {
        let secret = Secret::new("hunter2".into());
        assert!(!format!("{secret:?} {secret:#?}").contains("hunter2"));
    }

    #[test]
    fn random_tokens_are_long_prefixed_and_distinct() {
        let (a, b) = (
            Secret::random("vks_").unwrap(),
            Secret::random("vks_").unwrap(),
        );
        assert_eq!(a.expose().len(), 4 + 43);
        assert!(a.expose().starts_with("vks_"));
        assert_ne!(a.expose(), b.expose());
    }

    #[test]
    fn comparison_needs_the_whole_value() {
        let secret = Secret::new("abc".into());
        assert!(secret.matches(b"abc"));
        assert!(!secret.matches(b"ab"));
        assert!(!secret.matches(b"abcd"));
        assert!(!secret.matches(b""));
    }

    #[test]
    fn digests_separate_their_parts() {
        assert_ne!(Digest::of(&[b"ab", b"c"]), Digest::of(&[b"a", b"bc"]));
        assert_ne!(Digest::of(&[b"abc"]), Digest::of(&[b"abc", b""]));
    }
}
