//! Writing JSON by hand into a byte buffer: no intermediate value, no allocation of its own.
//!
//! Knows nothing of records. What it writes is valid JSON and safe to show on a terminal, whatever the text (SECURITY R35).

use super::super::identity::is_plain;

/// The longest text of one field, in characters; what is beyond is cut and counted in the text itself.
/// Longer than any name (`NAME_CHARS_MAX`), so that two users never become one.
pub const AUDIT_FIELD_CHARS_MAX: usize = 1024;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A quoted string: escaped, and cut at [`AUDIT_FIELD_CHARS_MAX`].
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if text.len() <= AUDIT_FIELD_CHARS_MAX && text.bytes().all(is_verbatim) {
        out.extend_from_slice(text.as_bytes());
    } else {
        let mut characters = text.chars();
        for character in characters.by_ref().take(AUDIT_FIELD_CHARS_MAX) {
            push_character(out, character);
        }
        let cut = characters.count();
        if cut > 0 {
            out.extend_from_slice("…[cut ".as_bytes());
            push_number(out, cut as u64);
            out.push(b']');
        }
    }
    out.push(b'"');
}

/// A decimal number.
pub fn push_number(out: &mut Vec<u8>, mut number: u64) {
    // u64::MAX has 20 digits.
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        used += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// Two lower-case hex digits per byte.
pub fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        push_nibble(out, u32::from(byte >> 4));
        push_nibble(out, u32::from(*byte));
    }
}

fn push_nibble(out: &mut Vec<u8>, value: u32) {
    out.push(HEX.get((value & 15) as usize).copied().unwrap_or(b'0'));
}

/// Printable ASCII but the two characters that JSON reserves.
fn is_verbatim(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

fn push_character(out: &mut Vec<u8>, character: char) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        _ if is_plain(character) && !is_invisible(character) => {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        _ => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(b"\\u");
                for shift in [12, 8, 4, 0] {
                    push_nibble(out, u32::from(*unit) >> shift);
                }
            }
        }
    }
}

/// Tags and annotation marks: they show nothing and may carry a hidden message.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{e0000}'..='\u{e007f}' | '\u{fff9}'..='\u{fffb}')
}
