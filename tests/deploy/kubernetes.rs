//! The manifest: Kubernetes' own schemas, the product's defaults, and a ConfigMap that changes under a running sidecar.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};
use tokio::process::Command;
use valetkey::config::{Config, Env};

use crate::harness::{
    Folder, Process, deploy, free_port, get, good, output_of, text_of, until, yaml,
};
use crate::venv;

const VALIDATE: &str = "kubernetes-validate==1.37.0\n";
/// The first with native sidecars on by default, and the newest that the schemas know.
const VERSIONS: [&str; 2] = ["1.29.0", "1.37.0"];
const SECRETS: &str = "/run/secrets/valetkey";

fn document(kind: &str) -> Value {
    let all = yaml(&text_of("kubernetes/valetkey.yaml"));
    let found = all.into_iter().find(|document| document["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}"))
}

fn pod() -> Value {
    document("StatefulSet")["spec"]["template"].clone()
}

fn policy() -> String {
    let config = document("ConfigMap");
    config["data"]["valetkey.yaml"].as_str().unwrap().to_owned()
}

/// The policy with its secrets in a folder that is here.
fn policy_here(folder: &Folder) -> String {
    for name in ["client-secret", "local-secret"] {
        folder.write(
            &format!("secrets/{name}"),
            "0123456789abcdef0123456789abcdef",
        );
    }
    policy().replace(SECRETS, folder.file("secrets").to_str().unwrap())
}

#[tokio::test]
async fn every_document_fits_the_schemas_of_kubernetes() {
    let venv = venv::with(VALIDATE).await;
    for version in VERSIONS {
        let mut validate = Command::new(venv.join("bin/kubernetes-validate"));
        validate
            .args(["--strict", "-k", version, "kubernetes/valetkey.yaml"])
            .current_dir(deploy());
        good(output_of(validate).await);
    }
}

/// The number of a named port.
fn port(container: &Value, name: &str) -> u64 {
    let ports = container["ports"].as_array().unwrap();
    let port = ports.iter().find(|port| port["name"] == name).unwrap();
    port["containerPort"].as_u64().unwrap()
}

#[test]
fn ports_and_probes_are_those_of_the_product() {
    let folder = Folder::new();
    let here = Config::parse(&policy_here(&folder), None, &Env::default()).unwrap();
    let usual = "workspace: {host: \"http://127.0.0.1:1\", id: \"12\"}";
    let usual = Config::parse(usual, None, &Env::default()).unwrap();
    assert_eq!(here.inbound.listen, usual.inbound.listen);
    assert_eq!(here.inbound.agent, usual.inbound.agent);
    assert_eq!(here.outbound.listen, usual.outbound.listen);
    assert_eq!(here.admin.listen.port(), usual.admin.listen.port());

    let pod = pod();
    let sidecar = &pod["spec"]["initContainers"][0];
    assert_eq!(sidecar["restartPolicy"], "Always");
    assert_eq!(
        port(sidecar, "inbound"),
        u64::from(here.inbound.listen.port())
    );
    assert_eq!(port(sidecar, "admin"), u64::from(here.admin.listen.port()));
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(
        annotations["prometheus.io/port"],
        here.admin.listen.port().to_string()
    );
    assert_eq!(annotations["prometheus.io/path"], "/metrics");
    for (probe, path) in [
        ("startupProbe", "/livez"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ] {
        assert_eq!(
            sidecar[probe]["httpGet"],
            json!({"path": path, "port": "admin"})
        );
    }
    let service = document("Service");
    assert_eq!(service["spec"]["ports"][0]["targetPort"], "inbound");

    let agent = &pod["spec"]["containers"][0];
    let environment = agent["env"].as_array().unwrap();
    let value = |name: &str| {
        let found = environment.iter().find(|variable| variable["name"] == name);
        found.unwrap_or_else(|| panic!("{name}"))["value"].clone()
    };
    assert_eq!(
        value("DATABRICKS_HOST"),
        format!("http://{}", here.outbound.listen)
    );
    let local = here.outbound.local_client.as_ref().unwrap();
    assert_eq!(value("DATABRICKS_CLIENT_ID"), local.id.as_str());
    assert_eq!(
        value("DATABRICKS_APP_PORT"),
        here.inbound.agent_port().to_string()
    );
}

#[test]
fn the_agent_gets_no_secret_but_the_local_one_and_neither_container_any_right() {
    let pod = pod();
    let (sidecar, agent) = (
        &pod["spec"]["initContainers"][0],
        &pod["spec"]["containers"][0],
    );
    assert!(agent["volumeMounts"].is_null(), "the agent mounts nothing");
    assert!(!agent.to_string().contains("client-secret"));
    assert!(
        sidecar["env"].is_null(),
        "secrets are files, never variables"
    );
    for container in [sidecar, agent] {
        let closed = &container["securityContext"];
        assert_eq!(closed["runAsNonRoot"], true);
        assert_eq!(closed["allowPrivilegeEscalation"], false);
        assert_eq!(closed["readOnlyRootFilesystem"], true);
        assert_eq!(closed["capabilities"], json!({"drop": ["ALL"]}));
    }
    assert_ne!(
        sidecar["securityContext"]["runAsUser"],
        agent["securityContext"]["runAsUser"]
    );
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
    let mounts = sidecar["volumeMounts"].as_array().unwrap();
    assert!(
        mounts.iter().all(|mount| mount["subPath"].is_null()),
        "a subPath never changes"
    );
    let policy = document("NetworkPolicy");
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
}

#[tokio::test]
async fn the_policy_of_the_manifest_is_accepted() {
    let folder = Folder::new();
    let file = folder.write("valetkey.yaml", &policy_here(&folder));
    let check = folder.valetkey(&["check", "--config", file.to_str().unwrap()]);
    let said = good(output_of(check).await);
    assert!(said.contains("sql_warehouse/1234abcd5678ef90"), "{said}");
}

/// As the kubelet does it: a new folder, a link to it, and the link that the file's own link goes through replaced at once.
fn project(mount: &Path, version: &str, text: &str) {
    let data = mount.join(format!("..{version}"));
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("valetkey.yaml"), text).unwrap();
    symlink(&data, mount.join("..data_tmp")).unwrap();
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    let file = mount.join("valetkey.yaml");
    if !file.is_symlink() {
        symlink("..data/valetkey.yaml", file).unwrap();
    }
}

#[tokio::test]
async fn a_changed_config_map_is_taken_up_and_a_broken_one_changes_nothing() {
    let folder = Folder::new();
    let mut policy = policy_here(&folder)
        .replace(
            "https://YOUR-WORKSPACE.cloud.databricks.com",
            "http://127.0.0.1:1",
        )
        .replace(
            "/var/lib/valetkey/audit.jsonl",
            folder.file("audit.jsonl").to_str().unwrap(),
        );
    for usual in ["0.0.0.0:8000", "127.0.0.1:9400", "0.0.0.0:9401"] {
        assert!(policy.contains(usual), "{usual}");
        policy = policy.replace(usual, "127.0.0.1:0");
    }
    policy = policy.replace("127.0.0.1:8001", &format!("127.0.0.1:{}", free_port()));
    let mount = folder.file("etc");
    fs::create_dir(&mount).unwrap();
    project(&mount, "1", &policy);
    let file = mount.join("valetkey.yaml");
    let serve = folder.valetkey(&["serve", "--config", file.to_str().unwrap()]);
    let mut sidecar = Process::start(serve, folder.file("log"));
    let [_, _, admin] = sidecar.listening().await;
    let reloads = async |result: &str| {
        let line = format!("valetkey_policy_reloads_total{{result=\"{result}\"}} 1");
        until(&line, async || {
            let (_, page) = get(admin, "/metrics", &[]).await;
            page.contains(&line).then_some(())
        })
        .await;
    };
    let routes = async || {
        let (_, status) = get(admin, "/status", &[]).await;
        let status: Value = serde_json::from_str(&status).unwrap();
        status["policy"]["routes"].as_u64().unwrap()
    };
    assert_eq!(routes().await, 3);
    project(
        &mount,
        "2",
        &(policy.clone() + "  - {name: genie, operation: genie.*, as: user}\n"),
    );
    reloads("ok").await;
    assert_eq!(routes().await, 4);
    project(
        &mount,
        "3",
        &(policy + "  - {name: genie, operation: gennie.*, as: user}\n"),
    );
    reloads("refused").await;
    assert_eq!(routes().await, 4);
    sidecar.stop().await;
}
