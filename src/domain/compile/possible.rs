//! Routes that no call can match, or that can let nobody through: mistakes, not doubts.
//!
//! `lint.rs` says what is merely doubtful.

use std::sync::Arc;

use super::route::Compiler;
use crate::domain::catalog::{Effect, Operation};
use crate::domain::policy::matcher::Matcher;
use crate::domain::problem::Problem;
use crate::domain::route::RunAs;
use crate::domain::scope::Scope;

/// Where the operations are listed.
const LISTED: &str = "`valetkey check --catalog` lists what each operation touches";

impl Compiler<'_> {
    /// Refuses what no operation can be asked for.
    pub(super) fn can_match(&self, on: &Matcher) -> Result<(), Problem> {
        if on.path.is_some() || on.may_reach_upstream() || !self.meant(on).is_empty() {
            return Ok(());
        }
        Err(self.only_admin(on).unwrap_or_else(|| self.nothing(on)))
    }

    /// The operations whose calls could match.
    fn meant(&self, on: &Matcher) -> Vec<&Arc<Operation>> {
        let operations = self.catalog.operations().iter().enumerate();
        operations
            .filter(|(index, operation)| on.may_touch(*index, operation))
            .map(|(_, operation)| operation)
            .collect()
    }

    /// What only operations of admin effect could match, which must be named in full and have no bound.
    fn only_admin(&self, on: &Matcher) -> Option<Problem> {
        let touches = |operation: &Operation| {
            { on.resource.as_ref() }
                .is_none_or(|wanted| operation.kinds().any(|kind| **kind == *wanted.kind))
        };
        let named = match &self.source.operation {
            Some(pattern) => self.catalog.named(pattern),
            None => (0..self.catalog.operations().len()).collect(),
        };
        let operations = named
            .iter()
            .filter_map(|i| self.catalog.operations().get(*i));
        let all: Vec<&Arc<Operation>> = operations.filter(|o| touches(o)).collect();
        let example = all
            .first()
            .filter(|_| all.iter().all(|o| o.effect == Effect::Admin))?;
        let what = match (&self.source.operation, &on.resource) {
            (Some(pattern), _) if pattern.ends_with('*') => format!("all of `{pattern}`"),
            (Some(pattern), _) => format!("`{pattern}`"),
            (None, Some(resource)) => format!("all that touches a {}", resource.kind),
            (None, None) => return None,
        };
        let full = self.source.operation.as_deref() == Some(&*example.id);
        let (key, hint) = if full {
            ("effect", "remove `effect`".to_owned())
        } else {
            (
                "operation",
                format!("add `operation: {}` if that is meant", example.id),
            )
        };
        let message = format!(
            "can never match: {what} is of admin effect, which only the operation's full name reaches"
        );
        Some(self.problem(key, message).hint(hint))
    }

    fn nothing(&self, on: &Matcher) -> Problem {
        let within = match on.effect {
            Some(effect) => format!(" with no more effect than {}", effect.as_str()),
            None => String::new(),
        };
        match (&self.source.operation, &on.resource) {
            (Some(pattern), Some(resource)) => self
                .problem(
                    "resource",
                    format!(
                        "can never match: `{pattern}` touches no {}{within}",
                        resource.kind
                    ),
                )
                .hint(LISTED),
            (None, Some(resource)) => self
                .problem(
                    "effect",
                    format!(
                        "can never match: nothing touches a {}{within}",
                        resource.kind
                    ),
                )
                .hint(LISTED),
            (Some(pattern), None) => self
                .problem(
                    "effect",
                    format!("can never match: nothing of `{pattern}` is{within}"),
                )
                .hint(LISTED),
            (None, None) => self
                .problem("effect", "stands without an operation or a resource")
                .hint("add `operation: *` for all of them"),
        }
    }

    /// A route as the user on APIs that an app can request no scope for: nobody would ever pass. What a bundle implies (line
    /// 0) is no mistake of this file.
    pub(super) fn can_serve(&self, on: &Matcher, scope: Option<&Scope>) -> Result<(), Problem> {
        // What other apps ask of users is theirs to say.
        let upstream = on.may_reach_upstream();
        if self.source.run_as != RunAs::User || scope.is_some() || self.source.line == 0 || upstream
        {
            return Ok(());
        }
        let meant = self.meant(on);
        let Some(first) = meant
            .first()
            .filter(|_| !meant.iter().any(|o| o.user_scope))
        else {
            return Ok(());
        };
        let needed = &first.scope;
        Err(self
            .problem(
                "as",
                format!("no user can ever pass: an app cannot request `{needed}` for its users"),
            )
            .hint(format!(
                "use `as: app`; where users' tokens hold it all the same, say so by `scope: {needed}`"
            )))
    }
}
