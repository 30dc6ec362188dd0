//! A policy as the YAML of a configuration file, with a comment on each route: for commands that propose one.
//!
//! What is written loads again and means the same; a test of the round trip is in `tests/bundles.rs`. Knows neither where
//! the routes come from nor where the text goes.

use crate::domain::route::RouteSource;
use crate::domain::scope::ScopeSet;

/// A route with what is to be said of it.
#[derive(Debug, Clone, Copy)]
pub struct Commented<'a> {
    /// One line, without the `#`.
    pub comment: &'a str,
    /// The route.
    pub route: &'a RouteSource,
}

/// Writes `users.scopes` and `routes`; `head` and `tail` are comments before and after them, a line each.
pub fn write(
    head: &[String],
    ceiling: &ScopeSet,
    routes: &[Commented<'_>],
    tail: &[String],
) -> String {
    let mut out = String::new();
    for line in head {
        comment(&mut out, "", line);
    }
    let scopes: Vec<&str> = ceiling.iter().map(|scope| scope.as_str()).collect();
    out.push_str(&format!("users:\n  scopes: {}\n", list(scopes)));
    out.push_str("routes:");
    out.push_str(if routes.is_empty() { " []\n" } else { "\n" });
    for entry in routes {
        comment(&mut out, "  ", entry.comment);
        route(&mut out, entry.route);
    }
    for line in tail {
        comment(&mut out, "", line);
    }
    out
}

fn route(out: &mut String, route: &RouteSource) {
    out.push_str(&format!("  - name: {}\n", scalar(&route.name)));
    let mut line = |key: &str, value: String| out.push_str(&format!("    {key}: {value}\n"));
    if let Some(resource) = &route.resource {
        line("resource", scalar(resource));
    }
    if let Some(operation) = &route.operation {
        line("operation", scalar(operation));
    }
    if !route.methods.is_empty() {
        line("method", list(route.methods.iter().map(String::as_str)));
    }
    if let Some(path) = &route.path {
        line("path", scalar(path));
    }
    if !route.body.is_empty() {
        let members = route.body.iter().map(|(key, values)| {
            let values = list(values.iter().map(String::as_str));
            format!("{}: {values}", scalar(key))
        });
        let members: Vec<String> = members.collect();
        line("body", format!("{{{}}}", members.join(", ")));
    }
    if !route.tools.is_empty() {
        line("tools", list(route.tools.iter().map(String::as_str)));
    }
    if let Some(effect) = route.effect {
        line("effect", effect.as_str().to_owned());
    }
    line("as", route.run_as.as_str().to_owned());
    if let Some(scope) = &route.scope {
        line("scope", scalar(scope));
    }
}

/// A comment ends with its line, whatever is in it.
fn comment(out: &mut String, indent: &str, text: &str) {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    out.push_str(format!("{indent}# {text}").trim_end());
    out.push('\n');
}

fn list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<String> = texts.into_iter().map(scalar).collect();
    format!("[{}]", texts.join(", "))
}

/// Plain where that can only be this text, else in quotes; `${` stays what it is.
pub fn scalar(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
    let starts = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'/');
    let null = matches!(text, "null" | "Null" | "NULL");
    if starts && !null && (text.bytes().all(plain) || is_family(text)) {
        return text.to_owned();
    }
    // JSON strings are YAML strings; the configuration's own `${` is escaped.
    serde_json::Value::from(text.replace("${", "$${")).to_string()
}

/// `sql.*`: a star behind a word is no alias.
fn is_family(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    text.strip_suffix(".*")
        .is_some_and(|family| family.bytes().all(plain))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Config, Env};
    use crate::domain::catalog::Effect;
    use crate::domain::route::RunAs;

    #[test]
    fn whatever_a_route_says_is_read_back_as_it_was() {
        let odd = "a: b # \"${X}\" [é] *";
        let route = RouteSource {
            name: "r".into(),
            line: 0,
            resource: Some(format!("table/{odd}").replace('*', "")),
            operation: Some("unity-catalog.*".into()),
            methods: Vec::new(),
            path: None,
            body: BTreeMap::new(),
            tools: Vec::new(),
            effect: Some(Effect::Read),
            run_as: RunAs::App,
            scope: Some("sql:restricted-query".into()),
        };
        let raw = RouteSource {
            name: "raw".into(),
            resource: None,
            operation: None,
            methods: vec!["GET".into(), "PUT".into()],
            path: Some("/api/2.0/x/{y}/**".into()),
            body: BTreeMap::from([("null".into(), vec![odd.into(), "null".into()])]),
            effect: None,
            ..route.clone()
        };
        let tool = RouteSource {
            name: "tool".into(),
            resource: Some("mcp/functions/a.b".into()),
            operation: None,
            tools: vec!["c".into()],
            ..route.clone()
        };
        let routes = [route, raw, tool];
        let commented = routes.iter().map(|route| Commented {
            comment: "a\n- b: c",
            route,
        });
        let commented: Vec<_> = commented.collect();
        let ceiling = ScopeSet::parse(["sql", "iam.current-user:read"]);
        let text = write(&["head".into()], &ceiling, &commented, &["tail".into()]);
        let env = Env::from_iter([
            ("DATABRICKS_HOST", "x.example"),
            ("DATABRICKS_WORKSPACE_ID", "1"),
        ]);
        let config = Config::parse(&text, None, &env).unwrap_or_else(|p| panic!("{text}\n{p:#?}"));
        let read = config
            .routes
            .into_iter()
            .map(|route| RouteSource { line: 0, ..route });
        assert_eq!(read.collect::<Vec<_>>(), routes, "{text}");
        assert_eq!(config.users.scopes, Some(ceiling));
    }
}
