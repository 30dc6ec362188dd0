//! The tree into the shapes of `raw.rs`, collecting every mistake: serde alone stops at the first one.
//!
//! Each field of a shape is a [`Given`]: reading one cannot fail, it only stays empty after its problem was reported.
//! Must not know what any key means. Read `reader.rs` (how problems are found) or `raw.rs` next.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::reader::Reader;
use super::yaml::Node;
use crate::domain::problem::Problem;

/// A value with its place, or nothing.
pub struct Given<T> {
    /// The key path, such as `routes[2].as`; empty when the key is absent.
    pub path: String,
    /// The line, from 1; 0 when the key is absent.
    pub line: usize,
    value: State<T>,
}

enum State<T> {
    Absent,
    /// Written wrongly, and reported already.
    Faulty,
    Read(T),
}

impl<T> Default for Given<T> {
    fn default() -> Self {
        Self {
            path: String::new(),
            line: 0,
            value: State::Absent,
        }
    }
}

impl<T> Given<T> {
    /// The value, if it was written and could be read.
    pub fn get(&self) -> Option<&T> {
        match &self.value {
            State::Read(value) => Some(value),
            State::Absent | State::Faulty => None,
        }
    }

    /// Whether the key is not in the file.
    pub fn is_absent(&self) -> bool {
        matches!(self.value, State::Absent)
    }

    /// A problem at this place.
    pub fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(self.path.clone(), message).at(self.line)
    }
}

impl<T: Default> Given<T> {
    /// The value, or the empty one.
    pub fn take(self) -> T {
        match self.value {
            State::Read(value) => value,
            State::Absent | State::Faulty => T::default(),
        }
    }
}

impl<T: schemars::JsonSchema> schemars::JsonSchema for Given<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        generator.subschema_for::<T>()
    }
}

/// Reads the whole tree; problems are added to the list.
pub fn read<T: for<'de> Deserialize<'de> + Default>(root: &Node, problems: &mut Vec<Problem>) -> T {
    let sink = RefCell::new(Vec::new());
    let value = Given::<T>::deserialize(Reader::new(root, &sink)).map(Given::take);
    problems.append(&mut sink.into_inner());
    value.unwrap_or_default()
}

/// The name by which [`Reader`] knows that place and value are asked for.
pub const GIVEN: &str = "Given";

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(GIVEN, GivenVisitor(PhantomData))
    }
}

struct GivenVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for GivenVisitor<T> {
    type Value = Given<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of the configuration tree")
    }

    /// The three parts that the reader serves, in its order.
    fn visit_map<A: MapAccess<'de>>(self, mut parts: A) -> Result<Given<T>, A::Error> {
        Ok(Given {
            path: parts.next_value()?,
            line: parts.next_value()?,
            value: parts.next_value().map_or(State::Faulty, State::Read),
        })
    }
}
