//! The cases of a table test: every mistake in them at once, each with its line and the nearest right word.

use http::{HeaderMap, Method};
use serde_json::{Map, Number, Value, json};

use super::file::{CallerWord, ExpectWord, PartitionWord, RawCase, RawTests};
use super::{Case, Expected};
use crate::config::read::Given;
use crate::domain::ask::ResourceId;
use crate::domain::clock::Timestamp;
use crate::domain::policy::denial::DenyReason;
use crate::domain::policy::{Identity, Policy};
use crate::domain::problem::{Problem, nearest};
use crate::domain::scope::ScopeSet;
use crate::explain::{self, As};

/// Reasons of calls that are refused before any decision.
const READING_REASONS: [&str; 5] = [
    "bad_path",
    "bad_body",
    "bad_request",
    "no_such_local_endpoint",
    "no_such_upstream",
];

/// Checks the cases against the policy.
///
/// # Errors
/// Every mistake, with its line.
pub fn cases(
    raw: &RawTests,
    policy: &Policy,
    ceiling: Option<&ScopeSet>,
) -> Result<Vec<Case>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut cases = Vec::new();
    for given in raw.tests.get().into_iter().flatten() {
        let Some(raw) = given.get() else { continue };
        let mut checker = Checker {
            given,
            raw,
            problems: &mut problems,
        };
        let (caller, call, expected) = (
            checker.caller(ceiling),
            checker.call(),
            checker.expected(policy),
        );
        let (body, headers) = (checker.body(), checker.headers());
        let (bound, now) = (checker.bound(), checker.now());
        let (Some(caller), Some((method, target)), Some(expected)) = (caller, call, expected)
        else {
            continue;
        };
        cases.push(Case {
            name: raw
                .name
                .get()
                .cloned()
                .unwrap_or_else(|| format!("{method} {target}")),
            line: given.line,
            caller,
            method,
            target,
            body,
            headers,
            bound,
            foreign_partition: raw.partition.get() == Some(&PartitionWord::Foreign),
            now,
            expected,
        });
    }
    if problems.is_empty() {
        Ok(cases)
    } else {
        Err(problems)
    }
}

struct Checker<'c> {
    given: &'c Given<RawCase>,
    raw: &'c RawCase,
    problems: &'c mut Vec<Problem>,
}

impl Checker<'_> {
    fn fault(&mut self, problem: Problem, hint: impl Into<String>) {
        self.problems.push(problem.hint(hint));
    }

    fn missing(&mut self, key: &str, hint: &str) {
        let path = format!("{}.{key}", self.given.path);
        let problem = Problem::new(path, "is missing").at(self.given.line);
        self.fault(problem, hint);
    }

    fn caller(&mut self, ceiling: Option<&ScopeSet>) -> Option<As> {
        let scopes = self.raw.scopes.get();
        match self.raw.caller.get() {
            Some(CallerWord::App) => {
                if scopes.is_some() {
                    let problem = self
                        .raw
                        .scopes
                        .problem("belongs to a user, and the app calls");
                    self.fault(problem, "remove it, or write `as: user`");
                }
                Some(As::App)
            }
            Some(CallerWord::User) => {
                let given = scopes.map(|list| {
                    let names = list.iter().filter_map(Given::get);
                    names.map(String::as_str).collect::<Vec<_>>()
                });
                Some(As::user(given, ceiling))
            }
            None => {
                if self.raw.caller.is_absent() {
                    self.missing("as", "write `as: user` or `as: app`: who calls");
                }
                None
            }
        }
    }

    fn call(&mut self) -> Option<(Method, String)> {
        let Some(text) = self.raw.call.get() else {
            if self.raw.call.is_absent() {
                self.missing("call", "write `call: \"GET /api/2.0/sql/warehouses\"`");
            }
            return None;
        };
        let parts = text.split_once(' ').filter(|(method, _)| {
            !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase())
        });
        let parts = parts.map(|(method, target)| (method, target.trim()));
        let parts = parts.filter(|(_, target)| target.starts_with('/'));
        let found = parts.and_then(|(method, target)| {
            Some((
                Method::from_bytes(method.as_bytes()).ok()?,
                target.to_owned(),
            ))
        });
        if found.is_none() {
            let problem = self.raw.call.problem("is no METHOD and path");
            self.fault(problem, "such as \"POST /api/2.0/sql/statements\"");
        }
        found
    }

    fn expected(&mut self, policy: &Policy) -> Option<Expected> {
        let allowed = match self.raw.expect.get() {
            Some(word) => *word == ExpectWord::Allow,
            None => {
                if self.raw.expect.is_absent() {
                    self.missing("expect", "write `expect: allow` or `expect: deny`");
                }
                return None;
            }
        };
        if !allowed && self.raw.identity.get().is_some() {
            let problem = self
                .raw
                .identity
                .problem("belongs to a call that is allowed");
            self.fault(problem, "remove it, or write `expect: allow`");
        }
        if allowed && self.raw.reason.get().is_some() && self.raw.now.is_absent() {
            let problem = self.raw.reason.problem("belongs to a call that is refused");
            self.fault(problem, "remove it, or write `expect: deny`");
        }
        let names = || policy.routes().iter().map(|route| &*route.name);
        let route = self.raw.route.get();
        if let Some(route) = route.filter(|route| !names().any(|name| name == *route)) {
            let problem = self.raw.route.problem("no route has this name");
            self.fault(
                problem,
                near(route, names(), "the policy has no such route"),
            );
        }
        let reasons = || {
            DenyReason::ALL
                .iter()
                .map(|r| r.code())
                .chain(READING_REASONS)
        };
        let reason = self.raw.reason.get();
        if let Some(reason) = reason.filter(|reason| !reasons().any(|code| code == *reason)) {
            let all: Vec<&str> = reasons().collect();
            let problem = self.raw.reason.problem("is no reason");
            let hint = near(reason, reasons(), &format!("one of {}", all.join(", ")));
            self.fault(problem, hint);
        }
        Some(Expected {
            allowed,
            identity: self.raw.identity.get().map(|word| match word {
                CallerWord::User => Identity::User,
                CallerWord::App => Identity::App,
            }),
            route: route.cloned(),
            reason: reason.cloned(),
        })
    }

    fn body(&mut self) -> Option<Vec<u8>> {
        let tool = self.raw.tool.get();
        if let Some(tool) = tool {
            if self.raw.body.get().is_some() {
                let problem = self.raw.tool.problem("stands beside `body`");
                self.fault(
                    problem,
                    "`tool` makes the body of the call of an MCP tool; remove one of the two",
                );
            }
            let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}}});
            return Some(call.to_string().into_bytes());
        }
        match self.raw.body.get()? {
            // As it is, for bodies that YAML cannot say.
            Value::String(text) => Some(text.clone().into_bytes()),
            other => Some(typed(other).to_string().into_bytes()),
        }
    }

    fn headers(&mut self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, given) in self.raw.headers.get().into_iter().flatten() {
            let Some(value) = given.get() else { continue };
            match explain::headers(&[format!("{name}={value}")]) {
                Ok(one) => headers.extend(one),
                Err(_) => {
                    let problem = given.problem("is no header");
                    self.fault(problem, "write `headers: {Name: value}`");
                }
            }
        }
        headers
    }

    fn bound(&mut self) -> Option<ResourceId> {
        let found = explain::bound(self.raw.bound.get()?);
        if found.is_err() {
            let problem = self.raw.bound.problem("is no TYPE/ID");
            self.fault(problem, "such as sql_warehouse/1234abcd");
        }
        found.ok()
    }

    fn now(&mut self) -> Option<Timestamp> {
        let text = self.raw.now.get()?;
        let day = format!("{text}T00:00:00Z").parse::<Timestamp>();
        let now = text.parse::<Timestamp>().or(day).ok();
        if now.is_none() {
            let problem = self.raw.now.problem("is neither a date nor a moment");
            self.fault(problem, "write 2027-01-31 or 2027-01-31T12:00:00Z");
        }
        now
    }
}

fn near<'n>(word: &str, known: impl Iterator<Item = &'n str>, otherwise: &str) -> String {
    nearest(word, known).map_or_else(
        || otherwise.to_owned(),
        |near| format!("did you mean `{near}`?"),
    )
}

/// Scalars of the file are text: what can only be a whole number or a truth value is meant as one. For ids both are the same.
fn typed(value: &Value) -> Value {
    match value {
        Value::String(text) => match text.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            text => whole(text).map_or_else(|| Value::from(text), Value::Number),
        },
        Value::Array(items) => items.iter().map(typed).collect(),
        Value::Object(members) => {
            let members = members
                .iter()
                .map(|(key, value)| (key.clone(), typed(value)));
            Value::Object(members.collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

fn whole(text: &str) -> Option<Number> {
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then(|| number.into())
}
