//! What reaches the agent's environment and what does not.

use super::*;

const CANARY: &str = "canary-client-secret-0123456789";
const LOCAL: &str = "vkl_local-secret-worth-nothing";

pub(in crate::supervise) fn wiring() -> Wiring {
    Wiring {
        outbound_url: "http://127.0.0.1:9400".into(),
        wire: Wire::Host,
        trust_file: None,
        admin_url: "http://127.0.0.1:9401".into(),
        agent_host: "127.0.0.1".into(),
        agent_port: 8001,
        local_client_id: "valetkey-agent".into(),
        local_client_secret: Arc::new(Secret::new(LOCAL.into())),
        secret_variables: vec!["MY_APP_SECRET".into(), "DATABRICKS_CLIENT_ID".into()],
        known_secrets: vec![Arc::new(Secret::new(CANARY.into()))],
    }
}

fn variables(pairs: &[(&str, &str)]) -> Variables {
    pairs
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn derived(pairs: &[(&str, &str)]) -> ChildEnvironment {
    child_environment(&variables(pairs), &wiring())
}

fn get<'a>(environment: &'a ChildEnvironment, name: &str) -> Option<&'a str> {
    let value = environment.variables().get(OsStr::new(name))?;
    Some(value.to_str().unwrap())
}

#[test]
fn an_empty_environment_is_wired_completely() {
    let environment = derived(&[]);
    let expected = variables(&[
        ("DATABRICKS_HOST", "http://127.0.0.1:9400"),
        ("DATABRICKS_CLIENT_ID", "valetkey-agent"),
        ("DATABRICKS_CLIENT_SECRET", LOCAL),
        ("DATABRICKS_APP_PORT", "8001"),
        ("PORT", "8001"),
        ("UVICORN_PORT", "8001"),
        ("FLASK_RUN_PORT", "8001"),
        ("STREAMLIT_SERVER_PORT", "8001"),
        ("GRADIO_SERVER_PORT", "8001"),
        ("UVICORN_HOST", "127.0.0.1"),
        ("FLASK_RUN_HOST", "127.0.0.1"),
        ("STREAMLIT_SERVER_ADDRESS", "127.0.0.1"),
        ("GRADIO_SERVER_NAME", "127.0.0.1"),
        ("NO_PROXY", "127.0.0.1,localhost,::1"),
        ("no_proxy", "127.0.0.1,localhost,::1"),
        ("DATABRICKS_DISABLE_EXPERIMENTAL_FILES_API_CLIENT", "true"),
        ("VALETKEY_OUTBOUND_URL", "http://127.0.0.1:9400"),
        ("VALETKEY_ADMIN_URL", "http://127.0.0.1:9401"),
    ]);
    assert_eq!(environment.variables(), &expected);
    assert!(environment.withheld().is_empty());
}

#[test]
fn what_the_platform_set_is_replaced_and_the_rest_is_kept() {
    let environment = derived(&[
        ("DATABRICKS_HOST", "adb-1.azuredatabricks.net"),
        ("DATABRICKS_CLIENT_ID", "11111111-2222"),
        ("DATABRICKS_CLIENT_SECRET", CANARY),
        ("DATABRICKS_APP_PORT", "8000"),
        ("UVICORN_PORT", "8000"),
        ("UVICORN_HOST", "0.0.0.0"),
        ("DATABRICKS_DISABLE_EXPERIMENTAL_FILES_API_CLIENT", "false"),
    ]);
    for (name, value) in [
        ("DATABRICKS_HOST", "http://127.0.0.1:9400"),
        ("DATABRICKS_CLIENT_ID", "11111111-2222"),
        ("DATABRICKS_CLIENT_SECRET", LOCAL),
        ("DATABRICKS_APP_PORT", "8001"),
        ("UVICORN_PORT", "8001"),
        ("UVICORN_HOST", "127.0.0.1"),
        ("DATABRICKS_DISABLE_EXPERIMENTAL_FILES_API_CLIENT", "true"),
    ] {
        assert_eq!(get(&environment, name), Some(value), "{name}");
    }
    assert!(
        environment.withheld().is_empty(),
        "expected removals are no warning"
    );
}

#[test]
fn a_blank_client_id_counts_as_none() {
    let environment = derived(&[("DATABRICKS_CLIENT_ID", "")]);
    assert_eq!(
        get(&environment, "DATABRICKS_CLIENT_ID"),
        Some("valetkey-agent")
    );
}

#[test]
fn every_other_way_to_log_in_is_unset() {
    for name in CREDENTIAL_VARIABLES.iter().chain(&[
        "DATABRICKS_TOKEN",
        "DATABRICKS_TOKEN_AUDIENCE",
        "DATABRICKS_PASSWORD",
        "DATABRICKS_REFRESH_TOKEN",
        "DATABRICKS_ACCESS_TOKEN",
        "DATABRICKS_OIDC_TOKEN",
        "DATABRICKS_OIDC_TOKEN_ENV",
        "DATABRICKS_OIDC_TOKEN_FILE",
        "DATABRICKS_OIDC_TOKEN_FILEPATH",
        "DATABRICKS_AZURE_RESOURCE_ID",
        "DATABRICKS_CLIENT_SECRET_FILE",
        "DATABRICKS_SOME_FUTURE_CREDENTIAL",
        "VALETKEY_CONFIG",
        "MY_APP_SECRET",
    ]) {
        let environment = derived(&[(name, "anything"), ("KEPT", "1")]);
        assert_eq!(get(&environment, name), None, "{name}");
        assert_eq!(get(&environment, "KEPT"), Some("1"));
    }
}

#[test]
fn what_is_no_credential_stays_as_it_is() {
    let kept = [
        ("PATH", "/usr/bin"),
        ("DATABRICKS_APP_NAME", "support"),
        ("DATABRICKS_WORKSPACE_ID", "1234567890"),
        ("DATABRICKS_WAREHOUSE_ID", "abcd"),
        ("DATABRICKS_DISABLE_ASYNC_TOKEN_REFRESH", "true"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4314"),
        ("PGHOST", "db.example"),
        ("HTTPS_PROXY", "http://proxy:3128"),
        ("OPENAI_API_KEY", "sk-not-ours"),
        ("EMPTY", ""),
    ];
    let environment = derived(&kept);
    for (name, value) in kept {
        assert_eq!(get(&environment, name), Some(value), "{name}");
    }
}

#[test]
fn the_variable_that_another_one_names_as_token_holder_is_unset() {
    let environment = derived(&[
        ("DATABRICKS_OIDC_TOKEN_ENV", "CI_JOB_JWT"),
        ("CI_JOB_JWT", "eyJ.a.b"),
    ]);
    assert_eq!(get(&environment, "CI_JOB_JWT"), None);
}

#[test]
fn no_value_carries_a_known_secret_under_any_name() {
    let blob = format!(r#"{{"credentials":{{"secret":"{CANARY}"}}}}"#);
    let token = "dapi0123456789abcdef0123456789abcdef";
    let environment = derived(&[
        ("DATABRICKS_CLIENT_SECRET", CANARY),
        ("LAUNCHER_BLOB", &blob),
        ("SECOND_NAME", CANARY),
        ("MLFLOW_TRACKING_TOKEN", token),
        ("KEPT", "1"),
    ]);
    assert_eq!(
        environment.withheld(),
        ["LAUNCHER_BLOB", "MLFLOW_TRACKING_TOKEN", "SECOND_NAME"]
    );
    for (name, value) in environment.variables() {
        let value = value.to_str().unwrap();
        assert!(
            !value.contains(CANARY) && !value.contains(token),
            "{name:?}"
        );
    }
    assert_eq!(get(&environment, "KEPT"), Some("1"));
}

#[test]
fn both_spellings_of_no_proxy_are_extended_without_duplicates() {
    for (given, expected) in [
        (
            vec![("NO_PROXY", "corp.example")],
            [
                "corp.example,127.0.0.1,localhost,::1",
                "corp.example,127.0.0.1,localhost,::1",
            ],
        ),
        (
            vec![("no_proxy", "localhost, 127.0.0.1")],
            ["localhost, 127.0.0.1,::1", "localhost, 127.0.0.1,::1"],
        ),
        (
            vec![("NO_PROXY", "a"), ("no_proxy", "b")],
            ["a,127.0.0.1,localhost,::1", "b,127.0.0.1,localhost,::1"],
        ),
        (
            vec![("NO_PROXY", " "), ("no_proxy", "b")],
            ["b,127.0.0.1,localhost,::1", "b,127.0.0.1,localhost,::1"],
        ),
        (vec![("NO_PROXY", "*")], ["*", "*"]),
    ] {
        let environment = derived(&given);
        assert_eq!(
            get(&environment, "NO_PROXY"),
            Some(expected[0]),
            "{given:?}"
        );
        assert_eq!(
            get(&environment, "no_proxy"),
            Some(expected[1]),
            "{given:?}"
        );
    }
}

#[test]
fn values_that_are_not_utf_8_pass_unchanged() {
    use std::os::unix::ffi::OsStringExt as _;
    let odd = OsString::from_vec(vec![b'x', 0xff]);
    let own = Variables::from([(odd.clone(), odd.clone())]);
    let environment = child_environment(&own, &wiring());
    assert_eq!(environment.variables().get(&odd), Some(&odd));
}

#[test]
fn debug_shows_names_only() {
    let shown = format!("{:?}", derived(&[("KEPT", "private-value")]));
    assert!(shown.contains("KEPT"));
    assert!(!shown.contains("private-value") && !shown.contains(LOCAL));
}

#[test]
fn in_forward_mode_the_workspace_stays_and_the_sidecar_is_the_proxy() {
    let wiring = Wiring {
        wire: Wire::Forward {
            workspace: "https://ws.cloud.databricks.com".into(),
            hosts: vec![
                "ws.cloud.databricks.com".into(),
                "tools.databricksapps.com".into(),
            ],
            proxy: "http://127.0.0.1:9400".into(),
        },
        trust_file: Some("/tmp/x/ca-bundle.pem".into()),
        ..wiring()
    };
    let own = [
        ("DATABRICKS_HOST", "ws.cloud.databricks.com"),
        ("HTTPS_PROXY", "http://corporate.example:3128"),
        ("SSL_CERT_FILE", "/etc/corporate.pem"),
        (
            "NO_PROXY",
            "intranet.example, .databricks.com,*.databricksapps.com,databricks.example",
        ),
    ];
    let environment = child_environment(&variables(&own), &wiring);
    for (name, value) in [
        ("DATABRICKS_HOST", "https://ws.cloud.databricks.com"),
        ("HTTPS_PROXY", "http://127.0.0.1:9400"),
        ("https_proxy", "http://127.0.0.1:9400"),
        ("NODE_USE_ENV_PROXY", "1"),
        (
            "NO_PROXY",
            "intranet.example,databricks.example,127.0.0.1,localhost,::1",
        ),
        ("DATABRICKS_CLIENT_SECRET", LOCAL),
        ("VALETKEY_OUTBOUND_URL", "http://127.0.0.1:9400"),
    ] {
        assert_eq!(get(&environment, name), Some(value), "{name}");
    }
    for name in wire::TRUST_VARIABLES {
        assert_eq!(get(&environment, name), Some("/tmp/x/ca-bundle.pem"));
    }
    for everything in ["*", "ws.cloud.databricks.com:443", "COM", "*.com, *"] {
        let environment = child_environment(&variables(&[("no_proxy", everything)]), &wiring);
        for name in ["NO_PROXY", "no_proxy"] {
            let told = get(&environment, name);
            assert_eq!(told, Some("127.0.0.1,localhost,::1"), "{everything}");
        }
    }
}

#[test]
fn every_bundle_that_was_named_is_found_once() {
    let own = variables(&[
        ("SSL_CERT_FILE", "/a.pem"),
        ("REQUESTS_CA_BUNDLE", "/b.pem"),
        ("CURL_CA_BUNDLE", "/a.pem"),
        ("PIP_CERT", ""),
    ]);
    let named = wire::named_bundles(&own);
    assert_eq!(named, [PathBuf::from("/a.pem"), PathBuf::from("/b.pem")]);
}
