//! Shapes of values and formats of ids: `projects/{p}/branches/{b}` takes a value apart, `{c}.{s}.{v}` puts an id together.
//!
//! Only what has one reading passes: a name never holds a separator of the text around it, so that `a.b` + `c` cannot pass for
//! `a` + `b.c`. Knows no request. `raw.rs` reads them from the catalogue, `ask` uses them.

use std::borrow::Cow;

use crate::domain::path::check_value;

/// What separates names in the ids of the platform.
const SEPARATORS: [char; 3] = ['.', '/', ':'];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Name {
        name: Box<str>,
        /// Takes everything that is left, slashes included.
        rest: bool,
    },
}

/// Literal text and names, alternating.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    text: Box<str>,
    parts: Vec<Part>,
}

/// The names of a shape with the pieces of the value that they stand for.
pub type Names<'s, 'v> = Vec<(&'s str, &'v str)>;

impl Shape {
    /// Reads `projects/{p}/branches/{b}`; `{name**}` at the end takes the rest.
    ///
    /// # Errors
    /// A sentence that names the fault.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts: Vec<Part> = Vec::new();
        let mut left = text;
        while !left.is_empty() {
            if let Some(Part::Name { rest: true, .. }) = parts.last() {
                return Err(format!("`{text}`: nothing can stand behind **"));
            }
            let Some(inner) = left.strip_prefix('{') else {
                let end = left.find('{').unwrap_or(left.len());
                let (literal, after) = left.split_at(end);
                parts.push(Part::Text(literal.into()));
                left = after;
                continue;
            };
            if matches!(parts.last(), Some(Part::Name { .. })) {
                return Err(format!("`{text}`: two names need a text between them"));
            }
            let (name, after) = inner
                .split_once('}')
                .ok_or_else(|| format!("`{text}` lacks a closing brace"))?;
            let (name, rest) = name
                .strip_suffix("**")
                .map_or((name, false), |name| (name, true));
            if name.is_empty() {
                return Err(format!("`{text}` has a name without letters"));
            }
            parts.push(Part::Name {
                name: name.into(),
                rest,
            });
            left = after;
        }
        Ok(Self {
            text: text.into(),
            parts,
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it has this name.
    pub fn has(&self, wanted: &str) -> bool {
        self.names().any(|name| name == wanted)
    }

    /// Its names in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Name { name, .. } => Some(&**name),
            Part::Text(_) => None,
        })
    }

    /// Takes a value apart; `None` when it has another shape, or pieces that some reader could understand otherwise.
    pub fn read<'v>(&self, value: &'v str) -> Option<Names<'_, 'v>> {
        check_value(value).ok()?;
        let mut found = Vec::new();
        let mut left = value;
        let mut parts = self.parts.iter().peekable();
        while let Some(part) = parts.next() {
            match part {
                Part::Text(text) => left = left.strip_prefix(&**text)?,
                Part::Name { name, rest: true } => {
                    found.push((&**name, rest_of(left)?));
                    left = "";
                }
                Part::Name { name, rest: false } => {
                    let end = match parts.peek() {
                        Some(Part::Text(next)) => left.find(&**next)?,
                        Some(Part::Name { .. }) | None => left.len(),
                    };
                    let (piece, after) = left.split_at(end);
                    found.push((&**name, self.plain(piece)?));
                    left = after;
                }
            }
        }
        left.is_empty().then_some(found)
    }

    /// Puts an id together from what its names stand for; `None` when one is missing or holds a separator of this format.
    pub fn compose<'v>(
        &self,
        value_of: impl Fn(&str) -> Option<Cow<'v, str>>,
    ) -> Option<Cow<'v, str>> {
        if let [Part::Name { name, .. }] = &*self.parts {
            return value_of(name);
        }
        let mut id = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => id.push_str(text),
                Part::Name { name, .. } => id.push_str(self.plain(&value_of(name)?)?),
            }
        }
        Some(Cow::Owned(id))
    }

    /// A piece that one name can stand for.
    fn plain<'v>(&self, piece: &'v str) -> Option<&'v str> {
        let separates = |c: char| SEPARATORS.contains(&c) && self.separates(c);
        let one = !piece.is_empty() && !piece.contains(|c| c == '/' || c == '%' || separates(c));
        one.then_some(piece)
    }

    fn separates(&self, c: char) -> bool {
        self.parts
            .iter()
            .any(|part| matches!(part, Part::Text(text) if text.contains(c)))
    }
}

/// The rest of a path: at least one segment, none empty but for one slash at the end.
fn rest_of(left: &str) -> Option<&str> {
    let inner = left.strip_suffix('/').unwrap_or(left);
    let whole = !inner.is_empty() && inner.split('/').all(|segment| !segment.is_empty());
    whole.then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(shape: &str, format: &str, value: &str) -> Option<String> {
        let names_of = Shape::parse(shape).unwrap();
        let names = names_of.read(value)?;
        let find = |wanted: &str| {
            let found = names.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, piece)| Cow::Borrowed(*piece))
        };
        let format = Shape::parse(format).unwrap();
        format.compose(find).map(Cow::into_owned)
    }

    #[test]
    fn a_value_is_taken_apart_and_an_id_put_together() {
        let endpoint = "projects/{p}/branches/{b}/endpoints/{e}";
        let branch = "projects/{p}/branches/{b}";
        assert_eq!(
            id(endpoint, branch, "projects/x/branches/main/endpoints/rw").as_deref(),
            Some("projects/x/branches/main")
        );
        let volume = "/Volumes/{c}/{s}/{v}/{rest**}";
        assert_eq!(
            id(volume, "{c}.{s}.{v}", "/Volumes/a/b/c/d/e f.txt").as_deref(),
            Some("a.b.c")
        );
        assert_eq!(
            id("{c}.{s}.{t}", "{c}.{s}", "a.b.c").as_deref(),
            Some("a.b")
        );
    }

    #[test]
    fn other_shapes_and_pieces_with_two_readings_are_refused() {
        let endpoint = "projects/{p}/branches/{b}/endpoints/{e}";
        for value in [
            "",
            "projects/x/branches/main",
            "projects/x/branches/main/endpoints/",
            "projects/x/branches/../endpoints/rw",
            "projects/x/y/branches/main/endpoints/rw",
            "projects/x/branches/main/endpoints/rw/more",
            "/projects/x/branches/main/endpoints/rw",
            "projects/x%2Fy/branches/main/endpoints/rw",
        ] {
            assert_eq!(id(endpoint, "{p}", value), None, "{value:?}");
        }
        for value in [
            "/Volumes/a/b/c",
            "/Volumes/a/b/c/",
            "/Volumes/a/b/c//d",
            "/Volumes/a/b/c/../../x/y",
            "/Volumes/a/b/c/%2e%2e/d",
            "/Volumes/a.b/c/d/e",
            "/volumes/a/b/c/d",
        ] {
            let volume = "/Volumes/{c}/{s}/{v}/{rest**}";
            assert_eq!(id(volume, "{c}.{s}.{v}", value), None, "{value:?}");
        }
        assert_eq!(id("{c}.{s}.{t}", "{c}", "a.b.c.d"), None);
    }

    #[test]
    fn mistakes_in_a_shape_are_told() {
        for bad in ["{a}{b}", "{a", "{}", "{a**}/x"] {
            assert!(Shape::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn different_pieces_never_give_one_id(a in "[a-c.]{1,4}", b in "[a-c.]{1,4}", c in "[a-c.]{1,4}", d in "[a-c.]{1,4}") {
            let format = Shape::parse("{x}.{y}").unwrap();
            let make = |x: &str, y: &str| format.compose(|name| Some(Cow::Owned(if name == "x" { x } else { y }.to_owned())));
            if let (Some(one), Some(other)) = (make(&a, &b), make(&c, &d)) {
                prop_assert_eq!(one == other, (a, b) == (c, d));
            }
        }
    }
}
