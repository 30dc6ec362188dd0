//! What is loaded when all is well: defaults, precedence, files.

use super::*;
use crate::config::substitute::key_path;

#[test]
fn on_a_databricks_app_the_environment_is_enough() {
    let env = env(&[
        ("DATABRICKS_HOST", "my-ws.cloud.databricks.com"),
        ("DATABRICKS_WORKSPACE_ID", "4711"),
        (
            "DATABRICKS_CLIENT_ID",
            "11111111-2222-3333-4444-555555555555",
        ),
        ("DATABRICKS_CLIENT_SECRET", "dose-canary-secret"),
        ("DATABRICKS_APP_PORT", "8443"),
    ]);
    let directory = tempfile::tempdir().unwrap();
    let options = LoadOptions {
        config: None,
        default_file: directory.path().join("valetkey.yaml"),
    };
    let config = Config::load(&options, &env).unwrap();
    assert_eq!(config.source, None);
    assert_eq!(
        config.workspace.origin.to_string(),
        "https://my-ws.cloud.databricks.com"
    );
    assert_eq!(config.workspace.workspace_id.as_deref(), Some("4711"));
    assert_eq!(config.inbound.listen.to_string(), "0.0.0.0:8443");
    assert_eq!(config.inbound.agent.to_string(), "http://127.0.0.1:8001/");
    assert_eq!(config.inbound.agent_port(), 8001);
    assert_eq!(config.inbound.user, UserMode::Required);
    assert_eq!(config.inbound.token_header, "x-forwarded-access-token");
    assert!(!config.inbound.pass_authorization);
    assert_eq!(config.users.audiences, ["4711"]);
    assert_eq!(config.users.scopes, None);
    assert_eq!(
        config.users.algorithms,
        [Algorithm::RS256, Algorithm::ES256]
    );
    assert_eq!(config.users.token_types, ["at+jwt"]);
    assert_eq!(config.users.leeway, Duration::from_secs(30));
    assert_eq!(config.users.session.ttl, Duration::from_secs(3600));
    assert_eq!(config.users.session.linger, Duration::from_secs(120));
    assert_eq!(config.users.session.sessions_max, 10_000);
    assert_eq!(config.users.exchange, Exchange::None);
    let secret = config.app.client_secret.as_ref().unwrap();
    assert_eq!(secret.expose(), "dose-canary-secret");
    assert!(config.app.client_id.is_some());
    assert_eq!(config.app.scopes, AppScopes::PerRoute);
    assert_eq!(config.outbound.listen.to_string(), "127.0.0.1:9400");
    assert!(config.outbound.local_client.is_none());
    assert_eq!(config.outbound.presigned, Presigned::Refuse);
    assert!(config.outbound.upstreams.is_empty());
    assert_eq!(config.policy_origin, PolicyOrigin::Starter);
    assert_eq!(config.audit.file, Path::new("./audit/valetkey.jsonl"));
    assert_eq!(config.audit.sync, AuditSync::Interval);
    assert_eq!(config.audit.on_failure, OnFailure::Refuse);
    assert_eq!(
        (config.audit.rotate_bytes, config.audit.rotate_keep),
        (64 << 20, 14)
    );
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9401");
    assert_eq!(config.log.level, LevelFilter::INFO);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.limits.request_head_bytes, 65_536);
}

#[test]
fn the_example_loads_and_means_what_it_says() {
    let env = env(&[
        ("DATABRICKS_HOST", "https://adb-99.7.azuredatabricks.net/"),
        ("DATABRICKS_CLIENT_ID", "app-id"),
        ("DATABRICKS_CLIENT_SECRET", "canary-app"),
        ("AGENT_CLIENT_ID", "agent"),
        ("AGENT_CLIENT_SECRET", "canary-of-sixteen-or-more"),
    ]);
    let config = Config::parse(EXAMPLE, None, &env).unwrap();
    assert_eq!(config.policy_origin, PolicyOrigin::Routes);
    assert_eq!(config.routes.len(), 9);
    let raw = config.routes.last().unwrap();
    assert_eq!(raw.name, "raw-with-body");
    assert_eq!(raw.methods, ["POST"]);
    assert_eq!(raw.body.get("warehouse_id").unwrap(), &["5678efab"]);
    let line = EXAMPLE.lines().nth(raw.line - 1).unwrap();
    assert!(line.contains("name: raw-with-body"), "{line}");
    assert_eq!(config.workspace.workspace_id.as_deref(), Some("1234567890"));
    assert_eq!(
        config.users.scopes,
        Some(ScopeSet::parse([
            "sql",
            "genie",
            "model-serving",
            "files",
            "mcp.functions",
            "workspace.workspace"
        ]))
    );
    let [upstream] = &config.outbound.upstreams[..] else {
        panic!("{:?}", config.outbound.upstreams)
    };
    assert_eq!(&*upstream.reached.app, "mcp-tools");
    assert_eq!(config.outbound.local_client.unwrap().id, "agent");
    assert_eq!(
        config.limits,
        Limits::default(),
        "the example shows the defaults"
    );
}

#[test]
fn neither_debug_nor_summary_nor_environment_shows_a_secret() {
    let config = good(
        "app: {client_secret: {env: LOCAL}}\noutbound: {local_client: {id: a, secret: {env: LOCAL}}}\n",
    );
    let shown = format!("{config:?} {:?} {:?}", config.summary(), app_env());
    assert!(!shown.contains(CANARY), "{shown}");
    let summary = config.summary();
    assert!(summary.contains(&("policy", "starter policy".into())));
    assert!(summary.contains(&("config", "valetkey.yaml".into())));
}

#[test]
fn the_file_wins_over_the_environment() {
    let config = good(
        "workspace: {host: 'https://other.example', id: 12}\ninbound: {listen: '127.0.0.1:0'}\napp: {client_id: me}\n",
    );
    assert_eq!(config.workspace.origin.host(), "other.example");
    assert_eq!(config.users.audiences, ["12"]);
    assert_eq!(config.inbound.listen.to_string(), "127.0.0.1:0");
    assert_eq!(config.app.client_id.unwrap().as_str(), "me");
}

#[test]
fn the_workspace_id_is_read_from_an_azure_host() {
    let azure = |host: &str| {
        Config::parse("", None, &env(&[("DATABRICKS_HOST", host)]))
            .map(|c| c.users.audiences)
            .map_err(|p| p.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(azure("adb-77.3.azuredatabricks.net").unwrap(), ["77"]);
    assert_eq!(
        azure("https://adb-77.3.azuredatabricks.net").unwrap(),
        ["77"]
    );
    for host in [
        "adb-77.3.evil.example",
        "adb-x.3.azuredatabricks.net",
        "x.cloud.databricks.com",
    ] {
        assert_eq!(
            azure(host).unwrap_err(),
            [
                "users.audience: neither an audience nor the workspace id, its default, is known (set users.audience or \
              workspace.id in the file, or the variable DATABRICKS_WORKSPACE_ID)"
            ]
        );
    }
}

#[test]
fn without_a_workspace_both_ways_to_name_it_are_told() {
    let problems = Config::parse("", None, &Env::default()).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "workspace.host: the workspace is not known (set workspace.host in the file or the variable DATABRICKS_HOST)"
    );
    let problems = Config::parse(
        "",
        None,
        &env(&[("DATABRICKS_HOST", "http://canary.example")]),
    );
    let shown = format!("{:?}", problems.unwrap_err());
    assert!(
        shown.contains("DATABRICKS_HOST") && !shown.contains(CANARY),
        "{shown}"
    );
}

#[test]
fn no_app_identity_is_allowed_half_of_one_is_not() {
    let base = [
        ("DATABRICKS_HOST", "x.example"),
        ("DATABRICKS_WORKSPACE_ID", "1"),
    ];
    let none = Config::parse("", None, &env(&base)).unwrap();
    assert!(none.app.client_id.is_none() && none.app.client_secret.is_none());
    for (name, message) in [
        (
            "DATABRICKS_CLIENT_ID",
            "app.client_secret: the app's credential lacks its client secret (set app.client_secret in the file or \
             the variable DATABRICKS_CLIENT_SECRET, or remove the other half)",
        ),
        (
            "DATABRICKS_CLIENT_SECRET",
            "app.client_id: the app's credential lacks its client id (set app.client_id in the file or the variable \
             DATABRICKS_CLIENT_ID, or remove the other half)",
        ),
    ] {
        let env = env(&[base[0], base[1], (name, "canary")]);
        let problems = Config::parse("", None, &env).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].to_string(), message);
    }
}

#[test]
fn a_named_file_comes_before_the_variable_and_that_before_the_default() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, id: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, format!("workspace: {{id: {id}}}\n")).unwrap();
        path
    };
    let (named, variable, default) = (write("a", "1"), write("b", "2"), write("c", "3"));
    let load = |config: Option<&PathBuf>, variable: Option<&Path>| {
        let mut variables = app_env().variables().clone();
        if let Some(path) = variable {
            variables.insert("VALETKEY_CONFIG".into(), path.display().to_string());
        }
        let options = LoadOptions {
            config: config.cloned(),
            default_file: default.clone(),
        };
        Config::load(&options, &variables.into()).unwrap()
    };
    let all = load(Some(&named), Some(&variable));
    assert_eq!(
        (all.users.audiences, all.source),
        (vec!["1".into()], Some(named))
    );
    assert_eq!(load(None, Some(&variable)).users.audiences, ["2"]);
    assert_eq!(load(None, None).users.audiences, ["3"]);
    assert_eq!(load(None, Some(Path::new(""))).users.audiences, ["3"]);
}

#[test]
fn a_named_file_that_cannot_be_read_is_never_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let load = |name: &str| {
        let options = LoadOptions {
            config: Some(directory.path().join(name)),
            ..LoadOptions::default()
        };
        Config::load(&options, &app_env()).unwrap_err()
    };
    let problems = load("none.yaml");
    assert!(
        problems[0]
            .to_string()
            .ends_with("none.yaml: --config: the file cannot be read: entity not found"),
        "{problems:?}"
    );
    std::fs::write(
        directory.path().join("latin.yaml"),
        b"workspace: {id: \xe9}\n",
    )
    .unwrap();
    assert_eq!(load("latin.yaml")[0].message, "the file is not UTF-8 text");
    assert!(load(".")[0].message.starts_with("the file cannot be read"));
    std::fs::write(directory.path().join("big.yaml"), "#".repeat(2 << 20)).unwrap();
    assert_eq!(load("big.yaml")[0].message, "the file is larger than 1 MiB");
}

#[test]
fn secrets_come_from_files_without_their_last_line_break() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    let load = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        let text = format!("app: {{client_secret: {{file: '{}'}}}}\n", path.display());
        parse(&text)
            .map(|c| c.app.client_secret.unwrap().expose().to_owned())
            .map_err(|problems| {
                assert!(!format!("{problems:?}").contains(CANARY));
                problems[0].message.clone()
            })
    };
    assert_eq!(load(b"canary").unwrap(), "canary");
    assert_eq!(load(b"canary\n").unwrap(), "canary");
    assert_eq!(load(b"canary\r\n").unwrap(), "canary");
    assert_eq!(load(b" canary ").unwrap(), " canary ");
    let control = "holds a line break or control character there";
    assert_eq!(load(b"canary\n\n").unwrap_err(), control);
    assert_eq!(load(b"").unwrap_err(), "is empty there");
    assert_eq!(load(b"\n").unwrap_err(), "is empty there");
    assert!(
        load(b"\xff\xfe")
            .unwrap_err()
            .starts_with("the file cannot be read")
    );
    assert_eq!(
        load(&[b'a'; 70_000]).unwrap_err(),
        "the file is larger than 64 KiB"
    );
}

#[test]
fn an_empty_route_list_denies_everything_and_sections_may_be_hollow() {
    let config = good("routes: []\ninbound:\nusers:\n  # nothing\nlimits: {}\n");
    assert_eq!(config.policy_origin, PolicyOrigin::Routes);
    assert!(config.routes.is_empty());
}

#[test]
fn values_are_read_in_every_documented_form() {
    let config = good(
        "inbound:\n  token_header: Authorization\n  public: [/assets/**, '/{page}/x']\n  agent: http://[::1]:9/\n\
         users:\n  algorithms: [EdDSA]\n  token_types: [AT+JWT]\n  leeway: 0s\n  scopes: [dashboards.genie]\n  \
         exchange: rfc8693\n  session: {ttl: 90s, format: jwt}\n\
         app: {scopes: all-apis}\n\
         outbound: {tls: on, forward: 'false', presigned: allow, upstreams: [], allow_hosts: [a.example], trust_file: ca.pem}\n\
         mode: enforce\n\
         audit: {sync: record, on_failure: continue, rotate: {size: 1GiB, keep: 3}}\n\
         log: {format: text, level: 'warn,valetkey=debug, hyper=off'}\n\
         limits: {requests: 99, drain_time: 0s}\n\
         routes: [{name: a, method: [GET, POST], path: /a, as: deny}, {name: b, operation: sql.*, resource: sql_warehouse/x*, as: caller}]\n",
    );
    assert_eq!(config.inbound.token_header, "authorization");
    assert!(config.outbound.tls && !config.outbound.forward);
    assert_eq!(config.outbound.allow_hosts.len(), 1);
    assert_eq!(config.outbound.trust_file, Some("ca.pem".into()));
    assert_eq!(config.inbound.agent_port(), 9);
    assert_eq!(config.users.token_types, ["at+jwt"]);
    assert_eq!(config.users.scopes.unwrap().to_string(), "genie");
    assert_eq!(config.users.session.ttl, Duration::from_secs(90));
    assert_eq!(config.log.level, LevelFilter::WARN);
    assert_eq!(
        config.log.targets,
        [
            ("valetkey".into(), LevelFilter::DEBUG),
            ("hyper".into(), LevelFilter::OFF)
        ]
    );
    assert_eq!(config.audit.rotate_bytes, 1 << 30);
    assert_eq!(config.limits.requests, 99);
    assert_eq!(config.routes[0].methods, ["GET", "POST"]);
    assert_eq!(
        config.routes[1].resource.as_deref(),
        Some("sql_warehouse/x*")
    );
    assert_eq!(key_path("", "a"), "a");
}

#[test]
fn ids_that_look_like_numbers_stay_as_they_are_written() {
    let config = good(
        "routes:\n- {name: '1', path: /x, body: {warehouse_id: [1234e567, 007, 0x1F, 1_000, 1.50, true]}, as: app}\n",
    );
    assert_eq!(
        config.routes[0].body.get("warehouse_id").unwrap(),
        &["1234e567", "007", "0x1F", "1_000", "1.50", "true"]
    );
}

#[test]
fn a_hostile_variable_stays_one_value() {
    let env = env(&[
        ("DATABRICKS_HOST", "x.example"),
        ("ID", "7\", \"8\"]\nadmin: {listen: 0.0.0.0:1}\n#"),
    ]);
    let problems = Config::parse("users: {audience: ['${ID}']}\n", None, &env).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "users.audience[0]: holds a control or invisible character"
    );
}
