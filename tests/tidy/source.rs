//! A source file as the house rules see it: tokens without comments, each marked as product or test.
//!
//! Knows enough of Rust's surface to tell code from comments and strings, and nothing of its grammar. The rules are in
//! `rules.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A name, a keyword or a number.
    Word,
    /// One mark; `::` is one token.
    Mark,
    /// The inside of a string.
    Text,
}

/// One token.
#[derive(Debug)]
pub struct Token {
    /// From 1.
    pub line: usize,
    /// Its sort.
    pub kind: Kind,
    /// As written, a string without its quotes.
    pub text: String,
    /// Whether it is compiled for tests only.
    pub test: bool,
}

/// One file.
#[derive(Debug)]
pub struct Source {
    /// From the root of the repository, such as `src/domain/path.rs`.
    pub path: String,
    /// Whether the first line is a `//!` comment.
    pub has_head: bool,
    /// Lines outside test items.
    pub product_lines: usize,
    /// Everything but comments.
    pub tokens: Vec<Token>,
}

impl Source {
    /// Reads a text as if it stood at `path`.
    pub fn read(path: &str, text: &str) -> Self {
        let mut tokens = Lexer::new(text).tokens();
        let all_test = is_test_path(path);
        let test_lines = mark_tests(&mut tokens, all_test);
        let lines = text.lines().count();
        Self {
            path: path.to_owned(),
            has_head: text.starts_with("//!"),
            product_lines: if all_test { 0 } else { lines - test_lines },
            tokens,
        }
    }

    /// The path below `src/`, if it is there.
    pub fn in_src(&self) -> Option<&str> {
        self.path.strip_prefix("src/")
    }

    /// Whether the tokens from `at` on are these.
    pub fn reads(&self, at: usize, expected: &[&str]) -> bool {
        self.tokens
            .get(at..at + expected.len())
            .is_some_and(|found| {
                found
                    .iter()
                    .zip(expected)
                    .all(|(token, text)| token.kind != Kind::Text && token.text == *text)
            })
    }

    /// The places where these tokens stand, in order.
    pub fn find<'a>(&'a self, expected: &'a [&str]) -> impl Iterator<Item = &'a Token> {
        (0..self.tokens.len())
            .filter(|at| self.reads(*at, expected))
            .map(|at| &self.tokens[at])
    }

    /// Whether the word occurs anywhere.
    pub fn has_word(&self, word: &str) -> bool {
        self.find(&[word]).next().is_some()
    }
}

/// Every Rust file below the folders, in order of their paths. Files that are modules for tests only are marked so.
pub fn read_all(root: &Path, folders: &[&str]) -> Vec<Source> {
    let mut paths = BTreeSet::new();
    for folder in folders {
        collect(&root.join(folder), &mut paths);
    }
    let mut sources: Vec<Source> = paths
        .iter()
        .map(|path| {
            let name = Path::new(path).strip_prefix(root).unwrap();
            Source::read(name.to_str().unwrap(), &fs::read_to_string(path).unwrap())
        })
        .collect();
    let names: BTreeSet<String> = sources.iter().flat_map(modules_for_tests).collect();
    for source in &mut sources {
        let stem = source.path.rsplit('/').next().unwrap();
        if source.path.starts_with("src/") && names.contains(stem.trim_end_matches(".rs")) {
            source.product_lines = 0;
            source.tokens.iter_mut().for_each(|token| token.test = true);
        }
    }
    sources
}

fn collect(folder: &Path, paths: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        // `target` belongs to the fuzz crate, a dot to virtual environments.
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            collect(&path, paths);
        } else if name.ends_with(".rs") {
            paths.insert(path.to_str().unwrap().to_owned());
        }
    }
}

fn is_test_path(path: &str) -> bool {
    path.split('/')
        .any(|part| part == "tests" || part == "tests.rs" || part == "benches")
}

/// The names in `#[cfg(test)] mod name;`.
fn modules_for_tests(source: &Source) -> Vec<String> {
    // All of `tests/` is for tests, and its modules have names of their own.
    let product = source.in_src().is_some();
    (0..source.tokens.len())
        .filter(|at| product && source.tokens[*at].test && source.reads(*at, &["mod"]))
        .filter(|at| source.reads(at + 2, &[";"]))
        .map(|at| source.tokens[at + 1].text.clone())
        .collect()
}

const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];

/// Marks what belongs to test items; returns on how many lines they stand.
fn mark_tests(tokens: &mut [Token], all: bool) -> usize {
    let mut lines = BTreeSet::new();
    let mut at = 0;
    while at < tokens.len() {
        let starts = tokens[at..]
            .iter()
            .zip(CFG_TEST)
            .filter(|(token, text)| token.text == *text)
            .count()
            == CFG_TEST.len();
        if !starts {
            tokens[at].test = all;
            at += 1;
            continue;
        }
        let end = item_end(tokens, at + CFG_TEST.len());
        lines.extend(tokens[at].line..=tokens[end].line);
        tokens[at..=end]
            .iter_mut()
            .for_each(|token| token.test = true);
        at = end + 1;
    }
    lines.len()
}

/// The last token of the item that starts at `at`: its `;`, or the `}` of its block.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while at < tokens.len() {
        if tokens[at].kind == Kind::Mark {
            match tokens[at].text.as_str() {
                "{" | "(" | "[" => depth += 1,
                ")" | "]" => depth -= 1,
                "}" if depth == 1 => return at,
                "}" => depth -= 1,
                ";" if depth == 0 => return at,
                _ => {}
            }
        }
        at += 1;
    }
    tokens.len() - 1
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer {
    fn new(text: &str) -> Self {
        Self {
            chars: text.chars().collect(),
            at: 0,
            line: 1,
            tokens: Vec::new(),
        }
    }

    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn next(&mut self) -> char {
        let c = self.peek(0);
        self.at += 1;
        self.line += usize::from(c == '\n');
        c
    }

    fn push(&mut self, line: usize, kind: Kind, text: String) {
        self.tokens.push(Token {
            line,
            kind,
            text,
            test: false,
        });
    }

    fn tokens(mut self) -> Vec<Token> {
        while self.at < self.chars.len() {
            let (c, after) = (self.peek(0), self.peek(1));
            match c {
                '/' if after == '/' => self.skip_line(),
                '/' if after == '*' => self.skip_block(),
                '"' => self.string(0, false),
                'r' if self.raw_hashes(1).is_some() => self.raw(1),
                'b' if after == 'r' && self.raw_hashes(2).is_some() => self.raw(2),
                '\'' => self.quote(),
                ':' if after == ':' => {
                    self.push(self.line, Kind::Mark, "::".into());
                    self.at += 2;
                }
                _ if c.is_alphanumeric() || c == '_' => self.word(),
                _ => {
                    let line = self.line;
                    let c = self.next();
                    if !c.is_whitespace() {
                        self.push(line, Kind::Mark, c.into());
                    }
                }
            }
        }
        self.tokens
    }

    fn skip_line(&mut self) {
        while self.at < self.chars.len() && self.peek(0) != '\n' {
            self.next();
        }
    }

    fn skip_block(&mut self) {
        let mut depth = 0;
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    self.next();
                    continue;
                }
            }
            self.at += 2;
            if depth == 0 {
                return;
            }
        }
    }

    /// How many `#` stand between the prefix and the quote of a raw string; `None` if it is none.
    fn raw_hashes(&self, prefix: usize) -> Option<usize> {
        let hashes = (0..).take_while(|n| self.peek(prefix + n) == '#').count();
        (self.peek(prefix + hashes) == '"').then_some(hashes)
    }

    fn raw(&mut self, prefix: usize) {
        let hashes = self.raw_hashes(prefix).unwrap_or_default();
        self.at += prefix + hashes;
        self.string(hashes, true);
    }

    /// From the opening quote on.
    fn string(&mut self, hashes: usize, raw: bool) {
        let line = self.line;
        let mut text = String::new();
        self.next();
        while self.at < self.chars.len() {
            let c = self.next();
            match c {
                '"' if (0..hashes).all(|n| self.peek(n) == '#') => {
                    self.at += hashes;
                    break;
                }
                '\\' if !raw => {
                    text.push(c);
                    text.push(self.next());
                }
                _ => text.push(c),
            }
        }
        self.push(line, Kind::Text, text);
    }

    /// A character literal is dropped, a lifetime becomes a mark and a word.
    fn quote(&mut self) {
        let line = self.line;
        self.next();
        if self.peek(0) == '\\' {
            self.at += 2;
            while self.next() != '\'' {}
        } else if self.peek(1) == '\'' {
            self.next();
            self.next();
        } else {
            self.push(line, Kind::Mark, "'".into());
        }
    }

    fn word(&mut self) {
        let mut text = String::new();
        while self.peek(0).is_alphanumeric() || self.peek(0) == '_' {
            text.push(self.next());
        }
        self.push(self.line, Kind::Word, text);
    }
}
