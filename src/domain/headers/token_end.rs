//! When the user's token ends, told to the agent ahead of time: with every request it gets, and with answers when it is soon.
//!
//! Only the front door can renew a token, and only for a new request of its user; whoever knows the time can ask for one.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::clock::{SignedDuration, Timestamp};

/// On every inbound request of a user: the end of the token behind the session, in seconds since 1970.
pub const TOKEN_EXPIRES: HeaderName = HeaderName::from_static("x-valetkey-token-expires");
/// On answers to a user's calls when less than `users.session.expiry_warning` is left: the seconds that are.
pub const TOKEN_EXPIRING: HeaderName = HeaderName::from_static("x-valetkey-token-expiring");

/// Tells the agent when the token ends that it has just been given a stand-in for.
pub fn tell(headers: &mut HeaderMap, expires: Timestamp) {
    headers.insert(TOKEN_EXPIRES, HeaderValue::from(expires.as_second()));
}

/// Warns the agent when the token ends within `ahead`; never earlier, so that the header is a signal.
pub fn warn(headers: &mut HeaderMap, expires: Timestamp, now: Timestamp, ahead: SignedDuration) {
    let left = expires.duration_since(now);
    if left < ahead {
        let seconds = left.as_secs().max(0);
        headers.insert(TOKEN_EXPIRING, HeaderValue::from(seconds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_comes_when_less_than_the_time_ahead_is_left() {
        let check = |expires, ahead, expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            let at = |second| Timestamp::from_second(second).unwrap();
            warn(
                &mut headers,
                at(expires),
                at(1000),
                SignedDuration::from_secs(ahead),
            );
            let told = headers.get(TOKEN_EXPIRING).map(|v| v.to_str().unwrap());
            assert_eq!(told, expected, "{expires} {ahead}");
        };
        check(1300, 300, None);
        check(1299, 300, Some("299"));
        check(1000, 300, Some("0"));
        check(900, 300, Some("0"));
        check(1001, 0, None);
    }
}
