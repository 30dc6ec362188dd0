//! `${NAME}` and `${NAME:-default}` in values, on the parsed tree: a variable can never become a key, a list or a
//! second entry, whatever it holds.
//!
//! Knows nothing of keys. The value of a variable is never part of a problem. Read `read.rs` next.

use crate::config::Env;
use crate::config::yaml::{Node, Value};
use crate::domain::problem::{Problem, nearest};

/// Replaces the variables in every scalar below `node`; what cannot be replaced is reported and marked faulty.
pub fn substitute(node: &mut Node, env: &Env, problems: &mut Vec<Problem>) {
    walk(node, String::new(), env, problems);
}

/// The path of a key below another, such as `inbound.listen`.
pub fn key_path(parent: &str, key: &str) -> String {
    if parent.is_empty() {
        key.to_owned()
    } else {
        format!("{parent}.{key}")
    }
}

fn walk(node: &mut Node, path: String, env: &Env, problems: &mut Vec<Problem>) {
    match &mut node.value {
        Value::Null | Value::Faulty => {}
        Value::Text(text) => match expand(text, env) {
            Ok(Some(new)) => *text = new,
            Ok(None) => {}
            Err(fault) => {
                problems.push(fault.describe(path, node.line, env));
                node.value = Value::Faulty;
            }
        },
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, format!("{path}[{index}]"), env, problems);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                walk(&mut entry.node, key_path(&path, &entry.key), env, problems);
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Missing(String),
    Malformed,
}

impl Fault {
    fn describe(self, path: String, line: usize, env: &Env) -> Problem {
        match self {
            Self::Missing(name) => {
                let message = format!("the environment variable {name} is not set");
                let hint = match nearest(&name, env.names()) {
                    Some(near) => format!("did you mean ${{{near}}}?"),
                    None => format!("set it, or write ${{{name}:-default}}"),
                };
                Problem::new(path, message).at(line).hint(hint)
            }
            Self::Malformed => Problem::new(path, "`${` begins a variable that cannot be read")
                .at(line)
                .hint("write ${NAME} or ${NAME:-default}; a literal `${` is written `$${`"),
        }
    }
}

/// The text with its variables replaced; `None` where there is nothing to replace.
fn expand(text: &str, env: &Env) -> Result<Option<String>, Fault> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, found) = rest.split_at(at);
        let inner = found.strip_prefix("${").unwrap_or_default();
        if let Some(escaped) = before.strip_suffix('$') {
            out.push_str(escaped);
            out.push_str("${");
            rest = inner;
            continue;
        }
        let (name, after) = inner.split_once('}').ok_or(Fault::Malformed)?;
        let (name, default) = match name.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (name, None),
        };
        if !is_variable_name(name) || default.is_some_and(|d| d.contains("${")) {
            return Err(Fault::Malformed);
        }
        out.push_str(before);
        out.push_str(match (env.get(name), default) {
            (None | Some(""), Some(default)) => default,
            (Some(value), _) => value,
            (None, None) => return Err(Fault::Missing(name.to_owned())),
        });
        rest = after;
    }
    out.push_str(rest);
    Ok(Some(out))
}

/// Whether a word may be the name of a variable.
pub fn is_variable_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::parse;

    fn env() -> Env {
        Env::from_iter([
            ("HOST", "h.example"),
            ("EMPTY", ""),
            ("EVIL", "x\nadmin: {listen: 0.0.0.0:1}\n- ${HOST} #"),
        ])
    }

    fn check(text: &str, expected: Result<&str, &str>) {
        let got = expand(text, &env());
        match expected {
            Ok(expected) => assert_eq!(
                got.unwrap().as_deref().unwrap_or(text),
                expected,
                "{text:?}"
            ),
            Err("") => assert_eq!(got, Err(Fault::Malformed), "{text:?}"),
            Err(name) => assert_eq!(got, Err(Fault::Missing(name.into())), "{text:?}"),
        }
    }

    #[test]
    fn variables_defaults_and_escapes() {
        check("${HOST}", Ok("h.example"));
        check("https://${HOST}/${HOST}", Ok("https://h.example/h.example"));
        check("${NONE:-a:-b}", Ok("a:-b"));
        check("${NONE:-}", Ok(""));
        check("${EMPTY:-d}", Ok("d"));
        check("${EMPTY}", Ok(""));
        check("${HOST:-d}", Ok("h.example"));
        check("$${HOST} ${HOST}", Ok("${HOST} h.example"));
        check("$HOST $$ $", Ok("$HOST $$ $"));
        check("${NONE}", Err("NONE"));
        check("a ${HOST", Err(""));
        check("${}", Err(""));
        check("${1A}", Err(""));
        check("${A B}", Err(""));
        check("${A:-${HOST}}", Err(""));
    }

    #[test]
    fn a_variable_is_replaced_once_and_never_becomes_structure() {
        let mut tree = parse("a: ${EVIL}\nb: [\"${EVIL}\"]\n").ok().unwrap();
        let mut problems = Vec::new();
        substitute(&mut tree, &env(), &mut problems);
        assert_eq!(problems, []);
        let Value::Map(entries) = &tree.value else {
            panic!("no mapping")
        };
        assert_eq!(entries.len(), 2);
        let Value::Text(text) = &entries[0].node.value else {
            panic!("no text")
        };
        assert_eq!(text, env().get("EVIL").unwrap());
    }

    #[test]
    fn keys_are_left_alone_and_every_missing_variable_is_named_with_its_place() {
        let mut tree = parse("${HOST}: 1\na:\n  - x\n  - ${HOTS}\nb: {c: \"${ZZZZZZZZ}\"}\n")
            .ok()
            .unwrap();
        let mut problems = Vec::new();
        substitute(&mut tree, &env(), &mut problems);
        let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "a[1]: the environment variable HOTS is not set (did you mean ${HOST}?)",
                "b.c: the environment variable ZZZZZZZZ is not set (set it, or write ${ZZZZZZZZ:-default})",
            ]
        );
        assert_eq!(problems[0].line, 4);
        assert_eq!(problems[1].line, 5);
    }
}
