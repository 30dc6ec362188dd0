//! Where WebSocket frames begin and end (RFC 6455 section 5.2), and the one frame that the sidecar ever writes: the close.
//!
//! Looks at heads only; what frames say is never read. A control frame may stand between any two frames, also inside a fragmented
//! message (section 5.4), and extensions leave the lengths as they are, so the end of a frame is all that must be known.

/// Two bytes, eight of a long length, four of a mask.
const HEAD_BYTES_MAX: usize = 14;
const CLOSE: u8 = 0x8;
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
/// A control frame says no more (section 5.5), two bytes of it are the code.
const REASON_BYTES_MAX: usize = 123;

/// Follows one direction of a tunnel.
#[derive(Debug, Default)]
pub struct Cursor {
    head: [u8; HEAD_BYTES_MAX],
    /// Bytes of a head that has begun.
    got: usize,
    /// Bytes of the payload that are still to come.
    left: u64,
    closed: bool,
}

impl Cursor {
    /// Whether the next byte begins a frame.
    pub fn at_boundary(&self) -> bool {
        self.got == 0 && self.left == 0
    }

    /// Whether this side has said its close: nothing may follow.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Follows all of the bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.feed_to_boundary(rest);
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// Follows the bytes up to the first end of a frame; how many that are.
    pub fn feed_to_boundary(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        for byte in bytes {
            if self.left > 0 {
                break;
            }
            taken += 1;
            if self.head_byte(*byte) && self.left == 0 {
                return taken; // a frame without a payload
            }
        }
        let there = u64::try_from(bytes.len() - taken).unwrap_or(u64::MAX);
        let payload = self.left.min(there);
        self.left -= payload;
        taken + usize::try_from(payload).unwrap_or(usize::MAX)
    }

    /// Takes one byte of a head; true when it was the last one.
    fn head_byte(&mut self, byte: u8) -> bool {
        if let Some(place) = self.head.get_mut(self.got) {
            *place = byte;
        }
        self.got += 1;
        let [first, second, ..] = self.head;
        if self.got < 2 {
            return false;
        }
        let long = match second & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & MASKED == 0 { 0 } else { 4 };
        if self.got < 2 + long + mask {
            return false;
        }
        let length = self.head.get(2..2 + long).unwrap_or_default();
        let length = length
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        self.left = if long == 0 {
            u64::from(second & !MASKED)
        } else {
            length
        };
        self.got = 0;
        self.closed |= first & 0x0F == CLOSE;
        true
    }
}

/// A close frame; `mask` on the way to the server, which takes no unmasked ones.
pub fn close(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let reason = reason.as_bytes();
    let reason = reason
        .get(..REASON_BYTES_MAX.min(reason.len()))
        .unwrap_or_default();
    let payload = [&code.to_be_bytes()[..], reason].concat();
    let length = u8::try_from(payload.len()).unwrap_or(u8::MAX);
    let Some(mask) = mask else {
        return [&[FINAL | CLOSE, length][..], &payload].concat();
    };
    let masked = payload
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, key)| byte ^ key);
    let masked: Vec<u8> = masked.collect();
    [&[FINAL | CLOSE, MASKED | length][..], &mask, &masked].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask: &[u8] = if masked { &[1, 2, 3, 4] } else { &[] };
        let bit = if masked { MASKED } else { 0 };
        let head = match length {
            0..126 => vec![opcode, bit | u8::try_from(length).unwrap()],
            126..65_536 => [
                &[opcode, bit | 126][..],
                &u16::try_from(length).unwrap().to_be_bytes(),
            ]
            .concat(),
            _ => [&[opcode, bit | 127][..], &(length as u64).to_be_bytes()].concat(),
        };
        [&head[..], mask, &vec![0x81; length]].concat()
    }

    #[test]
    fn boundaries_are_found_however_the_bytes_are_cut() {
        let lengths = [0, 1, 125, 126, 65_535, 65_536, 70_000];
        let frames: Vec<Vec<u8>> = lengths
            .iter()
            .flat_map(|length| [frame(0x01, *length, true), frame(0x82, *length, false)])
            .collect();
        let mut ends = vec![];
        for frame in &frames {
            ends.push(ends.last().unwrap_or(&0) + frame.len());
        }
        let stream = frames.concat();
        for step in [1, 2, 3, 7, 1000, stream.len()] {
            let (mut cursor, mut found, mut at) = (Cursor::default(), vec![], 0);
            for piece in stream.chunks(step) {
                let mut rest = piece;
                while !rest.is_empty() {
                    let taken = cursor.feed_to_boundary(rest);
                    (at, rest) = (at + taken, &rest[taken..]);
                    if cursor.at_boundary() {
                        found.push(at);
                    }
                }
            }
            assert_eq!(found, ends, "{step}");
            assert!(!cursor.closed());
        }
    }

    #[test]
    fn a_close_is_noticed_and_the_own_one_is_well_formed() {
        let mut cursor = Cursor::default();
        cursor.feed(&frame(0x81, 10, false));
        assert!(!cursor.closed() && cursor.at_boundary());
        let own = close(4401, "because", None);
        assert_eq!(own, [&[0x88, 9, 0x11, 0x31][..], b"because"].concat());
        cursor.feed(&own);
        assert!(cursor.closed() && cursor.at_boundary());
        let mut masked = Cursor::default();
        masked.feed(&close(1000, &"x".repeat(500), Some([9, 8, 7, 6])));
        assert!(masked.closed() && masked.at_boundary());
    }
}
