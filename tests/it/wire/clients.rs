//! Clients of other makes through the forward proxy: curl and Python as this machine has them, led by variables or flags alone.

use serde_json::json;
use tokio::process::Command;

use super::{ME, options, program, workspace_at};
use crate::harness::{TestApp, with_app};

#[tokio::test]
async fn curl_goes_through_by_http_and_https_to_the_proxy() {
    let outbound = json!({"forward": "on", "tls": "on"});
    with_app(options(&outbound), async |app: &TestApp| {
        let root = app.secure().root_file(app.directory());
        let session = app.session(&app.alice()).await;
        let url = format!("https://{}{ME}", workspace_at(app));
        let bearer = format!("Authorization: Bearer {session}");
        for proxy in [
            format!("http://{}", app.addresses.outbound),
            format!("https://{}", app.addresses.outbound),
        ] {
            for version in ["--http1.1", "--http2"] {
                let mut curl = Command::new("curl");
                curl.env_clear()
                    .args(["-sS", "--fail-with-body", "--noproxy", "", version])
                    .args(["--proxy", &proxy, "-H", &bearer, "--cacert"])
                    .arg(&root)
                    .arg("--proxy-cacert")
                    .arg(&root)
                    .arg(&url);
                let (good, text) = program(&mut curl).await;
                assert!(
                    good && text.contains("alice@example.com"),
                    "{proxy}: {text}"
                );
            }
        }
    })
    .await;
}

#[tokio::test]
async fn python_goes_through_and_verifies_strictly() {
    with_app(options(&json!({"forward": "on"})), async |app: &TestApp| {
        let root = app.secure().root_file(app.directory());
        let session = app.session(&app.alice()).await;
        let script = "
import http.client, json, ssl, sys
proxy, place, path, root, token = sys.argv[1:]
context = ssl.create_default_context(cafile=root)
context.verify_flags |= ssl.VERIFY_X509_STRICT
host, port = proxy.split(':')
client = http.client.HTTPSConnection(host, int(port), context=context, timeout=9)
there, door = place.split(':')
client.set_tunnel(there, int(door))
for _ in range(3):
    client.request('GET', path, headers={'Authorization': 'Bearer ' + token})
    answer = client.getresponse()
    print(answer.status, answer.read().decode())
refused = http.client.HTTPSConnection(host, int(port), context=context, timeout=9)
refused.set_tunnel('example.com', 443)
try:
    refused.request('GET', '/')
except OSError as fault:
    print(fault)
";
        let mut python = Command::new("python3");
        python
            .args(["-c", script])
            .arg(app.addresses.outbound.to_string())
            .args([&workspace_at(app), ME])
            .arg(&root)
            .arg(&session);
        let (good, text) = program(&mut python).await;
        assert!(good, "{text}");
        assert_eq!(
            text.matches("\"userName\":\"alice@example.com\"").count(),
            3,
            "{text}"
        );
        assert!(text.contains("Tunnel connection failed: 403"), "{text}");
    })
    .await;
}
