//! The configuration from outside: the example, an app without a file, and many faulty files with their exact answers.

use super::*;

const EXAMPLE: &str = include_str!("../../config/valetkey.yaml");
/// Put into every secret and variable of these tests; must never come out again.
const CANARY: &str = "canary";

fn env(pairs: &[(&str, &str)]) -> Env {
    pairs.iter().copied().collect()
}

fn app_env() -> Env {
    env(&[
        ("DATABRICKS_HOST", "my-ws.cloud.databricks.com"),
        ("DATABRICKS_WORKSPACE_ID", "4711"),
        (
            "DATABRICKS_CLIENT_ID",
            "11111111-2222-3333-4444-555555555555",
        ),
        ("DATABRICKS_CLIENT_SECRET", "dose-canary-secret"),
        ("DATABRICKS_APP_PORT", "8443"),
        ("LOCAL", "canary-canary-canary"),
        ("EMPTY", ""),
        ("TWO_LINES", "canary\ncanary"),
        ("BAD_WORD", "canary-word"),
    ])
}

fn parse(text: &str) -> Result<Config, Vec<Problem>> {
    Config::parse(text, Some(Path::new("valetkey.yaml")), &app_env())
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"))
}

fn refusals(text: &str) -> Vec<String> {
    let problems = parse(text).err().unwrap_or_default();
    let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(!shown.join("\n").contains(CANARY), "{shown:#?}");
    shown
}

/// The text has exactly these problems, in this order.
fn check(text: &str, expected: &[&str]) {
    assert_eq!(refusals(text), expected, "{text}");
}

mod loading;
mod refusals;
mod shapes;
mod upstreams;
