//! Recognises a credential inside a text: the ones we know, in the clear or encoded, and Databricks' own by their shape.
//!
//! A launcher may hand the client secret over under a second name or inside a JSON blob, where no list of names finds it.
//! Knows nothing of environments or processes. Read `environment.rs` next.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::domain::secret::Secret;

/// A secret shorter than this is searched only as the whole value: inside longer ones it would be found by chance.
const SEARCHED_SECRET_BYTES_MIN: usize = 8;
/// Personal access tokens and OAuth secrets: this prefix, then so many hexadecimal digits.
const TOKEN_PREFIXES: [&[u8]; 2] = [b"dapi", b"dose"];
const TOKEN_HEX_DIGITS_MIN: usize = 32;

/// Finds known secrets in texts.
pub struct LeakFinder {
    parts: Vec<Zeroizing<Vec<u8>>>,
    wholes: Vec<Arc<Secret>>,
}

impl LeakFinder {
    /// Prepares the search for these secrets, plain, percent-encoded and in base64.
    pub fn new(secrets: &[Arc<Secret>]) -> Self {
        let parts = secrets
            .iter()
            .filter(|secret| secret.expose().len() >= SEARCHED_SECRET_BYTES_MIN)
            .flat_map(|secret| forms_of(secret.expose().as_bytes()))
            .collect();
        let wholes = secrets
            .iter()
            .filter(|secret| !secret.expose().is_empty())
            .cloned()
            .collect();
        Self { parts, wholes }
    }

    /// Whether a known secret, or something with the shape of a Databricks token, is in the text.
    pub fn finds_in(&self, text: &[u8]) -> bool {
        self.wholes.iter().any(|secret| secret.matches(text))
            || self.parts.iter().any(|part| contains(text, part))
            || TOKEN_PREFIXES.iter().any(|prefix| has_token(text, prefix))
    }
}

impl fmt::Debug for LeakFinder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeakFinder")
            .field("secrets", &self.wholes.len())
            .finish_non_exhaustive()
    }
}

fn forms_of(secret: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut forms = vec![Zeroizing::new(secret.to_vec())];
    let escaped: String = form_urlencoded::byte_serialize(secret).collect();
    forms.push(Zeroizing::new(escaped.into_bytes()));
    for ahead in 0..3 {
        forms.push(base64_core(secret, ahead, &STANDARD_NO_PAD));
        forms.push(base64_core(secret, ahead, &URL_SAFE_NO_PAD));
    }
    forms.sort_unstable_by(|a, b| a.as_slice().cmp(b));
    forms.dedup();
    forms
}

/// The base64 digits that depend on the secret alone when `ahead` bytes (modulo 3) stand before it, as in `id:secret`.
fn base64_core(secret: &[u8], ahead: usize, engine: &impl Engine) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(vec![0; ahead]);
    bytes.extend_from_slice(secret);
    let digits = Zeroizing::new(engine.encode(bytes.as_slice()).into_bytes());
    let shared_ahead = (ahead * 8).div_ceil(6);
    let shared_behind = usize::from(!bytes.len().is_multiple_of(3));
    let core = digits
        .get(shared_ahead..digits.len() - shared_behind)
        .unwrap_or_default();
    Zeroizing::new(core.to_vec())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && text.windows(part.len()).any(|window| window == part)
}

fn has_token(text: &[u8], prefix: &[u8]) -> bool {
    text.windows(prefix.len() + TOKEN_HEX_DIGITS_MIN)
        .filter_map(|window| window.strip_prefix(prefix))
        .any(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "canary/+ 0123456789?";

    fn finder() -> LeakFinder {
        LeakFinder::new(&[Arc::new(Secret::new(CANARY.into()))])
    }

    #[test]
    fn a_secret_is_found_plain_embedded_and_percent_encoded() {
        for text in [
            CANARY.to_owned(),
            format!(r#"{{"client_secret":"{CANARY}"}}"#),
            "client_secret=canary%2F%2B+0123456789%3F&x=1".to_owned(),
        ] {
            assert!(finder().finds_in(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_secret_is_found_in_base64_whatever_stands_around_it() {
        for ahead in ["", "a", "ab", "abc", "id:"] {
            for behind in ["", "x", "xy", "xyz"] {
                let text = format!("{ahead}{CANARY}{behind}");
                let standard = base64::engine::general_purpose::STANDARD.encode(&text);
                let url_safe = URL_SAFE_NO_PAD.encode(&text);
                assert!(finder().finds_in(standard.as_bytes()), "{text}");
                assert!(finder().finds_in(url_safe.as_bytes()), "{text}");
            }
        }
    }

    #[test]
    fn databricks_tokens_are_found_by_their_shape() {
        let finder = LeakFinder::new(&[]);
        let hex = "0123456789abcdef0123456789abcdef";
        assert!(finder.finds_in(format!("dapi{hex}").as_bytes()));
        assert!(finder.finds_in(format!("sc://h:443/;token=dapi{hex}-2;x=1").as_bytes()));
        assert!(finder.finds_in(format!("dose{hex}").as_bytes()));
        assert!(!finder.finds_in(&format!("dapi{hex}").as_bytes()[..35]));
        assert!(!finder.finds_in(b"/opt/dapi/bin"));
    }

    #[test]
    fn harmless_texts_and_short_secrets_give_no_false_alarm() {
        assert!(!finder().finds_in(b"/usr/bin:/bin"));
        assert!(!finder().finds_in(b""));
        let short = LeakFinder::new(&[
            Arc::new(Secret::new("a".into())),
            Arc::new(Secret::new(String::new())),
        ]);
        assert!(short.finds_in(b"a"));
        assert!(!short.finds_in(b"banana"));
        assert!(!short.finds_in(b""));
    }

    #[test]
    fn debug_shows_no_secret() {
        assert!(!format!("{:?}", finder()).contains("canary"));
    }
}
