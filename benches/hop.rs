//! What a hop through the sidecar costs, against a direct call and a bare relay: `cargo bench --bench hop`.
//!
//! Everything is on: verification, session, a policy of 100 routes, intent and outcome in a chained audit file, metrics. Client,
//! servers and sidecar are one process on loopback, so only differences and ratios mean something. How to read the numbers is
//! in `benches/README.md`; `decide.rs` measures the steps.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use valetkey::app::{App, Running};
use valetkey::config::{Config, Env};
use valetkey::domain::clock::{Clock, SystemClock};
use valetkey::runtime::agent_gate::ProbePace;

use common::issuer::{AUDIENCE, Issuer};
use common::load::{Ask, Batch, run};
use common::peers::{Peer, TOKEN_HEADER, relay};

mod common {
    pub mod issuer;
    pub mod load;
    pub mod peers;
}

/// Each way is measured so often, in turn, and the median counts.
const ROUNDS: usize = 5;
/// Requests of one round, one after the other.
const SEQUENTIAL: usize = 2_000;
/// Connections of the loaded batch.
const CONNECTIONS: usize = 32;
/// Requests of the loaded batch on each connection.
const EACH: usize = 400;
/// Routes of the policy; the last ones match.
const ROUTES: usize = 100;

fn main() {
    // A thread for the sidecar, another for everything around it: what they cost each other is the scheduler's.
    let (peers, sidecar) = (runtime("peers"), runtime("sidecar"));
    let scratch = tempfile::tempdir().expect("a directory for the audit log");
    let issuer = Issuer::new();
    let (workspace, agent) = peers.block_on(async {
        (
            Peer::start(issuer.jwks()).await,
            Peer::start(String::new()).await,
        )
    });
    let running = sidecar.block_on(start(&workspace, &agent, scratch.path()));
    let relays =
        sidecar.block_on(async { (relay(agent.address).await, relay(workspace.address).await) });
    let user = issuer.token(
        &format!("http://{}/oidc", workspace.address),
        "alice@example.com",
        SystemClock.now(),
    );
    let user = HeaderValue::try_from(user).expect("a header value");
    let addresses = running.addresses();

    let inbound = ask(Method::GET, "/answer", (TOKEN_HEADER, user), Bytes::new());
    peers.block_on(run(addresses.inbound, &inbound, 1, 1));
    let session = agent.token().expect("a session token");
    let bearer = [b"Bearer ", session.as_bytes()].concat();
    let bearer = (
        "authorization",
        HeaderValue::from_bytes(&bearer).expect("a header value"),
    );
    let index = "/api/2.0/vector-search/indexes/prod.docs.index/query";
    let outbound = ask(Method::GET, index, bearer.clone(), Bytes::new());
    let statement = json!({"warehouse_id": "w1", "statement": "select 1", "wait_timeout": "30s"});
    let inspected = ask(
        Method::POST,
        "/api/2.0/sql/statements",
        bearer,
        statement.to_string().into(),
    );

    let (to_agent, to_workspace) = (
        [agent.address, relays.0, addresses.inbound],
        [workspace.address, relays.1, addresses.outbound],
    );
    let mut table = String::from(HEAD);
    for (name, ask, ways) in [
        ("inbound, verified user", &inbound, to_agent),
        ("outbound, as the user", &outbound, to_workspace),
        ("outbound, body inspected", &inspected, to_workspace),
    ] {
        table.push_str(&rows(name, &measure(&peers, ask, ways)));
    }
    sidecar.block_on(running.stop());
    io::stdout()
        .write_all(table.as_bytes())
        .expect("the table is printed");
}

fn runtime(name: &str) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let builder = builder.worker_threads(1).thread_name(name).enable_all();
    builder.build().expect("a runtime")
}

fn ask(
    method: Method,
    target: &'static str,
    header: (&'static str, HeaderValue),
    body: Bytes,
) -> Ask {
    let json = ("content-type", HeaderValue::from_static("application/json"));
    Ask {
        method,
        target,
        headers: vec![header, json],
        body,
    }
}

async fn start(workspace: &Peer, agent: &Peer, scratch: &Path) -> Running {
    let mut routes: Vec<Value> = (0..ROUTES - 2)
        .map(|i| json!({"name": format!("r{i}"), "resource": format!("serving_endpoint/m{i}"), "as": "user"}))
        .collect();
    routes
        .push(json!({"name": "docs", "resource": "vector_search_index/prod.docs.*", "as": "user"}));
    routes.push(json!({"name": "sql", "resource": "sql_warehouse/w1", "as": "user"}));
    let config = json!({
        "workspace": {"host": format!("http://{}", workspace.address), "id": AUDIENCE},
        "inbound": {"listen": "127.0.0.1:0", "agent": format!("http://{}", agent.address)},
        "users": {"session": {"linger": "30m"}},
        "outbound": {"listen": "127.0.0.1:0"},
        "admin": {"listen": "127.0.0.1:0"},
        "audit": {"file": scratch.join("audit.jsonl"), "sync": "interval"},
        "routes": routes,
    });
    let config =
        Config::parse(&config.to_string(), None, &Env::default()).expect("a configuration");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let app = App::bind(&config, None, clock)
        .await
        .expect("the sidecar is bound");
    let running = app.start(ProbePace::CHILD);
    running.proxy().gate.settled().await;
    running
}

/// One way of making the same calls: directly, by the relay, through the sidecar.
struct Way {
    sequential: Vec<Batch>,
    loaded: Vec<Batch>,
}

fn measure(peers: &Runtime, ask: &Ask, addresses: [SocketAddr; 3]) -> [Way; 3] {
    let mut ways = [(); 3].map(|()| Way {
        sequential: Vec::new(),
        loaded: Vec::new(),
    });
    for round in 0..=ROUNDS {
        for (way, address) in ways.iter_mut().zip(addresses) {
            let load = |connections, each| {
                let (ask, batch) = (ask.clone(), async move |ask: Ask| {
                    run(address, &ask, connections, each).await
                });
                // On a worker: `block_on` would poll the clients on the main thread.
                let task = peers.spawn(async move { batch(ask).await });
                peers.block_on(task).expect("a batch")
            };
            let (sequential, loaded) = (load(1, SEQUENTIAL), load(CONNECTIONS, EACH));
            // The first round warms connections, caches and allocators.
            if round > 0 {
                way.sequential.push(sequential);
                way.loaded.push(loaded);
            }
        }
    }
    ways
}

const HEAD: &str = "\
| hop | way | p50 µs | p99 µs | req/s at 32 | CPU µs per request, 1 | CPU µs per request, 32 | added CPU × relay, 32 |
|---|---|--:|--:|--:|--:|--:|--:|
";

fn rows(name: &str, ways: &[Way; 3]) -> String {
    let [direct, relay, _] = ways;
    let cpu = |way: &Way| median(&way.loaded, Batch::cpu);
    let added = |way: &Way| cpu(way) - cpu(direct);
    let row = |label: &str, way: &Way| {
        format!(
            "| {name} | {label} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.2} |\n",
            median(&way.sequential, |batch| batch.latency(0.5)),
            median(&way.sequential, |batch| batch.latency(0.99)),
            median(&way.loaded, Batch::rate),
            median(&way.sequential, Batch::cpu),
            cpu(way),
            added(way) / added(relay),
        )
    };
    ["direct", "relay", "sidecar"]
        .iter()
        .zip(ways)
        .map(|(label, way)| row(label, way))
        .collect()
}

fn median(batches: &[Batch], figure: impl Fn(&Batch) -> f64) -> f64 {
    let mut figures: Vec<f64> = batches.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
