//! JSON read so that no other reader could understand it differently: token parts, key sets and request bodies.
//!
//! `serde_json::Value` keeps the last of two equal members and other readers keep the first, so a decision taken on a plain
//! `Value` may be about another document than the one the far side acts on. Knows nothing of what the document means.
//! Read `token.rs` next.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The deepest nesting that [`parse`] ever accepts, whatever its caller asks for: the reader below is recursive.
pub const JSON_DEPTH_MAX: usize = 100;

/// Why a document was refused. Holds no part of the document, so that it may be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// Not UTF-8, or led by a byte order mark.
    #[error("is not UTF-8 without a byte order mark")]
    Encoding,
    /// Not JSON; also a number outside of what a 64-bit float can hold and a lone surrogate.
    #[error("is not valid JSON at line {line} column {column}")]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1, in bytes.
        column: usize,
    },
    /// An object names a member twice.
    #[error("names the same member twice")]
    Duplicate,
    /// More objects and arrays inside one another than allowed.
    #[error("is nested too deeply")]
    TooDeep,
    /// Something follows the document.
    #[error("has data behind its end")]
    Trailing,
}

/// Reads one whole document. `depth_max` counts objects and arrays inside one another: `0` allows only a bare value, `1` an
/// object of bare values. It is capped at [`JSON_DEPTH_MAX`].
///
/// # Errors
/// [`JsonFault`] says what two readers could understand differently, or that it is no JSON.
pub fn parse(bytes: &[u8], depth_max: usize) -> Result<Value, JsonFault> {
    let text = std::str::from_utf8(bytes).map_err(|_| JsonFault::Encoding)?;
    if text.starts_with('\u{feff}') {
        return Err(JsonFault::Encoding);
    }
    let ours = Cell::new(None);
    let mut reader = serde_json::Deserializer::from_str(text);
    let seed = Strict {
        depth_left: depth_max.min(JSON_DEPTH_MAX),
        fault: &ours,
    };
    let value = seed.deserialize(&mut reader).map_err(|theirs| {
        ours.get().unwrap_or_else(|| JsonFault::Syntax {
            line: theirs.line(),
            column: theirs.column(),
        })
    })?;
    reader.end().map_err(|_| JsonFault::Trailing)?;
    Ok(value)
}

/// Builds a value and leaves in `fault` why it stopped: the reader's own error type carries only text.
#[derive(Clone, Copy)]
struct Strict<'a> {
    depth_left: usize,
    fault: &'a Cell<Option<JsonFault>>,
}

impl Strict<'_> {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Self { depth_left, ..self }),
            None => Err(self.refuse(JsonFault::TooDeep)),
        }
    }

    fn refuse<E: serde::de::Error>(self, fault: JsonFault) -> E {
        self.fault.set(Some(fault));
        E::custom(fault)
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut object = Map::new();
        // Names are compared as they are after unescaping, which is how every reader looks them up.
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(self.refuse(JsonFault::Duplicate));
            }
            object.insert(name, members.next_value_seed(inner)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(document: impl AsRef<[u8]>, expected: JsonFault) {
        let document = document.as_ref();
        assert_eq!(
            parse(document, 8),
            Err(expected),
            "{:?}",
            String::from_utf8_lossy(document)
        );
    }

    fn broken(document: impl AsRef<[u8]>) {
        let document = document.as_ref();
        assert!(
            matches!(parse(document, 8), Err(JsonFault::Syntax { .. })),
            "{:?} gave {:?}",
            String::from_utf8_lossy(document),
            parse(document, 8)
        );
    }

    #[test]
    fn a_member_named_twice_is_refused_at_any_depth_and_however_it_is_spelt() {
        refused(r#"{"a":1,"a":1}"#, JsonFault::Duplicate);
        refused(r#"{"a":1,"b":2,"a":3}"#, JsonFault::Duplicate);
        refused(r#"{"a":1,"\u0061":2}"#, JsonFault::Duplicate);
        refused(r#"{"\u0061":1,"a":2}"#, JsonFault::Duplicate);
        refused(r#"{"/":1,"\/":2}"#, JsonFault::Duplicate);
        refused(r#"{"😀":1,"\ud83d\ude00":2}"#, JsonFault::Duplicate);
        refused(r#"{"":1,"":2}"#, JsonFault::Duplicate);
        refused(r#"[{"x":{"a":null,"a":null}}]"#, JsonFault::Duplicate);
        refused(r#"{"x":[1,{"a":1,"a":2}]}"#, JsonFault::Duplicate);
        assert!(
            parse(br#"{"a":{"a":{"a":1}},"A":1}"#, 8).is_ok(),
            "other objects and other letter case are other members"
        );
    }

    #[test]
    fn nesting_is_counted_in_objects_and_arrays() {
        assert!(parse(b"1", 0).is_ok());
        assert_eq!(parse(b"[]", 0), Err(JsonFault::TooDeep));
        assert_eq!(parse(b"{}", 0), Err(JsonFault::TooDeep));
        assert!(parse(br#"{"a":1}"#, 1).is_ok());
        assert_eq!(parse(br#"{"a":[]}"#, 1), Err(JsonFault::TooDeep));
        assert!(parse(("[".repeat(8) + &"]".repeat(8)).as_bytes(), 8).is_ok());
        refused("[".repeat(9) + &"]".repeat(9), JsonFault::TooDeep);
        refused("[".repeat(1_000_000), JsonFault::TooDeep);
        refused("{\"a\":".repeat(1_000_000), JsonFault::TooDeep);
        assert_eq!(
            parse("[".repeat(JSON_DEPTH_MAX + 1).as_bytes(), usize::MAX),
            Err(JsonFault::TooDeep),
            "the cap holds whatever the caller asks for"
        );
        let deepest = "[".repeat(JSON_DEPTH_MAX) + &"]".repeat(JSON_DEPTH_MAX);
        assert!(parse(deepest.as_bytes(), usize::MAX).is_ok());
    }

    #[test]
    fn only_utf8_without_a_mark_is_read() {
        refused(b"\xef\xbb\xbf{}", JsonFault::Encoding);
        refused(b"\xff\xfe{\0}\0", JsonFault::Encoding);
        refused(b"{\"a\":\"\xc0\xaf\"}", JsonFault::Encoding);
        refused(b"{\"a\":\"\xed\xa0\x80\"}", JsonFault::Encoding);
        refused(b"{}\xff", JsonFault::Encoding);
        broken(b"{\0}\0");
        broken(b"\0{\0}");
    }

    #[test]
    fn nothing_may_follow_the_document() {
        for tail in ["{}", "x", "\0", ",", "]", "//", "\u{a0}", "\n1"] {
            refused(format!("{{}}{tail}"), JsonFault::Trailing);
        }
        assert!(parse(b" \r\n\t{} \r\n\t", 1).is_ok());
    }

    #[test]
    fn extensions_of_json_and_numbers_beyond_a_float_are_refused() {
        for document in [
            "",
            " ",
            "{",
            "{a:1}",
            "{'a':1}",
            "{\"a\":1,}",
            "[1,]",
            "[1 2]",
            "// c\n{}",
            "/**/{}",
            "NaN",
            "[NaN]",
            "[Infinity]",
            "[-Infinity]",
            "[1e400]",
            "[-1e400]",
            "[01]",
            "[+1]",
            "[.5]",
            "[1.]",
            "[0x1]",
            "[1_0]",
            "tru",
            "\"\n\"",
            "\"\\x41\"",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "\u{b}{}",
            "{\"a\"}",
            "{1:2}",
        ] {
            broken(document);
        }
        broken(format!("[{}]", "9".repeat(400)));
        assert_eq!(parse(b"1e-400", 0).unwrap(), serde_json::json!(0.0));
    }

    #[test]
    fn names_that_the_library_uses_inside_are_plain_members() {
        let tricky =
            br#"{"$serde_json::private::RawValue":"[1]","$serde_json::private::Number":"1"}"#;
        let value = parse(tricky, 1).unwrap();
        assert_eq!(value["$serde_json::private::RawValue"], "[1]");
        assert_eq!(value.as_object().unwrap().len(), 2);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|members| members.into_iter().collect::<Value>()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_what_is_read(value in any_value()) {
            prop_assert_eq!(parse(value.to_string().as_bytes(), 8), Ok(value.clone()));
            prop_assert_eq!(parse(serde_json::to_string_pretty(&value).unwrap().as_bytes(), 8), Ok(value));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes, 8);
        }

        #[test]
        fn it_never_reads_what_the_lenient_reader_refuses(text in "[\\[\\]{}\",:0-9a-c\\\\ue.+-]{0,24}") {
            if let Ok(value) = parse(text.as_bytes(), 8) {
                prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
            }
        }
    }
}
