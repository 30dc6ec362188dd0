//! One mistake in a configuration or policy file: where it is, what is wrong, what would be right.
//!
//! Mistakes are collected and shown all at once; the value of a secret or variable is never part of one.

use std::fmt;

/// A mistake a person has to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file as the user named it; `None` for the environment or defaults.
    pub file: Option<String>,
    /// Line, from 1; 0 where it is not known.
    pub line: usize,
    /// The offending key, such as `routes[2].as` or `DATABRICKS_HOST`.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would be right, or the nearest valid name.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without a place yet.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            file: None,
            line: 0,
            key: key.into(),
            message: message.into(),
            hint: None,
        }
    }

    /// Adds the line it was found at.
    #[must_use]
    pub fn at(mut self, line: usize) -> Self {
        self.line = line;
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), 0) => write!(f, "{file}: ")?,
            (Some(file), line) => write!(f, "{file}:{line}: ")?,
            (None, _) => {}
        }
        write!(f, "{}: {}", self.key, self.message)?;
        self.hint
            .as_ref()
            .map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

/// The candidate nearest to a misspelt name, if one is near enough to be meant.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edit distance with adjacent swaps counted once (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let cell = |r: &[usize], k: usize| r.get(k).copied().unwrap_or(usize::MAX / 2);
            let mut best = (cell(&previous, j) + usize::from(ca != cb))
                .min(cell(&previous, j + 1) + 1)
                .min(cell(&row, j) + 1);
            if i > 0 && j > 0 && a.get(i - 1) == Some(cb) && b.get(j - 1) == Some(ca) {
                best = best.min(cell(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut previous, row);
    }
    previous.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_only_when_it_is_near() {
        let keys = ["listen", "agent", "user", "public"];
        assert_eq!(nearest("lisen", keys), Some("listen"));
        assert_eq!(nearest("lsiten", keys), Some("listen"));
        assert_eq!(nearest("pulbic", keys), Some("public"));
        assert_eq!(nearest("colour", keys), None);
    }

    #[test]
    fn a_problem_reads_as_one_line_with_place_key_fault_and_remedy() {
        let mut problem = Problem::new("inbound.lisen", "unknown key")
            .at(4)
            .hint("did you mean `listen`?");
        problem.file = Some("valetkey.yaml".into());
        assert_eq!(
            problem.to_string(),
            "valetkey.yaml:4: inbound.lisen: unknown key (did you mean `listen`?)"
        );
    }
}
