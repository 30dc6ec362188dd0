//! Who and where: users, clients, origins. Parsed once at the edge, never raw strings inward.
//!
//! Knows nothing of tokens or headers. Read `token.rs` (where users come from) or `headers.rs` next.

use std::fmt;
use std::sync::Arc;

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// Nothing, or only blanks.
    #[error("is empty")]
    Empty,
    /// Longer than [`NAME_CHARS_MAX`].
    #[error("is longer than 512 characters")]
    TooLong,
    /// Control, bidirectional or separator characters, which make two names look alike.
    #[error("holds a control, bidirectional or line-separator character")]
    Character,
}

/// The longest accepted name, in characters (SECURITY R6).
pub const NAME_CHARS_MAX: usize = 512;

/// Whether a character may stand in a name that people and logs read (SECURITY R6, R35).
pub fn is_plain(character: char) -> bool {
    !(character.is_control()
        || matches!(character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{061c}'))
}

/// Whether a text may be shown and recorded as a name: not blank, of bounded length, every character plain.
///
/// # Errors
/// [`NameFault`] says what is wrong with it.
pub fn check_name(text: &str) -> Result<(), NameFault> {
    if text.trim().is_empty() {
        Err(NameFault::Empty)
    } else if text.chars().count() > NAME_CHARS_MAX {
        Err(NameFault::TooLong)
    } else if text.chars().all(is_plain) {
        Ok(())
    } else {
        Err(NameFault::Character)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and keeps the text as it stands.
            ///
            /// # Errors
            /// [`NameFault`] says what is wrong with it.
            pub fn parse(text: &str) -> Result<Self, NameFault> {
                check_name(text).map(|()| Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name! {
    /// The `sub` claim: an e-mail address for people, an application id for service principals.
    UserId
}
name! {
    /// An e-mail address, verified (from a claim) or asserted by the front door.
    UserEmail
}
name! {
    /// The OAuth client that a token was issued to.
    ClientId
}

/// Scheme, host and port of the workspace or of an upstream: the only places credentials are ever sent to.
#[derive(Clone, PartialEq, Eq)]
pub struct Origin {
    https: bool,
    authority: Arc<str>,
}

impl Origin {
    /// Accepts `https://host`, `http://127.0.0.1:8080`, or a bare host name (facts 1.1: the platform's variable often has no
    /// scheme), with or without a trailing slash.
    ///
    /// # Errors
    /// A sentence that says what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (https, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (true, rest)
        } else if let Some(rest) = text.strip_prefix("http://") {
            (false, rest)
        } else if text.contains("://") {
            return Err("the workspace host must be https://HOST".into());
        } else {
            (true, text)
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest).to_ascii_lowercase();
        let parsed: http::uri::Authority = authority.parse().map_err(|_| {
            "the workspace host must be a host name such as my-workspace.cloud.databricks.com"
                .to_owned()
        })?;
        if authority.contains('@') || authority.contains('/') || parsed.host().is_empty() {
            return Err(
                "the workspace host must be a host name alone: no path, no user name".into(),
            );
        }
        if !https && !is_loopback_host(parsed.host()) {
            return Err(
                "plain http is accepted for a loopback workspace only; write https://".into(),
            );
        }
        let canonical = match (
            https,
            authority.strip_suffix(":443"),
            authority.strip_suffix(":80"),
        ) {
            (true, Some(short), _) | (false, _, Some(short)) => short.to_owned(),
            (true, None, _) | (false, _, None) => authority,
        };
        Ok(Self {
            https,
            authority: canonical.into(),
        })
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// Host, and port where it is not the scheme's own.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What follows this origin in a URL, however the URL spells it; `None` when it leads elsewhere or is relative.
    pub fn inside<'u>(&self, url: &'u str) -> Option<&'u str> {
        let (scheme, after) = match url.strip_prefix("//") {
            Some(after) => (self.scheme(), after),
            None => url.split_once("://")?,
        };
        let end = after.find(['/', '?', '#']).unwrap_or(after.len());
        let (authority, rest) = after.split_at_checked(end)?;
        let scheme = scheme.to_ascii_lowercase();
        let other = Self::parse(&format!("{scheme}://{authority}")).ok()?;
        (other == *self).then_some(rest)
    }

    /// The port, the scheme's own where none is written.
    pub fn port(&self) -> u16 {
        let written = self.authority.rsplit_once(':');
        let written = written.and_then(|(_, port)| port.parse().ok());
        written.unwrap_or(if self.https { 443 } else { 80 })
    }

    /// The host alone.
    pub fn host(&self) -> &str {
        match self.authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            Some(_) | None => &self.authority,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Whether a host name or address literal is this machine and nothing else.
pub fn is_loopback_host(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: Option<&str>) {
        assert_eq!(
            Origin::parse(input).ok().map(|o| o.to_string()).as_deref(),
            expected,
            "{input:?}"
        );
    }

    #[test]
    fn workspace_hosts_are_read_with_and_without_a_scheme() {
        check(
            "adb-1.azuredatabricks.net",
            Some("https://adb-1.azuredatabricks.net"),
        );
        check(
            " https://X.cloud.databricks.com/ ",
            Some("https://x.cloud.databricks.com"),
        );
        check("https://x.example:443", Some("https://x.example"));
        check("https://x.example:8443", Some("https://x.example:8443"));
        check("http://127.0.0.1:9000", Some("http://127.0.0.1:9000"));
        check("http://[::1]:9000", Some("http://[::1]:9000"));
        check("http://x.example", None);
        check("ftp://x.example", None);
        check("https://user@x.example", None);
        check("https://x.example/api", None);
        check("", None);
        check("a b", None);
    }

    #[test]
    fn urls_on_the_workspace_are_known_in_every_spelling() {
        let origin = Origin::parse("x.example").unwrap();
        for (url, rest) in [
            ("https://x.example", Some("")),
            ("https://x.example/a?b#c", Some("/a?b#c")),
            ("HTTPS://X.Example:443/a", Some("/a")),
            ("//x.example/a", Some("/a")),
            ("https://x.example?b", Some("?b")),
            ("https://x.example.evil/a", None),
            ("https://x.example@evil/a", None),
            ("https://x.example:8443/a", None),
            ("http://x.example/a", None),
            ("/a", None),
            ("a/https://x.example/", None),
        ] {
            assert_eq!(origin.inside(url), rest, "{url}");
        }
    }

    #[test]
    fn names_that_could_deceive_a_reader_are_refused() {
        assert_eq!(UserId::parse(""), Err(NameFault::Empty));
        assert_eq!(UserId::parse("  "), Err(NameFault::Empty));
        assert_eq!(UserId::parse(&"a".repeat(513)), Err(NameFault::TooLong));
        for bad in [
            "a\r\nb",
            "a\0",
            "\u{1b}[31m",
            "a\u{202e}b",
            "a\u{2028}b",
            "a\u{200b}b",
            "a\u{85}b",
        ] {
            assert_eq!(UserId::parse(bad), Err(NameFault::Character), "{bad:?}");
        }
        assert_eq!(
            UserId::parse("alice@example.com").unwrap().as_str(),
            "alice@example.com"
        );
        assert!(UserId::parse("Ålice Müller").is_ok());
    }
}
