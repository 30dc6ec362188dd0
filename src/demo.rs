//! The demo: an embedded workspace, the sidecar before it, a small sample agent, and a tour that two users take (PRODUCT 9).
//!
//! Everything is the real thing but the workspace; the agent in `demo/agent.rs` knows no secret. The configuration is written
//! to a folder, so that every other command can be tried on it.

use std::fs::DirBuilder;
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
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
mod ask;
mod tour;

/// How long the user tokens of the demo are good.
const TOKEN_LIFE: Duration = Duration::from_secs(8 * 3600);
/// What the front door's tokens carry in the demo, and in `dev` where no ceiling says otherwise.
pub const TOKEN_SCOPES: &str =
    "sql genie files model-serving vector-search iam.current-user:read iam.access-control:read";
/// Inbound, outbound and admin of a demo that stays, so that the printed lines can be typed again.
const USUAL_PORTS: [u16; 3] = [8000, 9400, 9401];
/// Folders of earlier demos with the same process id that are passed over.
const FOLDERS_MAX: u32 = 100;

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
    match written {
        // A reader that has gone (`| head`) has all it wants.
        Err(fault) if fault.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|fault| format!("the demo broke off: {fault}")),
    }
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
        let path = folder.join("valetkey.yaml");
        let text = |listeners| configuration(&workspace, &folder, agent.address(), listeners);
        let env: Env = [(
            "DEMO_CLIENT_SECRET".to_owned(),
            workspace.app().client_secret.expose().to_owned(),
        )]
        .into_iter()
        .collect();
        let bind = async |listeners| {
            let config = Config::parse(&text(listeners), Some(&path), &env)?;
            App::bind(&config, Some(local.clone()), Arc::new(SystemClock)).await
        };
        // With `--once` nobody will type an address, and where the usual ports are taken any port does.
        let first = if once {
            Err(Vec::new())
        } else {
            bind(USUAL_PORTS).await
        };
        let app = match first {
            Ok(app) => app,
            Err(_) => bind([0; 3]).await.map_err(|problems| lines(&problems))?,
        };
        let addresses = app.addresses();
        // The file names the ports that are in use, so that other commands find them.
        let bound = [addresses.inbound, addresses.outbound, addresses.admin].map(|at| at.port());
        std::fs::write(&path, text(bound))
            .map_err(|fault| format!("cannot write {}: {fault}", path.display()))?;
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
    let (parent, id) = (std::env::temp_dir(), std::process::id());
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    // What is already there may be another user's: it is never written to.
    for number in 0..FOLDERS_MAX {
        let folder = match number {
            0 => parent.join(format!("valetkey-demo-{id}")),
            number => parent.join(format!("valetkey-demo-{id}-{number}")),
        };
        match builder.create(&folder) {
            Ok(()) => return Ok(folder),
            Err(fault) if fault.kind() == ErrorKind::AlreadyExists => {}
            Err(fault) => return Err(format!("cannot make {}: {fault}", folder.display())),
        }
    }
    Err(format!(
        "remove the folders valetkey-demo-{id}* in {}: there are too many",
        parent.display()
    ))
}

fn configuration(
    workspace: &Workspace,
    folder: &Path,
    agent: SocketAddr,
    [inbound, outbound, admin]: [u16; 3],
) -> String {
    use crate::embedded::world::{CHAT_ENDPOINT, INDEX, WAREHOUSE};
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
