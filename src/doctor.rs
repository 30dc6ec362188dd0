//! `doctor`: proves what the sidecar needs, one thing after the other, and names the remedy for each that is missing.
//!
//! Asks nothing on a user's behalf. It goes the same ways as the running sidecar (the same trust, discovery and token client), but
//! starts nothing and writes nothing, so it can run beside one. `doctor/far.rs` is the workspace's side, `doctor/resources.rs` what
//! the app may touch there, `doctor/near.rs` this machine. Its few reads as the app are its operator's, not the agent's: they are
//! in no audit log of ours.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::app::{compile_policy, warnings};
use crate::config::Config;
use crate::domain::clock::Clock;
use crate::domain::policy::Policy;
use crate::domain::problem::Problem;
use crate::domain::route::PolicyOrigin;

mod far;
mod near;
mod resources;

/// How one check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It will work, but somebody should look at it.
    Warn,
    /// It will not work.
    Fail,
    /// Not tried, for what it depends on failed.
    Skip,
}

impl Verdict {
    /// The word in the output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was checked.
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Finding {
    fn new(name: &str, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            verdict,
            detail: detail.into(),
            remedy: None,
        }
    }

    fn ok(name: &str, detail: impl Into<String>) -> Self {
        Self::new(name, Verdict::Ok, detail)
    }

    fn warn(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(name, Verdict::Warn, detail).with(remedy)
    }

    fn fail(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(name, Verdict::Fail, detail).with(remedy)
    }

    fn skip(name: &str, because: &str) -> Self {
        Self::new(name, Verdict::Skip, format!("not tried: {because}"))
    }

    fn with(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({"name": self.name, "verdict": self.verdict.as_str(), "detail": self.detail, "remedy": self.remedy})
    }
}

/// Checks everything, in the order in which one thing depends on another.
pub async fn examine(config: &Config, clock: Arc<dyn Clock>) -> Vec<Finding> {
    let mut findings = vec![version(config)];
    let policy = compile_policy(config);
    findings.extend(of_policy(config, policy.as_ref()));
    findings.extend(far::examine(config, policy.as_ref().ok(), clock).await);
    findings.push(near::audit(config));
    findings.extend(near::ports(config).await);
    findings.push(near::confinement(config).await);
    findings
}

fn version(config: &Config) -> Finding {
    let file = config.source.as_deref();
    let file = file.map_or_else(
        || "the environment".into(),
        |file| file.display().to_string(),
    );
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let system = format!("{} {}", std::env::consts::OS, release.trim());
    let (own, machine) = (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let detail = format!("valetkey {own}, {system} {machine}, configuration from {file}");
    Finding::ok("version", detail)
}

fn of_policy(config: &Config, policy: Result<&Policy, &Vec<Problem>>) -> Vec<Finding> {
    const NAME: &str = "policy";
    let policy = match policy {
        Ok(policy) => policy,
        Err(problems) => {
            let failed = |problem: &Problem| {
                Finding::fail(NAME, problem.to_string(), "valetkey check tells all of it")
            };
            return problems.iter().map(failed).collect();
        }
    };
    let routes = policy.routes().len();
    let first = match policy.origin() {
        PolicyOrigin::Starter => Finding::warn(
            NAME,
            "the built-in starter policy: every operation but those of admin effect",
            "write routes, or name the bundle",
        ),
        origin @ (PolicyOrigin::Routes | PolicyOrigin::Bundle) => {
            Finding::ok(NAME, format!("{routes} routes, from {}", origin.as_str()))
        }
    };
    let warnings = warnings(config, policy).into_iter();
    let told = warnings.map(|problem| Finding::new(NAME, Verdict::Warn, problem.to_string()));
    std::iter::once(first).chain(told).collect()
}
