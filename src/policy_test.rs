//! Table tests of a policy: calls with what is expected of each, decided by the same `decide` as the live proxy.
//!
//! A test file names a configuration, or holds a policy itself; of it only the policy is read (`config/alone.rs`), so that no
//! workspace is needed. The policy is tested as it is enforced, whatever `mode` says, unless a case has a moment.
//! `policy_test/file.rs` reads the file, `policy_test/case.rs` its cases; `cli/policy_test.rs` prints the outcome.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use http::{HeaderMap, Method};
use serde_json::{Value, json};

use crate::app::compile_policy;
use crate::config::{Config, Env};
use crate::domain::ask::ResourceId;
use crate::domain::clock::Timestamp;
use crate::domain::destination::Upstreams;
use crate::domain::policy::{Identity, Policy};
use crate::domain::problem::Problem;
use crate::explain::{Answer, As, Question, explain};

mod case;
mod file;

/// One case of the table.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// Where it stands.
    pub line: usize,
    /// Who calls.
    pub caller: As,
    /// Upper case.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// The body's bytes.
    pub body: Option<Vec<u8>>,
    /// The headers that decide.
    pub headers: HeaderMap,
    /// What the follow-up id of the call stands for.
    pub bound: Option<ResourceId>,
    /// Whether the partition that the call names is somebody else's.
    pub foreign_partition: bool,
    /// The moment of the call; without one, long after any `observe_until`.
    pub now: Option<Timestamp>,
    /// What must come out.
    pub expected: Expected,
}

/// What must come out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Whether the call leaves.
    pub allowed: bool,
    /// As whom.
    pub identity: Option<Identity>,
    /// The route that decides.
    pub route: Option<String>,
    /// Why not; of an allowed call, why it would not be if the policy were enforced.
    pub reason: Option<String>,
}

/// A test file that was read.
#[derive(Debug)]
pub struct Table {
    /// The file.
    pub file: PathBuf,
    /// What is tested.
    pub policy: Policy,
    /// Where `/@NAME/` leads.
    pub upstreams: Upstreams,
    /// Its cases in their order.
    pub cases: Vec<Case>,
}

/// A case with what came out.
#[derive(Debug)]
pub struct Outcome<'t> {
    /// The case.
    pub case: &'t Case,
    /// What the sidecar would do.
    pub answer: Answer,
    /// Every expectation that is not met; none = passed.
    pub differences: Vec<String>,
}

impl Table {
    /// Reads a test file and the policy that it is about.
    ///
    /// # Errors
    /// Every mistake in the two files, each with file and line.
    pub fn load(path: &Path, env: &Env) -> Result<Self, Vec<Problem>> {
        let read = file::read(path, env)?;
        let config = match &read.config {
            Some(config) => Config::policy_of_file(config, &read.env),
            None => Config::policy_of(read.inline, path, &read.env),
        }?;
        let policy = compile_policy(&config)?;
        let ceiling = config.users.scopes.as_ref();
        let cases = case::cases(&read.raw, &policy, ceiling).map_err(|problems| {
            let in_file = |mut problem: Problem| {
                problem.file = Some(path.display().to_string());
                problem
            };
            problems.into_iter().map(in_file).collect::<Vec<_>>()
        })?;
        Ok(Self {
            file: path.to_path_buf(),
            policy,
            upstreams: config.outbound.destinations(),
            cases,
        })
    }

    /// Decides every case.
    pub fn run(&self) -> Vec<Outcome<'_>> {
        self.cases.iter().map(|case| self.decide(case)).collect()
    }

    fn decide<'t>(&'t self, case: &'t Case) -> Outcome<'t> {
        let question = Question {
            caller: &case.caller,
            method: &case.method,
            target: &case.target,
            body: case.body.as_deref(),
            headers: &case.headers,
            bound: case.bound.clone(),
            foreign_partition: case.foreign_partition,
            workspace_id: None,
            upstreams: &self.upstreams,
            now: case.now.unwrap_or(Timestamp::MAX),
        };
        let answer = explain(&self.policy, &question);
        let differences = case.expected.differences(&answer);
        Outcome {
            case,
            answer,
            differences,
        }
    }

    /// The routes that decide none of the cases.
    pub fn untested(&self, outcomes: &[Outcome<'_>]) -> Vec<&str> {
        let decided: BTreeSet<&str> = { outcomes.iter() }
            .flat_map(|outcome| &outcome.answer.routes)
            .map(String::as_str)
            .collect();
        let names = self.policy.routes().iter().map(|route| &*route.name);
        names.filter(|name| !decided.contains(name)).collect()
    }
}

impl Outcome<'_> {
    /// Whether everything came out as expected.
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }

    /// For `--json`.
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.case.name,
            "line": self.case.line,
            "passed": self.passed(),
            "differences": self.differences,
            "answer": self.answer.to_json(),
        })
    }
}

impl Expected {
    fn differences(&self, answer: &Answer) -> Vec<String> {
        let word = |allowed| if allowed { "allow" } else { "deny" };
        let mut found = Vec::new();
        let mut compare = |what: &str, expected: &str, got: &str| {
            if expected != got {
                found.push(format!("expected {what}{expected}, got {got}"));
            }
        };
        compare("", word(self.allowed), word(answer.allowed));
        if let Some(identity) = self.identity {
            compare("identity ", identity.as_str(), answer.identity);
        }
        if let Some(route) = &self.route {
            compare("route ", route, answer.route.as_deref().unwrap_or("none"));
        }
        if let Some(reason) = &self.reason {
            let got = answer.reason.or(answer.would_deny);
            compare("reason ", reason, got.unwrap_or("none"));
        }
        found
    }
}

#[cfg(test)]
mod tests;
