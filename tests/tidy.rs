//! The house rules, checked by reading the sources: floors, forbidden names, sizes, and what the README must list.
//!
//! What clippy can check is in `Cargo.toml` and `.clippy.toml`. Rules are in `tidy/rules.rs`, exceptions with their reasons in
//! `tidy/permits.rs`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may fail by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tidy::rules::{RULES, unused_permits};
use tidy::source::{Kind, Source, read_all};
use valetkey::domain::missing::Plane;
use valetkey::domain::policy::denial::DenyReason;
use valetkey::proxy::error::REASONS;

mod tidy {
    pub mod permits;
    pub mod rules;
    pub mod source;
}

/// PRODUCT 8, every name.
const METRICS: [&str; 18] = [
    "valetkey_requests_total",
    "valetkey_request_duration_seconds",
    "valetkey_overhead_seconds",
    "valetkey_inflight_requests",
    "valetkey_denials_total",
    "valetkey_token_verifications_total",
    "valetkey_jwks_fetches_total",
    "valetkey_credential_fetches_total",
    "valetkey_credential_expiry_timestamp_seconds",
    "valetkey_sessions",
    "valetkey_sessions_opened_total",
    "valetkey_audit_records_total",
    "valetkey_audit_failures_total",
    "valetkey_audit_ship_segments_total",
    "valetkey_audit_ship_lag_seconds",
    "valetkey_audit_ship_pending_segments",
    "valetkey_policy_reloads_total",
    "valetkey_build_info",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let sources = read_all(root(), &["src", "tests", "benches"]);
    assert!(sources.len() > 100, "only {} files found", sources.len());
    sources
}

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_file_keeps_the_house_rules() {
    let mut complaints = Vec::new();
    for source in &sources() {
        for (name, rule) in RULES {
            complaints.extend(rule(source).into_iter().map(|c| format!("{c} [{name}]")));
        }
    }
    assert_none(&complaints);
}

#[test]
fn every_permit_has_a_reason_and_is_used() {
    assert_none(&unused_permits(&sources()));
}

/// A file with one fault, and the rule that must see it.
const FAULTS: &[(&str, &str, &str)] = &[
    (
        "floors",
        "src/domain/a.rs",
        "use crate::runtime::session::SessionTable;",
    ),
    (
        "floors",
        "src/runtime/a.rs",
        "use crate::{domain::scope, proxy::{error, body}};",
    ),
    (
        "floors",
        "src/proxy/a.rs",
        "fn f() { crate::app::start(); }",
    ),
    (
        "floors",
        "src/domain/a/b.rs",
        "use super::super::super::config;",
    ),
    (
        "floors",
        "src/domain/a.rs",
        "#[cfg(test)] mod tests { use crate::config::Config; }",
    ),
    ("domain is pure", "src/domain/a.rs", "pub async fn f() {}"),
    (
        "domain is pure",
        "src/domain/a.rs",
        "use tokio::time::Instant;",
    ),
    (
        "authorization",
        "src/proxy/a.rs",
        "use http::header::AUTHORIZATION;",
    ),
    (
        "authorization",
        "src/config/a.rs",
        "const A: &str = r#\"Authorization\"#;",
    ),
    (
        "expose",
        "src/proxy/a.rs",
        "fn f(s: &Secret) -> &str { s.expose() }",
    ),
    (
        "expose",
        "src/proxy/a.rs",
        "fn f(s: &[Secret]) { s.iter().map(Secret::expose); }",
    ),
    (
        "clock",
        "src/runtime/a.rs",
        "fn f() { jiff::Timestamp::now(); }",
    ),
    (
        "environment",
        "src/config/a.rs",
        "fn f() { std::env::var(\"HOME\"); }",
    ),
    (
        "environment",
        "src/config/a.rs",
        "use std::env::{self, var};",
    ),
    ("printing", "src/app.rs", "fn f() { println!(\"x\"); }"),
    ("printing", "src/app.rs", "fn f() { std::io::stdout(); }"),
    ("head comment", "src/a.rs", ""),
    ("globs", "src/a.rs", "use std::io::*;"),
    ("globs", "src/proxy/a.rs", "use super::*;"),
    (
        "globs",
        "tests/it/a.rs",
        "use valetkey::{domain::*, proxy};",
    ),
    ("re-exports", "src/a.rs", "pub use b::C;"),
    ("re-exports", "src/a.rs", "pub(crate) use b::C;"),
    ("mod.rs", "src/a/mod.rs", ""),
    ("test names", "tests/a.rs", "#[test] fn test_it() {}"),
    (
        "ignored tests",
        "tests/a.rs",
        "#[test] #[ignore = \"slow\"] fn it_works() {}",
    ),
    ("stubs", "src/a.rs", "fn f() { todo!() }"),
    ("stubs", "src/a.rs", "fn f() { unimplemented!(\"later\") }"),
    (
        "sleeping tests",
        "tests/it/a.rs",
        "fn f() { std::thread::sleep(d); }",
    ),
    (
        "sleeping tests",
        "src/a.rs",
        "#[cfg(test)] mod tests { async fn f() { sleep(d).await; } }",
    ),
    (
        "lint exceptions",
        "src/a.rs",
        "#[allow(dead_code)] fn f() {}",
    ),
    (
        "lint exceptions",
        "src/a.rs",
        "#[expect(dead_code)] fn f() {}",
    ),
];

/// What looks like a fault and is none.
const INNOCENT: &[(&str, &str)] = &[
    (
        "src/domain/a.rs",
        "// async, `crate::proxy`, println!, todo!\n/* tokio /* await */ hyper */",
    ),
    (
        "src/domain/a.rs",
        "const A: &str = \"async tokio \\\" crate::proxy .expose() authorization header\";",
    ),
    (
        "src/domain/a.rs",
        "use crate::domain::{clock, scope::Scope};\nfn f<'a>(c: char) -> bool { c == '\"' || c == '\\'' }",
    ),
    ("src/domain/a/b.rs", "use super::super::clock;"),
    (
        "src/runtime/a.rs",
        "#[cfg(test)] mod tests { use super::*; fn f(s: &Secret) { s.expose(); } }",
    ),
    (
        "src/runtime/a.rs",
        "async fn f() { tokio::time::sleep(d).await; }",
    ),
    (
        "src/runtime/a.rs",
        "#[cfg(test)] mod tests { #[tokio::test(start_paused = true)] async fn f() { sleep(d).await; } }",
    ),
    (
        "src/runtime/a.rs",
        "#[expect(dead_code, reason = \"[read] by tests\")] fn f() -> f64 { 2.0 * std::f64::consts::PI }",
    ),
    ("src/embedded/a.rs", "use http::header::AUTHORIZATION;"),
    ("src/cli.rs", "fn f() { println!(); }"),
    ("src/main.rs", "fn main() { std::env::vars_os(); }"),
];

#[test]
fn every_rule_sees_its_fault() {
    let mut seen = BTreeSet::new();
    for (name, path, code) in FAULTS {
        let head = if *name == "head comment" {
            ""
        } else {
            "//! A file.\n"
        };
        let source = Source::read(path, &format!("{head}{code}\n"));
        let hits: Vec<&str> = RULES
            .iter()
            .filter(|(_, rule)| !rule(&source).is_empty())
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(hits, [*name], "{path}: {code}");
        seen.insert(*name);
    }
    let long = format!("//! A file.\n{}", "const A: u8 = 1;\n".repeat(400));
    for (name, rule) in RULES {
        let complaints = rule(&Source::read("src/a.rs", &long));
        assert_eq!(
            complaints.len(),
            usize::from(*name == "file size"),
            "{complaints:?}"
        );
    }
    seen.insert("file size");
    assert_eq!(seen.len(), RULES.len(), "a rule without a fault: {seen:?}");
}

#[test]
fn no_rule_is_taken_in_by_comments_strings_and_tests() {
    let tail =
        "#[cfg(test)]\nmod tests {\n".to_owned() + &"    const A: u8 = 1;\n".repeat(500) + "}\n";
    for (path, code) in INNOCENT.iter().chain([&("src/a.rs", tail.as_str())]) {
        let source = Source::read(path, &format!("//! A file.\n{code}\n"));
        for (_, rule) in RULES {
            assert_none(&rule(&source));
        }
    }
}

/// A room: its file and the files of its folder.
fn room(name: &str) -> Vec<Source> {
    let (file, folder) = (format!("{name}.rs"), format!("{name}/"));
    let mut sources = read_all(root(), &["src"]);
    sources.retain(|source| source.path == file || source.path.starts_with(&folder));
    assert!(!sources.is_empty(), "{name} is gone");
    sources
}

/// The strings in the functions of `proxy/error.rs` that choose a reason.
fn reasons_in_the_table() -> BTreeSet<String> {
    let mut reasons = BTreeSet::new();
    for source in &room("src/proxy/error") {
        let mut function = "";
        for (index, token) in source.tokens.iter().enumerate() {
            if index > 0 && source.reads(index - 1, &["fn"]) {
                function = &token.text;
            }
            let chooses = ["row", "token_reason", "credential_row"].contains(&function);
            let word = token
                .text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b == b'_');
            // `token_reason` matches on these.
            let matched = ["missing", "expired"].contains(&token.text.as_str());
            if token.kind == Kind::Text && chooses && word && !matched {
                reasons.insert(token.text.clone());
            }
        }
    }
    reasons
}

#[test]
fn the_list_of_reasons_is_that_of_the_table() {
    let listed: BTreeSet<String> = REASONS.iter().map(ToString::to_string).collect();
    assert_eq!(listed, reasons_in_the_table());
    assert_eq!(listed.len(), REASONS.len(), "a reason is listed twice");
}

/// Those of the names that the README does not hold in backticks.
fn missing_in_readme<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let readme = fs::read_to_string(root().join("README.md")).unwrap_or_default();
    let known = |name: &str| {
        readme.contains(&format!("`{name}`")) || readme.contains(&format!("`{name}{{"))
    };
    names
        .into_iter()
        .filter(|name| !known(name))
        .map(|name| format!("README.md does not explain `{name}`"))
        .collect()
}

#[test]
fn every_reason_is_in_the_readme() {
    let denials = DenyReason::ALL.iter().map(|reason| reason.code());
    let planes = Plane::ALL
        .iter()
        .flat_map(|plane| [plane.as_str(), plane.reason()]);
    let reasons: BTreeSet<&str> = REASONS
        .iter()
        .copied()
        .chain(denials)
        .chain(planes)
        .collect();
    assert_none(&missing_in_readme(reasons));
}

#[test]
fn every_metric_of_the_contract_exists_and_is_in_the_readme() {
    let registered: BTreeSet<String> = room("src/runtime/metrics")
        .into_iter()
        .flat_map(|source| source.tokens)
        .filter(|token| token.kind == Kind::Text && !token.test)
        .filter(|token| token.text.starts_with("valetkey_"))
        .map(|token| token.text)
        .collect();
    for name in METRICS {
        assert!(registered.contains(name), "{name} is not registered");
    }
    assert_none(&missing_in_readme(registered.iter().map(String::as_str)));
}
