//! `${…}` in the values that are read, followed as the Databricks CLI does, as far as that can be done without a workspace.
//!
//! A reference alone takes the referred value's place, whatever it is; within a text it must be a single value. Inner
//! references go first (`${var.${var.x}}`), and what comes out is read again, [`ROUNDS_MAX`] times. The CLI knows no escape:
//! in `$${a.b}` the first `$` is a dollar sign and the rest a reference. What only a deployment knows is [`Unresolved::Later`];
//! what can never be right is [`Unresolved::Wrong`]. Read `app.rs` next.

use std::borrow::Cow;
use std::cell::Cell;

use super::tree::{Tree, Value};
use super::variables::{Binding, Bindings};
use crate::config::Env;
use crate::domain::problem::nearest;

/// How often a text is read again, as in the CLI.
const ROUNDS_MAX: usize = 11;
/// How many references may lead to one another.
const STEPS_MAX: usize = 64;
/// How many references are followed in one bundle: doubling ones come to an end here.
const LOOKUPS_MAX: usize = 20_000;
/// The longest text that references may make, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Resources whose name gets a prefix in development mode or by `presets.name_prefix`; apps, volumes and Lakebase do not.
const PREFIXED: [&str; 13] = [
    "alerts",
    "catalogs",
    "clusters",
    "dashboards",
    "experiments",
    "genie_spaces",
    "jobs",
    "model_serving_endpoints",
    "models",
    "pipelines",
    "registered_models",
    "schemas",
    "sql_warehouses",
];

/// Why a value is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolved {
    /// Only a workspace or a deployment knows it: why, and what can be done.
    Later(String, String),
    /// It can never be right: why, and what would be.
    Wrong(String, String),
}

impl Unresolved {
    fn later(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Later(message.into(), hint.into())
    }

    fn wrong(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Wrong(message.into(), hint.into())
    }
}

/// Follows references in one bundle.
pub struct Resolver<'a> {
    root: &'a Tree,
    variables: &'a Bindings,
    env: &'a Env,
    lookups: Cell<usize>,
}

/// A step of a reference: a key, or a place in a list.
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// A text taken apart.
enum Token<'a> {
    Plain(&'a str),
    Reference(&'a str),
}

/// The references that led here.
type Trail = Vec<String>;

impl<'a> Resolver<'a> {
    /// Over the merged tree, with the variables' values.
    pub fn new(root: &'a Tree, variables: &'a Bindings, env: &'a Env) -> Self {
        Self {
            root,
            variables,
            env,
            lookups: Cell::new(0),
        }
    }

    /// The value itself: where it is a text with references, what they stand for. Inside lists and mappings nothing is
    /// followed yet.
    ///
    /// # Errors
    /// Why it is not known.
    pub fn value<'t>(&self, tree: &'t Tree) -> Result<Cow<'t, Tree>, Unresolved> {
        match &tree.value {
            Value::Text(text) if text.contains("${") => {
                let mut found = self.text(text, &mut Trail::new())?;
                // The place where it is used is the one to look at.
                (found.file, found.line) = (tree.file, tree.line);
                Ok(Cow::Owned(found))
            }
            Value::Text(_) | Value::Null | Value::List(_) | Value::Map(_) => {
                Ok(Cow::Borrowed(tree))
            }
        }
    }

    fn text(&self, text: &str, trail: &mut Trail) -> Result<Tree, Unresolved> {
        let mut text = text.to_owned();
        for _ in 0..ROUNDS_MAX {
            let tokens = tokens(&text)?;
            let mut references = tokens.iter().filter(|t| matches!(t, Token::Reference(_)));
            if references.next().is_none() {
                return Ok(Tree::made(Value::Text(text)));
            }
            if let [Token::Reference(reference)] = tokens[..] {
                return self.reference(reference, trail);
            }
            let mut out = String::new();
            for token in tokens {
                match token {
                    Token::Plain(plain) => out.push_str(plain),
                    Token::Reference(reference) => {
                        let found = self.reference(reference, trail)?;
                        let Value::Text(found) = found.value else {
                            let is = found.value.kind();
                            let message =
                                format!("`${{{reference}}}` is {is} and stands inside a text");
                            return Err(Unresolved::wrong(message, "refer to a single value"));
                        };
                        out.push_str(&found);
                    }
                }
                if out.len() > TEXT_BYTES_MAX {
                    let message = "its references make more than 64 KiB of text";
                    return Err(Unresolved::wrong(message, "write the value out"));
                }
            }
            text = out;
        }
        Err(too_deep())
    }

    /// What a reference stands for, its own references followed.
    fn reference(&self, reference: &str, trail: &mut Trail) -> Result<Tree, Unresolved> {
        self.lookups.set(self.lookups.get() + 1);
        if trail.len() >= STEPS_MAX || self.lookups.get() > LOOKUPS_MAX {
            return Err(too_deep());
        }
        if trail.iter().any(|earlier| earlier == reference) {
            let circle = trail.join(" -> ");
            let message = format!("the references go in a circle: {circle} -> {reference}");
            return Err(Unresolved::wrong(
                message,
                "give one of them a value of its own",
            ));
        }
        trail.push(reference.to_owned());
        let found = self.look_up(reference, trail);
        trail.pop();
        found
    }

    fn look_up(&self, reference: &str, trail: &mut Trail) -> Result<Tree, Unresolved> {
        let steps = steps(reference);
        match steps[..] {
            [Step::Key("var"), Step::Key(name), ref rest @ ..]
            | [
                Step::Key("variables"),
                Step::Key(name),
                Step::Key("value"),
                ref rest @ ..,
            ] => {
                let value = self.variable(name)?;
                let found = self.descend(value, rest, trail)?;
                found.ok_or_else(|| nothing_there(reference, "the variable has no such part"))
            }
            [Step::Key("var" | "variables"), ..] => {
                Err(nothing_there(reference, "write ${var.NAME}"))
            }
            [
                Step::Key("resources"),
                Step::Key(kind),
                Step::Key(key),
                Step::Key("name"),
            ] if PREFIXED.contains(&kind) && self.prefixes() => {
                self.resource_exists(kind, key)?;
                let message = format!(
                    "`${{{reference}}}` gets a prefix at deployment (development mode or presets.name_prefix)"
                );
                Err(Unresolved::later(message, PIN))
            }
            [Step::Key("workspace"), Step::Key("host")]
                if self.root.at(&["workspace", "host"]).is_none() =>
            {
                let host = self
                    .env
                    .get("DATABRICKS_HOST")
                    .filter(|host| !host.is_empty());
                let text = host.map(|host| Tree::made(Value::Text(host.to_owned())));
                text.ok_or_else(|| later(reference, "is not known here"))
            }
            ref steps => match self.descend(self.root, steps, trail)? {
                Some(found) => Ok(found),
                None => Err(self.unknown(reference, steps)),
            },
        }
    }

    /// Why a path leads to nothing.
    fn unknown(&self, reference: &str, steps: &[Step<'_>]) -> Unresolved {
        match steps {
            [Step::Key("resources"), Step::Key(kind), Step::Key(key), ..] => {
                match self.resource_exists(kind, key) {
                    Ok(()) => later(reference, "is known only after a deployment"),
                    Err(fault) => fault,
                }
            }
            [Step::Key("bundle" | "workspace"), ..] => {
                later(reference, "is known only to the CLI with a workspace")
            }
            _ => nothing_there(
                reference,
                "the CLI resolves ${var.…}, ${bundle.…}, ${workspace.…} and ${resources.…}",
            ),
        }
    }

    fn variable(&self, name: &str) -> Result<&Tree, Unresolved> {
        let remedy = || format!("pass --var {name}=…, or set BUNDLE_VAR_{name}");
        match self.variables.get(name) {
            Some(Binding::Value(tree)) => Ok(tree),
            Some(Binding::Lookup) => {
                let message = format!("the variable `{name}` is looked up in the workspace");
                Err(Unresolved::later(message, remedy()))
            }
            Some(Binding::Missing) => {
                let message = format!("the variable `{name}` has no value");
                let hint = format!("{}, or give it a default", remedy());
                Err(Unresolved::later(message, hint))
            }
            None => {
                let known = self.variables.keys().map(String::as_str);
                let message = format!("there is no variable `{name}`");
                let hint = match nearest(name, known) {
                    Some(near) => format!("did you mean ${{var.{near}}}?"),
                    None => "declare it under `variables`".to_owned(),
                };
                Err(Unresolved::wrong(message, hint))
            }
        }
    }

    /// What stands at the end of the steps; a text on the way or at the end is followed.
    fn descend(
        &self,
        from: &Tree,
        steps: &[Step<'_>],
        trail: &mut Trail,
    ) -> Result<Option<Tree>, Unresolved> {
        let mut here = Cow::Borrowed(from);
        for step in steps {
            if let Value::Text(text) = &here.value {
                here = Cow::Owned(self.text(text, trail)?);
            }
            let next = match step {
                Step::Key(key) => here.get(key),
                Step::Index(index) => here.items().get(*index),
            };
            let Some(next) = next.cloned() else {
                return Ok(None);
            };
            here = Cow::Owned(next);
        }
        match &here.value {
            Value::Text(text) => self.text(text, trail).map(Some),
            Value::Null | Value::List(_) | Value::Map(_) => Ok(Some(here.into_owned())),
        }
    }

    fn resource_exists(&self, kind: &str, key: &str) -> Result<(), Unresolved> {
        let resources = self
            .root
            .at(&["resources", kind])
            .map_or(&[][..], Tree::entries);
        if resources.iter().any(|(known, _)| known == key) {
            return Ok(());
        }
        let message = format!("the bundle declares no resources.{kind}.{key}");
        let known = resources.iter().map(|(known, _)| known.as_str());
        let hint = match nearest(key, known) {
            Some(near) => format!("did you mean resources.{kind}.{near}?"),
            None => "declare it, or write the id itself".to_owned(),
        };
        Err(Unresolved::wrong(message, hint))
    }

    fn prefixes(&self) -> bool {
        let mode = self.root.at(&["bundle", "mode"]).and_then(Tree::text);
        mode == Some("development") || self.root.at(&["presets", "name_prefix"]).is_some()
    }
}

/// What to do where a reference cannot be followed here.
const PIN: &str = "deploy, and write the id itself or a variable that BUNDLE_VAR_… can set";

fn later(reference: &str, why: &str) -> Unresolved {
    Unresolved::later(format!("`${{{reference}}}` {why}"), PIN)
}

fn nothing_there(reference: &str, hint: &str) -> Unresolved {
    Unresolved::wrong(format!("`${{{reference}}}` refers to nothing"), hint)
}

fn too_deep() -> Unresolved {
    let message = "its references lead too far";
    Unresolved::wrong(message, "refer to fewer variables, or write the value out")
}

/// Takes a text apart; what stands before an inner `${` is plain.
fn tokens(text: &str) -> Result<Vec<Token<'_>>, Unresolved> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, found) = rest.split_at(start);
        let inner = found.get(2..).unwrap_or_default();
        let Some(end) = inner.find('}') else {
            return Err(malformed("`${` has no end"));
        };
        if let Some(nested) = inner.get(..end).and_then(|inner| inner.find("${")) {
            let (outer, after) = rest.split_at(start + 2 + nested);
            tokens.push(Token::Plain(outer));
            rest = after;
            continue;
        }
        let (name, after) = inner.split_at(end);
        if !is_reference(name) {
            return Err(malformed("`${…}` holds no name that the CLI reads"));
        }
        if !before.is_empty() {
            tokens.push(Token::Plain(before));
        }
        tokens.push(Token::Reference(name));
        rest = after.get(1..).unwrap_or_default();
    }
    if !rest.is_empty() {
        tokens.push(Token::Plain(rest));
    }
    Ok(tokens)
}

fn malformed(message: &str) -> Unresolved {
    Unresolved::wrong(message, "write ${var.NAME}, or the value itself")
}

/// Names joined by dots, each perhaps with places in a list behind it: `a.b-c[0].d`.
fn is_reference(name: &str) -> bool {
    let key = |key: &str| {
        let last = key.bytes().next_back();
        key.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && last.is_some_and(|b| b.is_ascii_alphanumeric())
    };
    name.split('.')
        .all(|segment| match segment.split_once('[') {
            None => key(segment),
            Some((name, places)) => {
                let places = places.strip_suffix(']').unwrap_or_default();
                let number = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
                key(name) && places.split("][").all(number)
            }
        })
}

fn steps(reference: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for segment in reference.split('.') {
        let mut pieces = segment.split('[');
        steps.extend(pieces.next().map(Step::Key));
        let places = pieces.map(|piece| piece.trim_end_matches(']').parse());
        // Larger than any list is a place that is not there.
        steps.extend(places.map(|place| Step::Index(place.unwrap_or(usize::MAX))));
    }
    steps
}
