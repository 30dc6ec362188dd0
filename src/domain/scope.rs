//! Scopes and their meet: downscoping is intersection, nothing else.
//!
//! Knows nothing of tokens or routes. Names of both vocabularies are folded by `alias.rs`.

use std::fmt;
use std::sync::Arc;

use super::alias;

/// One API scope, in its short name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(Arc<str>);

impl Scope {
    /// Reads a scope in either vocabulary (RFC 6749 section 3.3: printable ASCII but `"` and `\`, no blank).
    pub fn parse(text: &str) -> Option<Self> {
        let valid = !text.is_empty()
            && text.len() <= 128
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
        valid.then(|| Self(alias::short_name(text).into()))
    }

    /// The short name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether holding `self` suffices where `required` is asked: itself, a parent (`a` covers `a.b` and `a:read`), or
    /// `all-apis`.
    pub fn covers(&self, required: &Self) -> bool {
        if *self.0 == *required.0 || &*self.0 == "all-apis" {
            return true;
        }
        required
            .0
            .strip_prefix(&*self.0)
            .is_some_and(|rest| rest.starts_with(['.', ':']))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A set of scopes, sorted and without members that another member covers.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct ScopeSet(Arc<[Scope]>);

impl ScopeSet {
    /// Keeps the widest of each family.
    pub fn new(scopes: impl IntoIterator<Item = Scope>) -> Self {
        let mut all: Vec<Scope> = scopes.into_iter().collect();
        all.sort();
        all.dedup();
        let widest = all
            .iter()
            .filter(|s| !all.iter().any(|other| other != *s && other.covers(s)))
            .cloned()
            .collect::<Vec<_>>();
        Self(widest.into())
    }

    /// Reads names of either vocabulary; those that are no scope at all are dropped (holding less is the safe side).
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(names.into_iter().filter_map(Scope::parse))
    }

    /// Whether some member covers the required scope.
    pub fn covers(&self, required: &Scope) -> bool {
        self.0.iter().any(|held| held.covers(required))
    }

    /// What both sides allow.
    #[must_use]
    pub fn meet(&self, ceiling: &Self) -> Self {
        let kept = self.0.iter().filter(|s| ceiling.covers(s));
        let narrowed = ceiling.0.iter().filter(|s| self.covers(s));
        Self::new(kept.chain(narrowed).cloned())
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The members in order.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.0.iter()
    }
}

impl fmt::Display for ScopeSet {
    /// The wire form: names separated by one blank.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, scope) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(text: &str) -> ScopeSet {
        ScopeSet::parse(text.split_whitespace())
    }

    #[test]
    fn a_parent_covers_its_children_and_no_neighbour() {
        let check = |held: &str, required: &str| set(held).covers(&Scope::parse(required).unwrap());
        assert!(check("sql", "sql.statement-execution"));
        assert!(check("sql", "sql:restricted-query"));
        assert!(check("all-apis", "genie"));
        assert!(check("dashboards.genie", "genie"));
        assert!(!check("sql.statement-execution", "sql"));
        assert!(!check("sql", "sqlx"));
        assert!(!check("", "sql"));
    }

    #[test]
    fn the_meet_takes_the_narrower_of_each_pair() {
        assert_eq!(
            set("sql genie files").meet(&set("sql model-serving")),
            set("sql")
        );
        assert_eq!(
            set("sql").meet(&set("sql:restricted-query")),
            set("sql:restricted-query")
        );
        assert_eq!(set("all-apis").meet(&set("sql genie")), set("sql genie"));
        assert!(set("sql").meet(&set("genie")).is_empty());
    }

    #[test]
    fn names_with_blanks_quotes_or_controls_are_no_scopes() {
        for bad in ["", "a b", "a\"b", "a\\b", "a\nb", "ü"] {
            assert!(Scope::parse(bad).is_none(), "{bad:?}");
        }
    }

    fn any_set() -> impl Strategy<Value = ScopeSet> {
        let name = prop_oneof![
            "sql",
            "sql:restricted-query",
            "sql.warehouses:read",
            "genie",
            "files.files",
            "all-apis",
            "mcp.functions"
        ];
        proptest::collection::vec(name, 0..5)
            .prop_map(|names| ScopeSet::parse(names.iter().map(String::as_str)))
    }

    proptest! {
        #[test]
        fn the_meet_is_commutative_associative_and_never_widens(a in any_set(), b in any_set(), c in any_set()) {
            prop_assert_eq!(a.meet(&b), b.meet(&a));
            prop_assert_eq!(a.meet(&b).meet(&c), a.meet(&b.meet(&c)));
            prop_assert_eq!(&a.meet(&a), &a);
            for scope in a.meet(&b).iter() {
                prop_assert!(a.covers(scope) && b.covers(scope));
            }
        }
    }
}
