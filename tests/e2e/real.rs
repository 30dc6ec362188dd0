//! A real workspace, described by environment variables that start with `VALETKEY_E2E_REAL_`.
//!
//! `HOST`, `WORKSPACE_ID`, `CLIENT_ID`, `CLIENT_SECRET`; `USER_A` and `USER_B` (user names) with `TOKEN_A` and `TOKEN_B` (as the
//! front door forwards them); `WAREHOUSE`, `MODEL`, `INDEX`, `INDEX_COLUMNS` (with commas), `VOLUME` (`/Volumes/c/s/v`). The app
//! and both users need the rights on them. Optional: `WAREHOUSE_REFUSED`, any id that is not `WAREHOUSE`.

use crate::site::{Site, User};

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
        warehouse: take("WAREHOUSE"),
        warehouse_refused: variable("WAREHOUSE_REFUSED")
            .unwrap_or_else(|| "0000000000000000".to_owned()),
        model: take("MODEL"),
        index: take("INDEX"),
        index_columns: take("INDEX_COLUMNS")
            .split(',')
            .map(str::to_owned)
            .collect(),
        volume: take("VOLUME"),
    };
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
