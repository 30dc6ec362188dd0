//! Who may do what nobody else may, each with its reason. A permit that is used no more is a fault too.
//!
//! Read by `rules.rs`. A new line here is a security decision: it wants a second reader.

/// One exception.
#[derive(Debug)]
pub struct Permit {
    /// A file from the root of the repository, or a folder with a `/` at its end.
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
    permit("src/domain/headers.rs", "takes, strips and attaches it"),
    permit(
        "src/domain/headers/names.rs",
        "the lists of what is stripped",
    ),
    permit(
        "src/runtime/token_endpoint.rs",
        "the client's own Basic credential",
    ),
    permit(
        "src/embedded/",
        "plays the workspace, which reads what arrives",
    ),
    permit(
        "src/demo/agent.rs",
        "plays an agent, which sends its local token",
    ),
];

/// Files that call `Secret::expose`.
pub const EXPOSE: &[Permit] = &[
    permit(
        "src/domain/token.rs",
        "splits and measures the token that it verifies",
    ),
    permit(
        "src/runtime/token_endpoint.rs",
        "puts client secret and subject token into the form",
    ),
    permit(
        "src/runtime/credential.rs",
        "makes the bearer header of a call to the workspace",
    ),
    permit(
        "src/runtime/upstream.rs",
        "hands the session token to the agent",
    ),
    permit(
        "src/proxy/local_oidc.rs",
        "answers the local token endpoint with the app's session token",
    ),
    permit(
        "src/supervise/environment.rs",
        "puts the local client secret into the agent's environment",
    ),
    permit(
        "src/supervise/leaks.rs",
        "looks for real secrets in what the agent would inherit",
    ),
    permit(
        "src/dev.rs",
        "plays the front door, which sends the developer's token",
    ),
    permit(
        "src/dev/source.rs",
        "looks whether the developer's token is a JWT, and for how long",
    ),
    permit(
        "src/cli/dev.rs",
        "gives the sidecar the made-up workspace's client secret",
    ),
    permit(
        "src/demo.rs",
        "gives the sidecar the made-up workspace's client secret",
    ),
    permit(
        "src/demo/agent.rs",
        "plays an agent, which sends its local secret",
    ),
    permit(
        "src/demo/tour.rs",
        "plays the front door, which sends made-up users' tokens",
    ),
];

/// Files that read the system clock.
pub const CLOCK: &[Permit] = &[permit(
    "src/domain/clock.rs",
    "the one place behind the trait",
)];

/// Files that read the environment.
pub const ENVIRONMENT: &[Permit] = &[permit("src/main.rs", "reads it once and passes it down")];

/// Files that print.
pub const PRINTING: &[Permit] = &[
    permit("src/cli.rs", "the command line"),
    permit("src/cli/", "its commands"),
    permit(
        "src/runtime/audit_copy.rs",
        "the copy of the audit log on standard output, where audit.stdout asks for it",
    ),
];

/// Files that re-export.
pub const RE_EXPORTS: &[Permit] = &[permit(
    "src/domain/clock.rs",
    "the two types of the time crate, which is named there alone",
)];

/// Test files that sleep without pausing the time.
pub const TEST_SLEEPS: &[Permit] = &[
    permit(
        "src/runtime/token_script.rs",
        "a scripted delay; the tests that use one pause the time",
    ),
    permit(
        "src/runtime/discovery/fixtures.rs",
        "a scripted delay; the tests that use one pause the time",
    ),
    permit(
        "tests/it/harness.rs",
        "`until` polls, within a limit, what sends no event",
    ),
];
