//! Alert rules and dashboard: promtool's own checks, names and labels against what is exported, and a real Prometheus that
//! scrapes a real sidecar and evaluates every expression.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use valetkey::config::{Config, Env};
use valetkey::domain::missing::Plane;
use valetkey::domain::policy::denial::DenyReason;
use valetkey::embedded::workspace::Workspace;
use valetkey::embedded::world::{EXPERIMENT, WAREHOUSE, WAREHOUSE_RESTRICTED};
use valetkey::proxy::error::REASONS;
use valetkey::runtime::metrics::{Direction, Metrics, RequestLabels};

use crate::harness::{
    ALICE, Folder, Process, deploy, free_port, get, good, on_loopback, output_of, send, skipped,
    text_of, token, until, workspace, yaml,
};
use crate::promql;

const JOB: &str = "valetkey";
/// Labels that Prometheus adds.
const OF_PROMETHEUS: [&str; 2] = ["job", "instance"];
const LOCAL_ID: &str = "agent-beside-serve";
const LOCAL_SECRET: &str = "local-secret-of-the-agent-0123456789";
/// The window of rates here, for a run of some seconds.
const WINDOW: &str = "10s";
const CALL_EVERY: Duration = Duration::from_millis(200);

/// Name → expression of every alert.
fn alerts() -> BTreeMap<String, String> {
    let rules = yaml(&text_of("prometheus/alerts.yml")).remove(0);
    let groups = rules["groups"].as_array().unwrap().clone();
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rules
        .map(|rule| (text(&rule["alert"]), text(&rule["expr"])))
        .collect()
}

fn dashboard() -> Value {
    serde_json::from_str(&text_of("grafana/valetkey.json")).unwrap()
}

/// Title, expression and legend of every query on the dashboard.
fn queries() -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut all = Vec::new();
    for panel in dashboard()["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let legend = text(&target["legendFormat"]);
            all.push((text(&panel["title"]), text(&target["expr"]), legend));
        }
    }
    assert!(all.len() > 30, "{all:?}");
    all
}

/// A page with a sample of every metric that the product has.
fn every_metric() -> String {
    let metrics = Metrics::new().unwrap();
    let labels = RequestLabels {
        direction: Direction::Outbound,
        route: "r",
        identity: "app",
        decision: "allow",
        code: 200,
    };
    metrics.request(labels, Duration::from_millis(3));
    metrics.overhead(Direction::Inbound, Duration::from_micros(80));
    metrics.inflight(Direction::Inbound).inc();
    metrics.denial("no_route");
    metrics.observed_denial("r", "no_route");
    metrics.platform_refusal("declared");
    metrics.verification("ok");
    metrics.jwks_fetch("ok");
    metrics.credential_fetch("app", "ok");
    metrics.credential_expiry("app", 1.0);
    metrics.audit_record("intent");
    metrics.render()
}

/// Metric → labels, from a page in the text format.
fn exported(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (sample, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        // No value of a label that the sidecar exports holds a comma.
        let labels = labels.split(',').filter_map(|label| label.split_once('='));
        let labels = labels.map(|(label, _)| label.to_owned());
        found.entry(name.to_owned()).or_default().extend(labels);
    }
    found.insert("up".to_owned(), BTreeSet::new());
    found
}

/// The values that a label with a closed list can have.
fn closed_list(label: &str) -> Option<Vec<&'static str>> {
    Some(match label {
        "reason" => { DenyReason::ALL.iter().map(|reason| reason.code()) }
            .chain(REASONS.iter().copied())
            .collect(),
        "plane" => Plane::ALL.iter().map(|plane| plane.as_str()).collect(),
        "direction" => [Direction::Inbound, Direction::Outbound]
            .map(Direction::as_str)
            .to_vec(),
        _ => return None,
    })
}

#[track_caller]
fn assert_exists(place: &str, text: &str, legend: &str) {
    let exported = exported(&every_metric());
    let read = promql::read(text);
    assert!(!read.metrics.is_empty(), "{place}: no metric in {text}");
    let mut labels: BTreeSet<&str> = OF_PROMETHEUS.into();
    for (metric, named) in &read.metrics {
        let own = exported.get(metric);
        let own = own.unwrap_or_else(|| panic!("{place}: {metric} is not exported"));
        labels.extend(own.iter().map(String::as_str));
        for (label, value) in named {
            let known = own.contains(label) || OF_PROMETHEUS.contains(&label.as_str());
            assert!(known, "{place}: {metric} has no label {label}");
            if let (Some(list), Some(value)) = (closed_list(label), value) {
                assert!(list.contains(&value.as_str()), "{place}: {label}={value}");
            }
        }
    }
    let of_legend = legend.split("{{").skip(1);
    let of_legend = of_legend.map(|rest| rest.split_once("}}").unwrap().0.trim());
    for label in read.grouping.iter().map(String::as_str).chain(of_legend) {
        assert!(
            labels.contains(label),
            "{place}: nothing has {label}: {text}"
        );
    }
}

#[test]
fn rules_and_dashboard_name_only_what_is_exported() {
    for (alert, text) in alerts() {
        assert_exists(&alert, &text, "");
    }
    for (title, text, legend) in queries() {
        assert_exists(&title, &text, &legend);
    }
}

#[test]
fn rules_name_only_reasons_and_planes_that_exist() {
    let rules = text_of("prometheus/alerts.yml");
    for (label, mark) in [("reason", "reason=~\""), ("plane", "$labels.plane \"")] {
        let list = closed_list(label).unwrap();
        let named = rules.split(mark).skip(1);
        let named: Vec<&str> = named
            .flat_map(|rest| rest.split('"').next().unwrap().split('|'))
            .collect();
        assert!(!named.is_empty(), "{label}");
        for value in named {
            assert!(list.contains(&value), "{label} {value}");
        }
    }
}

#[test]
fn the_limit_of_sessions_is_four_fifths_of_the_default() {
    let config = "workspace: {host: \"http://127.0.0.1:1\", id: \"12\"}";
    let config = Config::parse(config, None, &Env::default()).unwrap();
    let limit = config.users.session.sessions_max * 4 / 5;
    let expected = format!("valetkey_sessions > {limit}");
    assert_eq!(alerts()["ValetkeySessionsNearLimit"], expected);
}

#[test]
fn every_alert_has_a_severity_a_runbook_and_a_test_in_which_it_fires() {
    let rules = yaml(&text_of("prometheus/alerts.yml")).remove(0);
    let tests = yaml(&text_of("prometheus/alerts_test.yml")).remove(0);
    let cases = tests["tests"].as_array().unwrap().clone();
    let cases: Vec<&Value> = { cases.iter() }
        .flat_map(|test| test["alert_rule_test"].as_array().unwrap())
        .collect();
    let has = |alert: &Value, fires: bool| {
        { cases.iter() }
            .filter(|case| case["alertname"] == *alert)
            .any(|case| case["exp_alerts"].is_array() == fires)
    };
    for group in rules["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            let alert = &rule["alert"];
            assert!(has(alert, true), "no test in which {alert} fires");
            assert!(has(alert, false), "no test in which {alert} keeps quiet");
            let severity = rule["labels"]["severity"].as_str().unwrap();
            assert!(
                ["info", "warning", "critical"].contains(&severity),
                "{alert}"
            );
            for words in ["summary", "runbook"] {
                let text = rule["annotations"][words].as_str().unwrap();
                assert!(text.len() > 20, "{alert}: {words}");
            }
        }
    }
}

#[test]
fn the_dashboard_is_one_that_grafana_takes() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "valetkey");
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: id");
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(side("x") + side("w") <= 24, "{title} is too wide");
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                assert!(cells.insert((x, y)), "{title} lies on another panel");
            }
        }
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = { variables.iter() }
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
}

/// Whether the program is here; says aloud when it is not.
async fn is_here(program: &str, what: &str) -> bool {
    let folder = Folder::new();
    let mut ask = usual(&folder, program);
    ask.arg("--version");
    let here = output_of(ask).await.is_some();
    if !here {
        skipped(&format!(
            "{what}: `{program}` is missing (Debian: prometheus; .ci/run fetches it)"
        ));
    }
    here
}

/// A program wherever this test's own path leads.
fn usual(folder: &Folder, program: &str) -> tokio::process::Command {
    let mut command = folder.command(program);
    #[expect(
        clippy::disallowed_methods,
        reason = "a test driver looks for programs where its user has them"
    )]
    if let Ok(path) = std::env::var("PATH") {
        command.env("PATH", path);
    }
    command
}

#[tokio::test]
async fn promtool_takes_the_rules_and_their_tests_hold() {
    if !is_here("promtool", "alert rules and their tests").await {
        return;
    }
    let folder = Folder::new();
    for arguments in [
        &["check", "rules", "alerts.yml"][..],
        &["test", "rules", "alerts_test.yml"],
        &["check", "config", "prometheus.yml"],
    ] {
        let mut command = usual(&folder, "promtool");
        command
            .args(arguments)
            .current_dir(deploy().join("prometheus"));
        let said = good(output_of(command).await);
        assert!(said.contains("SUCCESS"), "{said}");
    }
}

/// Answers every request with the token that it got.
async fn agent_that_tells_its_token() -> SocketAddr {
    let listener = TcpListener::bind(on_loopback(0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                let mut piece = [0; 4096];
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut piece).await {
                        Ok(length) if length > 0 => head.extend_from_slice(&piece[..length]),
                        _ => return,
                    }
                }
                let head = String::from_utf8(head).unwrap();
                let token = { head.lines() }
                    .find_map(|line| line.strip_prefix("x-forwarded-access-token: "))
                    .unwrap_or_default();
                let length = token.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{token}"
                );
                // Who left needs no answer.
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

/// The starter policy, merely observed: whatever can be counted is counted there.
fn config(workspace: &Workspace, agent: SocketAddr) -> Value {
    json!({
        "workspace": {"host": workspace.url(), "id": workspace.workspace_id()},
        "inbound": {"listen": "127.0.0.1:0", "agent": format!("http://{agent}")},
        "outbound": {
            "listen": "127.0.0.1:0",
            "local_client": {"id": LOCAL_ID, "secret": {"env": "LOCAL_SECRET"}},
        },
        "admin": {"listen": "127.0.0.1:0"},
        "app": {"client_id": workspace.app().client_id, "client_secret": {"env": "APP_SECRET"}},
        "mode": "observe",
        "observe_until": "2100-01-01",
        "audit": {"file": "audit.jsonl"},
    })
}

async fn local_app_token(outbound: SocketAddr) -> String {
    let form = format!(
        "grant_type=client_credentials&client_id={LOCAL_ID}&client_secret={LOCAL_SECRET}&scope=all-apis"
    );
    let kind = ("content-type", "application/x-www-form-urlencoded");
    let (status, body) = send(outbound, Method::POST, "/oidc/v1/token", &[kind], &form).await;
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}

/// One of everything: users and the app, allowed, refused by the sidecar, by the workspace, and observed.
async fn one_round(workspace: &Workspace, inbound: SocketAddr, outbound: SocketAddr) {
    let real = token(workspace, ALICE, "sql iam.current-user:read");
    let (_, session) = get(inbound, "/", &[("x-forwarded-access-token", &real)]).await;
    get(inbound, "/", &[]).await;
    get(inbound, "/", &[("x-forwarded-access-token", "x.y.z")]).await;
    let app = local_app_token(outbound).await;
    let json = ("content-type", "application/json");
    let sql = |warehouse: &str| {
        json!({"warehouse_id": warehouse, "statement": "select 1", "wait_timeout": "10s"})
            .to_string()
    };
    let statements = "/api/2.0/sql/statements";
    let experiment = format!("/api/2.0/mlflow/experiments/get?experiment_id={EXPERIMENT}");
    for (who, method, target, body, expected) in [
        (&session, Method::POST, statements, sql(WAREHOUSE), 200),
        (
            &app,
            Method::POST,
            statements,
            sql(WAREHOUSE_RESTRICTED),
            403,
        ),
        (&app, Method::GET, &experiment, String::new(), 200),
        (&app, Method::GET, "/api/2.0/../x", String::new(), 400),
    ] {
        let bearer = format!("Bearer {who}");
        let headers = [("authorization", bearer.as_str()), json];
        let (status, answer) = send(outbound, method, target, &headers, &body).await;
        assert_eq!(status, expected, "{target}: {answer}");
    }
    let bearer = format!("Bearer {app}");
    let headers = [("authorization", bearer.as_str()), json];
    // Not in the catalogue, so refused were the policy not observed; what the workspace says does not matter here.
    send(outbound, Method::GET, "/api/2.0/pipelines", &headers, "").await;
}

/// A Prometheus with our own configuration, but for the target and the pace.
fn prometheus(folder: &Folder, admin: SocketAddr, port: u16) -> Process {
    let mut config = yaml(&text_of("prometheus/prometheus.yml")).remove(0);
    config["global"] = json!({"scrape_interval": "1s", "evaluation_interval": "1s"});
    let jobs = config["scrape_configs"].as_array_mut().unwrap();
    jobs.retain(|job| job["job_name"] == JOB);
    assert_eq!(jobs.len(), 1, "the job {JOB}");
    jobs[0]["static_configs"] = json!([{"targets": [admin.to_string()]}]);
    config["rule_files"] = json!([deploy().join("prometheus/alerts.yml")]);
    let file = folder.write("prometheus.yml", &config.to_string());
    let mut command = usual(folder, "prometheus");
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg(format!(
            "--storage.tsdb.path={}",
            folder.file("data").display()
        ));
    Process::start(command, folder.file("prometheus.log"))
}

async fn query(prometheus: SocketAddr, text: &str) -> Value {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("query", text)
        .finish();
    let kind = ("content-type", "application/x-www-form-urlencoded");
    let (_, body) = send(prometheus, Method::POST, "/api/v1/query", &[kind], &form).await;
    serde_json::from_str(&body).unwrap_or_default()
}

/// As Grafana would fill in the dashboard's variables.
fn filled(text: &str) -> String {
    { text.replace("$job", JOB) }
        .replace("$instance", ".*")
        .replace("$__rate_interval", WINDOW)
}

/// Whether it has; an error of Prometheus is a fault.
async fn has_data(prometheus: SocketAddr, title: &str, text: &str) -> bool {
    let answer = query(prometheus, text).await;
    assert_ne!(answer["status"], "error", "{title}: {text}: {answer}");
    let data = answer["data"]["result"].as_array();
    let number = |sample: &Value| sample["value"][1].as_str().is_some_and(|v| v != "NaN");
    data.is_some_and(|data| data.iter().any(number))
}

async fn every_query_has_data(prometheus: SocketAddr) {
    for (title, text, _) in queries() {
        let text = filled(&text);
        let what = format!("`{title}` has data: {text}");
        until(&what, async || {
            has_data(prometheus, &title, &text).await.then_some(())
        })
        .await;
    }
}

/// Name → state of every alert, once Prometheus has evaluated all of them.
async fn evaluated(prometheus: SocketAddr) -> BTreeMap<String, String> {
    until("every rule was evaluated", async || {
        let (_, body) = get(prometheus, "/api/v1/rules?type=alert", &[]).await;
        let answer: Value = serde_json::from_str(&body).ok()?;
        let groups = answer["data"]["groups"].as_array()?;
        let mut states = BTreeMap::new();
        for rule in groups.iter().flat_map(|g| g["rules"].as_array().unwrap()) {
            assert_eq!(rule["lastError"].as_str().unwrap_or_default(), "", "{rule}");
            if rule["health"] != "ok" {
                return None;
            }
            let text = |name: &str| rule[name].as_str().unwrap().to_owned();
            states.insert(text("name"), text("state"));
        }
        let done = states.len() == alerts().len() && states["ValetkeyPolicyObserved"] == "firing";
        done.then_some(states)
    })
    .await
}

/// Alerts that this run must raise, and those that it must not.
fn only_what_this_run_is(states: &BTreeMap<String, String>) {
    let active: Vec<&str> = { states.iter() }
        .filter(|(_, state)| *state != "inactive")
        .map(|(alert, _)| alert.as_str())
        .collect();
    for alert in [
        "ValetkeyPolicyObserved",
        "ValetkeyStarterPolicy",
        "ValetkeyPlatformRefusals",
    ] {
        assert!(active.contains(&alert), "{alert}: {active:?}");
    }
    for alert in [
        "ValetkeyDown",
        "ValetkeyAbsent",
        "ValetkeyAuditFailures",
        "ValetkeyCredentialExpiring",
        "ValetkeyCredentialRefused",
        "ValetkeyJwksOutage",
        "ValetkeyPanic",
        "ValetkeyRestarting",
        "ValetkeyServerErrors",
        "ValetkeySessionsNearLimit",
        "ValetkeyShedding",
    ] {
        assert!(!active.contains(&alert), "{alert}: {active:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_has_data_for_every_query_and_evaluates_every_alert() {
    if !is_here(
        "prometheus",
        "queries of the dashboard on a real Prometheus",
    )
    .await
    {
        return;
    }
    let (folder, workspace) = (Folder::new(), Arc::new(workspace().await));
    let config = config(&workspace, agent_that_tells_its_token().await);
    let config = folder.write("valetkey.yaml", &config.to_string());
    let mut serve = folder.valetkey(&["serve", "--config"]);
    serve
        .arg(config)
        .env("APP_SECRET", workspace.app().client_secret.expose())
        .env("LOCAL_SECRET", LOCAL_SECRET);
    let mut sidecar = Process::start(serve, folder.file("valetkey.log"));
    let [inbound, outbound, admin] = sidecar.listening().await;
    sidecar.ready(admin).await;

    let port = free_port();
    let mut server = prometheus(&folder, admin, port);
    let api = on_loopback(port);
    let users = Arc::clone(&workspace);
    let traffic = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(CALL_EVERY);
        loop {
            ticks.tick().await;
            one_round(&users, inbound, outbound).await;
        }
    });
    server
        .until("Prometheus scrapes the sidecar", async |_| {
            let up = query(api, "up{job=\"valetkey\"} == 1").await;
            let found = up["data"]["result"]
                .as_array()
                .is_some_and(|r| !r.is_empty());
            found.then_some(())
        })
        .await;
    every_query_has_data(api).await;
    let states = evaluated(api).await;
    assert!(!traffic.is_finished(), "{:?}", traffic.await);
    traffic.abort();

    only_what_this_run_is(&states);
    server.stop().await;
    let (code, log) = sidecar.stop().await;
    assert_eq!(code, Some(0), "{log}");
}
