//! Header maps as data: check the framing, take, strip, set, attach.
//!
//! One of the two files that name `Authorization` (the other is `token_endpoint.rs`). The order is fixed: hop-by-hop and
//! nominated headers go first, then everything that could be an identity, and only then is anything added (SECURITY R9).
//! Knows no decision and no socket.

use std::collections::HashSet;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

use self::names::{
    HOP_BY_HOP, IDENTITY, IDENTITY_PREFIXES, NEVER_BACK, NEVER_OUT, NEVER_OUT_PREFIXES, fold,
};
pub mod cookies;
pub mod framing;
mod names;
pub mod token_end;

/// Why a request's head was refused: always 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadFault {
    /// Both framings, an unknown transfer coding, or a length that is not one canonical number (SECURITY R13).
    #[error("the message framing is ambiguous")]
    Framing,
    /// No `Host`, two, or one that is no authority (SECURITY R15).
    #[error("the request must have exactly one valid Host")]
    Host,
    /// `CONNECT` (but to a forward proxy's door), `TRACE` or `TRACK`.
    #[error("this form of request is not served")]
    Form,
    /// An absolute target, as proxies of plain http get it.
    #[error(
        "a target with a scheme and a host is not served: this is no proxy for plain http; use https, or take this address out of HTTP_PROXY"
    )]
    Absolute,
    /// Two token headers, or one that is not visible ASCII (SECURITY R1).
    #[error("the user token must be in exactly one header")]
    TokenHeader,
    /// Two `Authorization` headers, or one that is no bearer.
    #[error("the local token must be in exactly one Authorization: Bearer header")]
    Authorization,
}

/// Checks method, target form, `Host` and framing before anything else looks at the request.
///
/// # Errors
/// [`HeadFault`]; the connection is closed after it.
pub fn check_head(
    method: &Method,
    uri: &http::Uri,
    version: Version,
    headers: &HeaderMap,
) -> Result<(), HeadFault> {
    if matches!(*method, Method::CONNECT | Method::TRACE) || method.as_str() == "TRACK" {
        return Err(HeadFault::Form);
    }
    framing::check(version, headers)?;
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (version, uri.authority(), hosts.next(), hosts.next()) {
        // HTTP/2: the authority is part of the target; a Host beside it must agree.
        (Version::HTTP_2, Some(authority), None, None) => authority.as_str(),
        (Version::HTTP_2, Some(authority), Some(host), None) if host == authority.as_str() => {
            authority.as_str()
        }
        (Version::HTTP_2, _, _, _) => return Err(HeadFault::Host),
        (_, Some(_), _, _) => return Err(HeadFault::Absolute),
        (_, None, Some(host), None) => host.to_str().map_err(|_| HeadFault::Host)?,
        (_, None, _, _) => return Err(HeadFault::Host),
    };
    let charset =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    let valid = host.bytes().all(charset)
        && host
            .parse::<http::uri::Authority>()
            .is_ok_and(|a| !a.host().is_empty());
    if valid { Ok(()) } else { Err(HeadFault::Host) }
}

/// The host of a checked request: the authority of HTTP/2, else the `Host` header.
pub fn host<'a>(uri: &'a http::Uri, headers: &'a HeaderMap) -> &'a str {
    uri.authority()
        .map(http::uri::Authority::as_str)
        .or_else(|| headers.get(header::HOST).and_then(|h| h.to_str().ok()))
        .unwrap_or_default()
}

/// Whether a browser page on another site sent this (SECURITY R27): no agent's SDK sends `Origin`.
pub fn is_cross_site(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN)
        || headers
            .get("sec-fetch-site")
            .is_some_and(|site| !matches!(site.as_bytes(), b"none" | b"same-origin"))
}

/// Removes hop-by-hop headers and those that `Connection` nominates; never `Host` or the framing of the next hop.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .filter(|name| name != header::HOST && name != header::CONTENT_LENGTH)
        .collect();
    for name in nominated {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(*name);
    }
}

/// Which headers carry and claim identity on the way in, derived from the configuration.
#[derive(Debug, Clone)]
pub struct IdentityHeaders {
    token: HeaderName,
    pass_authorization: bool,
    folded: HashSet<String>,
}

/// What the front door claimed, kept for the case that the token does not say it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// `X-Forwarded-Email`.
    pub email: Option<HeaderValue>,
    /// `X-Forwarded-User`.
    pub user: Option<HeaderValue>,
    /// `X-Forwarded-Preferred-Username`.
    pub preferred_username: Option<HeaderValue>,
}

/// What was taken off an inbound request.
#[derive(Debug, Default)]
pub struct Taken {
    /// The user token as it stood in its header.
    pub token: Option<HeaderValue>,
    /// What the front door claimed.
    pub claimed: Claimed,
}

/// The header that says which of the identity headers are the front door's word only.
pub const IDENTITY_MARK: HeaderName = HeaderName::from_static("x-valetkey-identity");
/// The header that tells the agent the downscoped set.
pub const SCOPES: HeaderName = HeaderName::from_static("x-valetkey-scopes");
/// The header that marks every refusal by the sidecar with its reason.
pub const ERROR: HeaderName = HeaderName::from_static("x-valetkey-error");
/// The header that says which plane a call lacks that the workspace itself refused.
pub const MISSING: HeaderName = HeaderName::from_static("x-valetkey-missing");
/// The request id, ours on the way in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What no log may show: the envelope marks these before anything can print a request.
pub const SENSITIVE: [HeaderName; 3] = [
    header::AUTHORIZATION,
    header::COOKIE,
    HeaderName::from_static("x-forwarded-access-token"),
];

const EMAIL: HeaderName = HeaderName::from_static("x-forwarded-email");
const USER: HeaderName = HeaderName::from_static("x-forwarded-user");
const PREFERRED_USERNAME: HeaderName = HeaderName::from_static("x-forwarded-preferred-username");

impl IdentityHeaders {
    /// `token` is `inbound.token_header`.
    pub fn new(token: HeaderName, pass_authorization: bool) -> Self {
        let mut folded: HashSet<String> = IDENTITY.iter().map(|name| fold(name)).collect();
        folded.insert(fold(token.as_str()));
        Self {
            token,
            pass_authorization,
            folded,
        }
    }

    /// Takes the token and the claims off, and removes every header that is or looks like an identity: other letter case, `_`
    /// or `.` for `-`, duplicates (SECURITY R8). Call [`strip_hop_by_hop`] first.
    ///
    /// # Errors
    /// [`HeadFault::TokenHeader`] when the token header stands twice.
    pub fn take(&self, headers: &mut HeaderMap) -> Result<Taken, HeadFault> {
        let mut tokens = headers.get_all(&self.token).iter();
        let token = tokens.next().cloned();
        if tokens.next().is_some() || token.as_ref().is_some_and(|t| t.to_str().is_err()) {
            return Err(HeadFault::TokenHeader);
        }
        let only = |name: &HeaderName| {
            let mut values = headers.get_all(name).iter();
            values.next().filter(|_| values.next().is_none()).cloned()
        };
        let claimed = Claimed {
            email: only(&EMAIL),
            user: only(&USER),
            preferred_username: only(&PREFERRED_USERNAME),
        };
        let doomed: Vec<HeaderName> = headers
            .keys()
            .filter(|name| self.is_identity(name))
            .cloned()
            .collect();
        for name in doomed {
            headers.remove(name);
        }
        let token = if self.token == header::AUTHORIZATION {
            token
                .as_ref()
                .map(bearer)
                .transpose()
                .map_err(|_| HeadFault::TokenHeader)?
        } else {
            token
        };
        Ok(Taken { token, claimed })
    }

    fn is_identity(&self, name: &HeaderName) -> bool {
        if name == header::AUTHORIZATION
            && self.pass_authorization
            && self.token != header::AUTHORIZATION
        {
            return false;
        }
        let text = name.as_str();
        let folded = fold(text);
        text.contains(['_', '.'])
            || self.folded.contains(&folded)
            || IDENTITY_PREFIXES
                .iter()
                .any(|prefix| folded.starts_with(&fold(prefix)))
    }

    /// Sets exactly one copy of the session token, in the header that the user token came in.
    pub fn attach_session(&self, headers: &mut HeaderMap, mut token: HeaderValue) {
        token.set_sensitive(true);
        if self.token == header::AUTHORIZATION
            && let Ok(mut bearer) =
                HeaderValue::from_bytes(&[b"Bearer ", token.as_bytes()].concat())
        {
            bearer.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, bearer);
            return;
        }
        headers.insert(self.token.clone(), token);
    }
}

/// What the agent is told about a verified user.
#[derive(Debug, Clone, Copy)]
pub struct VerifiedIdentity<'a> {
    /// The `sub` claim.
    pub user: &'a str,
    /// From the claims, if they say it.
    pub email: Option<&'a str>,
    /// From the claims, if they say it.
    pub preferred_username: Option<&'a str>,
    /// The downscoped set in wire form.
    pub scopes: &'a str,
}

/// Sets the identity headers from the verified claims; where a claim is absent the front door's word stands, marked as such.
pub fn set_identity(headers: &mut HeaderMap, verified: VerifiedIdentity<'_>, claimed: Claimed) {
    let mut asserted = Vec::new();
    let mut set =
        |name: HeaderName, claim: Option<&str>, word: Option<HeaderValue>, label: &'static str| {
            let value = claim.and_then(|c| HeaderValue::from_bytes(c.as_bytes()).ok());
            if value.is_none() && word.is_some() {
                asserted.push(label);
            }
            if let Some(value) = value.or(word) {
                headers.insert(name, value);
            }
        };
    set(USER, Some(verified.user), None, "user");
    set(EMAIL, verified.email, claimed.email, "email");
    set(
        PREFERRED_USERNAME,
        verified.preferred_username,
        claimed.preferred_username,
        "preferred-username",
    );
    let mark = if asserted.is_empty() {
        HeaderValue::from_static("verified")
    } else {
        HeaderValue::from_static("asserted")
    };
    headers.insert(IDENTITY_MARK, mark);
    if let Ok(scopes) = HeaderValue::from_str(verified.scopes) {
        headers.insert(SCOPES, scopes);
    }
}

/// The one bearer of an outbound call. The scheme is compared without regard to case (RFC 9110 section 11.1).
///
/// # Errors
/// [`HeadFault::Authorization`] when there are two or it is no bearer; `Ok(None)` when there is none.
pub fn take_bearer(headers: &mut HeaderMap) -> Result<Option<HeaderValue>, HeadFault> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let found = match (values.next(), values.next()) {
        (None, _) => None,
        (Some(only), None) => Some(bearer(only)?),
        (Some(_), Some(_)) => return Err(HeadFault::Authorization),
    };
    headers.remove(header::AUTHORIZATION);
    Ok(found)
}

fn bearer(value: &HeaderValue) -> Result<HeaderValue, HeadFault> {
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .ok_or(HeadFault::Authorization)?;
    let token = token.trim_start_matches(' ');
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.contains([' ', ',']) {
        return Err(HeadFault::Authorization);
    }
    let mut token = HeaderValue::from_str(token).map_err(|_| HeadFault::Authorization)?;
    token.set_sensitive(true);
    Ok(token)
}

/// `Authorization: Basic` of a token request: user id and password, decoded (RFC 7617, RFC 6749 section 2.3.1).
pub fn basic_credentials(headers: &HeaderMap) -> Option<Option<(String, String)>> {
    use base64::Engine as _;
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?;
    let parse = || {
        let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(encoded.trim())
            .ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (id, secret) = text.split_once(':')?;
        let plain = |part: &str| {
            form_urlencoded::parse(format!("v={part}").as_bytes())
                .next()
                .map(|(_, v)| v.into_owned())
        };
        (scheme.eq_ignore_ascii_case("basic")).then_some((plain(id)?, plain(secret)?))
    };
    Some(if values.next().is_some() {
        None
    } else {
        parse()
    })
}

/// Whether the name is that of the header that carries bearers.
pub fn is_authorization(name: &HeaderName) -> bool {
    name == header::AUTHORIZATION
}

/// Removes what must not leave for the workspace or an upstream. Call [`strip_hop_by_hop`] first; `Host` goes too and is set by the client.
pub fn strip_outbound(headers: &mut HeaderMap) {
    let doomed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let folded = fold(name.as_str());
            NEVER_OUT.iter().any(|other| folded == fold(other))
                || NEVER_OUT_PREFIXES
                    .iter()
                    .any(|prefix| folded.starts_with(&fold(prefix)))
                || name.as_str().contains('_')
        })
        .cloned()
        .collect();
    for name in doomed {
        headers.remove(name);
    }
    headers.remove(header::HOST);
}

/// The last act before the socket: the real credential, already in the form of a header value.
pub fn attach_credential(headers: &mut HeaderMap, mut credential: HeaderValue) {
    credential.set_sensitive(true);
    headers.insert(header::AUTHORIZATION, credential);
}

/// Cleans the answer of the workspace or an upstream for the agent: no hop-by-hop headers, no cookies (SECURITY R30), nothing that claims to be ours.
pub fn clean_far_answer(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    for name in NEVER_BACK {
        headers.remove(*name);
    }
}

/// Cleans the agent's answer for the front door.
pub fn clean_agent_answer(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(ERROR);
    headers.remove(MISSING);
}

#[cfg(test)]
mod tests;
