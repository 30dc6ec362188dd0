//! Other ways to the outbound side than http to its port: https, and CONNECT (PRODUCT 3, 6.4).

use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::{TestApp, TestOptions, within};

mod clients;
mod forward;
mod secure;
mod tunnels;

/// Who am I.
const ME: &str = "/api/2.0/preview/scim/v2/Me";

fn options(outbound: &Value) -> TestOptions {
    let routes = json!([{"name": "me", "operation": "identity.me", "as": "caller"}]);
    TestOptions::routes(routes).with(json!({"outbound": outbound}))
}

/// What CONNECT names to get to the embedded workspace.
fn workspace_at(app: &TestApp) -> String {
    app.workspace.url().replace("http://", "")
}

/// Runs a program of the machine to its end; what it printed, both streams.
async fn program(command: &mut Command) -> (bool, String) {
    command.kill_on_drop(true);
    let output = within("the program ends", command.output()).await;
    let output = output.expect("the program is on this machine");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.success(), text)
}
