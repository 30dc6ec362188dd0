//! `outbound.tls` and `run --wire forward`: clients of several makes, led and made to trust by variables alone.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use valetkey::domain::clock::{Clock as _, SystemClock};
use valetkey::embedded::workspace::{Workspace, WorkspaceOptions};
use valetkey::runtime::local_ca::LocalCa;
use valetkey::runtime::trust_bundle::TrustBundle;

use crate::harness::process::{Ended, Process};
use crate::harness::{APP_SECRET_VARIABLE, Folder, config, free_port};

/// Asks for the app's token as SDKs do, calls with it, and shows whose file it trusts. Knows nothing of a sidecar.
const PYTHON: &str = r#"
import json, os, stat, urllib.request as web
host = os.environ['DATABRICKS_HOST']
form = 'grant_type=client_credentials&client_id=%s&client_secret=%s' % (
    os.environ['DATABRICKS_CLIENT_ID'], os.environ['DATABRICKS_CLIENT_SECRET'])
config = json.load(web.urlopen(host + '/.well-known/databricks-config'))
server = json.load(web.urlopen(config['oidc_endpoint'] + '/.well-known/oauth-authorization-server'))
token = json.load(web.urlopen(server['token_endpoint'], form.encode()))['access_token']
call = web.Request(host + '/api/2.0/preview/scim/v2/Me', headers={'Authorization': 'Bearer ' + token})
print('python:', json.load(web.urlopen(call))['userName'])
bundle = os.environ['REQUESTS_CA_BUNDLE']
assert bundle == os.environ['SSL_CERT_FILE'] == os.environ['NODE_EXTRA_CA_CERTS']
print('bundle:', bundle)
print('modes: %o %o' % (os.stat(bundle).st_mode & 0o777, os.stat(os.path.dirname(bundle)).st_mode & 0o777))
"#;

const CURL: &str = "curl -sS --fail-with-body $DATABRICKS_HOST/.well-known/databricks-config";

/// Node 20 looks at no proxy variable, so it goes by the sidecar's own address.
const NODE: &str = "node -e \"fetch(process.env.VALETKEY_OUTBOUND_URL + '/.well-known/databricks-config')\
    .then(a => a.json()).then(a => console.log('node:', a.oidc_endpoint))\"";

/// The embedded workspace under an address that is in nobody's `NO_PROXY`.
async fn workspace() -> Workspace {
    let options = WorkspaceOptions {
        host: "127.0.0.2".into(),
        ..WorkspaceOptions::default()
    };
    let workspace = Workspace::start(options).await.unwrap();
    let port = workspace.url().rsplit(':').next().unwrap().parse().unwrap();
    let door = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), port)).await;
    let door = door.unwrap();
    tokio::spawn(async move {
        let there = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        while let Ok((mut near, _)) = door.accept().await {
            tokio::spawn(async move {
                if let Ok(mut far) = TcpStream::connect(there).await {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    workspace
}

/// Runs a shell script as the agent.
async fn agent(
    workspace: &Workspace,
    folder: &Folder,
    outbound: Value,
    arguments: &[&str],
    script: &str,
    variables: &[(&str, &str)],
) -> Ended {
    let mut config = config(workspace, free_port());
    let section = config["outbound"].as_object_mut().unwrap();
    section.extend(outbound.as_object().unwrap().clone());
    folder.write_config(&config);
    folder.write("agent.py", PYTHON);
    let mut command =
        folder.valetkey(&[&["run"], arguments, &["--", "sh", "-ec", script]].concat());
    command
        .env(APP_SECRET_VARIABLE, workspace.app().client_secret.expose())
        .env("DATABRICKS_CLIENT_ID", &workspace.app().client_id)
        .envs(variables.iter().copied());
    Process::start(command).end().await
}

fn line<'a>(ended: &'a Ended, name: &str) -> &'a str {
    let found = ended.out.lines().find_map(|l| l.strip_prefix(name));
    found.unwrap_or_else(|| panic!("no `{name}` in {ended:?}"))
}

/// The bundle was the child's alone and is gone.
fn bundle_is_gone(folder: &Folder, ended: &Ended) {
    let bundle = std::path::Path::new(line(ended, "bundle: "));
    assert!(bundle.starts_with(folder.path()), "{bundle:?}");
    assert_eq!(line(ended, "modes: "), "600 700");
    assert!(!bundle.exists() && !bundle.parent().unwrap().exists());
}

#[tokio::test]
async fn in_forward_mode_unchanged_clients_reach_the_workspace_through_the_sidecar_alone() {
    let (workspace, folder) = (workspace().await, Folder::new());
    let script = format!("python3 agent.py; {CURL}; echo; {NODE}; echo \"host: $DATABRICKS_HOST\"");
    let ended = agent(
        &workspace,
        &folder,
        json!({}),
        &["--wire", "forward"],
        &script,
        &[("NO_PROXY", "127.0.0.2, intranet.example")],
    )
    .await
    .expect(0);
    let host = workspace.url().replace("http://", "https://");
    assert_eq!(line(&ended, "host: "), host);
    assert_eq!(line(&ended, "python: "), workspace.app().client_id);
    assert!(ended.out.contains(&format!("\"{host}/oidc\"")), "{ended:?}");
    let node = line(&ended, "node: ");
    assert!(node.starts_with("https://127.0.0.1:"), "{node}");
    bundle_is_gone(&folder, &ended);
    let outcomes = folder.records();
    let outcome = outcomes.iter().find(|r| r["event"] == "outcome").unwrap();
    assert_eq!(
        (&outcome["operation"], &outcome["identity"]),
        (&json!("identity.me"), &json!("app"))
    );
    folder.run(&["audit", "verify", "audit.jsonl"]).await.good();
}

#[tokio::test]
async fn with_tls_the_child_trusts_the_sidecar_and_whom_it_trusted_before() {
    let (workspace, folder) = (workspace().await, Folder::new());
    // Somebody else, under a root that only the environment names.
    let ca = LocalCa::new(SystemClock.now()).unwrap();
    let other = WorkspaceOptions {
        tls: Some(ca.serve_as(&["localhost"]).unwrap()),
        host: "localhost".into(),
        ..WorkspaceOptions::default()
    };
    let other = Workspace::start(other).await.unwrap();
    let root = TrustBundle::default().with_own(&ca.certificate());
    let root = folder.write("corporate.pem", &root);
    let root = root.to_str().unwrap();
    let elsewhere = format!("curl -sS --fail-with-body {}/oidc/jwks.json", other.url());
    let script = format!(
        "python3 agent.py; {CURL}; echo; {NODE}; {elsewhere}; echo; echo \"host: $DATABRICKS_HOST\""
    );
    for variable in ["SSL_CERT_FILE", "CURL_CA_BUNDLE"] {
        let ended = agent(
            &workspace,
            &folder,
            json!({"tls": "on"}),
            &[],
            &script,
            &[(variable, root)],
        )
        .await
        .expect(0);
        let host = line(&ended, "host: ");
        assert!(host.starts_with("https://127.0.0.1:"), "{host}");
        assert_eq!(line(&ended, "node: "), format!("{host}/oidc"));
        assert_eq!(line(&ended, "python: "), workspace.app().client_id);
        assert!(ended.out.contains("\"keys\""), "{ended:?}");
        bundle_is_gone(&folder, &ended);
    }
}

#[tokio::test]
async fn a_bundle_that_cannot_be_written_is_a_mistake_and_no_start() {
    let (workspace, folder) = (workspace().await, Folder::new());
    let closed = folder.file("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o755)).unwrap();
    let nowhere = closed.join("nowhere");
    let ended = agent(
        &workspace,
        &folder,
        json!({"tls": "on"}),
        &[],
        "echo started",
        &[("TMPDIR", nowhere.to_str().unwrap())],
    )
    .await
    .expect(78);
    ended.says(&["TMPDIR", "trust bundle"]);
    assert!(!ended.out.contains("started"));
}
