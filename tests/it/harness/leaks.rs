//! The canary check: no known secret in anything that it has no business in, in several spellings.
//!
//! Real secrets (the app's secret, every token the workspace ever made) may be seen by the sidecar and the workspace alone;
//! local ones (session and app stand-ins) also by the agent, but never by log, metrics, audit file or workspace.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io;
use std::sync::{Mutex, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use valetkey::embedded::seen::SeenCall;

use super::{APP_SECRET, LOCAL_SECRET, TestApp};

/// Bytes that every needle begins with are hashed; shorter secrets would be found by chance.
const STEM: usize = 12;

/// The secrets of one test.
pub struct Leaks {
    real: Needles,
    local: Needles,
}

/// Secrets in all spellings, by their first bytes.
struct Needles {
    by_stem: HashMap<[u8; STEM], Vec<(String, Vec<u8>)>>,
    /// Which pairs of bytes any of them begins with: most places are passed over by this alone.
    begins: Vec<bool>,
}

impl Default for Needles {
    fn default() -> Self {
        Self {
            by_stem: HashMap::new(),
            begins: vec![false; 1 << 16],
        }
    }
}

fn pair(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

impl Leaks {
    /// Everything that is secret in this test.
    pub fn of(app: &TestApp) -> Self {
        let mut real = Needles::default();
        real.add("the app's secret", APP_SECRET);
        for token in app.control().signed_tokens() {
            // Payload and signature are secret by themselves; the header is the same in all tokens.
            let parts: Vec<&str> = token.split('.').collect();
            if let [_, payload, signature] = parts[..] {
                real.add("a token's payload", payload);
                real.add("a token's signature", signature);
            }
        }
        let mut local = Needles::default();
        local.add("the agent's local secret", LOCAL_SECRET);
        let mut tokens = BTreeSet::new();
        for request in app.agent.received() {
            let values = request.header("x-forwarded-access-token");
            tokens.extend(values.iter().map(|v| (*v).to_owned()));
        }
        tokens.insert(app.proxy.sessions.app_token().expose().to_owned());
        for token in tokens {
            local.add("a local token", token.rsplit('.').next().unwrap());
        }
        Self { real, local }
    }

    /// For places that nobody but operators see: neither real nor local secrets.
    pub fn check(&self, place: &str, bytes: &[u8]) {
        self.check_real(place, bytes);
        self.local.check(place, bytes);
    }

    /// For what the agent and its clients see: no real secrets.
    pub fn check_real(&self, place: &str, bytes: &[u8]) {
        self.real.check(place, bytes);
    }

    /// For far sides: real tokens are theirs to see, local ones are not.
    pub fn check_far(&self, place: &str, bytes: &[u8]) {
        self.local.check(place, bytes);
    }

    /// Local tokens never leave for the workspace, not even in a header nobody looks at.
    pub fn check_workspace(&self, calls: &[SeenCall]) {
        for call in calls {
            for (name, value) in &call.headers {
                let place = format!("workspace, {name} of {} {}", call.method, call.target);
                self.local.check(&place, value.as_bytes());
            }
        }
    }
}

impl Needles {
    fn add(&mut self, what: &str, secret: &str) {
        for (spelling, needle) in spellings(secret) {
            if let Some(stem) = needle.first_chunk::<STEM>() {
                self.begins[pair(stem)] = true;
                let known = self.by_stem.entry(*stem).or_default();
                known.push((format!("{what} ({spelling})"), needle.clone()));
            }
        }
    }

    fn check(&self, place: &str, bytes: &[u8]) {
        for (at, stem) in bytes.windows(STEM).enumerate() {
            if !self.begins[pair(stem)] {
                continue;
            }
            let Some(known) = self.by_stem.get(stem) else {
                continue;
            };
            for (what, needle) in known {
                if bytes[at..].starts_with(needle) {
                    let from = at.saturating_sub(120);
                    let before = String::from_utf8_lossy(&bytes[from..at]);
                    panic!("leak: {what} in {place}, after …{before}");
                }
            }
        }
    }
}

/// A secret as it is, in base64 at every alignment, in hex, and percent-encoded byte by byte.
fn spellings(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = secret.as_bytes();
    if bytes.len() < 2 * STEM {
        return Vec::new(); // would be found by chance
    }
    let mut all = vec![("plain", bytes.to_vec())];
    for skip in 0..3 {
        // What stands before the secret shifts its sextets; the ends depend on the neighbours and are left out.
        let whole = &bytes[skip..bytes.len() - (bytes.len() - skip) % 3];
        all.push(("base64", STANDARD.encode(whole).into_bytes()));
        all.push(("base64url", URL_SAFE.encode(whole).into_bytes()));
    }
    let hex = bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let percent = bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "%{byte:02X}");
        text
    });
    all.push(("hex", hex.into_bytes()));
    all.push(("percent", percent.into_bytes()));
    all
}

/// The log of this process, all tests together, at the finest level.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Where the log stood when a test began.
pub struct LogMark(usize);

impl LogMark {
    /// Installs the subscriber at the first call.
    pub fn now() -> Self {
        static INSTALLED: OnceLock<()> = OnceLock::new();
        INSTALLED.get_or_init(|| {
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(LevelFilter::TRACE)
                .with_ansi(false)
                .with_writer(LogWriter)
                .finish();
            tracing::subscriber::set_global_default(subscriber).expect("the only subscriber");
        });
        Self(LOG.lock().unwrap().len())
    }

    /// What was logged since, by this test and those beside it.
    pub fn since(&self) -> Vec<u8> {
        LOG.lock().unwrap()[self.0..].to_vec()
    }
}

struct LogWriter;

impl io::Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

#[test]
#[should_panic(expected = "leak: the app's secret (base64)")]
fn the_check_finds_a_secret_inside_a_basic_credential() {
    let mut needles = Needles::default();
    needles.add("the app's secret", APP_SECRET);
    let text = STANDARD.encode(format!("some-client:{APP_SECRET}"));
    needles.check("a log", format!("authorization: Basic {text}").as_bytes());
}
