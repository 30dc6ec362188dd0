//! Templates compared as sets of paths: which is part of which, and which have a path in common.
//!
//! For lints, and for what a raw route may reach; a request is matched by `template.rs`. Proven against `matches` by a property test.

use super::{Part, PathTemplate};

impl PathTemplate {
    /// Whether every path that `other` matches is matched by this one too.
    pub fn covers(&self, other: &Self) -> bool {
        let (own, open) = self.fixed();
        let (theirs, other_open) = other.fixed();
        let long_enough = if open {
            other.parts.len() >= self.parts.len()
        } else {
            !other_open && other.parts.len() == self.parts.len()
        };
        long_enough
            && own.iter().enumerate().all(|(i, part)| {
                let other = theirs.get(i).or_else(|| other.parts.last());
                other.is_some_and(|other| part.covers(other))
            })
            && self.rest().is_none_or(|rest| {
                let behind = other.parts.iter().skip(own.len());
                behind.into_iter().all(|other| rest.covers(other))
            })
    }

    /// Whether some path is matched by both.
    pub fn meets(&self, other: &Self) -> bool {
        let (own, open) = self.fixed();
        let (theirs, other_open) = other.fixed();
        let lengths = match (open, other_open) {
            (false, false) => own.len() == theirs.len(),
            (true, false) => theirs.len() > own.len(),
            (false, true) => own.len() > theirs.len(),
            (true, true) => true,
        };
        // Behind the shorter of the two everything fits: a rest takes any segment.
        lengths && own.iter().zip(theirs).all(|(a, b)| a.meets(b))
    }

    /// Whether it ends in a rest.
    pub fn is_open(&self) -> bool {
        self.rest().is_some()
    }

    /// The parts before a rest, and whether there is one.
    fn fixed(&self) -> (&[Part], bool) {
        match self.parts.split_last() {
            Some((Part::Rest { .. }, before)) => (before, true),
            Some(_) | None => (&self.parts, false),
        }
    }

    fn rest(&self) -> Option<&Part> {
        self.parts
            .last()
            .filter(|part| matches!(part, Part::Rest { .. }))
    }
}

impl Part {
    /// Whether every segment that `other` takes is taken by this one.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(own), Self::Literal(theirs)) => own == theirs,
            (Self::Literal(_), Self::One { .. } | Self::Rest { .. }) => false,
            (Self::One { suffix, .. }, Self::Literal(theirs)) => {
                theirs.len() > suffix.len() && theirs.ends_with(&**suffix)
            }
            (
                Self::One {
                    suffix, delicate, ..
                },
                Self::One {
                    suffix: theirs,
                    delicate: admits,
                    ..
                },
            ) => theirs.ends_with(&**suffix) && (*delicate || !admits),
            (
                Self::One {
                    suffix, delicate, ..
                },
                Self::Rest {
                    delicate: admits, ..
                },
            ) => suffix.is_empty() && (*delicate || !admits),
            (Self::Rest { .. }, Self::Literal(_)) => true,
            (
                Self::Rest { delicate, .. },
                Self::One {
                    delicate: admits, ..
                }
                | Self::Rest {
                    delicate: admits, ..
                },
            ) => *delicate || !admits,
        }
    }

    /// Whether some segment is taken by both.
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(a), Self::Literal(b)) => a == b,
            (Self::Literal(text), Self::One { suffix, .. })
            | (Self::One { suffix, .. }, Self::Literal(text)) => {
                text.len() > suffix.len() && text.ends_with(&**suffix)
            }
            (Self::One { suffix: a, .. }, Self::One { suffix: b, .. }) => {
                a.ends_with(&**b) || b.ends_with(&**a)
            }
            (Self::Rest { .. }, _) | (_, Self::Rest { .. }) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::path::CanonicalPath;
    use proptest::prelude::*;

    fn template(text: &str) -> PathTemplate {
        PathTemplate::parse(text).unwrap()
    }

    #[test]
    fn a_wider_template_covers_a_narrower_one_and_not_the_reverse() {
        for (wide, narrow) in [
            ("/a/**", "/a/{x}"),
            ("/a/**", "/a/b/**"),
            ("/{x}/b", "/a/b"),
            ("/a/{x}", "/a/{y}:v"),
            ("/a/{x}:get", "/a/entries:get"),
            ("/a/{x%}", "/a/{x}"),
            ("/**", "/a"),
        ] {
            assert!(template(wide).covers(&template(narrow)), "{wide} {narrow}");
            assert!(!template(narrow).covers(&template(wide)), "{wide} {narrow}");
        }
        assert!(template("/a/{x}").covers(&template("/a/{y}")));
        assert!(!template("/a/b").meets(&template("/a/c")));
        assert!(template("/a/**").is_open() && !template("/a/{x}").is_open());
    }

    proptest! {
        #[test]
        fn covering_and_meeting_agree_with_what_paths_are_matched(
            one in "/(a|b|\\{x\\}|\\{x%\\}|\\{x\\}:v)(/(a|\\{y\\}|\\{y%\\}|\\*\\*|\\*\\*%))?",
            other in "/(a|b|a:v|\\{x\\}|\\{x%\\}|\\{x\\}:v)(/(a|\\{y\\}|\\{y%\\}|\\*\\*|\\*\\*%))?",
            texts in proptest::collection::vec("/(a|b|c|a:v|c%2Fd)(/(a|c%2Fd|b))?(/a)?", 1..40),
        ) {
            let (one, other) = (template(&one), template(&other));
            let paths: Vec<CanonicalPath> = texts.iter().map(|t| CanonicalPath::parse(t).unwrap()).collect();
            let strays = paths.iter().any(|path| other.matches(path) && !one.matches(path));
            prop_assert!(!(one.covers(&other) && strays));
            let shared = paths.iter().any(|path| other.matches(path) && one.matches(path));
            prop_assert!(one.meets(&other) || !shared);
            prop_assert!(!one.covers(&other) || one.meets(&other));
        }

        #[test]
        fn what_is_not_covered_has_a_path_that_shows_it(
            one in "/(a|\\{x\\}|\\{x\\}:v)(/(a|\\{y\\}|\\*\\*))?",
            other in "/(a|a:v|\\{x\\}|\\{x\\}:v)(/(a|\\{y\\}|\\*\\*))?",
        ) {
            let (one, other) = (template(&one), template(&other));
            let segments = ["a", "b", "a:v", "b:v"];
            let mut texts: Vec<String> = segments.iter().map(|s| format!("/{s}")).collect();
            for first in segments {
                for second in segments {
                    texts.push(format!("/{first}/{second}"));
                    texts.push(format!("/{first}/{second}/b"));
                }
            }
            let paths: Vec<CanonicalPath> = texts.iter().map(|t| CanonicalPath::parse(t).unwrap()).collect();
            let strays = paths.iter().any(|path| other.matches(path) && !one.matches(path));
            prop_assert_eq!(one.covers(&other), !strays);
            let shared = paths.iter().any(|path| other.matches(path) && one.matches(path));
            prop_assert_eq!(one.meets(&other), shared);
        }
    }
}
