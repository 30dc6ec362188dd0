//! A real workspace, described by environment variables that start with `VALETKEY_E2E_REAL_`.
//!
//! `HOST`, `WORKSPACE_ID`, `CLIENT_ID`, `CLIENT_SECRET`; `USER_A` and `USER_B` (user names) with `TOKEN_A` and `TOKEN_B` (as the
//! front door forwards them); `WAREHOUSE`, `MODEL`, `INDEX`, `INDEX_COLUMNS` (with commas), `VOLUME` (`/Volumes/c/s/v`). The app
//! and both users need the rights on them. Optional: every other name of `things.rs` in capitals, and `APP_URL`.

use crate::site::{Site, User};
use crate::things;

/// The things that the suite cannot do without; the rows of the others are left out.
const NEEDED: [&str; 4] = ["warehouse", "model", "index", "volume"];

/// The workspace, if there is one to test against; a half-described one fails the test.
pub fn from_environment() -> Option<Site> {
    variable("HOST")?;
    let mut missing = Vec::new();
    let mut take = |name: &str| {
        variable(name).unwrap_or_else(|| {
            missing.push(format!("VALETKEY_E2E_REAL_{name}"));
            String::new()
        })
    };
    let site = Site {
        kind: "real",
        host: take("HOST"),
        workspace_id: take("WORKSPACE_ID"),
        client_id: take("CLIENT_ID"),
        client_secret: take("CLIENT_SECRET"),
        users: [
            User {
                name: take("USER_A"),
                tokens: vec![take("TOKEN_A")],
            },
            User {
                name: take("USER_B"),
                tokens: vec![take("TOKEN_B")],
            },
        ],
        expired_token: None,
        index_columns: take("INDEX_COLUMNS")
            .split(',')
            .map(str::to_owned)
            .collect(),
        things: things::real(|name| variable(&name.to_uppercase())),
        app_urls: ["APP_URL", "APP_OTHER_URL"].map(|name| {
            variable(name).unwrap_or_else(|| format!("https://{name}.invalid").replace('_', "-"))
        }),
    };
    for name in NEEDED {
        if !site.things[name].exists {
            missing.push(format!("VALETKEY_E2E_REAL_{}", name.to_uppercase()));
        }
    }
    assert!(
        missing.is_empty(),
        "a real workspace is given by VALETKEY_E2E_REAL_HOST, but these are missing: {missing:?}"
    );
    Some(site)
}

fn variable(name: &str) -> Option<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test driver is configured by its environment"
    )]
    let value = std::env::var(format!("VALETKEY_E2E_REAL_{name}"));
    value.ok().filter(|value| !value.is_empty())
}
