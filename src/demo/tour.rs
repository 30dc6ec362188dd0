//! The tour: two users and the app over allowed and refused routes, one line a call, told from what really happened.
//!
//! Who decided and why is read from the audit log, as a person would.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Request;
use serde_json::Value;

use crate::domain::secret::Secret;
use crate::runtime::http_client::empty;

use super::ask::Http;

/// How long the record of a call may take to be in the file.
const RECORD_TIME: Duration = Duration::from_secs(5);
/// Between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The stops of the tour: who, which tool, what it shows.
const STOPS: &[(Visitor, &str, &str)] = &[
    (Visitor::Alice, "me", "the user's own identity"),
    (Visitor::Alice, "orders", "SQL as the user: her rows"),
    (Visitor::Bob, "orders", "SQL as the user: his rows"),
    (
        Visitor::Alice,
        "search",
        "shared index, as the app, on her behalf",
    ),
    (Visitor::Bob, "chat", "model, as whoever calls"),
    (Visitor::App, "traces", "MLflow, in a background job"),
    (Visitor::App, "orders-as-app", "SQL, in a background job"),
    (
        Visitor::Alice,
        "other-warehouse",
        "a warehouse that no route names",
    ),
    (Visitor::Bob, "make-token", "minting a token"),
    (Visitor::Bob, "climb", "climbing out of a volume"),
    (Visitor::Nobody, "orders", "no token at all"),
    (Visitor::Forger, "orders", "a token with a broken signature"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visitor {
    Alice,
    Bob,
    /// A job of the agent itself: nobody asked for it, so it does not come in through the sidecar.
    App,
    Nobody,
    Forger,
}

impl Visitor {
    fn name(self) -> &'static str {
        match self {
            Self::Alice => "alice",
            Self::Bob => "bob",
            Self::App => "app",
            Self::Nobody => "nobody",
            Self::Forger => "forger",
        }
    }
}

/// What is needed to take the tour.
pub struct Tour {
    inbound: SocketAddr,
    agent: SocketAddr,
    audit: PathBuf,
    alice: Secret,
    bob: Secret,
    http: Http,
}

impl Tour {
    /// The tokens are what the front door would forward.
    pub fn new(
        inbound: SocketAddr,
        agent: SocketAddr,
        audit: PathBuf,
        alice: String,
        bob: String,
    ) -> Self {
        Self {
            inbound,
            agent,
            audit,
            alice: Secret::new(alice),
            bob: Secret::new(bob),
            http: Http::default(),
        }
    }

    /// Makes every call and prints the table.
    pub async fn take(&self, out: &mut impl Write) -> std::io::Result<()> {
        line(
            out,
            ["WHO", "CALL", "ROUTE", "AS", "RESULT", "WHAT HAPPENED"],
        )?;
        for (visitor, tool, meaning) in STOPS {
            let before = self.records()?.len();
            let answer = self
                .call(*visitor, tool)
                .await
                .map_err(std::io::Error::other)?;
            let record = self.record_after(before).await?;
            let text = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or("-");
            let allowed = text("decision") == "allow";
            let outcome = if allowed {
                format!("{meaning}; the workspace saw {}", answer.seen_as)
            } else {
                format!("{meaning}: {}", text("reason"))
            };
            let result = if allowed { "allowed" } else { "REFUSED" };
            line(
                out,
                [
                    visitor.name(),
                    tool,
                    text("route"),
                    text("identity"),
                    &format!("{result} {}", answer.status),
                    &outcome,
                ],
            )?;
        }
        Ok(())
    }

    /// Leaves the tokens of the fake users where `curl` finds them.
    pub fn keep_tokens(&self, folder: &Path) -> std::io::Result<()> {
        for (name, token) in [("alice", &self.alice), ("bob", &self.bob)] {
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(folder.join(format!("{name}.token")))?;
            file.write_all(token.expose().as_bytes())?;
        }
        Ok(())
    }

    async fn call(&self, visitor: Visitor, tool: &str) -> Result<Told, String> {
        let address = if visitor == Visitor::App {
            self.agent
        } else {
            self.inbound
        };
        let mut request = Request::get(format!("http://{address}/tools/{tool}"));
        let token = match visitor {
            Visitor::Alice => Some(self.alice.expose().to_owned()),
            Visitor::Bob => Some(self.bob.expose().to_owned()),
            Visitor::App | Visitor::Nobody => None,
            // Another payload under the signature of a genuine token.
            Visitor::Forger => Some(
                self.alice
                    .expose()
                    .split('.')
                    .rev()
                    .collect::<Vec<_>>()
                    .join("."),
            ),
        };
        if let Some(token) = token {
            request = request.header("x-forwarded-access-token", token);
        }
        let request = request.body(empty()).map_err(|fault| fault.to_string())?;
        let (head, json) = self.http.ask(request).await?;
        let status = json
            .get("status")
            .and_then(Value::as_u64)
            .unwrap_or_else(|| u64::from(head.status.as_u16()));
        Ok(Told {
            status,
            seen_as: json
                .get("seen_as")
                .and_then(Value::as_str)
                .unwrap_or("nobody")
                .to_owned(),
        })
    }

    fn records(&self) -> std::io::Result<Vec<Value>> {
        let text = std::fs::read_to_string(&self.audit)?;
        Ok(text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }

    /// The record that ended the call: its outcome or its refusal.
    async fn record_after(&self, before: usize) -> std::io::Result<Value> {
        let ends = |record: &Value| {
            matches!(
                record.get("event").and_then(Value::as_str),
                Some("outcome" | "denial" | "token_rejected")
            )
        };
        let look = async {
            loop {
                if let Some(found) = self.records()?.into_iter().skip(before).find(ends) {
                    return Ok(found);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(RECORD_TIME, look)
            .await
            .unwrap_or_else(|_| Err(std::io::Error::other("no record of the call was written")))
    }
}

/// What the agent told of its call.
struct Told {
    status: u64,
    seen_as: String,
}

fn line(out: &mut impl Write, cells: [&str; 6]) -> std::io::Result<()> {
    let [who, call, route, identity, result, happened] = cells;
    writeln!(
        out,
        "{who:<7} {call:<16} {route:<17} {identity:<5} {result:<12} {happened}"
    )
}
