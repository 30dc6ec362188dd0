//! What the calls of each operation touch, as sets of ids: by which name, which second name, and with what said.
//!
//! The mirror of `ask/touch.rs`, which finds what one call touches. Where the two could differ this side is the wider one.
//! Read `question.rs` next.

use std::sync::Arc;

use crate::domain::catalog::shape::Shape;
use crate::domain::catalog::{APP, Catalog, Mcp, Operation, ResourceFrom, ResourceRule};
use crate::domain::policy::matcher::ResourceMatcher;

/// One kind of touch that calls of an operation have.
#[derive(Debug, Clone)]
pub(super) struct Thing {
    /// Its first name; `None` = nothing in particular.
    pub kind: Option<Arc<str>>,
    /// How the id of the first name is written; `None` = anyhow.
    pub format: Option<Shape>,
    /// Its second name, and how the two ids go together.
    pub second: Option<(Arc<str>, Link)>,
    /// Whether what is said to it is read as JSON-RPC.
    pub message: bool,
    /// The top-level member of the body that is its id.
    pub member: Option<Member>,
}

/// A member of the body that names what is touched.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub name: Box<str>,
    /// Whether its letter case means nothing.
    pub folds: bool,
}

/// How the id of the second name follows from that of the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    /// `genie/X` and `X`: the second stands behind this text.
    Behind(Box<str>),
    /// `c.s.t` and `c.s`: the second ends before the last of so many separators.
    Head(char, usize),
    /// `functions/c.s` and `c.s.tool`: behind this text, and with the name of the called tool.
    Tool(Box<str>),
    /// Nothing is known.
    Loose,
}

/// What the operations of a catalogue touch.
pub(super) struct Things(Vec<Vec<Thing>>);

impl Things {
    pub(super) fn of(catalog: &Catalog) -> Self {
        let operations = catalog.operations().iter();
        Self(operations.map(|o| of_operation(o, catalog)).collect())
    }

    pub(super) fn touched_by(&self, operation: usize) -> &[Thing] {
        self.0.get(operation).map_or(&[], Vec::as_slice)
    }
}

fn of_operation(operation: &Operation, catalog: &Catalog) -> Vec<Thing> {
    let message = operation.mcp.is_some();
    let mut things = Vec::new();
    for rule in &operation.resources {
        if rule.from == ResourceFrom::FollowUp {
            things.extend(followed(operation, rule, catalog));
            continue;
        }
        let thing = Thing {
            kind: Some(Arc::clone(&rule.kind)),
            format: format(rule).cloned(),
            second: { rule.also.as_ref() }
                .map(|also| (Arc::clone(&also.kind), link(rule, &also.id))),
            message,
            member: member(rule),
        };
        things.extend({ operation.mcp.as_ref() }.and_then(|mcp| called(mcp, rule, &thing)));
        things.push(thing);
    }
    let may_be_absent = |rule: &ResourceRule| rule.optional || rule.from == ResourceFrom::FollowUp;
    if operation.resources.iter().all(may_be_absent) {
        things.push(Thing {
            kind: None,
            format: None,
            second: None,
            message: false,
            member: None,
        });
    }
    things
}

/// What a follow-up id stands for is what the call that gave it out touched first.
fn followed(operation: &Operation, rule: &ResourceRule, catalog: &Catalog) -> Vec<Thing> {
    let wanted = operation.follow_up.as_ref().map(|f| &f.kind);
    let created = |o: &&Arc<Operation>| o.creates.as_ref().map(|c| &c.kind) == wanted;
    let makers = catalog.operations().iter().filter(created);
    let mut kinds: Vec<Arc<str>> = makers
        .flat_map(|maker| maker.resources.iter().map(|rule| Arc::clone(&rule.kind)))
        .chain([Arc::clone(&rule.kind)])
        .collect();
    kinds.sort();
    kinds.dedup();
    let of = |kind| Thing {
        kind: Some(kind),
        format: None,
        second: None,
        message: operation.mcp.is_some(),
        member: None,
    };
    kinds.into_iter().map(of).collect()
}

/// On the server of a whole schema a called tool is a thing of its own.
fn called(mcp: &Mcp, rule: &ResourceRule, server: &Thing) -> Option<Thing> {
    let kind = mcp.tools.as_ref()?;
    let before = match format(rule) {
        Some(format) => format.as_str().split('{').next().unwrap_or_default(),
        None => return None,
    };
    Some(Thing {
        second: Some((Arc::clone(kind), Link::Tool(before.into()))),
        ..server.clone()
    })
}

fn member(rule: &ResourceRule) -> Option<Member> {
    let ResourceFrom::Body(member) = &rule.from else {
        return None;
    };
    let [step] = member.steps() else { return None };
    (!step.each && rule.like.is_none()).then(|| Member {
        name: step.name.clone(),
        folds: rule.folds,
    })
}

/// How an id is written; `None` where any text will do.
pub(super) fn format(rule: &ResourceRule) -> Option<&Shape> {
    match (&rule.id, &rule.from) {
        (Some(format), _) | (None, ResourceFrom::Path(format)) => Some(format),
        (None, _) => None,
    }
}

fn link(rule: &ResourceRule, second: &Shape) -> Link {
    let Some(first) = format(rule).map(Shape::as_str) else {
        return Link::Loose;
    };
    if let Some(before) = first.strip_suffix(second.as_str()) {
        return if before.contains('{') {
            Link::Loose
        } else {
            Link::Behind(before.into())
        };
    }
    let rest = first.strip_prefix(second.as_str());
    let separator = rest.and_then(|rest| {
        let mut chars = rest.chars();
        let separator = chars.next().filter(|c| matches!(c, '.' | '/'))?;
        let name = chars.as_str().strip_prefix('{')?.strip_suffix('}')?;
        (!name.contains('{')).then_some(separator)
    });
    separator.map_or(Link::Loose, |separator| {
        Link::Head(separator, first.matches(separator).count())
    })
}

impl Thing {
    /// An app that `outbound.upstreams` reaches.
    pub(super) fn upstream() -> Self {
        Self {
            kind: Some(APP.into()),
            format: None,
            second: None,
            message: true,
            member: None,
        }
    }

    /// Its names, as far as they are what a route means; `None` when it cannot be meant.
    pub(super) fn meant_by(
        &self,
        wanted: Option<&ResourceMatcher>,
    ) -> Option<Vec<ResourceMatcher>> {
        let Some(kind) = &self.kind else {
            return wanted.is_none().then(Vec::new);
        };
        let mut names = Vec::with_capacity(2);
        match (wanted, &self.second) {
            (None, second) => {
                names.push(any(kind));
                names.extend({ second.as_ref() }.map(|(kind, _)| any(kind)));
            }
            (Some(wanted), second) if wanted.kind == *kind => {
                let possible = |format| may_be(format, wanted);
                if !self.format.as_ref().is_none_or(possible) {
                    return None;
                }
                names.push(wanted.clone());
                if let Some((kind, link)) = second {
                    names.push(link.forth(wanted, kind)?);
                }
            }
            (Some(wanted), Some((second, link))) if wanted.kind == *second => {
                names.push(link.back(wanted, kind));
                names.push(wanted.clone());
            }
            (Some(_), _) => return None,
        }
        Some(names)
    }
}

impl Link {
    /// The ids that the second name can have where the first has one of these; `None` = there is no such thing.
    fn forth(&self, first: &ResourceMatcher, kind: &Arc<str>) -> Option<ResourceMatcher> {
        let id = first.id.as_str();
        let behind = |before: &str| match id.strip_prefix(before) {
            Some(rest) => Some(rest),
            None => (first.prefix && before.starts_with(id)).then_some(""),
        };
        Some(match self {
            Self::Behind(before) => of(kind, behind(before)?, first.prefix),
            Self::Head(separator, count) => {
                let whole = id.matches(*separator).count() == *count;
                match id.rsplit_once(*separator).filter(|_| whole) {
                    Some((head, _)) => of(kind, head, false),
                    None if first.prefix => of(kind, id, true),
                    None => return None,
                }
            }
            Self::Tool(before) if first.prefix => of(kind, behind(before)?, true),
            Self::Tool(before) => of(kind, &format!("{}.", behind(before)?), true),
            Self::Loose => any(kind),
        })
    }

    /// The ids that the first name can have where the second has one of these.
    fn back(&self, second: &ResourceMatcher, kind: &Arc<str>) -> ResourceMatcher {
        let ResourceMatcher { id, prefix, .. } = second;
        match self {
            Self::Behind(before) => of(kind, &format!("{before}{id}"), *prefix),
            Self::Head(_, _) if *prefix => of(kind, id, true),
            Self::Head(separator, _) => of(kind, &format!("{id}{separator}"), true),
            Self::Tool(before) => match id.rsplit_once('.') {
                // Behind the second dot only the tool's name is left.
                Some((schema, _)) if schema.contains('.') => {
                    of(kind, &format!("{before}{schema}"), false)
                }
                Some(_) | None => of(kind, &format!("{before}{id}"), true),
            },
            Self::Loose => any(kind),
        }
    }
}

/// Whether an id that is written so can be one of these: no name holds a separator of its format.
fn may_be(format: &Shape, wanted: &ResourceMatcher) -> bool {
    let text = format.as_str();
    let start = text.split('{').next().unwrap_or_default();
    let id = wanted.id.as_str();
    let begins = id.starts_with(start) || (wanted.prefix && start.starts_with(id));
    let mut separators = ['.', '/', ':'].into_iter().filter(|c| text.contains(*c));
    begins
        && separators.all(|c| {
            let (given, whole) = (id.matches(c).count(), text.matches(c).count());
            given == whole || (wanted.prefix && given < whole)
        })
}

fn any(kind: &Arc<str>) -> ResourceMatcher {
    of(kind, "", true)
}

fn of(kind: &Arc<str>, id: &str, prefix: bool) -> ResourceMatcher {
    ResourceMatcher {
        kind: Arc::clone(kind),
        id: id.to_owned(),
        prefix,
    }
}
