//! The demo: an embedded workspace, the sidecar before it, a small sample agent, and a tour that two users take (PRODUCT 9).
//!
//! Everything is the real thing but the workspace; the agent in `demo/agent.rs` knows no secret. The configuration is written
//! to a folder, so that every other command can be tried on it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::app::{App, Running};
use crate::config::{Config, Env};
use crate::domain::clock::SystemClock;
use crate::domain::problem::Problem;
use crate::domain::secret::Secret;
use crate::embedded::workspace::{Workspace, WorkspaceOptions};
use crate::proxy::local_oidc::LocalClient;
use crate::runtime::agent_gate::ProbePace;

use self::agent::Agent;
use self::tour::Tour;

mod agent;
mod tour;

/// How long the user tokens of the demo are good.
const TOKEN_LIFE: Duration = Duration::from_secs(8 * 3600);
/// What the front door's tokens carry in the demo.
const TOKEN_SCOPES: &str =
    "sql genie files model-serving vector-search iam.current-user:read iam.access-control:read";
/// The listeners of a demo that stays, so that the printed lines can be typed again.
const PORTS: [(&str, u16); 3] = [("inbound", 8000), ("outbound", 9400), ("admin", 9401)];

/// Runs the demo; without `once` it stays up until it is interrupted.
///
/// # Errors
/// A sentence that says what stood in the way.
pub async fn run(once: bool, out: &mut impl Write) -> Result<(), String> {
    let workspace = Workspace::start(WorkspaceOptions::default())
        .await
        .map_err(|fault| format!("the embedded workspace did not start: {fault}"))?;
    let folder = folder()?;
    let stage = Stage::set(workspace, folder, once).await?;
    let written = stage.show(once, out).await;
    if written.is_ok() && !once {
        // Ends by Ctrl-C; a failure to listen for it would end the demo at once, which is the same.
        let _ = tokio::signal::ctrl_c().await;
    }
    stage.running.stop().await;
    written.map_err(|fault| format!("the demo broke off: {fault}"))
}

/// A running demo.
struct Stage {
    workspace: Workspace,
    running: Running,
    _agent: Agent,
    folder: PathBuf,
    tour: Tour,
}

impl Stage {
    async fn set(workspace: Workspace, folder: PathBuf, once: bool) -> Result<Self, String> {
        let secret = Secret::random("vkl_").map_err(|fault| fault.to_string())?;
        let local = LocalClient {
            id: "demo-agent".to_owned(),
            secret: Arc::new(secret),
        };
        let agent = Agent::bind()
            .await
            .map_err(|fault| format!("the sample agent did not start: {fault}"))?;
        let text = configuration(&workspace, &folder, agent.address());
        let path = folder.join("valetkey.yaml");
        std::fs::write(&path, &text)
            .map_err(|fault| format!("cannot write {}: {fault}", path.display()))?;
        let env: Env = [(
            "DEMO_CLIENT_SECRET".to_owned(),
            workspace.app().client_secret.expose().to_owned(),
        )]
        .into_iter()
        .collect();
        let config = |text: &str| {
            Config::parse(text, Some(&path), &env).map_err(|problems| lines(&problems))
        };
        let bind = async |config: Config| {
            App::bind(&config, Some(local.clone()), Arc::new(SystemClock)).await
        };
        // With `--once` nobody will type an address, and where the usual ports are taken any port does.
        let free = PORTS.iter().fold(text.clone(), |text, (_, port)| {
            text.replace(&format!("127.0.0.1:{port}"), "127.0.0.1:0")
        });
        let first = if once {
            Err(Vec::new())
        } else {
            bind(config(&text)?).await
        };
        let app = match first {
            Ok(app) => app,
            Err(_) => bind(config(&free)?)
                .await
                .map_err(|problems| lines(&problems))?,
        };
        let addresses = app.addresses();
        agent.serve(addresses.outbound, local);
        let running = app.start(ProbePace::CHILD);
        running.proxy().gate.settled().await;
        let token = |email: &str| {
            workspace
                .user_token(email, TOKEN_SCOPES, TOKEN_LIFE)
                .map_err(|_| format!("{email} is no user of the embedded workspace"))
        };
        let tour = Tour::new(
            addresses.inbound,
            agent.address(),
            folder.join("audit.jsonl"),
            token("alice@example.com")?,
            token("bob@example.com")?,
        );
        Ok(Self {
            workspace,
            running,
            _agent: agent,
            folder,
            tour,
        })
    }

    async fn show(&self, once: bool, out: &mut impl Write) -> std::io::Result<()> {
        let addresses = self.running.addresses();
        writeln!(
            out,
            "Valetkey demo: an embedded workspace at {}, the sidecar in front of it, a sample agent behind it.",
            self.workspace.url()
        )?;
        writeln!(
            out,
            "The agent holds local tokens only; each line below is one call that it made or tried to make.\n"
        )?;
        self.tour.take(out).await?;
        let folder = self.folder.display();
        writeln!(out, "\naudit log  {folder}/audit.jsonl")?;
        writeln!(out, "metrics    http://{}/metrics", addresses.admin)?;
        writeln!(out, "status     http://{}/status", addresses.admin)?;
        if once {
            return Ok(());
        }
        self.tour.keep_tokens(&self.folder)?;
        writeln!(
            out,
            "\nStill running; Ctrl-C ends it. In another terminal:\n"
        )?;
        for user in ["alice", "bob"] {
            writeln!(
                out,
                "  curl -H \"x-forwarded-access-token: $(cat {folder}/{user}.token)\" http://{}/tools/orders",
                addresses.inbound
            )?;
        }
        writeln!(out, "  valetkey audit tail -f {folder}/audit.jsonl")?;
        writeln!(
            out,
            "  valetkey audit query --decision deny {folder}/audit.jsonl"
        )?;
        writeln!(out, "  valetkey audit verify {folder}/audit.jsonl")?;
        writeln!(
            out,
            "  DEMO_CLIENT_SECRET=any valetkey explain --config {folder}/valetkey.yaml --as user POST /api/2.0/token/create"
        )?;
        writeln!(
            out,
            "  DEMO_CLIENT_SECRET=any valetkey check --config {folder}/valetkey.yaml"
        )?;
        out.flush()
    }
}

/// A folder of this run's own, for the configuration and the audit log.
fn folder() -> Result<PathBuf, String> {
    let folder = std::env::temp_dir().join(format!("valetkey-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder)
        .map_err(|fault| format!("cannot make {}: {fault}", folder.display()))?;
    Ok(folder)
}

fn configuration(workspace: &Workspace, folder: &Path, agent: std::net::SocketAddr) -> String {
    use crate::embedded::world::{CHAT_ENDPOINT, INDEX, WAREHOUSE};
    let [(_, inbound), (_, outbound), (_, admin)] = PORTS;
    let (host, id, audit) = (
        workspace.url(),
        workspace.workspace_id(),
        folder.join("audit.jsonl"),
    );
    let client = &workspace.app().client_id;
    let audit = audit.display();
    format!(
        "# The configuration of this demo. The secret stands in the environment of the sidecar, never in a file.
workspace: {{host: \"{host}\", id: \"{id}\"}}
inbound: {{listen: \"127.0.0.1:{inbound}\", agent: \"http://{agent}\"}}
outbound: {{listen: \"127.0.0.1:{outbound}\"}}
admin: {{listen: \"127.0.0.1:{admin}\"}}
app:
  client_id: {client}
  client_secret: {{env: DEMO_CLIENT_SECRET}}
users:
  scopes: [sql, genie, files, model-serving, vector-search, \"iam.current-user:read\"]
routes:
  - {{name: user-sql, resource: sql_warehouse/{WAREHOUSE}, as: user}}
  - {{name: shared-knowledge, resource: vector_search_index/{INDEX}, as: app}}
  - {{name: model, resource: serving_endpoint/{CHAT_ENDPOINT}, as: caller}}
  - {{name: traces, operation: mlflow.*, as: app}}
  - {{name: who-am-i, operation: identity.me, as: caller}}
audit: {{file: \"{audit}\"}}
log: {{format: text, level: warn}}
"
    )
}

fn lines(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(Problem::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}
