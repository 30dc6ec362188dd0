//! A Databricks bundle (`databricks.yml` with what it includes) → what it declares for one app.
//!
//! Resolved as the Databricks CLI does, as far as that can be done without a workspace: files are read and merged
//! (`load.rs`), the target is chosen and laid over (`target.rs`), variables get their values (`variables.rs`), references
//! are followed where something is read (`resolve.rs`), and the app is read (`app.rs`). What only a deployment knows is left
//! out and told with a remedy; what cannot be right is a problem. Nothing is fetched and nothing is run.
//!
//! Read `domain/bundle.rs` for the result.

use std::path::{Path, PathBuf};

use crate::config::Env;
use crate::domain::bundle::Declared;
use crate::domain::problem::Problem;
use crate::domain::secret::Digest;

use self::load::Sources;
use self::resolve::Resolver;
use self::tree::{Tree, Value};

mod app;
mod glob;
mod load;
mod resolve;
mod resource;
pub mod section;
mod target;
mod tree;
mod variables;

#[cfg(test)]
mod tests;

/// What to read and how.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The root file, or the folder it is in.
    pub file: &'a Path,
    /// The app's key; where there is only one, or one whose name is `DATABRICKS_APP_NAME`, it need not be said.
    pub app: Option<&'a str>,
    /// The target; else the variables of the CLI say it, else the bundle.
    pub target: Option<&'a str>,
    /// `--var`: names with their values.
    pub variables: &'a [(String, String)],
    /// Where `BUNDLE_VAR_…` is.
    pub env: &'a Env,
}

/// A bundle that was read.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it declares.
    pub declared: Declared,
    /// Where it came from, to notice a change.
    pub watched: Watched,
    /// Of all that was read.
    pub digest: Digest,
}

/// The files of a bundle, present and future ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    root: PathBuf,
    includes: Vec<String>,
    /// `variable-overrides.json` of the target.
    overrides: PathBuf,
}

impl Watched {
    /// As far as a root file tells that may have mistakes.
    fn of(file: &Path) -> Self {
        let (root, includes) = load::root(file);
        Self {
            root,
            includes,
            overrides: PathBuf::new(),
        }
    }

    /// The digest of the files as they are now; `None` while the root file cannot be read.
    pub fn digest(&self) -> Option<Digest> {
        // A pipe would be waited for without end.
        let read = |path: &Path| path.is_file().then(|| std::fs::read(path).ok()).flatten();
        let mut parts = vec![read(&self.root)?];
        for file in load::included(&self.root, &self.includes).unwrap_or_default() {
            parts.push(file.to_string_lossy().into_owned().into_bytes());
            parts.push(read(&load::folder(&self.root).join(file)).unwrap_or_default());
        }
        parts.push(read(&self.overrides).unwrap_or_default());
        Some(digest(&parts))
    }
}

fn digest(parts: &[Vec<u8>]) -> Digest {
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Digest::of(&parts)
}

/// Reads a bundle.
///
/// # Errors
/// Everything that is wrong, each with file and line and in their order.
pub fn load(request: &Request<'_>) -> Result<Loaded, Vec<Problem>> {
    resolve(request).map_err(|mut problems| {
        problems.sort_by_key(|problem| (problem.file.clone(), problem.line));
        problems
    })
}

fn resolve(request: &Request<'_>) -> Result<Loaded, Vec<Problem>> {
    let mut sources = load::read(request.file)?;
    let one = |problem| vec![problem];
    let target = target::choose(&sources, request).map_err(one)?;
    target::apply(&mut sources, &target).map_err(one)?;
    let overrides = variables::overrides_file(&sources, &target);
    let given = variables::Given {
        arguments: request.variables,
        env: request.env,
        overrides: overrides.as_path(),
    };
    let (bindings, file) = variables::bind(&sources, &given)?;
    let resolver = Resolver::new(&sources.tree, &bindings, request.env);
    let declared = app::read(&sources, &resolver, request, &target)?;
    sources.parts.push(file);
    Ok(Loaded {
        declared,
        digest: digest(&sources.parts),
        watched: Watched {
            root: sources.root,
            includes: sources.includes,
            overrides,
        },
    })
}

/// A problem at the place of a value.
fn at(
    sources: &Sources,
    tree: &Tree,
    key: impl Into<String>,
    message: impl Into<String>,
) -> Problem {
    let mut problem = Problem::new(key, message).at(tree.line);
    problem.file = sources.name(tree.file);
    problem
}

/// What a value is, where it should be something else.
fn expected(tree: &Tree, what: &str) -> String {
    let is = match tree.value {
        Value::Null => "has no value",
        Value::Text(_) => "is a single value",
        Value::List(_) => "is a list",
        Value::Map(_) => "is a mapping",
    };
    format!("{is}, where {what} should be")
}
