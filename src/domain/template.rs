//! Path templates and the trie that finds them.
//!
//! `{name}` is one segment, `{name}:verb` one segment with that end, `**` (or `{name**}`) the rest, at least one segment. A
//! `%` behind the name (`{name%}`, `{name**%}`) admits the delicate segments of `path.rs`. Knows no policy: values are numbers
//! that `catalog.rs` and `policy.rs` give a meaning.

use std::borrow::Cow;
use std::collections::HashMap;

use super::path::CanonicalPath;

mod order;

/// Why a template was refused; the text says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateFault {
    /// Does not start with `/`.
    #[error("a path template starts with a slash")]
    NotRooted,
    /// A segment that is neither literal, `{{name}}`, `{{name}}:verb` nor `**` at the end.
    #[error("segment `{0}` is neither a literal, {{name}}, {{name}}:verb, nor ** as the last one")]
    Segment(String),
    /// One name twice.
    #[error("the name `{0}` stands twice")]
    Twice(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    One {
        name: Box<str>,
        suffix: Box<str>,
        delicate: bool,
    },
    Rest {
        name: Box<str>,
        delicate: bool,
    },
}

/// A checked template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    text: Box<str>,
    parts: Vec<Part>,
}

impl PathTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// [`TemplateFault`] names the segment and what is allowed.
    pub fn parse(text: &str) -> Result<Self, TemplateFault> {
        let inner = text.strip_prefix('/').ok_or(TemplateFault::NotRooted)?;
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        let mut parts: Vec<Part> = Vec::new();
        if !inner.is_empty() {
            for segment in inner.split('/') {
                if matches!(parts.last(), Some(Part::Rest { .. })) {
                    return Err(TemplateFault::Segment(segment.to_owned()));
                }
                parts.push(
                    Part::parse(segment)
                        .ok_or_else(|| TemplateFault::Segment(segment.to_owned()))?,
                );
            }
        }
        let mut names: Vec<&str> = parts
            .iter()
            .filter_map(Part::name)
            .filter(|n| !n.is_empty())
            .collect();
        names.sort_unstable();
        if let Some(twice) = names
            .windows(2)
            .find(|pair| pair.first() == pair.get(1))
            .and_then(|pair| pair.first())
        {
            return Err(TemplateFault::Twice((*twice).to_owned()));
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

    /// Whether the path is of this shape. The trie gives the same answer; this is the oracle and the check for one route.
    pub fn matches(&self, path: &CanonicalPath) -> bool {
        let open_ended = matches!(self.parts.last(), Some(Part::Rest { .. }));
        let fits = if open_ended {
            path.len() >= self.parts.len()
        } else {
            path.len() == self.parts.len()
        };
        fits && self.parts.iter().enumerate().all(|(i, part)| match part {
            Part::Literal(text) => !path.is_delicate(i) && path.segment(i) == Some(text),
            Part::One {
                suffix, delicate, ..
            } => one_matches(path, i, suffix, *delicate),
            Part::Rest { delicate, .. } => {
                *delicate || (i..path.len()).all(|j| !path.is_delicate(j))
            }
        })
    }

    /// The text that a name stands for in a matching path.
    pub fn bind<'p>(&self, name: &str, path: &'p CanonicalPath) -> Option<Cow<'p, str>> {
        let index = self
            .parts
            .iter()
            .position(|part| part.name() == Some(name))?;
        match self.parts.get(index)? {
            Part::Literal(_) => None,
            Part::One { suffix, .. } => path
                .segment(index)?
                .strip_suffix(&**suffix)
                .map(Cow::Borrowed),
            Part::Rest { .. } => path.rest(index),
        }
    }

    /// Whether the template has this name.
    pub fn has(&self, name: &str) -> bool {
        self.parts.iter().any(|part| part.name() == Some(name))
    }

    /// A key that is equal for two templates of the same shape, whatever their names are.
    pub fn shape(&self) -> String {
        self.parts.iter().fold(String::new(), |mut shape, part| {
            match part {
                Part::Literal(text) => shape.extend(["/=", text]),
                Part::One { suffix, .. } => shape.extend(["/?", suffix]),
                Part::Rest { .. } => shape.push_str("/**"),
            }
            shape
        })
    }
}

impl Part {
    fn parse(segment: &str) -> Option<Self> {
        if let Some(flags) = segment.strip_prefix("**") {
            return matches!(flags, "" | "%").then(|| Self::Rest {
                name: "".into(),
                delicate: flags == "%",
            });
        }
        let Some(inner) = segment.strip_prefix('{') else {
            let literal = CanonicalPath::parse(&format!("/{segment}")).ok()?;
            let plain = !segment.contains(['{', '}', '*', '%'])
                && literal.len() == 1
                && !literal.has_delicate();
            return plain.then(|| Self::Literal(segment.into()));
        };
        let (name, suffix) = inner.split_once('}')?;
        let (name, delicate) = name
            .strip_suffix('%')
            .map_or((name, false), |name| (name, true));
        let (name, rest) = name
            .strip_suffix("**")
            .map_or((name, false), |name| (name, true));
        let named = !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        let verb = suffix.is_empty()
            || (suffix.starts_with(':')
                && !rest
                && suffix
                    .bytes()
                    .skip(1)
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        (named && verb).then(|| {
            if rest {
                Self::Rest {
                    name: name.into(),
                    delicate,
                }
            } else {
                Self::One {
                    name: name.into(),
                    suffix: suffix.into(),
                    delicate,
                }
            }
        })
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::One { name, .. } | Self::Rest { name, .. } => Some(name),
        }
    }
}

fn one_matches(path: &CanonicalPath, index: usize, suffix: &str, delicate: bool) -> bool {
    let Some(segment) = path.segment(index) else {
        return false;
    };
    segment.len() > suffix.len()
        && segment.ends_with(suffix)
        && (delicate || !path.is_delicate(index))
}

/// Finds the templates of many that match a path, without trying each.
#[derive(Debug, Default)]
pub struct Trie {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, usize>,
    /// One segment with a suffix (the longest first, the empty one last).
    ones: Vec<(Box<str>, bool, usize)>,
    rests: Vec<(bool, u32)>,
    ends: Vec<u32>,
}

impl Trie {
    /// Adds a template under a number. Numbers must be added in rising order.
    pub fn insert(&mut self, template: &PathTemplate, value: u32) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut at = 0;
        for part in &template.parts {
            let fresh = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else {
                return;
            };
            let next = match part {
                Part::Literal(text) => *node.literals.entry(text.clone()).or_insert(fresh),
                Part::One {
                    suffix, delicate, ..
                } => match node
                    .ones
                    .iter()
                    .find(|(s, d, _)| s == suffix && d == delicate)
                {
                    Some((_, _, next)) => *next,
                    None => {
                        node.ones.push((suffix.clone(), *delicate, fresh));
                        node.ones
                            .sort_by_key(|(s, _, _)| std::cmp::Reverse(s.len()));
                        fresh
                    }
                },
                Part::Rest { delicate, .. } => {
                    node.rests.push((*delicate, value));
                    return;
                }
            };
            if next == fresh {
                self.nodes.push(Node::default());
            }
            at = next;
        }
        if let Some(node) = self.nodes.get_mut(at) {
            node.ends.push(value);
        }
    }

    /// Calls `found` for every match, the most literal first, until it answers `true`.
    pub fn visit(&self, path: &CanonicalPath, found: &mut dyn FnMut(u32) -> bool) -> bool {
        !self.nodes.is_empty() && self.walk(0, 0, path, found)
    }

    fn walk(
        &self,
        at: usize,
        index: usize,
        path: &CanonicalPath,
        found: &mut dyn FnMut(u32) -> bool,
    ) -> bool {
        let Some(node) = self.nodes.get(at) else {
            return false;
        };
        let Some(segment) = path.segment(index) else {
            return node.ends.iter().any(|value| found(*value));
        };
        if !path.is_delicate(index)
            && let Some(next) = node.literals.get(segment)
            && self.walk(*next, index + 1, path, found)
        {
            return true;
        }
        for (suffix, delicate, next) in &node.ones {
            if one_matches(path, index, suffix, *delicate)
                && self.walk(*next, index + 1, path, found)
            {
                return true;
            }
        }
        let strict = (index..path.len()).all(|i| !path.is_delicate(i));
        node.rests
            .iter()
            .any(|(delicate, value)| (*delicate || strict) && found(*value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> CanonicalPath {
        CanonicalPath::parse(text).unwrap()
    }

    fn check(template: &str, text: &str, expected: bool) {
        let template = PathTemplate::parse(template).unwrap();
        assert_eq!(
            template.matches(&path(text)),
            expected,
            "{} ~ {text}",
            template.as_str()
        );
        let mut trie = Trie::default();
        trie.insert(&template, 7);
        assert_eq!(
            trie.visit(&path(text), &mut |v| v == 7),
            expected,
            "trie: {} ~ {text}",
            template.as_str()
        );
    }

    #[test]
    fn templates_match_whole_segments() {
        check("/a/{x}", "/a/b", true);
        check("/a/{x}", "/a/b/", true);
        check("/a/{x}", "/a", false);
        check("/a/{x}", "/a/b/c", false);
        check("/a/{x}:query", "/a/i:query", true);
        check("/a/{x}:query", "/a/:query", false);
        check("/a/{x}:query", "/a/i:scan", false);
        check("/a/entries:get", "/a/entries%3Aget", true);
        check("/a/**", "/a/b/c", true);
        check("/a/**", "/a", false);
        check("/**", "/a", true);
        check("/", "/", true);
        check("/a/{x}", "/a/b%2Fc", false);
        check("/a/{x%}", "/a/b%2Fc", true);
        check("/a/**", "/a/b%23c", false);
        check("/a/{x**%}", "/a/b%23c/d", true);
    }

    #[test]
    fn names_give_what_they_stand_for() {
        let template = PathTemplate::parse("/v/{catalog}/{rest**%}").unwrap();
        let path = path("/v/main/x%20y/z%2Fw");
        assert_eq!(template.bind("catalog", &path).unwrap(), "main");
        assert_eq!(template.bind("rest", &path).unwrap(), "x y/z/w");
        assert_eq!(template.bind("other", &path), None);
        let verb = PathTemplate::parse("/i/{index}:query").unwrap();
        assert_eq!(
            verb.bind("index", &CanonicalPath::parse("/i/c.s.i:query").unwrap())
                .unwrap(),
            "c.s.i"
        );
    }

    #[test]
    fn bad_templates_are_refused_with_the_segment() {
        for bad in [
            "a", "/a//b", "/{}", "/{A}", "/{x}y", "/**/a", "/a*", "/{x", "/../a", "/a b",
            "/{x**}:v",
        ] {
            assert!(PathTemplate::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            PathTemplate::parse("/{x}/{x}"),
            Err(TemplateFault::Twice("x".into()))
        );
    }

    #[test]
    fn the_most_literal_match_comes_first() {
        let mut trie = Trie::default();
        for (i, text) in ["/a/**", "/a/{x}", "/a/b", "/a/{x}:v"].iter().enumerate() {
            trie.insert(
                &PathTemplate::parse(text).unwrap(),
                u32::try_from(i).unwrap(),
            );
        }
        let order = |text: &str| {
            let mut seen = Vec::new();
            trie.visit(&path(text), &mut |v| {
                seen.push(v);
                false
            });
            seen
        };
        assert_eq!(order("/a/b"), [2, 1, 0]);
        assert_eq!(order("/a/c:v"), [3, 1, 0]);
        assert_eq!(order("/z"), [0u32; 0]);
    }

    proptest! {
        #[test]
        fn the_trie_finds_exactly_what_the_templates_match(
            templates in proptest::collection::vec("/(a|b|\\{x\\}|\\{x\\}:v)(/(a|\\{y\\}|\\*\\*))?", 1..8),
            text in "/(a|b|c|a:v)(/(a|c%2Fd|b))?(/a)?",
        ) {
            let parsed: Vec<_> = templates.iter().map(|t| PathTemplate::parse(t).unwrap()).collect();
            let mut trie = Trie::default();
            for (i, template) in parsed.iter().enumerate() {
                trie.insert(template, u32::try_from(i).unwrap());
            }
            let path = path(&text);
            let mut found = Vec::new();
            trie.visit(&path, &mut |v| { found.push(v as usize); false });
            found.sort_unstable();
            let expected: Vec<usize> = (0..parsed.len()).filter(|i| parsed[*i].matches(&path)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
