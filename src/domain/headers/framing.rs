//! Where a message ends: one framing, or none is accepted.
//!
//! Knows no identity. Called by `headers.rs` before anything else looks at a request.

use http::Version;
use http::header::{self, HeaderMap};

use super::HeadFault;

/// Refuses a message whose end two parsers could see in different places (SECURITY R13).
pub(super) fn check(version: Version, headers: &HeaderMap) -> Result<(), HeadFault> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let coding = codings.next();
    if let Some(coding) = coding {
        let one_chunked =
            coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
        if !one_chunked
            || version != Version::HTTP_11
            || headers.contains_key(header::CONTENT_LENGTH)
        {
            return Err(HeadFault::Framing);
        }
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(()),
        (Some(length), None) if is_canonical_number(length.as_bytes()) => Ok(()),
        (Some(_), _) => Err(HeadFault::Framing),
    }
}

fn is_canonical_number(text: &[u8]) -> bool {
    match text {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.len() < 19 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Checks that a request brings no body, as a CONNECT may not: its connection becomes the tunnel.
///
/// # Errors
/// [`HeadFault::Framing`].
pub fn check_bodiless(headers: &HeaderMap) -> Result<(), HeadFault> {
    if headers.contains_key(header::TRANSFER_ENCODING)
        || headers.contains_key(header::CONTENT_LENGTH)
    {
        Err(HeadFault::Framing)
    } else {
        Ok(())
    }
}
