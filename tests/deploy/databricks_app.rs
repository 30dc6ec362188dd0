//! The sample app: its files agree with one another, and the agent works behind `valetkey run` as both identities, with the
//! policy of its own bundle, against the embedded workspace.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::process::Command;
use valetkey::embedded::workspace::Workspace;
use valetkey::embedded::world::{CHAT_ENDPOINT, EXPERIMENT, WAREHOUSE, WAREHOUSE_RESTRICTED};

use crate::harness::{
    ALICE, BOB, Folder, Process, free_port, get, good, output_of, send, text_of, token, until,
    workspace, yaml,
};
use crate::venv;

const PLACE: &str = "databricks-app";
/// What the platform gives for `valueFrom` (facts 5), here for objects of the embedded workspace.
const VALUES: [(&str, &str); 3] = [
    ("warehouse", WAREHOUSE),
    ("model", CHAT_ENDPOINT),
    ("experiment", EXPERIMENT),
];
const TRACE_WRITTEN: &str = "mlflow.traces.start-v3";
/// Traces are sent from a queue, once the answer has gone.
const TRACE_TIME_MAX: Duration = Duration::from_secs(40);
const TOKEN_SCOPES: &str = "sql genie iam.current-user:read iam.access-control:read";

fn document(name: &str) -> Value {
    yaml(&text_of(&format!("{PLACE}/{name}"))).remove(0)
}

/// The requirements without the wheel of Valetkey, which is no part of this test.
pub fn requirements_of_the_agent() -> String {
    let text = text_of(&format!("{PLACE}/requirements.txt"));
    let lines = text.lines().filter(|line| !line.contains("valetkey"));
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// The environment that the platform makes of `app.yaml`.
fn environment() -> BTreeMap<String, String> {
    let values: BTreeMap<&str, &str> = VALUES.into();
    let app = document("app.yaml");
    let variables = app["env"].as_array().unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    { variables.iter() }
        .map(|variable| {
            let given = text(&variable["value"]);
            let value = given.unwrap_or_else(|| {
                let name = variable["valueFrom"].as_str().unwrap();
                values[name].to_owned()
            });
            (text(&variable["name"]).unwrap(), value)
        })
        .collect()
}

/// A deployed app: the folder of the bundle, and a running sidecar with its agent.
pub struct App {
    pub folder: Folder,
    pub home: PathBuf,
    pub workspace: Workspace,
    pub sidecar: Process,
    inbound: SocketAddr,
}

impl App {
    /// As `app.yaml` says, with `valetkey` and `python` from these folders of programs.
    pub async fn start(programs: &str, change: impl FnOnce(&Path)) -> Self {
        let (folder, workspace) = (Folder::new(), workspace().await);
        let home = folder.copy(PLACE);
        change(&home);
        // On the platform the ports are free; here they have to be looked for.
        let config = home.join("valetkey.yaml");
        let listeners = format!(
            "\ninbound: {{listen: \"127.0.0.1:0\", agent: \"http://127.0.0.1:{}\"}}\noutbound: {{listen: \"127.0.0.1:0\"}}\nadmin: {{listen: \"127.0.0.1:0\"}}\n",
            free_port()
        );
        fs::write(&config, fs::read_to_string(&config).unwrap() + &listeners).unwrap();
        let app = document("app.yaml");
        let words = app["command"].as_array().unwrap();
        let words: Vec<&str> = words.iter().map(|word| word.as_str().unwrap()).collect();
        let mut command: Command = folder.command("env");
        command
            .args(words)
            .current_dir(&home)
            .env("PATH", format!("{programs}:/usr/local/bin:/usr/bin:/bin"))
            .envs(environment())
            .env("DATABRICKS_HOST", workspace.url())
            .env("DATABRICKS_WORKSPACE_ID", workspace.workspace_id())
            .env("DATABRICKS_APP_NAME", "valetkey-sample")
            .env("DATABRICKS_CLIENT_ID", &workspace.app().client_id)
            .env(
                "DATABRICKS_CLIENT_SECRET",
                workspace.app().client_secret.expose(),
            );
        let log = folder.file("app.log");
        let mut sidecar = Process::start(command, log);
        let [inbound, _, admin] = sidecar.listening().await;
        sidecar.ready(admin).await;
        Self {
            folder,
            home,
            workspace,
            sidecar,
            inbound,
        }
    }

    /// What the agent says to a user, through the front door.
    pub async fn says(&self, user: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let token = token(&self.workspace, user, TOKEN_SCOPES);
        let headers = [
            ("x-forwarded-access-token", token.as_str()),
            ("content-type", "application/json"),
        ];
        let (status, text) = match body {
            Some(body) => {
                send(
                    self.inbound,
                    Method::POST,
                    path,
                    &headers,
                    &body.to_string(),
                )
                .await
            }
            None => get(self.inbound, path, &headers).await,
        };
        let said = serde_json::from_str(&text);
        (
            status,
            said.unwrap_or_else(|_| panic!("{status} {text}\n{}", self.sidecar.output())),
        )
    }

    /// The audit log so far.
    pub fn records(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.home.join("audit/valetkey.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Works as both identities, and is refused what is not in the bundle.
    pub async fn works_as_both_identities(&self) {
        for user in [ALICE, BOB] {
            let (status, who) = self.says(user, "/", None).await;
            assert_eq!((status, &who["user"]), (200, &json!(user)), "{who}");
            assert_eq!(who["app"], self.workspace.app().client_id.as_str(), "{who}");
        }
        let orders = json!({"statement": "select * from main.sales.orders"});
        let (status, alices) = self.says(ALICE, "/sql", Some(orders.clone())).await;
        assert_eq!(
            (status, &alices["state"]),
            (200, &json!("SUCCEEDED")),
            "{alices}"
        );
        let (_, bobs) = self.says(BOB, "/sql", Some(orders)).await;
        assert_ne!(
            alices["rows"], bobs["rows"],
            "each user sees their own rows"
        );
        let (status, said) = self
            .says(BOB, "/ask", Some(json!({"question": "Hello?"})))
            .await;
        assert_eq!(status, 200, "{said}");
        assert!(!said["answer"].as_str().unwrap().is_empty(), "{said}");
    }

    pub async fn asks_for_a_foreign_warehouse(&self) -> (u16, Value) {
        // Alice has the right to use it: nobody but the policy of the bundle stands between.
        let statement = json!({"statement": "select 1", "warehouse": WAREHOUSE_RESTRICTED});
        self.says(ALICE, "/sql", Some(statement)).await
    }

    /// A trace arrives after the answer, from a thread of its own, as the app.
    pub async fn traces_as_the_app(&self) {
        let written = |r: &Value| r["event"] == "outcome" && r["operation"] == TRACE_WRITTEN;
        let looking = until("a trace was written", async || {
            self.records().into_iter().find(written)
        });
        let Ok(done) = tokio::time::timeout(TRACE_TIME_MAX, looking).await else {
            let output = self.sidecar.output();
            panic!("no trace within {TRACE_TIME_MAX:?}:\n{output}");
        };
        assert_eq!(
            (&done["identity"], &done["status"]),
            (&json!("app"), &json!(200)),
            "{done}"
        );
        assert_eq!(done["route"], "app-experiment", "{done}");
    }
}

/// Programs as they are on the platform: `valetkey` and `python` on the path.
async fn programs_of_the_test() -> String {
    let venv = venv::with(&requirements_of_the_agent()).await;
    let binary = Path::new(env!("CARGO_BIN_EXE_valetkey"));
    let own = binary.parent().unwrap();
    format!("{}:{}", own.display(), venv.join("bin").display())
}

#[test]
fn the_files_of_the_app_agree() {
    let bundle = document("databricks.yml");
    let app = &bundle["resources"]["apps"]["agent"];
    let resources = app["resources"].as_array().unwrap();
    let declared: Vec<&str> = resources
        .iter()
        .map(|r| r["name"].as_str().unwrap())
        .collect();
    assert_eq!(declared, VALUES.map(|(name, _)| name));
    let variables = bundle["variables"].as_object().unwrap();
    let environment = environment();
    for name in variables.keys() {
        let name = format!("BUNDLE_VAR_{name}");
        assert!(environment.contains_key(&name), "app.yaml lacks {name}");
    }
    let agent = text_of(&format!("{PLACE}/agent.py"));
    for needed in agent.split("os.environ[\"").skip(1) {
        let name = needed.split('"').next().unwrap();
        let known = environment.contains_key(name) || name == "DATABRICKS_APP_PORT";
        assert!(known, "app.yaml gives no {name}");
    }
    let wheel = format!(
        "./valetkey-{}-py3-none-manylinux",
        env!("CARGO_PKG_VERSION")
    );
    let requirements = text_of(&format!("{PLACE}/requirements.txt"));
    assert!(requirements.contains(&wheel), "the wheel's version");
    for line in requirements
        .lines()
        .filter(|line| !line.starts_with(['#', '.']))
    {
        assert!(line.contains("=="), "{line} is not pinned");
    }
}

#[tokio::test]
async fn the_bundle_gives_a_policy_without_anything_left_out() {
    let folder = Folder::new();
    let home = folder.copy(PLACE);
    let mut check = folder.valetkey(&["check", "--json"]);
    check
        .current_dir(home)
        .envs(environment())
        .env("DATABRICKS_HOST", "https://my.cloud.databricks.com")
        .env("DATABRICKS_WORKSPACE_ID", "12");
    let said: Value = serde_json::from_str(&good(output_of(check).await)).unwrap();
    let text = said.to_string();
    for resource in [
        format!("sql_warehouse/{WAREHOUSE}"),
        format!("serving_endpoint/{CHAT_ENDPOINT}"),
        format!("experiment/{EXPERIMENT}"),
    ] {
        assert!(text.contains(&resource), "{said:#}");
    }
    assert!(
        !text.contains("BUNDLE_VAR_"),
        "something is left out: {said:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_works_as_both_identities_and_a_foreign_object_is_refused() {
    let app = App::start(&programs_of_the_test().await, |_| {}).await;
    app.works_as_both_identities().await;
    let (status, said) = app.asks_for_a_foreign_warehouse().await;
    assert_eq!(
        (status, &said["error"]),
        (403, &json!("PermissionDenied")),
        "{said}"
    );
    let why = said["message"].as_str().unwrap();
    assert!(why.contains("valetkey"), "{why}");
    app.traces_as_the_app().await;
    let log = app.home.join("audit/valetkey.jsonl");
    let (_, output) = app.sidecar.stop().await;
    assert!(!output.contains("Traceback"), "{output}");
    let verify = app
        .folder
        .valetkey(&["audit", "verify", log.to_str().unwrap()]);
    good(output_of(verify).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observed_the_foreign_object_is_reached_and_recorded_as_what_enforcing_would_refuse() {
    let app = App::start(&programs_of_the_test().await, |home| {
        let file = home.join("valetkey.yaml");
        let text = fs::read_to_string(&file).unwrap();
        let observed = text
            .replace("\nmode: enforce\n", "\n")
            .replace("# mode: observe", "mode: observe")
            .replace("# observe_until: 2027-01-31", "observe_until: 2100-01-31");
        assert_ne!(text, observed);
        fs::write(file, observed).unwrap();
    })
    .await;
    let (status, said) = app.asks_for_a_foreign_warehouse().await;
    assert_eq!(status, 200, "{said}");
    let records = app.records();
    let observed = records.iter().find(|r| r["decision"] == "would_deny");
    assert_eq!(observed.expect("it is recorded")["reason"], "no_route");
    app.sidecar.stop().await;
}
