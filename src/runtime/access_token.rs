//! A workspace credential at rest: the token, the header value made from it once, and its end.
//!
//! Never printed. Does not know where it came from or which request it goes to; `domain/headers.rs` puts the prepared value
//! into one. Read `token_endpoint.rs` (where it is made) next.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use zeroize::Zeroizing;

use crate::domain::clock::{SignedDuration, Timestamp};
use crate::domain::scope::ScopeSet;
use crate::domain::secret::Secret;

/// A token is not used this shortly before its end: Azure refuses it then (facts 2.2), and a request in flight takes time.
pub const EXPIRY_MARGIN: Duration = Duration::from_secs(30);
/// The longest token that is accepted: it has to fit a request head beside the agent's own headers.
pub const ACCESS_TOKEN_BYTES_MAX: usize = 16 * 1024;

/// A bearer token that the workspace accepts.
pub struct AccessToken {
    secret: Arc<Secret>,
    header: HeaderValue,
    expires: Timestamp,
    scopes: ScopeSet,
}

impl AccessToken {
    /// Prepares a token for use; `None` when it cannot stand in a header: empty, too long, or not visible ASCII.
    pub fn new(raw: String, expires: Timestamp, scopes: ScopeSet) -> Option<Self> {
        let raw = Zeroizing::new(raw);
        let usable = !raw.is_empty()
            && raw.len() <= ACCESS_TOKEN_BYTES_MAX
            && raw.bytes().all(|b| b.is_ascii_graphic());
        if !usable {
            return None;
        }
        let text = Zeroizing::new(format!("Bearer {}", *raw));
        let mut header = HeaderValue::from_str(&text).ok()?;
        header.set_sensitive(true);
        Some(Self {
            secret: Arc::new(Secret::new(raw.to_string())),
            header,
            expires,
            scopes,
        })
    }

    /// The token itself.
    pub fn secret(&self) -> &Arc<Secret> {
        &self.secret
    }

    /// `Bearer …`, marked sensitive; cloning it copies no bytes.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// When the token ends, as its issuer said.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// What the issuer said it is good for, or what was asked where it said nothing.
    pub fn scopes(&self) -> &ScopeSet {
        &self.scopes
    }

    /// Whether it may still be used by the wall clock. Timers stand still while a machine sleeps; this does not.
    pub fn is_live(&self, now: Timestamp) -> bool {
        SignedDuration::try_from(EXPIRY_MARGIN)
            .ok()
            .and_then(|margin| now.checked_add(margin).ok())
            .is_some_and(|soon| soon < self.expires)
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("expires", &self.expires)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(raw: &str) -> Option<AccessToken> {
        let expires = Timestamp::from_second(1_000).unwrap();
        AccessToken::new(raw.to_owned(), expires, ScopeSet::parse(["sql"]))
    }

    #[test]
    fn the_header_is_ready_and_marked_sensitive() {
        let token = token("abc.def").unwrap();
        assert_eq!(token.header().to_str().unwrap(), "Bearer abc.def");
        assert!(token.header().is_sensitive());
        assert_eq!(token.secret().expose(), "abc.def");
        assert!(!format!("{token:?} {:?}", token.header()).contains("abc"));
    }

    #[test]
    fn what_cannot_stand_in_a_header_is_no_token() {
        let long = "a".repeat(ACCESS_TOKEN_BYTES_MAX + 1);
        for bad in ["", " ", "a b", "a\nb", "a\r\nX: y", "ä", "a\0", &long] {
            assert!(token(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn it_is_dead_from_the_margin_on_to_the_second() {
        let token = token("abc").unwrap();
        assert!(token.is_live(Timestamp::from_second(969).unwrap()));
        assert!(!token.is_live(Timestamp::from_second(970).unwrap()));
        assert!(!token.is_live(Timestamp::MAX));
    }
}
