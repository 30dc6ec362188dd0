//! Endpoints no real workspace has, under `/api/2.0/embedded/`: for tests of what a proxy does with odd answers.
//!
//! `echo` tells what arrived, `redirect` leads to another host, `login` is a page where JSON is due, `whoami` names the caller.

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal, json_ok, text};
use super::call::Call;
use super::door::redirect;

/// A 200 page of HTML, as a lost session gives.
pub(super) fn login_page() -> Answer {
    let page =
        "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in</body></html>";
    text(StatusCode::OK, "text/html; charset=utf-8", page.to_owned())
}

pub(super) async fn answer(call: &mut Call, path: &[&str]) -> Result<Answer, Refusal> {
    match path {
        ["api", "2.0", "embedded", "whoami"] => Ok(json_ok(&json!({
            "name": call.caller.name,
            "is_app": call.caller.is_app,
            "scopes": call.caller.scopes.to_string(),
        }))),
        ["api", "2.0", "embedded", "redirect"] => Ok(redirect(
            call.query("to")
                .unwrap_or("https://elsewhere.example/login"),
        )),
        ["api", "2.0", "embedded", "login"] => Ok(login_page()),
        ["api", "2.0", "embedded", "echo", ..] => echo(call).await,
        _ => Err(call.no_endpoint()),
    }
}

/// Values of credentials are not echoed: their names are enough to prove what left.
async fn echo(call: &mut Call) -> Result<Answer, Refusal> {
    let body = call.bytes().await?;
    let headers: Vec<Value> = call
        .headers
        .iter()
        .map(|(name, value)| {
            let secret = matches!(name.as_str(), "authorization" | "cookie");
            let value = String::from_utf8_lossy(value.as_bytes());
            json!([name.as_str(), if secret { "(hidden)" } else { &value }])
        })
        .collect();
    Ok(json_ok(&json!({
        "method": call.method,
        "path": call.path,
        "query": call.query,
        "headers": headers,
        "identity": call.caller.name,
        "body": String::from_utf8_lossy(&body),
    })))
}
