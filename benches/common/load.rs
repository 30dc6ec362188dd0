//! A load generator: so many connections, so many requests on each, one after the other.
//!
//! Counts and times only; every answer must be a 200 of the expected size, or the measurement is void.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::peers::ANSWER_BYTES;

/// After this a batch ends, however few requests it has made.
const BATCH_TIME_MAX: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Clone)]
pub struct Ask {
    /// Exact.
    pub method: Method,
    /// Path and query.
    pub target: &'static str,
    /// Besides `Host`.
    pub headers: Vec<(&'static str, HeaderValue)>,
    /// May be empty.
    pub body: Bytes,
}

/// What a batch of requests took.
pub struct Batch {
    /// The time of each request, sorted.
    latencies: Vec<Duration>,
    wall: Duration,
    cpu: Duration,
}

impl Batch {
    /// The latency that a share of the requests does not exceed, in µs.
    pub fn latency(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into at most some thousands"
        )]
        let index = (last as f64 * share).round() as usize;
        self.latencies
            .get(index)
            .map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
    }

    /// Requests in a second.
    pub fn rate(&self) -> f64 {
        self.count() / self.wall.as_secs_f64()
    }

    /// CPU of the whole process for each request, in µs: client, sidecar and servers together.
    pub fn cpu(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.count()
    }

    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    fn count(&self) -> f64 {
        self.latencies.len() as f64
    }
}

/// Asks `each` times on each of `connections`.
pub async fn run(address: SocketAddr, ask: &Ask, connections: usize, each: usize) -> Batch {
    let (cpu, start) = (process_cpu(), Instant::now());
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(on_one_connection(
            address,
            ask.clone(),
            each,
            start + BATCH_TIME_MAX,
        ));
    }
    let mut latencies: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    let (wall, cpu) = (start.elapsed(), process_cpu() - cpu);
    latencies.sort_unstable();
    Batch {
        latencies,
        wall,
        cpu,
    }
}

async fn on_one_connection(
    address: SocketAddr,
    ask: Ask,
    count: usize,
    until: Instant,
) -> Vec<Duration> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("nodelay");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .expect("a handshake");
    tokio::spawn(connection);
    let host = HeaderValue::from_str(&address.to_string()).expect("a header value");
    let mut latencies = Vec::with_capacity(count);
    for _ in 0..count {
        let mut request = Request::new(Full::new(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        *request.uri_mut() = ask.target.parse().expect("a target");
        let headers = request.headers_mut();
        headers.insert("host", host.clone());
        headers.extend(
            ask.headers
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), value.clone())),
        );
        let start = Instant::now();
        let response = sender.send_request(request).await.expect("an answer");
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .expect("a whole answer")
            .to_bytes();
        latencies.push(start.elapsed());
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
        assert_eq!(body.len(), ANSWER_BYTES);
        if Instant::now() > until {
            break;
        }
    }
    latencies
}

fn process_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the process's own usage");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}
