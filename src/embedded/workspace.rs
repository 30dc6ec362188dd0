//! A Databricks workspace inside this process, for the demo, for local development and for every test.
//!
//! Listens on loopback, keeps everything in memory (files: in a scratch directory), and refuses what the platform refuses.
//! Never used in production traffic. Read `door.rs` next, which takes each call; `control.rs` breaks and watches it.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::{Acceptor, Door};
use super::api::file_store::FileStore;
use super::api::genie::Conversations;
use super::api::jobs::Runs;
use super::api::memory::Memories;
use super::api::mlflow::Tracking;
use super::api::serving::background::Background;
use super::api::sql::Statements;
use super::control::Control;
use super::issuer::{Issuer, SignWith};
use super::stream::Pace;
use super::streamable::Sessions;
use crate::domain::clock::{Clock, SystemClock};
use crate::domain::secret::Secret;

/// How long [`Workspace::stop`] waits for calls in flight.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);
/// The client id of an app that was not given one.
const CLIENT_ID: &str = "e0b5e0b5-0001-4000-8000-000000000001";

/// A person the workspace knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedUser {
    /// The `sub` of their tokens.
    pub email: String,
    /// As people read it.
    pub name: String,
}

impl EmbeddedUser {
    /// A person.
    pub fn new(email: &str, name: &str) -> Self {
        Self {
            email: email.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// The OAuth credential of the app's service principal.
#[derive(Debug)]
pub struct AppCredential {
    /// Also the `sub` of the app's tokens.
    pub client_id: String,
    /// Checked at the token endpoint.
    pub client_secret: Secret,
}

/// How an embedded workspace is set up.
#[derive(Debug)]
pub struct WorkspaceOptions {
    /// Who exists. The first has grants that nobody else has (see `world`).
    pub users: Vec<EmbeddedUser>,
    /// The app; made up with a random secret when absent.
    pub app: Option<AppCredential>,
    /// The `aud` of every token.
    pub workspace_id: String,
    /// Life of the tokens of the token endpoint.
    pub token_life: Duration,
    /// Serves https with this; plain http otherwise.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The host in [`Workspace::url`]; must lead to loopback and, with TLS, stand in the certificate.
    pub host: String,
    /// The loopback port; 0 takes a free one.
    pub port: u16,
    /// Tells tokens' times.
    pub clock: Arc<dyn Clock>,
    /// Time between two events of a streamed answer.
    pub stream_pause: Duration,
    /// Whether downloads get presigned links, as on a workspace with that switched on.
    pub presigned_downloads: bool,
    /// Where uploaded files are kept while the workspace runs.
    pub scratch: PathBuf,
}

impl Default for WorkspaceOptions {
    fn default() -> Self {
        Self {
            users: vec![
                EmbeddedUser::new("alice@example.com", "Alice Example"),
                EmbeddedUser::new("bob@example.com", "Bob Example"),
            ],
            app: None,
            workspace_id: "1234567890123456".to_owned(),
            token_life: Duration::from_secs(3600),
            tls: None,
            host: "127.0.0.1".to_owned(),
            port: 0,
            clock: Arc::new(SystemClock),
            stream_pause: Duration::from_millis(5),
            presigned_downloads: false,
            scratch: std::env::temp_dir(),
        }
    }
}

/// A token was asked for somebody the workspace does not know.
#[derive(Debug, thiserror::Error)]
#[error("the embedded workspace has no user {0}; add one to WorkspaceOptions.users")]
pub struct NoSuchUser(pub String);

/// What every handler may use.
pub(super) struct Site {
    pub(super) url: String,
    pub(super) users: Vec<EmbeddedUser>,
    pub(super) app: AppCredential,
    pub(super) token_life: Duration,
    pub(super) stream_pause: Duration,
    pub(super) presigned_downloads: bool,
    pub(super) issuer: Arc<Issuer>,
    pub(super) control: Arc<Control>,
    pub(super) statements: Statements,
    pub(super) conversations: Conversations,
    pub(super) files: FileStore,
    pub(super) tracking: Tracking,
    pub(super) background: Background,
    pub(super) memories: Memories,
    pub(super) runs: Runs,
    pub(super) sessions: Sessions,
    /// Where other apps are, by name, while they run.
    pub(super) app_urls: Mutex<BTreeMap<String, String>>,
    /// The workspace takes no new calls; what waits for nothing in particular ends.
    pub(super) closing: CancellationToken,
}

impl Site {
    /// How its streams flow.
    pub(super) fn pace(&self) -> Pace {
        Pace {
            control: Arc::clone(&self.control),
            pause: self.stream_pause,
        }
    }
}

/// A running embedded workspace. Dropping it ends it at once.
pub struct Workspace {
    addr: SocketAddr,
    site: Arc<Site>,
    /// No new connections, no new calls on old ones.
    closing: CancellationToken,
    /// Every connection ends now.
    ended: CancellationToken,
    connections: TaskTracker,
}

impl Workspace {
    /// Binds a loopback port and serves on the current runtime.
    ///
    /// # Errors
    /// When the port cannot be bound or no key can be made.
    pub async fn start(options: WorkspaceOptions) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
        let addr = listener.local_addr()?;
        let scheme = if options.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let url = format!("{scheme}://{}:{}", options.host, addr.port());
        let issuer = Issuer::start(&url, &options.workspace_id, options.clock).await?;
        let issuer = Arc::new(issuer);
        let app = match options.app {
            Some(app) => app,
            None => AppCredential {
                client_id: CLIENT_ID.to_owned(),
                client_secret: Secret::random("dose").map_err(io::Error::other)?,
            },
        };
        let closing = CancellationToken::new();
        let site = Arc::new(Site {
            url,
            users: options.users,
            app,
            token_life: options.token_life,
            stream_pause: options.stream_pause,
            presigned_downloads: options.presigned_downloads,
            control: Arc::new(Control::new(Arc::clone(&issuer))),
            issuer,
            statements: Statements::default(),
            conversations: Conversations::default(),
            files: FileStore::under(&options.scratch),
            tracking: Tracking::default(),
            background: Background::default(),
            memories: Memories::default(),
            runs: Runs::default(),
            sessions: Sessions::default(),
            app_urls: Mutex::default(),
            closing: closing.clone(),
        });
        let workspace = Self {
            addr,
            site,
            closing,
            ended: CancellationToken::new(),
            connections: TaskTracker::new(),
        };
        let tls = options.tls.map(TlsAcceptor::from);
        workspace
            .connections
            .spawn(workspace.acceptor(tls).run(listener));
        Ok(workspace)
    }

    /// Scheme, host and port, without a trailing slash.
    pub fn url(&self) -> String {
        self.site.url.clone()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The app's credential.
    pub fn app(&self) -> &AppCredential {
        &self.site.app
    }

    /// The numeric id, the `aud` of every token.
    pub fn workspace_id(&self) -> &str {
        &self.site.issuer.workspace_id
    }

    /// The `iss` of every token.
    pub fn issuer(&self) -> &str {
        &self.site.issuer.url
    }

    /// For the other app, which takes this workspace's tokens.
    pub(super) fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// The levers and the windows.
    pub fn control(&self) -> &Control {
        &self.site.control
    }

    /// A user's token as the front door would forward it. `scopes` is one string with blanks, in short names.
    ///
    /// # Errors
    /// [`NoSuchUser`] when the workspace does not know the user.
    pub fn user_token(
        &self,
        email: &str,
        scopes: &str,
        life: Duration,
    ) -> Result<String, NoSuchUser> {
        let mut known = self.site.users.iter();
        if known.any(|u| u.email == email) {
            let issuer = &self.site.issuer;
            Ok(issuer.mint(email, &self.front_door_client(), scopes, life))
        } else {
            Err(NoSuchUser(email.to_owned()))
        }
    }

    /// The claims of a good user token of one hour, to be spoilt and given to [`Workspace::claims_token`].
    pub fn user_claims(&self, email: &str, scopes: &str) -> Value {
        let now = self.site.issuer.clock.now().as_second();
        let client = self.front_door_client();
        let issuer = &self.site.issuer;
        issuer.claims(email, &client, scopes, now, now.saturating_add(3600))
    }

    /// A token of any shape, for hostile tests. Members of `header` replace those of the usual header, `null` removes one.
    ///
    /// # Errors
    /// When a stranger's key is asked for and cannot be made.
    pub fn claims_token(
        &self,
        claims: &Value,
        header: &Value,
        with: SignWith,
    ) -> io::Result<String> {
        self.site.issuer.forge(claims, header, with)
    }

    /// Lets calls in flight end for a short time, then ends everything.
    pub async fn stop(self) {
        self.closing.cancel();
        self.connections.close();
        if tokio::time::timeout(STOP_TIME_MAX, self.connections.wait())
            .await
            .is_err()
        {
            self.ended.cancel();
            self.connections.wait().await;
        }
    }

    /// The OAuth client of the front door is not the app's service principal.
    fn front_door_client(&self) -> String {
        format!("front-door-of-{}", self.site.app.client_id)
    }

    fn acceptor(&self, tls: Option<TlsAcceptor>) -> Acceptor {
        Acceptor {
            door: Door::Workspace(Arc::clone(&self.site)),
            closing: self.closing.clone(),
            ended: self.ended.clone(),
            connections: self.connections.clone(),
            tls,
        }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        self.closing.cancel();
        self.ended.cancel();
        self.connections.close();
    }
}

#[cfg(test)]
mod tests;
