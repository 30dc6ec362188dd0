//! Reads along an HTTP/1.1 connection and makes an error of what hyper mends in silence (SECURITY R13).
//!
//! hyper drops a `Content-Length` that stands beside a `Transfer-Encoding`, merges equal lengths, and passes over chunk
//! extensions unread, so no later step could refuse them. The guard sees the bytes first and spoils the offending line:
//! hyper then answers 400 and ends the connection. Decides nothing else. `listener.rs` puts it around every connection.

/// How HTTP/2 with prior knowledge begins: then hyper's own checks are all there are.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n";
/// What is kept of a header line: enough for the two names and any sane value of theirs.
const LINE_BYTES_MAX: usize = 128;
/// Hex digits of a chunk size.
const SIZE_DIGITS_MAX: usize = 16;

/// Where in the stream of one connection the next byte stands.
#[derive(Debug)]
enum At {
    /// In the first bytes, as many of [`HTTP2`] as have been seen.
    Start(usize),
    /// In a request head.
    Head(Head),
    /// In a body of this many more bytes.
    Body(u64),
    /// In a chunk's size.
    Size { size: u64, digits: usize },
    /// In a chunk's extension.
    Extension(u64),
    /// At the end of a chunk's line.
    SizeEnd(u64),
    /// In a chunk's data and the two bytes behind it.
    Data(u64),
    /// In the trailers; whether the line has had a byte.
    Trailers(bool),
    /// In something that is no HTTP/1.1, or not any more.
    Elsewhere,
}

#[derive(Debug, Default)]
struct Head {
    line: Vec<u8>,
    /// Whether the request line has been seen: empty lines before it do not count.
    begun: bool,
    length: Option<u64>,
    chunked: bool,
}

/// The guard of one connection.
#[derive(Debug)]
pub struct FramingGuard(At);

impl Default for FramingGuard {
    fn default() -> Self {
        Self(At::Start(0))
    }
}

impl FramingGuard {
    /// The connection has become a tunnel: its bytes are nobody's business any more.
    pub fn leave(&mut self) {
        self.0 = At::Elsewhere;
    }

    /// Looks at bytes in the order they came, before anybody else does.
    pub fn look(&mut self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while let Some((byte, after)) = rest.split_first_mut() {
            match &mut self.0 {
                At::Elsewhere => return,
                At::Body(left) => {
                    let taken = take(*left, after.len());
                    *left -= taken as u64 + 1;
                    if *left == 0 {
                        self.0 = At::Head(Head::default());
                    }
                    rest = after.get_mut(taken..).unwrap_or_default();
                    continue;
                }
                At::Data(left) => {
                    let taken = take(*left, after.len());
                    *left -= taken as u64 + 1;
                    if *left == 0 {
                        self.0 = size();
                    }
                    rest = after.get_mut(taken..).unwrap_or_default();
                    continue;
                }
                _ => self.step(byte),
            }
            rest = after;
        }
    }

    fn step(&mut self, byte: &mut u8) {
        match &mut self.0 {
            At::Start(seen) => {
                if HTTP2.get(*seen) == Some(byte) {
                    *seen += 1;
                    if *seen == HTTP2.len() {
                        self.0 = At::Elsewhere;
                    }
                    return;
                }
                let line = HTTP2.get(..*seen).unwrap_or_default().to_vec();
                self.0 = At::Head(Head {
                    line,
                    ..Head::default()
                });
                self.step(byte);
            }
            At::Head(head) => match head.step(*byte) {
                Step::More => {}
                Step::Bad => {
                    // In the place of a line's end: no header line may hold it.
                    *byte = 0;
                    self.leave();
                }
                Step::End => {
                    self.0 = match (head.chunked, head.length) {
                        (true, _) => size(),
                        (false, Some(length)) if length > 0 => At::Body(length),
                        (false, _) => At::Head(Head::default()),
                    }
                }
            },
            At::Trailers(begun) => match byte {
                b'\n' if !*begun => self.0 = At::Head(Head::default()),
                b'\n' => *begun = false,
                b'\r' => {}
                _ => *begun = true,
            },
            At::Size { .. } | At::Extension(_) | At::SizeEnd(_) => self.chunk_line(byte),
            At::Body(_) | At::Data(_) | At::Elsewhere => {}
        }
    }

    fn chunk_line(&mut self, byte: &mut u8) {
        let digit = char::from(*byte).to_digit(16).map(u64::from);
        let next = match (&self.0, *byte, digit) {
            (At::Size { size, digits }, _, Some(digit)) if *digits < SIZE_DIGITS_MAX => At::Size {
                size: (size << 4) | digit,
                digits: digits + 1,
            },
            (At::Size { size, digits: 1.. } | At::Extension(size), b'\r', _) => At::SizeEnd(*size),
            (At::Size { size, digits: 1.. }, b';', _) => At::Extension(*size),
            (At::Extension(size), b'\t' | b' '..=b'~', _) => At::Extension(*size),
            (At::SizeEnd(0), b'\n', _) => At::Trailers(false),
            (At::SizeEnd(size), b'\n', _) => At::Data(size.saturating_add(2)),
            _ => {
                // Nowhere allowed in a chunk's line but at its end, where anything else is an error already.
                if !matches!(self.0, At::SizeEnd(_)) {
                    *byte = b'\n';
                }
                At::Elsewhere
            }
        };
        self.0 = next;
    }
}

enum Step {
    More,
    Bad,
    End,
}

impl Head {
    fn step(&mut self, byte: u8) -> Step {
        if byte != b'\n' {
            if self.line.len() < LINE_BYTES_MAX {
                self.line.push(byte);
            }
            return Step::More;
        }
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        if line.is_empty() {
            return if self.begun { Step::End } else { Step::More };
        }
        if !std::mem::replace(&mut self.begun, true) {
            return Step::More;
        }
        let (name, value) = match line.iter().position(|b| *b == b':') {
            Some(colon) => line.split_at(colon),
            None => return Step::More, // no header line: hyper's to refuse
        };
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let text = std::str::from_utf8(value).unwrap_or_default();
            let length = text.trim_start_matches(':').trim().parse().unwrap_or(0);
            if self.length.replace(length).is_some() || line.len() >= LINE_BYTES_MAX - 1 {
                return Step::Bad;
            }
        }
        if self.chunked && self.length.is_some() {
            Step::Bad
        } else {
            Step::More
        }
    }
}

fn size() -> At {
    At::Size { size: 0, digits: 0 }
}

/// How many of `there` more bytes belong to a run of `left`, of which one has been taken.
fn take(left: u64, there: usize) -> usize {
    usize::try_from(left.saturating_sub(1)).map_or(there, |left| left.min(there))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";

    /// What hyper gets to see, read in pieces of this size.
    fn passed(text: &str, piece: usize) -> Vec<u8> {
        let (mut guard, mut bytes) = (FramingGuard::default(), text.as_bytes().to_vec());
        for chunk in bytes.chunks_mut(piece.max(1)) {
            guard.look(chunk);
        }
        bytes
    }

    fn good(text: &str) {
        // A second, bad request behind it is still found, so the end was found too.
        let then = format!("{text}{NEXT}");
        let bad = format!("{text}GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n");
        for piece in [1, 7, 4096] {
            assert_eq!(passed(&then, piece), then.as_bytes(), "{text:?}");
            assert_ne!(passed(&bad, piece), bad.as_bytes(), "{text:?}");
        }
    }

    fn bad(text: &str) {
        for piece in [1, 7, 4096] {
            assert_ne!(passed(text, piece), text.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn requests_with_one_framing_pass_untouched() {
        good(NEXT);
        good("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        good("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
        good("POST / HTTP/1.1\r\nContent-Length: 5\r\nX: content-length: 7\r\n\r\nhello");
        good("POST / HTTP/1.1\r\ncontent-length:5\r\n\r\nGET /");
        good("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        good(
            "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: 1\r\n\r\n",
        );
        good(
            "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
        );
    }

    #[test]
    fn what_hyper_would_mend_is_spoilt() {
        bad("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
        bad("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-LENGTH: 5\r\n\r\n0\r\n\r\n");
        bad("POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello");
        for line in [
            "5;\0",
            "5;\u{1}a",
            "5 ",
            "-1",
            "0x5",
            ";a",
            "",
            "10000000000000000",
        ] {
            bad(&format!(
                "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{line}\r\nhello\r\n0\r\n\r\n"
            ));
        }
        bad(&format!(
            "POST / HTTP/1.1\r\nContent-Length:{}5\r\n\r\nhello",
            " ".repeat(200)
        ));
    }

    #[test]
    fn http2_and_tunnels_are_left_alone() {
        let text = "Content-Length: 1\r\nContent-Length: 1\r\n\r\n";
        let http2 = format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nX\r\n{text}");
        assert_eq!(passed(&http2, 5), http2.as_bytes());
        let mut guard = FramingGuard::default();
        guard.leave();
        let mut bytes = format!("GET / HTTP/1.1\r\n{text}").into_bytes();
        let before = bytes.clone();
        guard.look(&mut bytes);
        assert_eq!(bytes, before);
        bad(&format!("PRI / HTTP/1.1\r\n{text}"));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in "(GET|PRI) \\* HTTP/[12].[01]\r\n(Content-Length: [0-9]{1,2}\r\n|Transfer-Encoding: chunked\r\n|A: b\r\n){0,3}\r\n[0-9a;\r\n]{0,20}", piece in 1usize..9) {
            prop_assert_eq!(passed(&text, piece), passed(&text, 4096));
        }
    }
}
