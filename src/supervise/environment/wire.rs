//! The two ways to lead the agent's calls to the sidecar: as the workspace's host, or as the proxy in front of it.
//!
//! Clients differ in which variable they read, so all of them are set together (clients.md, CONNECT mode). Pure.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::Variables;

/// How the agent's calls come to the sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wire {
    /// `DATABRICKS_HOST` is the sidecar.
    Host,
    /// `DATABRICKS_HOST` is the workspace, and the sidecar is the proxy on the way.
    Forward {
        /// The workspace as the agent calls it.
        workspace: String,
        /// Hosts, in lower case, that must not be excluded from the proxy.
        hosts: Vec<String>,
        /// The sidecar as a proxy: always http, since not every client speaks TLS to its proxy.
        proxy: String,
    },
}

/// What names a bundle of roots that a client trusts instead of, or beside, its own.
pub const TRUST_VARIABLES: &[&str] = &[
    "AWS_CA_BUNDLE",                    // boto3, the AWS CLI
    "CARGO_HTTP_CAINFO",                // cargo
    "CURL_CA_BUNDLE",                   // curl; requests, where the next but one is not set
    "DENO_CERT",                        // Deno, beside its own
    "GIT_SSL_CAINFO",                   // git
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", // gRPC: Databricks Connect
    "HTTPLIB2_CA_CERTS",                // httplib2
    "NODE_EXTRA_CA_CERTS",              // Node, beside its own
    "PIP_CERT",                         // pip
    "REQUESTS_CA_BUNDLE",               // requests: the Databricks SDK, MLflow
    "SSL_CERT_FILE", // OpenSSL, httpx, Go, rustls: openai, mcp, the SQL connector
];

const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "::1"];

/// The bundles that an environment names, each once; what it names must still be trusted.
pub fn named_bundles(own: &Variables) -> Vec<PathBuf> {
    let mut named: Vec<PathBuf> = Vec::new();
    for name in TRUST_VARIABLES {
        let value = own.get(OsStr::new(name)).filter(|value| !value.is_empty());
        if let Some(path) = value.map(PathBuf::from)
            && !named.contains(&path)
        {
            named.push(path);
        }
    }
    named
}

/// Sets what leads to the sidecar, and what makes the agent trust it.
pub(super) fn lead(
    variables: &mut Variables,
    own: &Variables,
    wire: &Wire,
    trust_file: Option<&Path>,
) {
    let mut hosts: &[String] = &[];
    if let Wire::Forward {
        workspace,
        hosts: kept,
        proxy,
    } = wire
    {
        hosts = kept;
        variables.insert("DATABRICKS_HOST".into(), workspace.into());
        for name in ["HTTPS_PROXY", "https_proxy"] {
            variables.insert(name.into(), proxy.into());
        }
        // Node from 22.21 and 24 on looks at them only then.
        variables.insert("NODE_USE_ENV_PROXY".into(), "1".into());
    }
    for (name, other) in [("NO_PROXY", "no_proxy"), ("no_proxy", "NO_PROXY")] {
        variables.insert(name.into(), past_the_proxy(own, name, other, hosts));
    }
    for name in TRUST_VARIABLES {
        if let Some(file) = trust_file {
            variables.insert(name.into(), file.into());
        }
    }
}

/// The list under `name`, else the one under its other spelling, with loopback in it and without what would lead past the
/// sidecar. Clients differ in which of the two they read, so both are set and neither loses what the user excluded.
fn past_the_proxy(own: &Variables, name: &str, other: &str, hosts: &[String]) -> OsString {
    let given = [name, other]
        .iter()
        .filter_map(|name| own.get(OsStr::new(name)))
        .find(|value| !value.as_bytes().trim_ascii().is_empty());
    let Some(given) = given else {
        return LOOPBACK.join(",").into();
    };
    let entries = || {
        let split = |byte: &u8| *byte == b',' || byte.is_ascii_whitespace();
        { given.as_bytes().split(split) }.filter(|entry| !entry.is_empty())
    };
    let excludes = |entry: &[u8]| hosts.iter().any(|host| covers(entry, host));
    let mut list = if entries().any(excludes) {
        let kept: Vec<&[u8]> = entries().filter(|entry| !excludes(entry)).collect();
        OsStr::from_bytes(&kept.join(&b","[..])).to_owned()
    } else {
        given.clone()
    };
    // A lone asterisk means everything, and only while it is alone.
    if entries().any(|entry| entry == b"*" && !excludes(entry)) {
        return list;
    }
    for host in LOOPBACK {
        if !entries().any(|entry| entry == host.as_bytes()) {
            if !list.is_empty() {
                list.push(",");
            }
            list.push(host);
        }
    }
    list
}

/// Whether some client reads an entry so that the host is under it: itself, or a name above it, with a dot, an asterisk or a
/// port around it or not.
fn covers(entry: &[u8], host: &str) -> bool {
    let entry = String::from_utf8_lossy(entry).to_ascii_lowercase();
    let name = match entry.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => &entry,
    };
    let name = name.trim_start_matches('*').trim_matches('.');
    name.is_empty()
        || host
            .strip_suffix(name)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}
