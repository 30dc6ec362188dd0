//! Scalars with a meaning: durations, sizes, rates, and names of where a value or secret is.
//!
//! Texts only; bounds belong to the keys (`check.rs`). A refusal reads `fault; remedy`, which `read.rs` takes apart.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de};

use super::read::Given;

/// A duration such as `30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A size such as `64KiB`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

/// A rate such as `60/m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u64,
    /// In what time.
    pub per: Duration,
}

const SPAN_UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

impl Span {
    /// Reads a whole number and one unit: `ms`, `s`, `m`, `h` or `d`.
    pub fn parse(text: &str) -> Option<Self> {
        with_unit(text, SPAN_UNITS).map(|ms| Self(Duration::from_millis(ms)))
    }
}

impl Size {
    /// Reads a whole number and one unit: `B`, `KiB`, `MiB` or `GiB`.
    pub fn parse(text: &str) -> Option<Self> {
        with_unit(text, SIZE_UNITS).map(Self)
    }
}

impl Rate {
    /// Reads a count above zero, a slash and `s`, `m`, `h` or `d`.
    pub fn parse(text: &str) -> Option<Self> {
        let (count, unit) = text.split_once('/')?;
        let count = whole(count).filter(|count| *count > 0)?;
        let (_, ms) = SPAN_UNITS
            .iter()
            .find(|(name, _)| *name == unit && *name != "ms")?;
        Some(Self {
            count,
            per: Duration::from_millis(*ms),
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        show(ms, SPAN_UNITS, f)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.0, SIZE_UNITS, f)
    }
}

fn whole(text: &str) -> Option<u64> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    whole(number)?.checked_mul(*factor)
}

/// In the largest unit that leaves no remainder.
fn show(amount: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let fits = |(_, factor): &&(&str, u64)| amount >= *factor && amount.is_multiple_of(*factor);
    match units.iter().rev().find(fits) {
        Some((name, factor)) => write!(f, "{}{name}", amount / factor),
        None => write!(f, "{amount}{}", units.first().map_or("", |(name, _)| name)),
    }
}

macro_rules! text_value {
    ($type:ident, $pattern:literal, $refusal:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(text.trim()).ok_or_else(|| de::Error::custom($refusal))
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

text_value!(
    Span,
    r"^([0-9]+(ms|s|m|h|d)|.*\$\{.*)$",
    "is no duration; write a whole number with its unit, such as 500ms, 30s, 5m or 1h"
);
text_value!(
    Size,
    r"^([0-9]+(B|KiB|MiB|GiB)|.*\$\{.*)$",
    "is no size; write a whole number with its unit, such as 64KiB, 16MiB or 1GiB"
);
text_value!(
    Rate,
    r"^([1-9][0-9]*/[smhd]|.*\$\{.*)$",
    "is no rate; write calls per time, such as 60/m or 5/s"
);

/// Where a value is: in the file itself, in a variable or in another file. No `Debug`: it may be a misplaced secret.
pub enum Source {
    /// Written in the configuration.
    Inline(String),
    /// `{env: NAME}` or `{file: PATH}`; whether exactly one is given is checked by whoever resolves it.
    Named {
        /// The variable's name.
        env: Given<String>,
        /// The file's path, from the working directory.
        file: Given<String>,
    },
}

/// A value that may be written in the file or named.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct TextSource(pub Source);

/// A secret: only its place is written.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct SecretSource(pub Source);

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SourceVisitor;

        impl<'de> Visitor<'de> for SourceVisitor {
            type Value = Source;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("{env: NAME} or {file: PATH}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Source, E> {
                Ok(Source::Inline(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Source, A::Error> {
                let (mut env, mut file) = (Given::default(), Given::default());
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "env" => env = map.next_value()?,
                        // The reader lets no other key through.
                        _ => file = map.next_value()?,
                    }
                }
                Ok(Source::Named { env, file })
            }
        }

        deserializer.deserialize_struct(SOURCE, &["env", "file"], SourceVisitor)
    }
}

/// The shape name by which the reader knows that a bare scalar is welcome too.
pub const SOURCE: &str = "Source";

fn reference_schema() -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "env": { "type": "string", "description": "Name of an environment variable." },
            "file": { "type": "string", "description": "Path of a file; one trailing line break is dropped." },
        },
        "additionalProperties": false,
        "minProperties": 1,
        "maxProperties": 1,
    })
}

impl JsonSchema for SecretSource {
    fn schema_name() -> Cow<'static, str> {
        "SecretSource".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        reference_schema()
    }
}

impl JsonSchema for TextSource {
    fn schema_name() -> Cow<'static, str> {
        "TextSource".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, reference_schema()] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_whole_number_and_a_unit() {
        let check = |text: &str, ms: Option<u64>| {
            assert_eq!(
                Span::parse(text),
                ms.map(|ms| Span(Duration::from_millis(ms))),
                "{text:?}"
            );
        };
        check("500ms", Some(500));
        check("30s", Some(30_000));
        check("5m", Some(300_000));
        check("1h", Some(3_600_000));
        check("2d", Some(172_800_000));
        check("0s", Some(0));
        for bad in [
            "",
            "30",
            "s",
            "-5s",
            "+5s",
            "1.5h",
            "5 m",
            "1h30m",
            "5M",
            "٣s",
            "1e3s",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn sizes_are_a_whole_number_and_a_binary_unit() {
        let check = |text: &str, bytes: Option<u64>| {
            assert_eq!(Size::parse(text), bytes.map(Size), "{text:?}");
        };
        check("512B", Some(512));
        check("64KiB", Some(65_536));
        check("16MiB", Some(16 << 20));
        check("1GiB", Some(1 << 30));
        for bad in [
            "",
            "64",
            "64KB",
            "64kib",
            "-1KiB",
            "1.5MiB",
            "64 KiB",
            "99999999999GiB",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn rates_are_a_count_and_a_time() {
        let rate = |count, secs| {
            Some(Rate {
                count,
                per: Duration::from_secs(secs),
            })
        };
        assert_eq!(Rate::parse("60/m"), rate(60, 60));
        assert_eq!(Rate::parse("5/s"), rate(5, 1));
        assert_eq!(Rate::parse("1/d"), rate(1, 86_400));
        for bad in [
            "", "60", "0/m", "/m", "60/", "60/ms", "60/2m", "-1/m", "6.5/m",
        ] {
            assert_eq!(Rate::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn printing_and_parsing_agree() {
        for text in ["0s", "500ms", "90s", "5m", "25h", "2d"] {
            assert_eq!(Span::parse(text).unwrap().to_string(), text);
        }
        for text in ["0B", "1000B", "64KiB", "16MiB", "3GiB"] {
            assert_eq!(Size::parse(text).unwrap().to_string(), text);
        }
    }
}
