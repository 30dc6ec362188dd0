//! Who may do what nobody else may, each with its reason. A permit that is used no more is a fault too.
//!
//! Read by `rules.rs`. A new line here is a security decision: it wants a second reader.

/// One exception.
#[derive(Debug)]
pub struct Permit {
    /// A file below `src/`, or a folder with a `/` at its end; for `TEST_SLEEPS` from the root of the repository.
    pub path: &'static str,
    /// Why it must.
    pub reason: &'static str,
}

impl Permit {
    /// Whether the permit is for this file.
    pub fn covers(&self, path: &str) -> bool {
        path == self.path || (self.path.ends_with('/') && path.starts_with(self.path))
    }
}

const fn permit(path: &'static str, reason: &'static str) -> Permit {
    Permit { path, reason }
}

/// Files that name the `Authorization` header.
pub const AUTHORIZATION: &[Permit] = &[
    permit("domain/headers.rs", "takes, strips and attaches it"),
    permit("domain/headers/", "parts of the same room"),
    permit(
        "runtime/token_endpoint.rs",
        "the client's own Basic credential",
    ),
    permit("embedded/", "plays the workspace, which reads what arrives"),
];

/// Files that call `Secret::expose`.
pub const EXPOSE: &[Permit] = &[
    permit(
        "domain/token.rs",
        "splits and measures the token that it verifies",
    ),
    permit(
        "runtime/token_endpoint.rs",
        "puts client secret and subject token into the form",
    ),
    permit(
        "runtime/credential.rs",
        "makes the bearer header of a call to the workspace",
    ),
    permit(
        "runtime/upstream.rs",
        "hands the session token to the agent",
    ),
    permit(
        "proxy/local_oidc.rs",
        "answers the local token endpoint with the app's session token",
    ),
    permit(
        "supervise/environment.rs",
        "puts the local client secret into the agent's environment",
    ),
    permit(
        "supervise/leaks.rs",
        "looks for real secrets in what the agent would inherit",
    ),
];

/// Files that read the system clock.
pub const CLOCK: &[Permit] = &[permit("domain/clock.rs", "the one place behind the trait")];

/// Files that read the environment.
pub const ENVIRONMENT: &[Permit] = &[permit("cli.rs", "reads it once and passes it down")];

/// Files that print.
pub const PRINTING: &[Permit] = &[permit("cli.rs", "the only printing file")];

/// Files that re-export.
pub const RE_EXPORTS: &[Permit] = &[permit(
    "domain/clock.rs",
    "the two types of the time crate, which is named there alone",
)];

/// Test files that sleep without pausing the time.
pub const TEST_SLEEPS: &[Permit] = &[permit(
    "src/runtime/token_script.rs",
    "a scripted delay of the peer; the tests that set one run under paused time",
)];
