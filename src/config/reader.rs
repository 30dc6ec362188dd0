//! A serde deserializer over the tree that reports instead of stopping: kinds of values, words, and unknown, renamed or
//! repeated keys (serde tells it each shape's field names).
//!
//! Knows no key of the configuration but the renamed ones. Read `read.rs` for the values it fills.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::{StrDeserializer, StringDeserializer, U64Deserializer};
use serde::de::{
    self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};

use super::bundle::section::BUNDLE;
use super::read::GIVEN;
use super::substitute::key_path;
use super::values::SOURCE;
use super::yaml::{Entry, Node, Value};
use crate::domain::problem::{Problem, nearest};

/// Why a value could not be read.
#[derive(Debug)]
pub enum Fault {
    /// Its problem is on the list.
    Reported,
    /// What is wrong, and what would be right.
    Says(String, Option<String>),
}

impl Fault {
    fn hinted(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Says(message.into(), Some(hint.into()))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reported => "already reported",
            Self::Says(message, _) => message,
        })
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let message = message.to_string();
        match message.split_once("; ") {
            Some((fault, remedy)) => Self::hinted(fault, remedy),
            None => Self::Says(message, None),
        }
    }
}

/// A deserializer over one node.
pub struct Reader<'a> {
    node: &'a Node,
    path: String,
    sink: &'a RefCell<Vec<Problem>>,
}

impl<'a> Reader<'a> {
    /// Begins at the root; problems go to the list.
    pub fn new(node: &'a Node, sink: &'a RefCell<Vec<Problem>>) -> Self {
        Self {
            node,
            path: String::new(),
            sink,
        }
    }

    fn text(&self, expected: &str) -> Result<&'a str, Fault> {
        match &self.node.value {
            Value::Text(text) => Ok(text),
            Value::Faulty => Err(Fault::Reported),
            Value::Null => Err(Fault::hinted(
                "has no value",
                format!("write {expected}, or remove the key"),
            )),
            Value::List(_) => Err(Fault::hinted("is a list", format!("write {expected}"))),
            Value::Map(_) => Err(Fault::hinted("is a mapping", format!("write {expected}"))),
        }
    }

    fn entries(&self) -> Result<&'a [Entry], Fault> {
        match &self.node.value {
            Value::Map(entries) => Ok(entries),
            Value::Null => Ok(&[]), // a section whose keys are all commented out
            Value::Faulty => Err(Fault::Reported),
            Value::Text(_) | Value::List(_) => Err(Fault::hinted(
                "must be a mapping",
                "write its keys indented below it",
            )),
        }
    }

    /// The entries without repetitions, which are reported; `known` is `None` where every key is welcome.
    fn fields(&self, known: Option<&[&'static str]>) -> Result<Vec<&'a Entry>, Fault> {
        let mut kept: Vec<&Entry> = Vec::new();
        for entry in self.entries()? {
            let problem = if let Some(first) = kept.iter().find(|e| e.key == entry.key) {
                let message = format!("this key is already given in line {}", first.line);
                Problem::new(key_path(&self.path, &entry.key), message).hint("keep one of the two")
            } else if let Some(known) = known.filter(|k| !k.contains(&entry.key.as_str())) {
                unknown_key(&self.path, &entry.key, known)
            } else {
                kept.push(entry);
                continue;
            };
            self.sink.borrow_mut().push(problem.at(entry.line));
        }
        Ok(kept)
    }
}

/// Names people bring along from elsewhere: path pattern, and what the key is called here.
const RENAMED: &[(&str, &str)] = &[
    ("databricks", "workspace"),
    ("workspace.url", "workspace.host"),
    ("inbound.port", "inbound.listen"),
    ("inbound.upstream", "inbound.agent"),
    ("inbound.header", "inbound.token_header"),
    ("users.audiences", "users.audience"),
    ("users.ceiling", "users.scopes"),
    ("app.id", "app.client_id"),
    ("app.secret", "app.client_secret"),
    ("outbound.port", "outbound.listen"),
    ("outbound.client", "outbound.local_client"),
    ("routes[].identity", "routes[].as"),
    ("routes[].run_as", "routes[].as"),
    ("routes[].methods", "routes[].method"),
    ("policy", "routes"),
    ("audit.path", "audit.file"),
    ("logging", "log"),
];

fn unknown_key(parent: &str, key: &str, known: &[&'static str]) -> Problem {
    let path = key_path(parent, key);
    if key == "<<" {
        return Problem::new(path, "YAML merge keys are not accepted").hint("write the keys out");
    }
    let pattern = without_indices(&path);
    if let Some((_, new)) = RENAMED.iter().find(|(old, _)| *old == pattern) {
        return Problem::new(path, "unknown key").hint(format!("it is called `{new}` here"));
    }
    let hint = match nearest(key, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known keys: {}", known.join(", ")),
    };
    Problem::new(path, "unknown key").hint(hint)
}

/// `routes[2].as` to `routes[].as`.
fn without_indices(path: &str) -> String {
    path.chars().filter(|c| !c.is_ascii_digit()).collect()
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Map(_) => self.deserialize_map(visitor),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Null | Value::Text(_) | Value::Faulty => self.deserialize_string(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == GIVEN {
            visitor.visit_map(Placed {
                reader: self,
                served: 0,
            })
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(self.text("one value")?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_string(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.text("true or false")? {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => Err(Fault::hinted("is no truth value", "write true or false")),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let text = self.text("a whole number")?;
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits => visitor.visit_u64(number),
            Ok(_) | Err(_) => Err(Fault::hinted(
                "is no whole number",
                "write digits only, such as 100",
            )),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::List(items) => visitor.visit_seq(Items {
                items: items.iter(),
                index: 0,
                reader: self,
            }),
            Value::Faulty => Err(Fault::Reported),
            Value::Null => Err(Fault::hinted(
                "has no value",
                "write [] for an empty list, or remove the key",
            )),
            Value::Text(_) => Err(Fault::hinted("must be a list", "write it as [VALUE]")),
            Value::Map(_) => Err(Fault::hinted(
                "must be a list",
                "begin each entry with `- `",
            )),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let fields = self.fields(None)?;
        visitor.visit_map(Fields::new(self, fields))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let bare = match name {
            SOURCE => Some("{env: NAME} or {file: PATH}"),
            BUNDLE => Some("a path, or {file: PATH, app: KEY, target: NAME}"),
            _ => None,
        };
        if let Some(expected) = bare.filter(|_| !matches!(self.node.value, Value::Map(_))) {
            return visitor.visit_str(self.text(expected)?);
        }
        let fields = self.fields(Some(known))?;
        visitor.visit_map(Fields::new(self, fields))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let expected = words.join(", ");
        let text = self.text(&format!("one of {expected}"))?;
        if !words.contains(&text) {
            let hint = match nearest(text, words.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "write one of them".to_owned(),
            };
            return Err(Fault::hinted(format!("must be one of {expected}"), hint));
        }
        let word: StrDeserializer<'_, Fault> = text.into_deserializer();
        visitor.visit_enum(word)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 f64 char bytes byte_buf option unit unit_struct tuple tuple_struct
        identifier ignored_any
    }
}

/// Serves path, line and value to [`super::read::Given`], and reports what is wrong with the value.
struct Placed<'a> {
    reader: Reader<'a>,
    served: u8,
}

impl<'de> MapAccess<'de> for Placed<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, _: K) -> Result<Option<K::Value>, Fault> {
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let Reader { node, path, sink } = &self.reader;
        self.served += 1;
        match self.served {
            1 => seed.deserialize(StringDeserializer::<Fault>::new(path.clone())),
            2 => seed.deserialize(U64Deserializer::<Fault>::new(node.line as u64)),
            _ => {
                let inner = Reader {
                    node,
                    path: path.clone(),
                    sink,
                };
                seed.deserialize(inner).inspect_err(|fault| {
                    if let Fault::Says(message, hint) = fault {
                        let mut problem = Problem::new(path.clone(), message).at(node.line);
                        problem.hint.clone_from(hint);
                        sink.borrow_mut().push(problem);
                    }
                })
            }
        }
    }
}

struct Items<'a> {
    items: std::slice::Iter<'a, Node>,
    index: usize,
    reader: Reader<'a>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        let Some(node) = self.items.next() else {
            return Ok(None);
        };
        let path = format!("{}[{}]", self.reader.path, self.index);
        self.index += 1;
        let item = Reader {
            node,
            path,
            sink: self.reader.sink,
        };
        seed.deserialize(item).map(Some)
    }
}

struct Fields<'a> {
    fields: std::vec::IntoIter<&'a Entry>,
    current: Option<&'a Entry>,
    reader: Reader<'a>,
}

impl<'a> Fields<'a> {
    fn new(reader: Reader<'a>, fields: Vec<&'a Entry>) -> Self {
        Self {
            fields: fields.into_iter(),
            current: None,
            reader,
        }
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        self.current = self.fields.next();
        let Some(entry) = self.current else {
            return Ok(None);
        };
        let key: StrDeserializer<'_, Fault> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let entry = self.current.take().ok_or(Fault::Reported)?;
        seed.deserialize(Reader {
            node: &entry.node,
            path: key_path(&self.reader.path, &entry.key),
            sink: self.reader.sink,
        })
    }
}
