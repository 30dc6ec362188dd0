//! The file of a table test: its shape, and which of its keys are the policy's.
//!
//! Read by the same steps as the configuration (`config.rs`), with which it shares keys where it holds a policy itself. Read
//! `case.rs` next.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::config::raw::List;
use crate::config::read::Given;
use crate::config::yaml::{self, Node, Value as Tree};
use crate::config::{Env, file, read as reader, substitute};
use crate::domain::problem::Problem;

/// Keys of the test file; all others are those of a policy.
const OWN_KEYS: [&str; 3] = ["config", "env", "tests"];

/// A test file in its parts.
pub struct Read {
    /// The configuration that is tested, from the working directory.
    pub config: Option<PathBuf>,
    /// The policy in the file itself.
    pub inline: Node,
    /// The environment with what the file adds.
    pub env: Env,
    /// The cases as written.
    pub raw: RawTests,
}

/// As it is written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawTests {
    config: Given<String>,
    env: Given<BTreeMap<String, Given<String>>>,
    pub(super) tests: List<RawCase>,
    // The policy's own keys are read elsewhere; here they are only known.
    routes: Elsewhere,
    users: Elsewhere,
    bundle: Elsewhere,
    mode: Elsewhere,
    observe_until: Elsewhere,
    outbound: Elsewhere,
}

/// Whether a key of the policy is there.
#[derive(Default)]
struct Elsewhere(bool);

impl<'de> Deserialize<'de> for Elsewhere {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Self(true))
    }
}

/// One case as it is written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawCase {
    pub(super) name: Given<String>,
    #[serde(rename = "as")]
    pub(super) caller: Given<CallerWord>,
    pub(super) scopes: List<String>,
    pub(super) call: Given<String>,
    pub(super) body: Given<Value>,
    pub(super) tool: Given<String>,
    pub(super) headers: Given<BTreeMap<String, Given<String>>>,
    pub(super) bound: Given<String>,
    pub(super) partition: Given<PartitionWord>,
    pub(super) now: Given<String>,
    pub(super) expect: Given<ExpectWord>,
    pub(super) identity: Given<CallerWord>,
    pub(super) route: Given<String>,
    pub(super) reason: Given<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CallerWord {
    User,
    App,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PartitionWord {
    Own,
    Foreign,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ExpectWord {
    Allow,
    Deny,
}

/// Reads the file's parts.
///
/// # Errors
/// Every mistake that can be seen without the policy.
pub fn read(path: &Path, env: &Env) -> Result<Read, Vec<Problem>> {
    let in_file = |problem: Problem| file::in_order(vec![problem], Some(path));
    let text = file::read(path).map_err(|message| in_file(Problem::new("(file)", message)))?;
    let tree = yaml::parse(&text).map_err(in_file)?;
    let (mut own, inline) = parts(&tree);
    let mut problems = Vec::new();
    substitute::substitute(&mut own, env, &mut problems);
    let mut raw: RawTests = reader::read(&own, &mut problems);
    let holds_policy = [
        &raw.routes,
        &raw.users,
        &raw.bundle,
        &raw.mode,
        &raw.observe_until,
        &raw.outbound,
    ];
    if holds_policy.iter().any(|key| key.0) && !raw.config.is_absent() {
        let problem = raw.config.problem("stands beside a policy in this file");
        problems.push(problem.hint("remove the one or the other"));
    }
    if raw.tests.get().is_none_or(Vec::is_empty) && problems.is_empty() {
        let problem = Problem::new("tests", "there is no test in this file");
        problems.push(problem.hint("add `tests:` with a list of calls"));
    }
    if !problems.is_empty() {
        return Err(file::in_order(problems, Some(path)));
    }
    let mut variables = env.variables().clone();
    let given = std::mem::take(&mut raw.env).take();
    let given = given
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.get()?.clone())));
    variables.extend(given);
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    Ok(Read {
        config: raw.config.get().map(|config| folder.join(config)),
        inline,
        env: variables.into(),
        raw,
    })
}

/// The tree as the test file sees it, and the policy in it. Variables in the policy are replaced when it is read.
fn parts(tree: &Node) -> (Node, Node) {
    let Tree::Map(entries) = &tree.value else {
        let nothing = Node {
            line: tree.line,
            value: Tree::Map(Vec::new()),
        };
        return (tree.clone(), nothing);
    };
    let is_own = |key: &str| OWN_KEYS.contains(&key);
    let mut own = entries.clone();
    for entry in own.iter_mut().filter(|entry| !is_own(&entry.key)) {
        entry.node.value = Tree::Null;
    }
    let inline = entries.iter().filter(|entry| !is_own(&entry.key));
    let with = |entries| Node {
        line: tree.line,
        value: Tree::Map(entries),
    };
    (with(own), with(inline.cloned().collect()))
}
