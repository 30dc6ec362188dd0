//! The Databricks CLI as a child: `databricks auth token`, which renews the developer's OAuth token by itself.
//!
//! Only OAuth logins (`databricks auth login`) have such a token. Nothing of its output is logged but what it says on standard error.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::process::Command;

/// It may have to ask the workspace for a new token.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Of what it says on standard error, so much is repeated, in characters.
const WORDS_CHARS_MAX: usize = 600;
/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How it is asked.
#[derive(Debug, Clone)]
pub struct DatabricksCli {
    /// `--profile`; comes before the host.
    pub profile: Option<String>,
    /// `--host`
    pub host: Option<String>,
    /// Its environment.
    pub variables: BTreeMap<OsString, OsString>,
}

impl DatabricksCli {
    /// What a person would type.
    pub fn line(&self, command: &str) -> String {
        let arguments = self.place().join(" ");
        format!("databricks auth {command} {arguments}")
            .trim_end()
            .to_owned()
    }

    fn place(&self) -> Vec<String> {
        match (&self.profile, &self.host) {
            (Some(profile), _) => vec!["--profile".into(), profile.clone()],
            (None, Some(host)) => vec!["--host".into(), host.clone()],
            (None, None) => Vec::new(),
        }
    }

    /// Asks for a token that is still good.
    ///
    /// # Errors
    /// Why there is none, and what to do.
    pub async fn token(&self) -> Result<String, String> {
        let line = self.line("token");
        // Found by its own PATH: that of this process is not looked at again.
        let mut command = Command::new("databricks");
        command
            .args(["auth", "token"])
            .args(self.place())
            .env_clear()
            .envs(&self.variables)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = match tokio::time::timeout(ANSWER_TIME, command.output()).await {
            Err(_) => return Err(format!("`{line}` did not end within {ANSWER_TIME:?}")),
            Ok(Err(fault)) if fault.kind() == std::io::ErrorKind::NotFound => {
                return Err("the Databricks CLI is not on PATH: install it and run `databricks auth login`, set DATABRICKS_TOKEN to an OAuth token, \
                            or use the embedded workspace: valetkey dev --as alice@example.com -- …".into());
            }
            Ok(Err(fault)) => return Err(format!("`{line}` could not be started: {fault}")),
            Ok(Ok(output)) => output,
        };
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            let words: String = words.split_whitespace().collect::<Vec<_>>().join(" ");
            let words: String = words.chars().take(WORDS_CHARS_MAX).collect();
            return Err(format!(
                "`{line}` failed: {words}; log in with `{}`",
                self.line("login")
            ));
        }
        let answer = Some(&output.stdout).filter(|text| text.len() <= ANSWER_BYTES_MAX);
        let answer =
            answer.and_then(|text| serde_json::from_slice::<Map<String, Value>>(text).ok());
        let token = answer
            .as_ref()
            .and_then(|answer| answer.get("access_token")?.as_str());
        let token = token.filter(|token| !token.is_empty());
        token.map(str::to_owned).ok_or_else(|| {
            format!("`{line}` did not print JSON with an access_token; is it the Databricks CLI, 0.205 or newer?")
        })
    }
}
