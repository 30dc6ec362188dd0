//! The nearest route that lost, for denials and `explain`: what would have to change for it to match.
//!
//! Not on the path of allowed calls. Reads at most the first [`LOOKED_AT_MAX`] routes, so that denials stay cheap.

use std::sync::Arc;

use super::matcher::miss::Miss;
use super::{NOTHING, Policy, Route};
use crate::domain::ask::{Call, Touch};

/// How many routes are looked at for the nearest.
pub const LOOKED_AT_MAX: usize = 1000;

/// A route that does not match, and why.
#[derive(Debug, Clone)]
pub struct Nearest {
    /// The route.
    pub route: Arc<Route>,
    /// Every condition that the call does not meet.
    pub misses: Vec<Miss>,
}

impl Nearest {
    /// What would have to change, in one line.
    pub fn differences(&self) -> String {
        let words: Vec<String> = self.misses.iter().map(Miss::to_string).collect();
        words.join("; ")
    }
}

/// What a call is refused for: the first touch that no route matches; where all are matched, the first.
pub fn in_question<'c, 'a>(policy: &Policy, call: &'c Call<'a>) -> Option<&'c Touch<'a>> {
    let touches = if call.touches.is_empty() {
        &NOTHING
    } else {
        call.touches
    };
    { touches.iter() }
        .find(|touch| policy.first(call, touch).is_none())
        .or_else(|| touches.first())
}

/// The names of the routes that the things which a call touches fall to, each once, in the order of the things.
pub fn deciding(policy: &Policy, call: &Call<'_>) -> Vec<Arc<str>> {
    let touches = if call.touches.is_empty() {
        &NOTHING
    } else {
        call.touches
    };
    let mut names: Vec<Arc<str>> = Vec::new();
    for route in touches.iter().filter_map(|touch| policy.first(call, touch)) {
        if !names.contains(&route.name) {
            names.push(Arc::clone(&route.name));
        }
    }
    names
}

/// The route that comes nearest without matching, other than `winner`; `None` where none has anything in common with the call.
pub fn nearest(policy: &Policy, call: &Call<'_>, winner: Option<&Route>) -> Option<Nearest> {
    let touch = in_question(policy, call)?;
    let losers = policy.routes.iter().take(LOOKED_AT_MAX);
    let losers = losers.filter(|route| winner.is_none_or(|winner| winner.name != route.name));
    losers
        .map(|route| (route, route.on.misses(call, touch)))
        .filter(|(_, misses)| !misses.is_empty())
        .map(|(route, misses)| (distance(&misses), route, misses))
        .filter(|((distance, _), ..)| *distance < Miss::NOTHING_IN_COMMON)
        .min_by_key(|(distance, ..)| *distance)
        .map(|(_, route, misses)| Nearest {
            route: Arc::clone(route),
            misses,
        })
}

/// How far away a route is; of two equally far ones that which names the very thing comes first.
fn distance(misses: &[Miss]) -> (u32, bool) {
    let sum = misses.iter().map(|miss| miss.weight).sum();
    (sum, misses.iter().any(Miss::is_of_resource))
}
