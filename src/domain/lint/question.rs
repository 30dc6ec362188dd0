//! What a route matches, cut into questions: one for each operation, thing and tool. A route is out of reach when each of its
//! questions is answered by a route before it.
//!
//! This compares sets of calls where `matcher.rs` looks at one call; a property test holds the two against each other. Every
//! "covers" here is sure. Not found: questions that several earlier routes answer only together, other than by operations,
//! tools, or the values of the body member that is the id (such as two overlapping raw paths, or all ids one by one).

use http::Method;

use super::thing::{Member, Thing, Things};
use crate::domain::catalog::{Catalog, Operation};
use crate::domain::policy::matcher::{Matcher, ResourceMatcher};
use crate::domain::template::PathTemplate;

/// Calls of one kind, all of which one route matches as far as one thing goes.
#[derive(Debug)]
pub(super) struct Question<'p> {
    /// The operation; `None` for calls that the catalogue does not know.
    pub operation: Option<(usize, &'p Operation)>,
    /// `None` = any.
    method: Option<&'p Method>,
    /// The raw path, within that of the operation.
    path: Option<&'p PathTemplate>,
    /// The names of what is touched, each with all ids that it may have.
    pub names: Vec<ResourceMatcher>,
    said: Said<'p>,
    /// Conditions that hold.
    body: &'p [(String, Vec<String>)],
    /// The member of the body that is the first name's id.
    member: Option<Member>,
}

/// What is said in JSON-RPC.
#[derive(Debug, Clone, Copy)]
enum Said<'p> {
    /// It is not read; whether a list of tools covers such a call all the same.
    Unread(bool),
    /// Anything.
    Anything,
    /// This tool of a list is called, or what goes with any list of tools is said.
    Listed(&'p str),
}

/// The questions of one route.
pub(super) fn questions<'p>(
    on: &'p Matcher,
    catalog: &'p Catalog,
    things: &Things,
) -> Vec<Question<'p>> {
    let mut found = Vec::new();
    for (index, operation) in catalog.operations().iter().enumerate() {
        if !on.may_mean(index, operation) {
            continue;
        }
        for thing in things.touched_by(index) {
            let base = Question {
                operation: Some((index, operation)),
                method: Some(&operation.method),
                path: on.path.as_ref(),
                names: Vec::new(),
                said: Said::Unread(matches!(operation.method, Method::GET | Method::DELETE)),
                body: &on.body,
                member: thing.member.clone(),
            };
            base.on_thing(on, thing, &mut found);
        }
    }
    unknown(on, catalog, &mut found);
    found
}

/// Calls that no operation of the catalogue is for: those of raw routes, and those to other apps.
fn unknown<'p>(on: &'p Matcher, catalog: &'p Catalog, found: &mut Vec<Question<'p>>) {
    if on.operations.is_some() || on.effect.is_some() {
        return;
    }
    let base = |method| Question {
        operation: None,
        method,
        path: on.path.as_ref(),
        names: Vec::new(),
        said: Said::Unread(false),
        body: &on.body,
        member: None,
    };
    match (&on.resource, &on.path) {
        (Some(_), None) if on.may_reach_upstream() => {
            base(None).on_thing(on, &Thing::upstream(), found);
        }
        (None, Some(_)) if on.methods.is_empty() => found.push(base(None)),
        (None, Some(path)) => {
            let known = |method: &&Method| {
                let mut operations = catalog.operations().iter();
                operations.any(|o| o.method == **method && o.path.covers(path))
            };
            let unknown = on.methods.iter().filter(|method| !known(method));
            found.extend(unknown.map(|method| base(Some(method))));
        }
        (Some(_), _) | (None, None) => {}
    }
}

impl<'p> Question<'p> {
    /// Adds the questions about one thing: one for each value that the body may name it by, and for each tool.
    fn on_thing(self, on: &'p Matcher, thing: &Thing, found: &mut Vec<Self>) {
        let mut meant = Vec::new();
        match self.values() {
            Some((member, values)) if on.resource.is_none() => {
                for value in values {
                    let id = if member.folds {
                        value.to_lowercase()
                    } else {
                        value.clone()
                    };
                    let exact = thing.kind.as_ref().map(|kind| ResourceMatcher {
                        kind: kind.clone(),
                        id,
                        prefix: false,
                    });
                    meant.extend(thing.meant_by(exact.as_ref()));
                }
            }
            Some(_) | None => meant.extend(thing.meant_by(on.resource.as_ref())),
        }
        for names in meant {
            for said in self.said(on, thing) {
                found.push(Self {
                    names: names.clone(),
                    said,
                    member: self.member.clone(),
                    ..self
                });
            }
        }
    }

    /// The allowed values of the member that names the thing.
    fn values(&self) -> Option<(&Member, &'p [String])> {
        let member = self.member.as_ref()?;
        let mut conditions = self.body.iter();
        let (_, values) = conditions.find(|(key, _)| **key == *member.name)?;
        Some((member, values))
    }

    fn said(&self, on: &'p Matcher, thing: &Thing) -> Vec<Said<'p>> {
        let listed = on.tools.iter().map(|tool| Said::Listed(tool));
        match (&self.said, thing.message) {
            (_, true) if !on.tools.is_empty() => listed.collect(),
            (_, true) => vec![Said::Anything],
            (Said::Unread(false), false) if !on.tools.is_empty() => Vec::new(),
            (said, false) => vec![*said],
        }
    }
}

impl Matcher {
    /// Whether calls of this operation can be meant, whatever they touch.
    fn may_mean(&self, index: usize, operation: &Operation) -> bool {
        let named = self.operations.as_ref().map_or_else(
            || self.may_reach(index, operation),
            |all| all.binary_search(&index).is_ok(),
        );
        named
            && self.effect.is_none_or(|most| operation.effect <= most)
            && (self.methods.is_empty() || self.methods.contains(&operation.method))
            && { self.path.as_ref() }.is_none_or(|path| path.meets(&operation.path))
    }

    /// Whether every call that the question stands for is matched.
    pub(super) fn answers(&self, question: &Question<'_>) -> bool {
        self.answers_operation(question)
            && self.answers_path(question)
            && { self.resource.as_ref() }
                .is_none_or(|wanted| question.names.iter().any(|name| wanted.covers(name)))
            && self.answers_tools(&question.said)
            && self
                .body
                .iter()
                .all(|(key, allowed)| question.implies(key, allowed))
    }

    fn answers_operation(&self, question: &Question<'_>) -> bool {
        let named = match (&self.operations, question.operation) {
            (Some(wanted), Some((index, _))) => wanted.binary_search(&index).is_ok(),
            (Some(_), None) => false,
            (None, Some((index, operation))) => self.may_reach(index, operation),
            (None, None) => true,
        };
        let within = |most| { question.operation }.is_some_and(|(_, o)| o.effect <= most);
        named && self.effect.is_none_or(within)
    }

    fn answers_path(&self, question: &Question<'_>) -> bool {
        let asked = question.path.into_iter();
        let mut asked = asked.chain(question.operation.map(|(_, operation)| &operation.path));
        let by_path = { self.path.as_ref() }.is_none_or(|own| asked.any(|path| own.covers(path)));
        let methods = &self.methods;
        by_path && (methods.is_empty() || question.method.is_some_and(|m| methods.contains(m)))
    }

    fn answers_tools(&self, said: &Said<'_>) -> bool {
        self.tools.is_empty()
            || match said {
                Said::Unread(covered) => *covered,
                Said::Anything => false,
                // A short name stands for many full ones: only the same entry is sure to cover it.
                Said::Listed(tool) => self.tools.iter().any(|own| own == tool),
            }
    }
}

impl Question<'_> {
    /// Whether the member always has one of these values.
    fn implies(&self, key: &str, allowed: &[String]) -> bool {
        let mut conditions = self.body.iter();
        let condition = conditions.find(|(own, _)| own == key);
        let by_condition =
            condition.is_some_and(|(_, values)| values.iter().all(|v| allowed.contains(v)));
        let named = self
            .member
            .as_ref()
            .is_some_and(|m| *m.name == *key && !m.folds);
        let mut ids = self
            .names
            .iter()
            .take(1)
            .filter(|name| named && !name.prefix);
        by_condition || ids.any(|name| allowed.contains(&name.id))
    }
}
