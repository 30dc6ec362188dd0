//! What a policy allows or leaves out and probably does not mean: told at start, at a reload and by `check`; never fatal.
//!
//! Knows no file: problems carry the line. `compile.rs` has refused what is a mistake in itself. One file for each kind of
//! doubt: `shadow.rs` (order of the routes), `scopes.rs` (users), `ids.rs` (resources), `declared.rs` (the bundle),
//! `upstreams.rs` (other apps).

use std::fmt;

use super::bundle::Declared;
use super::destination::Upstreams;
use super::policy::{Policy, Route};
use super::problem::Problem;
use super::scope::ScopeSet;

mod declared;
mod ids;
mod question;
mod scopes;
mod shadow;
mod thing;
mod upstreams;

/// What a policy is seen against.
#[derive(Debug, Clone, Copy, Default)]
pub struct Surroundings<'a> {
    /// The most that a user's session can hold (`users.scopes`); `None` = whatever the token holds.
    pub ceiling: Option<&'a ScopeSet>,
    /// What the bundle gives the app.
    pub declared: Option<&'a Declared>,
    /// The further hosts; `None` = nothing is known of them.
    pub upstreams: Option<&'a Upstreams>,
}

/// Everything that is allowed and probably not meant, in the order of the lines.
pub fn lint(policy: &Policy, around: Surroundings<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut shadows = shadow::Shadows::of(policy);
    shadows.find(&mut found);
    for (index, route) in policy.routes().iter().enumerate() {
        // What is built in or derived has no line to mend.
        if route.line > 0 {
            scopes::look((policy, &shadows.things), index, around.ceiling, &mut found);
            ids::look(policy, index, &mut found);
        }
    }
    if let Some(declared) = around.declared {
        declared::look(policy, declared, &shadows.out_of_reach, &mut found);
    }
    if let Some(configured) = around.upstreams {
        upstreams::look(policy, configured, &mut found);
    }
    found.sort_by_key(|problem| (problem.file.is_some(), problem.line));
    found
}

fn problem(index: usize, route: &Route, message: impl Into<String>) -> Problem {
    Problem::new(format!("routes[{index}] ({})", route.name), message).at(route.line)
}

/// Where a route stands, for people.
struct Place<'a>(&'a Route);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.line {
            0 => f.write_str("from the bundle"),
            line => write!(f, "line {line}"),
        }
    }
}

/// A few of many, and how many more.
fn listed(all: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN_MAX: usize = 3;
    let more = all.len().saturating_sub(SHOWN_MAX);
    let shown: Vec<String> = all.take(SHOWN_MAX).collect();
    match (&*shown, more) {
        ([first, second], 0) => format!("{first} and {second}"),
        (_, 0) => shown.join(", "),
        _ => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests;
