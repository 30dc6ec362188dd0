//! Routes that routes before them leave nothing to, and families that an earlier and wider route takes away.
//!
//! The index narrows down which routes are compared, so that ten thousand routes are checked in about the time of one reload.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::question::{Question, questions};
use super::thing::Things;
use super::{Place, listed};
use crate::domain::catalog::Effect;
use crate::domain::policy::{Policy, Route};
use crate::domain::problem::Problem;
use crate::domain::route::RunAs;

/// How many raw routes are compared with each later route, and how many others of one list.
pub const COMPARED_MAX: usize = 1000;

/// What stands before each route.
pub(super) struct Shadows<'p> {
    policy: &'p Policy,
    /// What operations touch.
    pub things: Things,
    /// Numbers of the first raw routes.
    raw: Vec<u32>,
    /// Numbers of routes that are out of reach.
    pub out_of_reach: BTreeSet<usize>,
}

impl<'p> Shadows<'p> {
    pub(super) fn of(policy: &'p Policy) -> Self {
        let numbered = policy.routes().iter().zip(0u32..);
        let raw = numbered.filter(|(route, _)| route.on.path.is_some());
        Self {
            policy,
            things: Things::of(&policy.catalog),
            raw: raw.map(|(_, number)| number).take(COMPARED_MAX).collect(),
            out_of_reach: BTreeSet::new(),
        }
    }

    /// Looks at each route; what a bundle implies may be overridden on purpose, so of it nothing is said.
    pub(super) fn find(&mut self, found: &mut Vec<Problem>) {
        for (index, route) in self.policy.routes().iter().enumerate() {
            let mut asked = questions(&route.on, &self.policy.catalog, &self.things);
            asked.retain(|question| self.matters(question, index, route));
            if asked.is_empty() {
                continue; // `ids.rs` says of what can never match
            }
            let answers: Vec<Option<u32>> = asked
                .iter()
                .map(|question| self.answer(question, index))
                .collect();
            if let Some(all) = answers.iter().copied().collect::<Option<BTreeSet<u32>>>() {
                self.out_of_reach.insert(index);
                found.extend((route.line > 0).then(|| self.unreachable(index, route, &all)));
            } else if route.line > 0 {
                self.taken(index, route, &asked, &answers, found);
            }
        }
    }

    /// Whether somebody would miss the answer: a route that denies also reaches what hands out credentials, which nothing allows
    /// unless a later route names it.
    fn matters(&self, question: &Question<'_>, index: usize, route: &Route) -> bool {
        let Some((operation, _)) =
            { question.operation }.filter(|(_, o)| route.on.denies && o.effect == Effect::Admin)
        else {
            return true;
        };
        let reaches = |number: &u32| {
            let later = self.route(*number).filter(|_| *number as usize > index);
            later.is_some_and(|later| {
                let on = &later.on;
                on.operations.is_some() || on.admin_paths.contains(&operation)
            })
        };
        let kinds = self.policy.routes().iter().zip(0u32..);
        let with_both = kinds.filter(|(r, _)| r.on.resource.is_some() && r.on.operations.is_some());
        let mut with_both = with_both.filter(|(r, _)| {
            { r.on.operations.as_ref() }.is_some_and(|all| all.binary_search(&operation).is_ok())
        });
        self.policy.index.named(operation).iter().any(reaches)
            || self.raw.iter().any(reaches)
            || with_both.any(|(_, number)| reaches(&number))
    }

    /// The first route before this one that answers the question, whatever it says.
    fn answer(&self, question: &Question<'_>, before: usize) -> Option<u32> {
        let index = &self.policy.index;
        let named = { question.operation }.map(|(operation, _)| index.named(operation));
        let on = { question.names.iter() }.flat_map(|name| index.on(&name.kind, &name.id));
        let lists = named.into_iter().chain(on).chain([&*self.raw]);
        lists
            .filter_map(|list| {
                let earlier = list
                    .iter()
                    .take_while(|number| (**number as usize) < before);
                let mut earlier = earlier.take(COMPARED_MAX);
                earlier.find(|number| self.route(**number).is_some_and(|r| r.on.answers(question)))
            })
            .min()
            .copied()
    }

    fn route(&self, number: u32) -> Option<&'p Arc<Route>> {
        self.policy.routes().get(number as usize)
    }

    fn unreachable(&self, index: usize, route: &Route, by: &BTreeSet<u32>) -> Problem {
        let earlier: Vec<&Arc<Route>> = by.iter().filter_map(|n| self.route(*n)).collect();
        let names = listed(
            earlier
                .iter()
                .map(|r| format!("`{}` ({})", r.name, Place(r))),
        );
        let verb = match *earlier {
            [_] => "matches",
            _ => "match",
        };
        let same = earlier.iter().all(|r| r.run_as == route.run_as);
        let (who, first) = match *earlier {
            [only] => ("it".to_owned(), format!("`{}`", only.name)),
            _ => ("them".to_owned(), "those".to_owned()),
        };
        let hint = if same {
            format!("remove it: calls run as {} already", route.run_as.as_str())
        } else {
            format!("put it before {first}, or make {who} narrower")
        };
        problem(
            index,
            route,
            format!("never decides: before it {names} {verb} every such call"),
        )
        .hint(hint)
    }

    /// Whole operations that go to a wider route of another identity: a family or a path with `**` before what is meant.
    fn taken(
        &self,
        index: usize,
        route: &Route,
        asked: &[Question<'_>],
        answers: &[Option<u32>],
        found: &mut Vec<Problem>,
    ) {
        let mut by_operation: BTreeMap<usize, Vec<Option<u32>>> = BTreeMap::new();
        for (question, answer) in asked.iter().zip(answers) {
            if let Some((operation, _)) = question.operation {
                by_operation.entry(operation).or_default().push(*answer);
            }
        }
        let mut by_taker: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
        for (operation, answers) in by_operation {
            let first = answers.first().copied().flatten();
            let (Some(taker), true) = (first, answers.iter().all(Option::is_some)) else {
                continue;
            };
            let id = self.policy.catalog.operations().get(operation);
            let wider = self.route(taker).is_some_and(|earlier| {
                earlier.run_as != route.run_as
                    && is_wide(earlier)
                    && self.is_wider(earlier, route, operation)
            });
            if let Some(id) = id.map(|o| &*o.id).filter(|_| wider) {
                by_taker.entry(taker).or_default().push(id);
            }
        }
        for (taker, operations) in by_taker {
            let Some(earlier) = self.route(taker) else {
                continue;
            };
            let what = listed(operations.iter().map(|id| (*id).to_owned()));
            let decides = match earlier.run_as {
                RunAs::Deny => "denied".to_owned(),
                other => format!("run as {}", other.as_str()),
            };
            let message = format!(
                "`{}` ({}) stands before it and is wider: {what} of it are {decides}",
                earlier.name,
                Place(earlier)
            );
            let hint = format!("put it before `{}` if that is not meant", earlier.name);
            found.push(problem(index, route, message).hint(hint));
        }
    }

    /// Whether the earlier route matches more calls of this operation than the later one does.
    fn is_wider(&self, earlier: &Route, later: &Route, operation: usize) -> bool {
        let asked = questions(&earlier.on, &self.policy.catalog, &self.things);
        let mut asked = asked.iter().filter(|question| {
            question
                .operation
                .is_some_and(|(index, _)| index == operation)
        });
        asked.any(|question| !later.on.answers(question))
    }
}

/// A route that names one operation or one path before others is an exception on purpose.
fn is_wide(route: &Route) -> bool {
    let on = &route.on;
    match (&on.path, &on.operations) {
        (Some(path), _) => path.is_open(),
        (None, Some(_)) => on.operations_text.ends_with('*') && on.resource.is_none(),
        (None, None) => false,
    }
}

fn problem(index: usize, route: &Route, message: String) -> Problem {
    super::problem(index, route, message)
}
