//! The configuration's file: which one it is, its text, its content's digest, and the order of its problems.
//!
//! Knows no key. Read `yaml.rs` next.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::{Env, LoadOptions, yaml};
use crate::domain::problem::Problem;
use crate::domain::secret::Digest;

/// The file to read, and the name of what pointed to it.
pub fn find(options: &LoadOptions, env: &Env) -> Option<(PathBuf, &'static str)> {
    const VARIABLE: &str = "VALETKEY_CONFIG";
    if let Some(path) = &options.config {
        return Some((path.clone(), "--config"));
    }
    if let Some(path) = env.get(VARIABLE).filter(|path| !path.is_empty()) {
        return Some((path.into(), VARIABLE));
    }
    // `try_exists` also fails where the file may not be looked at: then reading it says so.
    let there = options.default_file.try_exists().unwrap_or(true);
    there.then(|| (options.default_file.clone(), "(file)"))
}

/// A whole file as text, if it is not too large.
///
/// # Errors
/// What is wrong with it.
pub fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let limit = yaml::CONFIG_BYTES_MAX as u64 + 1;
    std::fs::File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| format!("the file cannot be read: {}", error.kind()))?;
    String::from_utf8(bytes).map_err(|_| "the file is not UTF-8 text".to_owned())
}

/// Of the configuration's text and the files of its bundle.
pub fn content(text: &[u8], bundle: Option<Digest>) -> Digest {
    match bundle {
        Some(bundle) => Digest::of(&[text, bundle.as_bytes()]),
        None => Digest::of(&[text]),
    }
}

/// Adds the file's name and sorts by line, what has none first; what stands in a bundle goes last.
pub fn in_order(mut problems: Vec<Problem>, source: Option<&Path>) -> Vec<Problem> {
    let own = source.map(|path| path.display().to_string());
    for problem in &mut problems {
        if problem.key.is_empty() {
            problem.key = "(file)".into(); // the root itself
        }
        let of_a_variable =
            problem.line == 0 && problem.key.starts_with(|c: char| c.is_uppercase());
        if !of_a_variable && problem.file.is_none() {
            problem.file.clone_from(&own);
        }
    }
    problems.sort_by_key(|problem| {
        let elsewhere = problem
            .file
            .clone()
            .filter(|file| Some(file) != own.as_ref());
        (elsewhere, problem.line)
    });
    problems
}
