//! What a developer's token says of itself, read without a proof: for headers, for messages and for when to renew it.
//!
//! Decides nothing: the sidecar verifies the same token again. An opaque token says nothing, and that is said here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::domain::clock::Timestamp;

/// The claims that `dev` looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// `sub`
    pub subject: Option<String>,
    /// `email`
    pub email: Option<String>,
    /// `name`
    pub name: Option<String>,
    /// `iss`
    pub issuer: Option<String>,
    /// `aud`, the first where there are several.
    pub audience: Option<String>,
    /// `exp`
    pub expires: Option<Timestamp>,
}

/// Reads them; `None` when the token is no JWT.
pub fn read(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Map<String, Value> = serde_json::from_slice(&payload).ok()?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
    let audience = || {
        let list = claims.get("aud")?.as_array()?;
        list.first()?.as_str().map(str::to_owned)
    };
    let expires = claims.get("exp").and_then(Value::as_i64);
    Some(Claims {
        subject: text("sub"),
        email: text("email"),
        name: text("name").or_else(|| text("preferred_username")),
        issuer: text("iss"),
        audience: text("aud").or_else(audience),
        expires: expires.and_then(|exp| Timestamp::from_second(exp).ok()),
    })
}

/// The workspace that an issuer such as `https://HOST/oidc` belongs to.
pub fn workspace_of(issuer: &str) -> Option<String> {
    let uri: http::Uri = issuer.parse().ok()?;
    Some(format!("{}://{}", uri.scheme_str()?, uri.authority()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jwt_tells_and_an_opaque_token_does_not() {
        let payload = URL_SAFE_NO_PAD
            .encode(r#"{"sub":"a@b.c","iss":"https://w.example/oidc","aud":["12"],"exp":5}"#);
        let claims = read(&format!("e30.{payload}.x")).unwrap();
        assert_eq!(claims.subject.as_deref(), Some("a@b.c"));
        assert_eq!(claims.audience.as_deref(), Some("12"));
        assert_eq!(claims.expires, Timestamp::from_second(5).ok());
        assert_eq!(
            workspace_of("https://w.example/oidc").as_deref(),
            Some("https://w.example")
        );
        for opaque in [
            "dapi0123",
            "",
            "a.b",
            "a.b.c",
            &format!("e30.{payload}.x.y"),
        ] {
            assert_eq!(read(opaque), None, "{opaque}");
        }
    }
}
