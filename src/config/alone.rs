//! The policy of a configuration without what only a deployment has: no workspace, no credential, no listener is needed to
//! say what its routes allow. For `policy test`, which runs where the code is built.
//!
//! What is left out is not checked; `check` does that. Read `config.rs` for the whole.

use std::path::Path;

use super::yaml::{Entry, Node, Value};
use super::{Config, Env, file, yaml};
use crate::domain::problem::Problem;

/// Sections that say nothing of what is allowed.
const LEFT_OUT: [&str; 7] = [
    "workspace",
    "inbound",
    "app",
    "audit",
    "admin",
    "log",
    "limits",
];
/// The same within `users` and `outbound`.
const LEFT_OUT_WITHIN: [(&str, &[&str]); 2] = [
    (
        "users",
        &[
            "audience",
            "algorithms",
            "token_types",
            "leeway",
            "session",
            "exchange",
        ],
    ),
    ("outbound", &["listen", "local_client", "tls", "forward"]),
];
/// Stands for the workspace (RFC 2606: no such host can exist).
const SOMEWHERE: &str = "https://workspace.invalid";

impl Config {
    /// Reads the file, as far as it is the policy.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn policy_of_file(path: &Path, env: &Env) -> Result<Self, Vec<Problem>> {
        let in_file = |problem: Problem| file::in_order(vec![problem], Some(path));
        let text = file::read(path).map_err(|message| in_file(Problem::new("(file)", message)))?;
        let tree = yaml::parse(&text).map_err(in_file)?;
        Self::policy_of(tree, path, env)
    }

    /// The policy that stands in a tree; `source` is what its problems call it, and paths begin beside it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn policy_of(mut tree: Node, source: &Path, env: &Env) -> Result<Self, Vec<Problem>> {
        if let Value::Map(entries) = &mut tree.value {
            reduce(entries);
        }
        // Nothing of the machine that tests run on may decide: only what the file itself and its bundle name.
        let bundles =
            |name: &str| name.starts_with("DATABRICKS_BUNDLE_") || name == "DATABRICKS_APP_NAME";
        let own = { env.variables().iter() }
            .filter(|(name, _)| !name.starts_with("DATABRICKS_") || bundles(name))
            .map(|(name, value)| (name.clone(), value.clone()));
        Self::of_tree(tree, Some(source), (env, &own.collect()))
    }
}

fn reduce(entries: &mut Vec<Entry>) {
    entries.retain(|entry| !LEFT_OUT.contains(&entry.key.as_str()));
    for entry in entries.iter_mut() {
        let within = LEFT_OUT_WITHIN
            .iter()
            .find(|(section, _)| *section == entry.key);
        if let (Some((_, keys)), Value::Map(inner)) = (within, &mut entry.node.value) {
            inner.retain(|entry| !keys.contains(&entry.key.as_str()));
        }
    }
    let text = |text: &str| Value::Text(text.to_owned());
    let workspace = [("host", text(SOMEWHERE)), ("id", text("1"))];
    let workspace = workspace.map(|(key, value)| entry(key, value));
    entries.push(entry("workspace", Value::Map(workspace.into())));
}

fn entry(key: &str, value: Value) -> Entry {
    Entry {
        key: key.to_owned(),
        line: 0,
        node: Node { line: 0, value },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::route::PolicyOrigin;

    fn policy(text: &str, env: &Env) -> Result<Config, Vec<Problem>> {
        Config::policy_of(
            yaml::parse(text).unwrap(),
            Path::new("x/valetkey.yaml"),
            env,
        )
    }

    #[test]
    fn what_only_a_deployment_has_is_not_needed() {
        let env = Env::from_iter([
            ("DATABRICKS_CLIENT_ID", "half a pair"),
            ("DATABRICKS_APP_PORT", "no port"),
        ]);
        let text = "workspace: {host: '${NOWHERE}'}\napp: {client_secret: {env: NOTHING}}\nusers: {audience: ['${NOWHERE}'], scopes: [sql]}\noutbound: {listen: nowhere, presigned: allow}\nroutes:\n  - {name: a, operation: sql.*, as: user}\n";
        let config = policy(text, &env).unwrap();
        assert_eq!(config.routes.len(), 1);
        assert_eq!(config.users.scopes.unwrap().to_string(), "sql");
        let starter = policy("workspace: {}\n", &env).unwrap();
        assert_eq!(starter.policy_origin, PolicyOrigin::Starter);
    }

    #[test]
    fn mistakes_in_the_policy_are_told_with_their_lines() {
        let text = "rotes: []\nusers: {scops: [sql]}\nroutes:\n  - {name: a, operation: sql.nope, as: user}\n  - {name: b, resource: 'sql_warehouse/${WH}', as: user}\n";
        let problems = policy(text, &Env::default()).unwrap_err();
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 4, "{told:#?}");
        assert!(
            told[0].starts_with("x/valetkey.yaml:1: rotes: unknown key"),
            "{told:#?}"
        );
        assert!(
            told[1].contains(":2: users.scops") && told[1].contains("`scopes`"),
            "{told:#?}"
        );
        assert!(told[2].contains(":4: routes[0].operation"), "{told:#?}");
        assert!(
            told[3].contains(":5: routes[1].resource") && told[3].contains("WH"),
            "{told:#?}"
        );
    }
}
