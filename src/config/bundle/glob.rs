//! Patterns of file names, as Go's `filepath.Match` reads them: that is what the Databricks CLI hands `include` to.
//!
//! `*` and `?` never cross a slash, and so neither does `**`; `[a-z]` and `[^a-z]` are one character. Reads folders, within
//! [`ENTRIES_MAX`]. Knows nothing of bundles.

use std::path::{Path, PathBuf};

/// The most folder entries that one pattern may make us look at.
pub const ENTRIES_MAX: usize = 10_000;

/// Whether a word is a pattern rather than a name.
pub fn is_pattern(word: &str) -> bool {
    word.contains(['*', '?', '['])
}

/// The files and folders below `root` that a relative pattern matches, in order.
///
/// # Errors
/// A pattern that cannot be read, or one that leads to too many entries.
pub fn matches(root: &Path, pattern: &str) -> Result<Vec<PathBuf>, &'static str> {
    let mut budget = ENTRIES_MAX;
    let mut found = vec![PathBuf::new()];
    for segment in pattern.split('/').filter(|s| !s.is_empty() && *s != ".") {
        let mut next = Vec::new();
        for below in &found {
            if !is_pattern(segment) {
                let candidate = below.join(segment.replace('\\', ""));
                if root.join(&candidate).symlink_metadata().is_ok() {
                    next.push(candidate);
                }
                continue;
            }
            next.extend(in_folder(root, below, segment, &mut budget)?);
        }
        found = next;
    }
    found.sort();
    Ok(found)
}

fn in_folder(
    root: &Path,
    below: &Path,
    segment: &str,
    budget: &mut usize,
) -> Result<Vec<PathBuf>, &'static str> {
    // Read the pattern even where there is nothing to match: a mistake in it is told all the same.
    let pattern = Pattern::parse(segment)?;
    let mut found = Vec::new();
    // A folder that is not there or may not be read matches nothing, as in Go.
    let Ok(entries) = std::fs::read_dir(root.join(below)) else {
        return Ok(found);
    };
    for entry in entries.flatten() {
        *budget = budget
            .checked_sub(1)
            .ok_or("leads to more than 10000 files and folders")?;
        if let Some(name) = entry.file_name().to_str()
            && pattern.fits(name)
        {
            found.push(below.join(name));
        }
    }
    Ok(found)
}

/// One segment of a pattern.
struct Pattern(Vec<Piece>);

enum Piece {
    One(char),
    Any,
    Run,
    /// Whether the ranges are what it must not be, and the ranges.
    Class(bool, Vec<(char, char)>),
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, &'static str> {
        const CUT: &str = "is no pattern: a `[` has no end or nothing in it";
        let mut pieces = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            pieces.push(match c {
                '*' => Piece::Run,
                '?' => Piece::Any,
                '\\' => Piece::One(chars.next().ok_or("is no pattern: it ends in a `\\`")?),
                '[' => {
                    let not = chars.next_if_eq(&'^').is_some();
                    let mut ranges = Vec::new();
                    loop {
                        let low = match chars.next().ok_or(CUT)? {
                            ']' if ranges.is_empty() => return Err(CUT),
                            ']' => break,
                            '\\' => chars.next().ok_or(CUT)?,
                            c => c,
                        };
                        let high = if chars.next_if_eq(&'-').is_some() {
                            chars.next().filter(|c| *c != ']').ok_or(CUT)?
                        } else {
                            low
                        };
                        ranges.push((low, high));
                    }
                    Piece::Class(not, ranges)
                }
                c => Piece::One(c),
            });
        }
        Ok(Self(pieces))
    }

    /// One pass with one place to go back to: the work is at most the product of both lengths.
    fn fits(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut at, mut piece) = (0, 0);
        let mut back: Option<(usize, usize)> = None;
        while at < name.len() || piece < self.0.len() {
            if let Some(Piece::Run) = self.0.get(piece) {
                back = Some((at + 1, piece));
                piece += 1;
                continue;
            }
            if let (Some(c), Some(wanted)) = (name.get(at), self.0.get(piece))
                && wanted.is(*c)
            {
                (at, piece) = (at + 1, piece + 1);
                continue;
            }
            match back {
                Some((from, run)) if from <= name.len() => (at, piece) = (from, run),
                Some(_) | None => return false,
            }
        }
        true
    }
}

impl Piece {
    fn is(&self, c: char) -> bool {
        match self {
            Self::One(wanted) => *wanted == c,
            Self::Any => true,
            Self::Run => false,
            Self::Class(not, ranges) => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *not
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(pattern: &str, name: &str, expected: bool) {
        let got = Pattern::parse(pattern).map(|p| p.fits(name));
        assert_eq!(got, Ok(expected), "{pattern:?} {name:?}");
    }

    #[test]
    fn patterns_match_as_go_does() {
        check("*.yml", "app.yml", true);
        check("*.yml", ".yml", true);
        check("*.yml", "app.yaml", false);
        check("a*b*c", "aXbXbYc", true);
        check("a*b*c", "aXbXbY", false);
        check("**", "anything", true);
        check("?", "é", true);
        check("?", "", false);
        check("[a-c]x", "bx", true);
        check("[^a-c]x", "bx", false);
        check("[^a-c]x", "dx", true);
        check("\\*", "*", true);
        check("\\*", "a", false);
        check("", "", true);
        check("*", "", true);
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        for bad in ["[", "[]", "[a", "[a-]", "a\\", "[a\\"] {
            assert!(Pattern::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_tree_is_searched_segment_by_segment() {
        let root = tempfile::tempdir().unwrap();
        for file in ["a.yml", "r/b.yml", "r/c.yml", "r/s/d.yml", "r/.h.yml"] {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let check = |pattern: &str, expected: &[&str]| {
            let found = matches(root.path(), pattern).unwrap();
            let found: Vec<_> = found.iter().filter_map(|p| p.to_str()).collect();
            assert_eq!(found, expected, "{pattern}");
        };
        check("r/*.yml", &["r/.h.yml", "r/b.yml", "r/c.yml"]);
        check("./r/b.yml", &["r/b.yml"]);
        check("r/../a.yml", &["r/../a.yml"]);
        check("none.yml", &[]);
        check("none/*.yml", &[]);
        // Go knows no `**`: it is a `*`, and a `*` is one level.
        check("r/**/*.yml", &["r/s/d.yml"]);
        check("**.yml", &["a.yml"]);
    }

    proptest! {
        #[test]
        fn matching_ends_and_a_name_without_signs_matches_itself(pattern in "[ab*?\\[\\]^\\\\-]{0,24}", name in "[ab]{0,24}") {
            let _ = Pattern::parse(&pattern).map(|p| p.fits(&name));
            prop_assert!(Pattern::parse(&name).unwrap().fits(&name));
        }
    }
}
