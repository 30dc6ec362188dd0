//! `check` and `explain`: what a configuration means.

use std::io::Read as _;
use std::path::PathBuf;

use http::Method;
use serde_json::json;

use crate::app::{self, compile_policy};
use crate::config::{Config, Env};
use crate::domain::catalog::Effect;
use crate::domain::clock::{Clock as _, SystemClock};
use crate::domain::policy::Policy;
use crate::domain::route::PolicyOrigin;
use crate::explain::{self, Answer, As, Question};

use super::{ConfigArgument, complain, exit, print, problem_json, report, table};

/// The largest body that `explain` reads, in bytes.
const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Say whether a call would be allowed, as whom, and by which route
#[derive(clap::Args)]
pub struct Explain {
    #[command(flatten)]
    config: ConfigArgument,
    /// Who calls
    #[arg(long = "as", value_name = "IDENTITY", value_parser = ["user", "app"])]
    identity: String,
    /// The scopes of the user's session; all when left out, within users.scopes
    #[arg(long, value_delimiter = ',', value_name = "S,…")]
    scopes: Option<Vec<String>>,
    /// Upper case, such as POST
    method: String,
    /// Path and query, such as /api/2.0/sql/statements
    path: String,
    /// The body, for calls whose resource is in it; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// A header that decides, such as X-Databricks-UC-Table-Name=main.ops.spans; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    header: Vec<String>,
    /// What an id that an earlier answer gave out stands for, such as sql_warehouse/1234abcd
    #[arg(long, value_name = "TYPE/ID")]
    bound: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Validates and prints the effective policy.
pub fn check(argument: &ConfigArgument, as_json: bool, env: &Env) -> u8 {
    let (config, policy) = match load(argument, as_json, env) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let warnings = app::warnings(&config, &policy);
    if as_json {
        let routes: Vec<_> = policy.routes().iter().map(|route| {
            let matcher = route.matcher();
            json!({"name": &*route.name, "line": route.line, "matches": route.describe(), "effect": matcher.effect().map(Effect::as_str), "tools": matcher.tools(), "as": route.run_as.as_str(), "scope": route.scope.as_ref().map(ToString::to_string)})
        }).collect();
        let summary: serde_json::Map<_, _> = config
            .summary()
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.into()))
            .collect();
        let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        return print(&format!(
            "{:#}\n",
            json!({"config": summary, "catalog": policy.catalog().version(), "routes": routes, "warnings": warnings})
        ));
    }
    let mut text = table(
        &config
            .summary()
            .into_iter()
            .map(|(key, value)| vec![key.to_owned(), value])
            .collect::<Vec<_>>(),
    );
    text.push('\n');
    let mut rows = vec![
        ["#", "ROUTE", "MATCHES", "AS", "SCOPE"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for (number, route) in (1..).zip(policy.routes()) {
        let scope = route
            .scope
            .as_ref()
            .map_or_else(|| "of the operation".to_owned(), ToString::to_string);
        rows.push(vec![
            format!("{number}"),
            route.name.to_string(),
            route.describe(),
            route.run_as.as_str().to_owned(),
            scope,
        ]);
    }
    text.push_str(&table(&rows));
    text.push_str(match policy.origin() {
        PolicyOrigin::Routes | PolicyOrigin::Bundle => "everything else is denied\n",
        PolicyOrigin::Starter => "no routes are configured: this is the built-in starter policy; operations of admin effect and unknown paths are denied\n",
    });
    for warning in warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    print(&text)
}

/// Explains one call; exit 1 when it would be refused.
pub fn explain(arguments: &Explain, env: &Env) -> u8 {
    let (config, policy) = match load(&arguments.config, arguments.json, env) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let Ok(method) = Method::from_bytes(arguments.method.as_bytes()) else {
        return complain(&format!("`{}` is no method", arguments.method), exit::USAGE);
    };
    let body = match arguments.body.as_ref().map(read_body).transpose() {
        Ok(body) => body,
        Err(message) => return complain(&message, exit::USAGE),
    };
    let caller = if arguments.identity == "app" {
        As::App
    } else {
        let given = arguments.scopes.as_ref();
        As::user(
            given.map(|names| names.iter().map(String::as_str)),
            config.users.scopes.as_ref(),
        )
    };
    let headers = match explain::headers(&arguments.header) {
        Ok(headers) => headers,
        Err(message) => return complain(&message, exit::USAGE),
    };
    let bound = match arguments.bound.as_deref().map(explain::bound).transpose() {
        Ok(bound) => bound,
        Err(message) => return complain(&message, exit::USAGE),
    };
    let question = Question {
        caller: &caller,
        method: &method,
        target: &arguments.path,
        headers: &headers,
        bound,
        foreign_partition: false,
        now: SystemClock.now(),
        body: body.as_deref(),
        workspace_id: config.workspace.workspace_id.as_deref(),
        upstreams: &config.outbound.destinations(),
    };
    let answer = explain::explain(&policy, &question);
    let written = if arguments.json {
        print(&format!("{:#}\n", answer.to_json()))
    } else {
        print(&words(&answer))
    };
    if written != exit::GOOD {
        return written;
    }
    if answer.allowed { exit::GOOD } else { exit::NO }
}

/// The configuration and its policy, or every mistake: on standard error, and on standard output where JSON is asked for.
fn load(argument: &ConfigArgument, as_json: bool, env: &Env) -> Result<(Config, Policy), u8> {
    Config::load(&argument.options(), env)
        .and_then(|config| compile_policy(&config).map(|policy| (config, policy)))
        .map_err(|problems| {
            if as_json {
                let list: Vec<_> = problems.iter().map(problem_json).collect();
                print(&format!("{:#}\n", json!({"problems": list})));
            }
            report(&problems)
        })
}

fn read_body(path: &PathBuf) -> Result<Vec<u8>, String> {
    let fault =
        |cause: std::io::Error| format!("cannot read the body from {}: {cause}", path.display());
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin()
            .lock()
            .take(BODY_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(fault)?;
    } else {
        std::fs::File::open(path)
            .map_err(fault)?
            .take(BODY_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(fault)?;
    }
    Ok(bytes)
}

/// An answer as a table.
pub fn words(answer: &Answer) -> String {
    let mut rows = vec![vec![
        if answer.allowed { "ALLOWED" } else { "REFUSED" }.to_owned(),
        answer.text.clone(),
    ]];
    let mut add = |name: &str, value: Option<String>| {
        rows.extend(value.map(|value| vec![name.to_owned(), value]))
    };
    add("reason", answer.reason.map(str::to_owned));
    add(
        "operation",
        { answer.operation.clone().zip(answer.effect) }
            .map(|(operation, effect)| format!("{operation} ({effect})")),
    );
    add(
        "resource",
        (!answer.resources.is_empty()).then(|| answer.resources.join(" ")),
    );
    add(
        "route",
        answer
            .route
            .clone()
            .zip(answer.route_text.clone())
            .map(|(name, text)| format!("{name} ({text})")),
    );
    add(
        "together",
        (answer.routes.len() > 1).then(|| answer.routes.join(", ")),
    );
    add("scope", answer.scope.clone());
    add("would be", answer.would_deny.map(str::to_owned));
    add("nearest", answer.nearest.clone());
    add("add", answer.suggestion.clone());
    table(&rows)
}
