//! What every section needs to check its values: bounds, addresses, secrets, and the growing list of problems.
//!
//! A value that was refused is replaced by its default, so that checking goes on and finds the rest; the configuration
//! is thrown away in the end. Messages never quote a value: it may come from a variable. Read `sections.rs` next.

use std::fmt::Display;
use std::io::Read as _;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::Env;
use super::read::Given;
use super::substitute::is_variable_name;
use super::values::{SecretSource, Size, Source, Span, TextSource};
use crate::domain::identity::is_plain;
use crate::domain::problem::{Problem, nearest};
use crate::domain::secret::Secret;

/// The largest accepted secret, in bytes.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// The environment and the problems found so far.
pub struct Checker<'a> {
    /// The variables that stand in for absent keys.
    pub env: &'a Env,
    /// What was found wrong.
    pub problems: Vec<Problem>,
    /// The names of the variables that secrets were read from.
    pub secret_variables: Vec<String>,
}

impl Checker<'_> {
    /// Adds a problem.
    pub fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Refuses a key that belongs to a later version.
    pub fn not_yet<T>(&mut self, given: &Given<T>, what: &str) {
        if given.get().is_some() {
            let message = format!("this version does not {what} yet");
            self.report(given.problem(message).hint("remove the key"));
        }
    }

    /// A duration within its bounds.
    pub fn duration(
        &mut self,
        given: &Given<Span>,
        default: Duration,
        bounds: RangeInclusive<Duration>,
    ) -> Duration {
        let show = (Span(*bounds.start()), Span(*bounds.end()));
        self.bounded(given, given.get().map(|s| s.0), default, bounds, show)
    }

    /// A size in bytes within its bounds.
    pub fn size(&mut self, given: &Given<Size>, default: u64, bounds: RangeInclusive<u64>) -> u64 {
        let show = (Size(*bounds.start()), Size(*bounds.end()));
        self.bounded(given, given.get().map(|s| s.0), default, bounds, show)
    }

    /// A number within its bounds.
    pub fn count(
        &mut self,
        given: &Given<u64>,
        default: usize,
        bounds: RangeInclusive<usize>,
    ) -> usize {
        let value = given
            .get()
            .map(|n| usize::try_from(*n).unwrap_or(usize::MAX));
        let show = (*bounds.start(), *bounds.end());
        self.bounded(given, value, default, bounds, show)
    }

    fn bounded<T, V: PartialOrd>(
        &mut self,
        given: &Given<T>,
        value: Option<V>,
        default: V,
        bounds: RangeInclusive<V>,
        show: (impl Display, impl Display),
    ) -> V {
        match value {
            None => default,
            Some(value) if bounds.contains(&value) => value,
            Some(_) => {
                let (low, high) = show;
                let problem = given.problem("is out of bounds");
                self.report(problem.hint(format!("write {low} to {high}")));
                default
            }
        }
    }

    /// A text that is neither empty nor deceiving.
    pub fn text<'g>(&mut self, given: &'g Given<String>) -> Option<&'g str> {
        let text = given.get()?.as_str();
        if text.trim().is_empty() {
            self.report(
                given
                    .problem("is empty")
                    .hint("write a value, or remove the key"),
            );
            None
        } else if text.chars().all(is_plain) {
            Some(text)
        } else {
            self.report(given.problem("holds a control or invisible character"));
            None
        }
    }

    /// The texts of a list; `None` when the key is absent or unreadable.
    pub fn texts(&mut self, list: &Given<Vec<Given<String>>>) -> Option<Vec<String>> {
        let items = list.get()?.iter();
        Some(
            items
                .filter_map(|item| self.text(item).map(str::to_owned))
                .collect(),
        )
    }

    /// A path.
    pub fn path(&mut self, given: &Given<String>) -> Option<PathBuf> {
        self.text(given).map(PathBuf::from)
    }

    /// The path of a file with certificates.
    pub fn ca_file(&mut self, given: &Given<String>) -> Option<PathBuf> {
        let path = self.path(given)?;
        if !path.is_file() {
            let problem = given.problem("there is no such file");
            self.report(problem.hint("paths begin at the working directory"));
        }
        Some(path)
    }

    /// An address with its port; `default` where none is written.
    pub fn socket(&mut self, given: &Given<String>, default: SocketAddr) -> SocketAddr {
        let Some(text) = self.text(given) else {
            return default;
        };
        text.trim().parse().unwrap_or_else(|_| {
            let problem = given.problem("is no address with a port");
            self.report(problem.hint(format!("write IP:PORT, such as {default}")));
            default
        })
    }

    /// A value that is written or named.
    pub fn sourced_text(&mut self, given: &Given<TextSource>) -> Option<String> {
        match &given.get()?.0 {
            Source::Inline(text) if text.trim().is_empty() => {
                self.report(given.problem("is empty"));
                None
            }
            Source::Inline(text) => Some(text.clone()),
            Source::Named { env, file } => self
                .named(given, env, file)
                .map(|secret| secret.as_str().to_owned()),
        }
    }

    /// A secret, which is named only, of at least so many characters.
    pub fn secret(&mut self, given: &Given<SecretSource>, chars_min: usize) -> Option<Arc<Secret>> {
        match &given.get()?.0 {
            Source::Inline(_) => {
                let problem = given.problem("a secret must not be written in this file");
                self.report(problem.hint("name its place: {env: NAME} or {file: PATH}"));
                None
            }
            Source::Named { env, file } => {
                let text = self.named(given, env, file)?;
                self.secret_variables.extend(env.get().cloned());
                if text.chars().count() < chars_min {
                    let message = format!("the secret is shorter than {chars_min} characters");
                    let problem = given.problem(message);
                    self.report(problem.hint("make one with: openssl rand -hex 32"));
                    return None;
                }
                Some(Arc::new(Secret::new(text.as_str().to_owned())))
            }
        }
    }

    /// What a variable holds, where it holds something.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env.get(name).filter(|value| !value.trim().is_empty())
    }

    fn named<T>(
        &mut self,
        given: &Given<T>,
        env: &Given<String>,
        file: &Given<String>,
    ) -> Option<Zeroizing<String>> {
        if env.is_absent() == file.is_absent() {
            let problem = given.problem("needs exactly one place");
            self.report(problem.hint("write {env: NAME} or {file: PATH}"));
            return None;
        }
        let (place, read) = if env.is_absent() {
            (file, self.file_value(file)?)
        } else {
            (env, self.variable_value(env)?)
        };
        let fault = if read.trim().is_empty() {
            "is empty there"
        } else if read.chars().any(char::is_control) {
            "holds a line break or control character there"
        } else {
            return Some(read);
        };
        self.report(place.problem(fault).hint("put the value alone there"));
        None
    }

    fn variable_value(&mut self, given: &Given<String>) -> Option<Zeroizing<String>> {
        let name = self.text(given)?;
        if !is_variable_name(name) {
            let problem = given.problem("is no name of an environment variable");
            self.report(problem.hint("name the variable here, never its value"));
            return None;
        }
        if let Some(value) = self.env.get(name) {
            return Some(Zeroizing::new(value.to_owned()));
        }
        let hint = match nearest(name, self.env.names()) {
            Some(near) => format!("did you mean {near}?"),
            None => "set it, or name another one".to_owned(),
        };
        // The name is safe to repeat only if it is one; somebody may have put the secret itself here.
        let problem = given.problem("names an environment variable that is not set");
        self.report(problem.hint(hint));
        None
    }

    fn file_value(&mut self, given: &Given<String>) -> Option<Zeroizing<String>> {
        let path = self.path(given)?;
        let mut text = Zeroizing::new(String::new());
        let limit = SECRET_BYTES_MAX as u64 + 1;
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(limit).read_to_string(&mut text).map(|_| ()));
        if let Err(error) = read {
            let problem = given.problem(format!("the file cannot be read: {}", error.kind()));
            self.report(problem.hint("paths begin at the working directory"));
            return None;
        }
        if text.len() > SECRET_BYTES_MAX {
            self.report(given.problem("the file is larger than 64 KiB"));
            return None;
        }
        let value = text
            .strip_suffix("\r\n")
            .or_else(|| text.strip_suffix('\n'))
            .unwrap_or(&text);
        Some(Zeroizing::new(value.to_owned()))
    }
}
