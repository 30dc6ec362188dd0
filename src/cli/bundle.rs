//! `policy from-bundle`: the policy that a bundle implies, as YAML that can be put into the configuration.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::config::Env;
use crate::config::bundle::{Request, load};
use crate::domain::bundle::Declared;
use crate::domain::bundle::routes::{Routes, routes};
use crate::domain::catalog::Catalog;
use crate::domain::compile::{Settings, compile};
use crate::domain::problem::Problem;
use crate::policy_text::{Commented, write};

use super::{exit, print, problem_json, report};

/// Print the policy that a Databricks bundle implies for one of its apps
#[derive(clap::Args)]
pub struct FromBundle {
    /// The bundle's root file, or the folder it is in
    #[arg(value_name = "databricks.yml")]
    file: PathBuf,
    /// The app's key under resources.apps; needed where there are several
    #[arg(long, value_name = "KEY")]
    app: Option<String>,
    /// The target; else $DATABRICKS_BUNDLE_TARGET, else the bundle's default
    #[arg(long, value_name = "T")]
    target: Option<String>,
    /// The value of a variable; may be given several times
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(String, String)>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn variable(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "write NAME=VALUE".to_owned())
}

/// Reads the bundle and prints its policy, or every mistake.
pub fn from_bundle(arguments: &FromBundle, env: &Env) -> u8 {
    let request = Request {
        file: &arguments.file,
        app: arguments.app.as_deref(),
        target: arguments.target.as_deref(),
        variables: &arguments.variables,
        env,
    };
    let derived = load(&request).and_then(|loaded| {
        let catalog = Catalog::built_in()?;
        let derived = routes(&loaded.declared, &catalog, []);
        let sources: Vec<_> = derived.routes.iter().map(|d| d.route.clone()).collect();
        // What is printed loads.
        compile(&sources, catalog, Settings::default())?;
        Ok((loaded.declared, derived))
    });
    match derived {
        Ok((declared, derived)) if arguments.json => {
            print(&format!("{:#}\n", as_json(&declared, &derived)))
        }
        Ok((declared, derived)) => print(&as_yaml(&declared, &derived)),
        Err(problems) => {
            if arguments.json {
                let list: Vec<Value> = problems.iter().map(problem_json).collect();
                let written = print(&format!("{:#}\n", json!({"problems": list})));
                if written != exit::GOOD {
                    return written;
                }
            }
            report(&problems)
        }
    }
}

fn left_out<'a>(declared: &'a Declared, derived: &'a Routes) -> impl Iterator<Item = &'a Problem> {
    declared.left_out.iter().chain(&derived.idle)
}

fn as_yaml(declared: &Declared, derived: &Routes) -> String {
    let head = [
        format!("What {} gives the app `{}` in target `{}`.", declared.file, declared.app, declared.target),
        "Put it into valetkey.yaml, or write `bundle:` with the file's path there to follow the bundle.".to_owned(),
    ];
    let routes: Vec<Commented<'_>> = derived
        .routes
        .iter()
        .map(|derived| Commented {
            comment: &derived.from,
            route: &derived.route,
        })
        .collect();
    let mut tail: Vec<String> = left_out(declared, derived)
        .map(ToString::to_string)
        .collect();
    if !tail.is_empty() {
        tail.insert(0, "Not in this policy:".to_owned());
    }
    write(&head, &declared.ceiling(), &routes, &tail)
}

fn as_json(declared: &Declared, derived: &Routes) -> Value {
    let routes: Vec<Value> = derived
        .routes
        .iter()
        .map(|derived| {
            let route = &derived.route;
            json!({
                "name": route.name,
                "resource": route.resource,
                "operation": route.operation,
                "tools": route.tools,
                "effect": route.effect.map(|effect| effect.as_str()),
                "as": route.run_as.as_str(),
                "from": derived.from,
            })
        })
        .collect();
    let scopes: Vec<String> = declared.ceiling().iter().map(ToString::to_string).collect();
    let left_out: Vec<Value> = left_out(declared, derived).map(problem_json).collect();
    json!({
        "file": declared.file,
        "app": declared.app,
        "target": declared.target,
        "users": {"scopes": scopes},
        "routes": routes,
        "left_out": left_out,
    })
}
