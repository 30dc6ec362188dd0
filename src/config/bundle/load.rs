//! The root file and what it includes, read and merged into one tree.
//!
//! As the CLI: `include` counts in the root file only; its patterns begin at the root's folder; a file is read once, those of
//! one pattern in the order of their names; a resource is declared in one place. Read `target.rs` next.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::glob;
use super::tree::{Clash, Tree, Value};
use crate::config::{file::read as read_file, yaml};
use crate::domain::problem::Problem;

/// The names of a root file, those that are looked for first.
const ROOT_NAMES: [&str; 4] = [
    "databricks.yml",
    "databricks.yaml",
    "bundle.yml",
    "bundle.yaml",
];
/// The most files that a bundle may include.
const INCLUDES_MAX: usize = 200;
/// The most values in all files together.
const VALUES_MAX: usize = 400_000;

/// Everything that was read.
pub struct Sources {
    /// The root file.
    pub root: PathBuf,
    /// The patterns of `include`.
    pub includes: Vec<String>,
    /// The merged tree.
    pub tree: Tree,
    /// The bytes that were read, with the names of included files.
    pub parts: Vec<Vec<u8>>,
    /// The files by number, as messages call them.
    files: Vec<PathBuf>,
}

impl Sources {
    /// The name of a file for messages.
    pub fn name(&self, file: usize) -> Option<String> {
        self.files.get(file).map(|path| path.display().to_string())
    }
}

/// The folder of a root file.
pub fn folder(root: &Path) -> &Path {
    root.parent().unwrap_or_else(|| Path::new(""))
}

/// Reads the root file and its includes.
///
/// # Errors
/// Every file that cannot be read, every syntax error, every resource that is declared twice.
pub fn read(file: &Path) -> Result<Sources, Vec<Problem>> {
    let mut sources = blank(find(file));
    let root_tree = parse(&mut sources, 0)?;
    sources.includes = patterns(&sources, &root_tree)?;
    let mut problems = Vec::new();
    let mut declared = BTreeMap::new();
    note_resources(&sources, &root_tree, &mut declared, &mut problems);
    let mut values = size(&root_tree);
    sources.tree = root_tree;
    let found = included(&sources.root, &sources.includes);
    let files =
        found.map_err(|(pattern, fault)| vec![include_problem(&sources, &pattern, fault)])?;
    for file in files {
        let number = sources.files.len();
        sources
            .parts
            .push(file.to_string_lossy().into_owned().into_bytes());
        let path = folder(&sources.root).join(&file);
        sources.files.push(path);
        let tree = match parse(&mut sources, number) {
            Ok(tree) => tree,
            Err(mut found) => {
                problems.append(&mut found);
                continue;
            }
        };
        note_resources(&sources, &tree, &mut declared, &mut problems);
        values += size(&tree);
        if values > VALUES_MAX {
            let message = "the bundle holds more than 400000 values";
            problems.push(Problem::new("include", message));
            break;
        }
        let merged = sources.tree.merge(without_include(tree), "");
        problems.extend(merged.err().map(|clash| clash_problem(&sources, clash)));
    }
    if problems.is_empty() {
        Ok(sources)
    } else {
        Err(problems)
    }
}

/// The root file and its patterns, as far as they can be read.
pub fn root(file: &Path) -> (PathBuf, Vec<String>) {
    let root = find(file);
    let mut sources = blank(root.clone());
    let tree = parse(&mut sources, 0);
    let includes = tree.and_then(|tree| patterns(&sources, &tree));
    (root, includes.unwrap_or_default())
}

fn blank(root: PathBuf) -> Sources {
    Sources {
        files: vec![root.clone()],
        includes: Vec::new(),
        tree: Tree::made(Value::Map(Vec::new())),
        parts: Vec::new(),
        root,
    }
}

/// The file itself, or the root file in a folder.
fn find(file: &Path) -> PathBuf {
    if !file.is_dir() {
        return file.to_path_buf();
    }
    let candidates = ROOT_NAMES.map(|name| file.join(name));
    let there = candidates.iter().find(|path| path.is_file()).cloned();
    there.unwrap_or_else(|| file.join("databricks.yml"))
}

fn parse(sources: &mut Sources, number: usize) -> Result<Tree, Vec<Problem>> {
    let path = sources.files.get(number).cloned().unwrap_or_default();
    let name = sources.name(number);
    let in_file = |mut problem: Problem| {
        problem.file.clone_from(&name);
        problem
    };
    // A pipe would be waited for without end.
    let read = if path.is_file() || !path.exists() {
        read_file(&path)
    } else {
        Err("is no regular file".to_owned())
    };
    let text = read.map_err(|message| vec![in_file(Problem::new("bundle", message))])?;
    let node = yaml::parse_bundle(&text).map_err(|problem| vec![in_file(problem)])?;
    sources.parts.push(text.into_bytes());
    let mut problems = Vec::new();
    let tree = Tree::read(node, number, &mut problems);
    if !matches!(tree.value, Value::Map(_)) {
        problems.push(Problem::new("bundle", "is no mapping of keys").at(tree.line));
    }
    if problems.is_empty() {
        Ok(tree)
    } else {
        Err(problems.into_iter().map(in_file).collect())
    }
}

fn patterns(sources: &Sources, root: &Tree) -> Result<Vec<String>, Vec<Problem>> {
    let Some(list) = root.get("include") else {
        return Ok(Vec::new());
    };
    let problem = |tree: &Tree| {
        let message = super::expected(tree, "a list of patterns");
        vec![super::at(sources, tree, "include", message).hint("write [resources/*.yml]")]
    };
    if !matches!(list.value, Value::List(_)) {
        return Err(problem(list));
    }
    let texts = list.items().iter();
    texts
        .map(|item| item.text().map(str::to_owned).ok_or_else(|| problem(item)))
        .collect()
}

/// The files that the patterns mean, from the root's folder, each once.
///
/// # Errors
/// The pattern that is wrong, and why.
pub fn included(root: &Path, patterns: &[String]) -> Result<Vec<PathBuf>, (String, &'static str)> {
    let mut seen: BTreeSet<PathBuf> = ROOT_NAMES.map(PathBuf::from).into();
    let mut files = Vec::new();
    for pattern in patterns {
        let fault = |text| (pattern.clone(), text);
        if Path::new(pattern).is_absolute() {
            return Err(fault("is an absolute path"));
        }
        let found = glob::matches(folder(root), pattern).map_err(fault)?;
        if found.is_empty() && !glob::is_pattern(pattern) {
            return Err(fault("is not there"));
        }
        let mut cleaned: Vec<PathBuf> = found.iter().map(|path| clean(path)).collect();
        cleaned.sort();
        for path in cleaned {
            if !seen.insert(path.clone()) {
                continue;
            }
            let extension = path.extension().and_then(|e| e.to_str());
            if !matches!(extension, Some("yml" | "yaml" | "json")) {
                return Err(fault("matches a file that is neither YAML nor JSON"));
            }
            files.push(path);
            if files.len() > INCLUDES_MAX {
                return Err(fault("leads to more than 200 files"));
            }
        }
    }
    Ok(files)
}

/// `a/../b` is `b`: one file has one name.
fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir
                if matches!(out.components().next_back(), Some(Component::Normal(_))) =>
            {
                out.pop();
            }
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

fn include_problem(sources: &Sources, pattern: &str, fault: &str) -> Problem {
    let items = sources.tree.get("include").map_or(&[][..], Tree::items);
    let place = items.iter().find(|item| item.text() == Some(pattern));
    let problem = match place {
        Some(tree) => super::at(sources, tree, "include", format!("`{pattern}` {fault}")),
        None => Problem::new("include", format!("`{pattern}` {fault}")),
    };
    problem.hint("write paths and patterns from the bundle's folder, such as resources/*.yml")
}

/// An `include` outside the root file counts for nothing (the CLI warns of it).
fn without_include(mut tree: Tree) -> Tree {
    if let Value::Map(entries) = &mut tree.value {
        entries.retain(|(key, _)| key != "include");
    }
    tree
}

type Declarations = BTreeMap<String, (String, String)>;

/// Remembers where each resource is declared; what is declared twice is a problem, whatever its types.
fn note_resources(
    sources: &Sources,
    tree: &Tree,
    declared: &mut Declarations,
    problems: &mut Vec<Problem>,
) {
    let types = tree.get("resources").map_or(&[][..], Tree::entries);
    for (kind, resources) in types {
        for (key, resource) in resources.entries() {
            let path = format!("resources.{kind}.{key}");
            let file = sources.name(resource.file).unwrap_or_default();
            let place = format!("{file}:{}", resource.line);
            if let Some((other, first)) = declared.get(key) {
                let message = if *other == path {
                    format!("is already declared in {first}")
                } else {
                    format!("has the key of {other} in {first}")
                };
                let problem = super::at(sources, resource, path, message);
                let hint = "declare a resource in one place, under a key of its own; targets may override it";
                problems.push(problem.hint(hint));
            } else {
                declared.insert(key.clone(), (path, place));
            }
        }
    }
}

/// A problem at the place of two values that cannot become one.
pub fn clash_problem(sources: &Sources, clash: Clash) -> Problem {
    let mut problem = Problem::new(clash.path, clash.message).at(clash.line);
    problem.file = sources.name(clash.file);
    problem.hint("write the same kind of value in both places")
}

fn size(tree: &Tree) -> usize {
    let items = tree.items().iter().map(size).sum::<usize>();
    let entries = tree
        .entries()
        .iter()
        .map(|(_, tree)| size(tree))
        .sum::<usize>();
    items + entries + 1
}
