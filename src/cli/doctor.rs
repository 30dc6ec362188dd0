//! `doctor`: one line for each thing that must be right, with the remedy where it is not.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::Env;
use crate::doctor::{self, Finding, Verdict};
use crate::domain::clock::SystemClock;

use super::{ConfigArgument, exit, print, problem_json, serve, table};

/// Examines; exit 0 when nothing failed, 1 when something did, 78 when the configuration cannot be read.
pub fn examine(argument: &ConfigArgument, as_json: bool, env: &Env) -> u8 {
    let config = match argument.try_load(env) {
        Ok(config) => config,
        Err(problems) if as_json => {
            let problems: Vec<Value> = problems.iter().map(problem_json).collect();
            print(&format!(
                "{:#}\n",
                json!({"good": false, "problems": problems})
            ));
            return exit::CONFIG;
        }
        Err(problems) => return super::report(&problems),
    };
    let runtime = match serve::runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    let findings = runtime.block_on(Box::pin(doctor::examine(&config, Arc::new(SystemClock))));
    let good = findings
        .iter()
        .all(|finding| finding.verdict != Verdict::Fail);
    let printed = if as_json {
        let checks: Vec<Value> = findings.iter().map(Finding::json).collect();
        print(&format!("{:#}\n", json!({"good": good, "checks": checks})))
    } else {
        print(&text(&findings))
    };
    match (printed, good) {
        (exit::GOOD, true) => exit::GOOD,
        (exit::GOOD, false) => exit::NO,
        (other, _) => other,
    }
}

fn text(findings: &[Finding]) -> String {
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|finding| {
            let remedy = finding.remedy.as_ref();
            let remedy = remedy.map_or_else(String::new, |remedy| format!(" → {remedy}"));
            vec![
                finding.verdict.as_str().to_owned(),
                finding.name.clone(),
                format!("{}{remedy}", finding.detail),
            ]
        })
        .collect();
    table(&rows)
}
