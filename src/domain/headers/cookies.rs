//! Cookies on their way from HTTP/2 to HTTP/1.1.

use http::header::{self, HeaderMap, HeaderValue};

/// HTTP/2 may split `Cookie` into several headers; readers of HTTP/1.1 expect one (RFC 9113 section 8.2.3).
pub fn join(headers: &mut HeaderMap) {
    let crumbs = headers.get_all(header::COOKIE).iter();
    let crumbs: Vec<&[u8]> = crumbs.map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(mut joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        joined.set_sensitive(true);
        headers.insert(header::COOKIE, joined);
    }
}
