//! One sidecar between a workspace, an agent and test clients, all in one process and on one thread.
//!
//! `with_app` starts them, runs the body, stops them, and then looks for every known secret in everything that anybody but
//! the workspace has seen (`harness/leaks.rs`). Time is moved by `TestApp::advance`, never slept away.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use valetkey::app::{App, Running};
use valetkey::audit_reader::{self, prove::Claim};
use valetkey::config::{Config, Env};
use valetkey::domain::clock::{Clock, ManualClock, SignedDuration, Timestamp};
use valetkey::domain::problem::Problem;
use valetkey::domain::secret::Secret;
use valetkey::embedded::control::Control;
use valetkey::embedded::workspace::{AppCredential, Workspace};
use valetkey::proxy::Proxy;
use valetkey::proxy::admin::Addresses;
use valetkey::proxy::local_oidc::LocalClient;
use valetkey::runtime::agent_gate::{AgentState, ProbePace};

pub mod agent;
pub mod certificates;
pub mod client;
pub mod leaks;
pub mod options;
pub mod raw;
pub mod secure;

use agent::Agent;
use client::{Client, Exposed};
use leaks::{Leaks, LogMark};
use options::merge;
pub use options::{TestOptions, environment};
use secure::SecureClient;

/// The longest any single wait of a test may take.
pub const WAIT_MAX: Duration = Duration::from_secs(10);
/// When every test begins, by the manual clock.
pub const START: &str = "2026-11-23T12:00:00Z";
/// The app's service principal.
pub const APP_ID: &str = "4b1d0000-0000-4000-8000-00000000a99a";
/// Its secret: the canary that must stay between sidecar and workspace.
pub const APP_SECRET: &str = "dose-canary-7f3a9c51e2b84d06a1c3f5e7d9b20468";
/// The pair the agent holds.
pub const LOCAL_ID: &str = "agent";
/// Its secret, worth nothing outside.
pub const LOCAL_SECRET: &str = "local-canary-19c4e7aa52d84f3b";
/// The first user, who has grants that nobody else has.
pub const ALICE: &str = "alice@example.com";
/// The second user.
pub const BOB: &str = "bob@example.com";
/// The app's credential, where the platform puts it.
pub const ENVIRONMENT: [(&str, &str); 2] = [
    ("DATABRICKS_CLIENT_ID", APP_ID),
    ("DATABRICKS_CLIENT_SECRET", APP_SECRET),
];
/// What users' tokens hold unless a test says otherwise.
pub const USER_SCOPES: &str =
    "sql genie model-serving vector-search files iam.current-user:read workspace.workspace";

/// Runs a test body against a running sidecar, stops it, and looks for leaks.
pub async fn with_app(options: TestOptions, body: impl AsyncFnOnce(&TestApp)) {
    let app = TestApp::start(options).await.expect("the sidecar starts");
    Box::pin(body(&app)).await;
    app.finish().await;
}

/// Awaits within [`WAIT_MAX`] of real time, however far a test moves the timers meanwhile.
pub async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let (begun, mut wait) = (Instant::now(), Box::pin(wait));
    loop {
        match tokio::time::timeout(WAIT_MAX / 10, &mut wait).await {
            Ok(done) => return done,
            Err(_) if begun.elapsed() < WAIT_MAX => {}
            Err(_) => panic!("{what}: not within {WAIT_MAX:?}"),
        }
    }
}

/// Gives every other task a chance until something is so. For states that announce no change.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    within(what, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// The running world.
pub struct TestApp {
    /// The far side.
    pub workspace: Workspace,
    /// The near side.
    pub agent: Agent,
    /// Further far sides, as the test gave them.
    pub upstreams: Vec<Agent>,
    /// The wall clock of workspace and sidecar.
    pub clock: Arc<ManualClock>,
    /// Where the listeners are.
    pub addresses: Addresses,
    /// The audit file.
    pub audit_file: PathBuf,
    /// The sidecar's insides.
    pub proxy: Arc<Proxy>,
    exposed: Arc<Exposed>,
    running: Mutex<Option<Running>>,
    log: LogMark,
    audit_is_good: bool,
    directory: TempDir,
}

impl TestApp {
    /// Starts everything.
    ///
    /// # Errors
    /// What the sidecar says when it cannot be bound.
    pub async fn start(mut options: TestOptions) -> Result<Self, Vec<Problem>> {
        let log = LogMark::now();
        let directory = tempfile::tempdir().expect("a directory for the test");
        let start: Timestamp = START.parse().expect("a time");
        let clock = Arc::new(ManualClock::at(start));
        options.workspace.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        options.workspace.scratch = directory.path().to_owned();
        options.workspace.stream_pause = Duration::ZERO;
        options.workspace.app.get_or_insert_with(app_credential);
        let workspace = Workspace::start(options.workspace)
            .await
            .expect("the workspace starts");
        (options.before)(&workspace);
        let agent = Agent::start().await;
        let agent_at = options.agent.unwrap_or_else(|| agent.address().to_string());
        let audit_file = directory.path().join("audit/valetkey.jsonl");
        let mut text = json!({
            "workspace": {"host": workspace.url(), "id": workspace.workspace_id()},
            "inbound": {"listen": "127.0.0.1:0", "agent": format!("http://{agent_at}")},
            "outbound": {"listen": "127.0.0.1:0"},
            "admin": {"listen": "127.0.0.1:0"},
            "audit": {"file": audit_file, "sync": "none"},
            "limits": {"drain_time": "2s", "connect_time": "2s"},
        });
        if let Some(routes) = options.routes {
            merge(&mut text, json!({"routes": routes}));
        }
        merge(&mut text, options.config);
        if let Some(host) = options.workspace_at {
            let (issuer, url) = (workspace.issuer(), workspace.url());
            let jwks_uri = format!("{url}/oidc/jwks.json");
            let token_endpoint = format!("{url}/oidc/v1/token");
            merge(
                &mut text,
                json!({"workspace": {"host": host, "issuer": issuer, "jwks_uri": jwks_uri, "token_endpoint": token_endpoint}}),
            );
        }
        let environment = Env::from_iter(options.environment);
        let config = Config::parse(&text.to_string(), None, &environment)?;
        let audit_file = config.audit.file.clone();
        let running = bind(&config, &clock).await?.start(ProbePace::CHILD);
        agent.calls_through(running.addresses().outbound);
        let proxy = Arc::clone(running.proxy());
        if options.await_agent {
            let settled = within("the agent is reached", proxy.gate.settled()).await;
            assert_eq!(settled, AgentState::Ready);
        }
        Ok(Self {
            workspace,
            agent,
            upstreams: options.upstreams,
            clock,
            addresses: running.addresses(),
            audit_file,
            proxy,
            exposed: Arc::default(),
            running: Mutex::new(Some(running)),
            log,
            audit_is_good: options.audit_is_good,
            directory,
        })
    }

    /// Requests to the front door's side.
    pub fn inbound(&self) -> Client {
        Client::new(self.addresses.inbound, Arc::clone(&self.exposed))
    }

    /// Calls from the agent's side.
    pub fn outbound(&self) -> Client {
        Client::new(self.addresses.outbound, Arc::clone(&self.exposed))
    }

    /// Calls from the agent's side over TLS, and through tunnels.
    pub fn secure(&self) -> SecureClient {
        let root = self.with_running(|running| running.root().cloned());
        let root = root.expect("outbound.tls or outbound.forward is on");
        SecureClient::new(self.addresses.outbound, root, Arc::clone(&self.exposed))
    }

    /// Metrics, health, status.
    pub fn admin(&self) -> Client {
        Client::new(self.addresses.admin, Arc::clone(&self.exposed))
    }

    /// The workspace's levers and windows.
    pub fn control(&self) -> &Control {
        self.workspace.control()
    }

    /// A scratch directory that is removed at the end.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Alice's token for an hour.
    pub fn alice(&self) -> String {
        self.token(ALICE, USER_SCOPES, 3600)
    }

    /// Bob's token for an hour.
    pub fn bob(&self) -> String {
        self.token(BOB, USER_SCOPES, 3600)
    }

    /// Any user's token.
    pub fn token(&self, email: &str, scopes: &str, seconds: u64) -> String {
        self.workspace
            .user_token(email, scopes, Duration::from_secs(seconds))
            .expect("a user of the workspace")
    }

    /// The session token that the agent gets for a user token.
    pub async fn session(&self, user_token: &str) -> String {
        let answer = self.inbound().get("/echo").user(user_token).fetch().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let request = self.agent.last();
        let tokens = request.header("x-forwarded-access-token");
        assert_eq!(tokens.len(), 1, "one session token");
        tokens[0].to_owned()
    }

    /// The local app token, asked for as an SDK does.
    pub async fn app_token(&self) -> String {
        let answer = self
            .outbound()
            .post("/oidc/v1/token")
            .basic(LOCAL_ID, LOCAL_SECRET)
            .form(&[("grant_type", "client_credentials"), ("scope", "all-apis")])
            .fetch()
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["access_token"]
            .as_str()
            .expect("a token")
            .to_owned()
    }

    /// Moves the wall clock and the timers together.
    pub async fn advance(&self, seconds: u64) {
        self.clock
            .advance(SignedDuration::from_secs(i64::try_from(seconds).unwrap()));
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
    }

    /// The metrics as text.
    pub async fn metrics(&self) -> String {
        self.admin().get("/metrics").fetch().await.text()
    }

    /// `/readyz` and its status.
    pub async fn readyz(&self) -> (u16, Value) {
        let answer = self.admin().get("/readyz").fetch().await;
        (answer.status, answer.json())
    }

    /// The audit records written so far, but for the signatures over them.
    pub fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.audit_file).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|record: &Value| record["event"] != "checkpoint")
            .collect()
    }

    /// Waits until such a record is in the audit file, and gives it.
    pub async fn audit_has(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(what, || self.audit().iter().any(&wanted)).await;
        let mut records = self.audit();
        records.retain(wanted);
        records.swap_remove(0)
    }

    /// The calls that reached the workspace's APIs: neither OAuth nor discovery.
    pub fn api_calls(&self) -> Vec<valetkey::embedded::seen::SeenCall> {
        let mut calls = self.control().calls();
        calls.retain(|c| !c.target.starts_with("/oidc/") && !c.target.starts_with("/.well-known/"));
        calls
    }

    /// How often the token endpoint was asked.
    pub fn token_requests(&self) -> u64 {
        self.control().token_requests()
    }

    /// What a running sidecar may be asked, such as to begin its drain.
    pub fn with_running<T>(&self, ask: impl FnOnce(&Running) -> T) -> T {
        let running = self.running.lock().unwrap();
        ask(running.as_ref().expect("still running"))
    }

    /// Stops the sidecar in good order; the world around it stays.
    pub async fn stop(&self) {
        let running = self.running.lock().unwrap().take();
        if let Some(running) = running {
            within("the sidecar stops", running.stop()).await;
        }
    }

    /// Stops everything and looks for leaks.
    pub async fn finish(self) {
        let metrics = if self.running.lock().unwrap().is_some() {
            self.metrics().await
        } else {
            String::new()
        };
        self.stop().await;
        if self.audit_is_good {
            self.verify_audit();
        }
        let leaks = Leaks::of(&self);
        leaks.check("metrics", metrics.as_bytes());
        for user in [ALICE, BOB] {
            assert!(!metrics.contains(user), "a metric names {user}");
        }
        leaks.check("log", &self.log.since());
        for file in audit_files(&self.audit_file) {
            leaks.check("audit file", &std::fs::read(file).unwrap());
        }
        for (who, bytes) in self.exposed.taken() {
            leaks.check_real(&who, &bytes);
        }
        for request in self.agent.received() {
            leaks.check_real(&format!("agent, {}", request.target), &request.raw());
        }
        leaks.check_workspace(&self.control().calls());
        for upstream in &self.upstreams {
            for request in upstream.received() {
                leaks.check_far(&format!("upstream, {}", request.target), &request.raw());
            }
            upstream.stop();
        }
        self.agent.stop();
        within("the workspace stops", self.workspace.stop()).await;
    }

    /// The whole chain holds.
    pub fn verify_audit(&self) {
        let files = audit_reader::files_of(std::slice::from_ref(&self.audit_file))
            .expect("the audit file is there");
        let mut report = Vec::new();
        let good = audit_reader::prove::verify(&files, &Claim::default(), &mut report)
            .expect("the audit file can be read");
        assert!(good, "{}", String::from_utf8_lossy(&report));
    }
}

/// Binds a sidecar with the harness's local pair.
///
/// # Errors
/// What stands in the way.
pub async fn bind(config: &Config, clock: &Arc<ManualClock>) -> Result<App, Vec<Problem>> {
    let local = LocalClient {
        id: LOCAL_ID.to_owned(),
        secret: Arc::new(Secret::new(LOCAL_SECRET.to_owned())),
    };
    App::bind(config, Some(local), Arc::clone(clock) as Arc<dyn Clock>).await
}

fn app_credential() -> AppCredential {
    AppCredential {
        client_id: APP_ID.to_owned(),
        client_secret: Secret::new(APP_SECRET.to_owned()),
    }
}

fn audit_files(file: &std::path::Path) -> Vec<PathBuf> {
    let Some(Ok(entries)) = file.parent().map(std::fs::read_dir) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect()
}
