//! `policy test`: runs table tests of policies and says what came out otherwise than expected.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::policy::words;
use super::{exit, print, problem_json, report_in};
use crate::config::Env;
use crate::domain::problem::Problem;
use crate::policy_test::{Outcome, Table};

/// Run table tests of a policy; exit 1 when one fails
#[derive(clap::Args)]
pub struct PolicyTest {
    /// Files with tests
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs all files; mistakes in any are told before anything is run.
pub fn test(arguments: &PolicyTest, env: &Env) -> u8 {
    let mut tables = Vec::new();
    let mut problems: Vec<Problem> = Vec::new();
    for file in &arguments.files {
        match Table::load(file, env) {
            Ok(table) => tables.push(table),
            Err(mut found) => problems.append(&mut found),
        }
    }
    if !problems.is_empty() {
        if arguments.json {
            let list: Vec<Value> = problems.iter().map(problem_json).collect();
            let written = print(&format!("{:#}\n", json!({"problems": list})));
            if written != exit::GOOD {
                return written;
            }
        }
        return report_in("the tests or their policies", &problems);
    }
    let results: Vec<(&Table, Vec<Outcome<'_>>)> =
        tables.iter().map(|table| (table, table.run())).collect();
    let outcomes = || results.iter().flat_map(|(_, outcomes)| outcomes);
    let failed = outcomes().filter(|outcome| !outcome.passed()).count();
    let passed = outcomes().count() - failed;
    let written = if arguments.json {
        let files: Vec<Value> = results
            .iter()
            .map(|(table, o)| file_json(table, o))
            .collect();
        let all = json!({"passed": passed, "failed": failed, "files": files});
        print(&format!("{all:#}\n"))
    } else {
        let mut text: String = results
            .iter()
            .map(|(table, o)| file_text(table, o))
            .collect();
        text.push_str(&format!("{passed} passed, {failed} failed\n"));
        print(&text)
    };
    match (written, failed) {
        (exit::GOOD, 0) => exit::GOOD,
        (exit::GOOD, _) => exit::NO,
        (fault, _) => fault,
    }
}

fn file_json(table: &Table, outcomes: &[Outcome<'_>]) -> Value {
    let tests: Vec<Value> = outcomes.iter().map(Outcome::to_json).collect();
    json!({
        "file": table.file.display().to_string(),
        "tests": tests,
        "untested": table.untested(outcomes),
    })
}

fn file_text(table: &Table, outcomes: &[Outcome<'_>]) -> String {
    let file = table.file.display();
    let mut text = String::new();
    for outcome in outcomes.iter().filter(|outcome| !outcome.passed()) {
        let Outcome {
            case, differences, ..
        } = outcome;
        let what = differences.join("; ");
        text.push_str(&format!(
            "FAIL  {file}:{}: {}: {what}\n",
            case.line, case.name
        ));
        for line in words(&outcome.answer).lines() {
            text.push_str(&format!("      {line}\n"));
        }
    }
    let passed = outcomes.iter().filter(|outcome| outcome.passed()).count();
    let all = outcomes.len();
    let mark = if passed == all { "ok  " } else { "FAIL" };
    text.push_str(&format!("{mark}  {file}: {passed} of {all} as expected"));
    let untested = table.untested(outcomes);
    if !untested.is_empty() {
        text.push_str(&format!("; decides no test: {}", untested.join(", ")));
    }
    text.push('\n');
    text
}
