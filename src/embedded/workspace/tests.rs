//! The embedded workspace over a real socket: refusals, isolation, streams, files, faults.

use super::*;
use crate::domain::clock::{ManualClock, SignedDuration, Timestamp};
use crate::embedded::control::{Fault, Place};
use crate::embedded::seen::Seen;
use crate::embedded::world::{
    CHAT_ENDPOINT, CHAT_ENDPOINT_RESTRICTED, EXPERIMENT, GENIE_SPACE, INDEX, VOLUME,
    VOLUME_RESTRICTED, WAREHOUSE, WAREHOUSE_RESTRICTED,
};
use crate::runtime::http_client::{
    Body, BoxError, ClientLimits, HttpSend, HyperSend, SendFault, empty, full,
};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::json;

/// The rows of the table: allowed, no scope, no grant, unknown.
mod fates;
mod managed_mcp;
mod objects;
mod other_app;
mod tracking;

const HOUR: Duration = Duration::from_secs(3600);
/// Nothing here takes long; a test that waits for this hangs.
const PATIENCE: Duration = Duration::from_secs(20);
const SCOPES: &str = "sql genie files model-serving vector-search iam.current-user:read";

struct Rig {
    workspace: Workspace,
    client: HyperSend,
}

/// An answer read to its end.
struct Read {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Bytes,
}

impl Read {
    async fn of(answer: http::Response<Body>) -> Self {
        let (head, body) = answer.into_parts();
        Self {
            status: head.status,
            headers: head.headers,
            bytes: body.collect().await.unwrap().to_bytes(),
        }
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes.to_vec()).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap().to_str().unwrap()
    }
}

impl Rig {
    async fn start() -> Self {
        Self::with(WorkspaceOptions::default()).await
    }

    async fn with(options: WorkspaceOptions) -> Self {
        let tls = crate::runtime::tls::client_config(None).unwrap();
        Self {
            workspace: Workspace::start(options).await.unwrap(),
            client: HyperSend::new(tls, ClientLimits::default()),
        }
    }

    fn token(&self, who: &str) -> String {
        let email = format!("{who}@example.com");
        self.workspace.user_token(&email, SCOPES, HOUR).unwrap()
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Body,
    ) -> Result<http::Response<Body>, SendFault> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.workspace.url()));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let sent = self.client.send(request.body(body).unwrap());
        tokio::time::timeout(PATIENCE, sent).await.unwrap()
    }

    async fn read(&self, method: &str, path: &str, token: Option<&str>, body: Body) -> Read {
        Read::of(self.send(method, path, token, body).await.unwrap()).await
    }

    /// A token with other scopes than the usual.
    fn token_for(&self, who: &str, scopes: &str) -> String {
        let email = format!("{who}@example.com");
        self.workspace.user_token(&email, scopes, HOUR).unwrap()
    }

    /// A call with headers, to whatever URL.
    async fn ask(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> http::Response<Body> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = self.client.send(request.body(body).unwrap());
        tokio::time::timeout(PATIENCE, sent).await.unwrap().unwrap()
    }

    async fn get(&self, path: &str, token: &str) -> Read {
        self.read("GET", path, Some(token), empty()).await
    }

    async fn post(&self, path: &str, token: &str, body: &Value) -> Read {
        let body = full(body.to_string());
        self.read("POST", path, Some(token), body).await
    }

    /// A call of the token endpoint with the app's credential.
    async fn grant(&self, form: &[(&str, &str)]) -> Read {
        let app = self.workspace.app();
        let mut text = form_urlencoded::Serializer::new(String::new());
        text.extend_pairs(form);
        text.append_pair("client_id", &app.client_id);
        text.append_pair("client_secret", app.client_secret.expose());
        self.read("POST", "/oidc/v1/token", None, full(text.finish()))
            .await
    }

    async fn app_token(&self, scope: &str) -> String {
        let form = [("grant_type", "client_credentials"), ("scope", scope)];
        let answer = self.grant(&form).await.json();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    async fn sql(&self, token: &str, text: &str) -> Value {
        let body = json!({ "warehouse_id": WAREHOUSE, "statement": text });
        self.post("/api/2.0/sql/statements", token, &body)
            .await
            .json()
    }

    fn last_call(&self) -> crate::embedded::seen::SeenCall {
        self.workspace.control().calls().pop().unwrap()
    }
}

const ME: &str = "/api/2.0/preview/scim/v2/Me";

#[tokio::test]
async fn every_answer_tells_as_whom_the_call_arrived() {
    let rig = Rig::start().await;
    let alice = rig.get(ME, &rig.token("alice")).await;
    assert_eq!(alice.json()["userName"], "alice@example.com");
    assert_eq!(
        alice.header("x-embedded-identity"),
        "user:alice@example.com"
    );
    assert_eq!(alice.header("x-databricks-org-id"), "1234567890123456");
    assert!(alice.headers.contains_key("set-cookie"));
    let app = rig.get(ME, &rig.app_token("all-apis").await).await;
    assert_eq!(app.json()["userName"], json!(rig.workspace.app().client_id));
    assert_eq!(app.header("x-embedded-identity"), "app");
    let seen = rig.last_call();
    assert_eq!(seen.request_id, app.header("x-request-id"));
    assert!(matches!(seen.identity, Seen::App { .. }));
    assert_eq!(seen.header("Authorization").len(), 1);
    assert!(!format!("{seen:?}").contains("Bearer"));
}

#[tokio::test]
async fn refusals_have_the_platforms_shapes() {
    let rig = Rig::start().await;
    let alice = rig.token("alice");
    let bob = rig.token("bob");
    let narrow = rig.workspace.user_token("bob@example.com", "genie", HOUR);
    let narrow = narrow.unwrap();
    let statement = json!({ "warehouse_id": WAREHOUSE_RESTRICTED, "statement": "select 1" });

    let none = rig.read("GET", ME, None, empty()).await;
    assert_eq!(
        (none.status.as_u16(), none.json()["error_code"].clone()),
        (401, json!(401))
    );
    assert!(none.headers.contains_key("www-authenticate"));

    let bad = rig.get(ME, "not.a.token").await;
    assert_eq!(
        (bad.status.as_u16(), bad.json()["error_code"].clone()),
        (403, json!(403))
    );
    assert_eq!(
        bad.header("x-databricks-reason-phrase"),
        "Invalid access token."
    );
    assert_eq!(rig.last_call().identity, Seen::Invalid);

    let sql = rig
        .post("/api/2.0/sql/statements", &narrow, &statement)
        .await;
    assert_eq!(sql.status, 403);
    assert_eq!(
        sql.json()["message"],
        "Provided OAuth token does not have required scopes: sql"
    );

    let denied = rig.post("/api/2.0/sql/statements", &bob, &statement).await;
    assert_eq!(
        (denied.status.as_u16(), denied.json()["error_code"].clone()),
        (403, json!("PERMISSION_DENIED"))
    );
    assert_eq!(
        denied.json()["details"][0]["request_id"],
        denied.header("x-request-id")
    );
    let granted = rig
        .post("/api/2.0/sql/statements", &alice, &statement)
        .await;
    assert_eq!(granted.json()["status"]["state"], "SUCCEEDED");

    let nowhere = rig.get("/api/9.9/nothing", &alice).await;
    assert_eq!(
        (
            nowhere.status.as_u16(),
            nowhere.json()["error_code"].clone()
        ),
        (404, json!("ENDPOINT_NOT_FOUND"))
    );
    let nothing = rig.get("/api/2.0/sql/warehouses/none", &alice).await;
    assert_eq!(
        (
            nothing.status.as_u16(),
            nothing.json()["error_code"].clone()
        ),
        (404, json!("RESOURCE_DOES_NOT_EXIST"))
    );
    let users = rig.workspace.user_token("carol@example.com", "sql", HOUR);
    assert!(users.is_err());
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let start: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
    let clock = Arc::new(ManualClock::at(start));
    let rig = Rig::with(WorkspaceOptions {
        clock: clock.clone(),
        ..WorkspaceOptions::default()
    })
    .await;
    let token = rig.token("alice");
    assert_eq!(rig.get(ME, &token).await.status, 200);
    clock.advance(SignedDuration::from_secs(3600));
    assert_eq!(rig.get(ME, &token).await.status, 403);
}

#[tokio::test]
async fn the_app_narrows_its_own_tokens_and_stays_out_with_a_wrong_secret() {
    let rig = Rig::start().await;
    let answer = rig.grant(&[
        ("grant_type", "client_credentials"),
        ("scope", "genie files"),
    ]);
    let answer = answer.await.json();
    assert_eq!(answer["scope"], "files genie");
    assert_eq!(answer["expires_in"], 3600);
    let narrow = answer["access_token"].as_str().unwrap();
    assert_eq!(rig.get("/api/2.0/genie/spaces", narrow).await.status, 200);
    assert_eq!(rig.get("/api/2.0/sql/warehouses", narrow).await.status, 403);

    let form = "grant_type=client_credentials&client_id=x&client_secret=y";
    let wrong = rig.read("POST", "/oidc/v1/token", None, full(form)).await;
    assert_eq!(
        (wrong.status.as_u16(), wrong.json()["error"].clone()),
        (401, json!("invalid_client"))
    );
    let form = "grant_type=client_credentials&scope=sql";
    let anonymous = rig.read("POST", "/oidc/v1/token", None, full(form)).await;
    assert_eq!(anonymous.status, 401);
    let other = rig.grant(&[("grant_type", "password")]).await;
    assert_eq!(other.json()["error"], "unsupported_grant_type");
    assert_eq!(rig.workspace.control().token_requests(), 4);
}

#[tokio::test]
async fn an_exchange_narrows_a_users_token_and_never_widens_or_prolongs_it() {
    let rig = Rig::start().await;
    let life = Duration::from_secs(100);
    let subject = rig
        .workspace
        .user_token("bob@example.com", "sql genie", life);
    let subject = subject.unwrap();
    let exchange = |token: String, scope: &'static str| {
        let rig = &rig;
        async move {
            rig.grant(&[
                (
                    "grant_type",
                    "urn:ietf:params:oauth:grant-type:token-exchange",
                ),
                ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
                ("subject_token", &token),
                ("scope", scope),
            ])
            .await
        }
    };
    let narrow = exchange(subject.clone(), "sql").await.json();
    assert_eq!(narrow["scope"], "sql");
    assert!(narrow["expires_in"].as_i64().unwrap() <= 100);
    let token = narrow["access_token"].as_str().unwrap();
    assert_eq!(
        rig.sql(token, "select current_user()").await["result"]["data_array"],
        json!([["bob@example.com"]])
    );
    assert_eq!(rig.get("/api/2.0/genie/spaces", token).await.status, 403);
    let wider = exchange(token.to_owned(), "sql genie").await;
    assert_eq!(
        (wider.status.as_u16(), wider.json()["error"].clone()),
        (400, json!("invalid_scope"))
    );
    let bad = exchange("a.b.c".to_owned(), "sql").await;
    assert_eq!(bad.json()["error"], "invalid_grant");
}

#[tokio::test]
async fn rows_differ_by_user_and_statements_belong_to_their_maker() {
    let rig = Rig::start().await;
    let (alice, bob) = (rig.token("alice"), rig.token("bob"));
    let count = |answer: Value| answer["manifest"]["total_row_count"].as_u64().unwrap();
    let all = "SELECT * FROM main.sales.orders;";
    assert_eq!(count(rig.sql(&alice, all).await), 3);
    assert_eq!(count(rig.sql(&bob, all).await), 2);
    assert_eq!(count(rig.sql(&rig.app_token("sql").await, all).await), 6);
    let failed = rig.sql(&bob, "select * from main.hr.salaries").await;
    assert_eq!(failed["status"]["error"]["error_code"], "PERMISSION_DENIED");

    let body = json!({
        "warehouse_id": WAREHOUSE, "statement": "select * from range(1500)", "wait_timeout": "0s",
    });
    let begun = rig
        .post("/api/2.0/sql/statements", &alice, &body)
        .await
        .json();
    assert_eq!(begun["status"]["state"], "PENDING");
    let path = format!(
        "/api/2.0/sql/statements/{}",
        begun["statement_id"].as_str().unwrap()
    );
    let chunk = format!("{path}/result/chunks/1");
    assert_eq!(rig.get(&path, &bob).await.status, 404);
    assert_eq!(
        rig.get(&path, &alice).await.json()["status"]["state"],
        "RUNNING"
    );
    assert_eq!(
        rig.get(&path, &alice).await.json()["result"]["next_chunk_index"],
        1
    );
    assert_eq!(rig.get(&chunk, &bob).await.status, 404);
    assert_eq!(rig.get(&chunk, &alice).await.json()["row_count"], 500);
}

#[tokio::test]
async fn a_cancelled_statement_stays_cancelled_and_only_its_maker_cancels_it() {
    let rig = Rig::start().await;
    let (alice, bob) = (rig.token("alice"), rig.token("bob"));
    let body = json!({ "warehouse_id": WAREHOUSE, "statement": "select 1", "wait_timeout": "0s" });
    let begun = rig
        .post("/api/2.0/sql/statements", &alice, &body)
        .await
        .json();
    let path = format!(
        "/api/2.0/sql/statements/{}",
        begun["statement_id"].as_str().unwrap()
    );
    let cancel = format!("{path}/cancel");
    assert_eq!(rig.post(&cancel, &bob, &json!({})).await.status, 200);
    assert_eq!(
        rig.get(&path, &alice).await.json()["status"]["state"],
        "RUNNING"
    );
    rig.post(&cancel, &alice, &json!({})).await;
    assert_eq!(
        rig.get(&path, &alice).await.json()["status"]["state"],
        "CANCELED"
    );
}

async fn next_event(body: &mut Body) -> Option<String> {
    let frame = tokio::time::timeout(PATIENCE, body.frame())
        .await
        .unwrap()?;
    let data = frame.unwrap().into_data().unwrap();
    Some(String::from_utf8(data.to_vec()).unwrap())
}

#[tokio::test]
async fn a_held_stream_delivers_one_event_at_a_time() {
    let rig = Rig::start().await;
    let control = rig.workspace.control();
    control.hold_streams();
    let bob = rig.token("bob");
    let ask = json!({ "model": CHAT_ENDPOINT, "stream": true, "messages": [{ "role": "user", "content": "hi" }] });
    let path = "/serving-endpoints/chat/completions";
    let answer = rig
        .send("POST", path, Some(&bob), full(ask.to_string()))
        .await
        .unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = answer.into_body();
    control.release_event();
    assert!(next_event(&mut body).await.unwrap().contains("You "));
    let early = body.frame();
    assert!(futures_util::FutureExt::now_or_never(early).is_none());
    control.release_streams();
    let mut last = String::new();
    while let Some(event) = next_event(&mut body).await {
        last = event;
    }
    assert_eq!(last, "data: [DONE]\n\n");
    control.wait_until(|c| c.streams_open() == 0).await;
}

#[tokio::test]
async fn a_reader_who_leaves_ends_the_stream() {
    let rig = Rig::start().await;
    let control = rig.workspace.control();
    control.hold_streams();
    let bob = rig.token("bob");
    let ask = json!({ "messages": [{ "role": "user", "content": "hi" }], "stream": true });
    let path = format!("/serving-endpoints/{CHAT_ENDPOINT}/invocations");
    let answer = rig
        .send("POST", &path, Some(&bob), full(ask.to_string()))
        .await
        .unwrap();
    control.wait_until(|c| c.streams_open() == 1).await;
    drop(answer);
    let ended = control.wait_until(|c| c.streams_open() == 0);
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
}

#[tokio::test]
async fn restricted_objects_are_for_the_first_user_alone() {
    let rig = Rig::start().await;
    let ask = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    let chat = format!("/serving-endpoints/{CHAT_ENDPOINT_RESTRICTED}/invocations");
    let file = format!("/api/2.0/fs/files{VOLUME_RESTRICTED}/a.txt");
    for (token, allowed) in [
        (rig.token("alice"), true),
        (rig.token("bob"), false),
        (rig.app_token("all-apis").await, false),
    ] {
        assert_eq!(rig.post(&chat, &token, &ask).await.status == 200, allowed);
        let put = rig.read("PUT", &file, Some(&token), full("x")).await;
        assert_eq!(put.status == 204, allowed);
    }
}

#[tokio::test]
async fn vector_search_takes_a_body_with_get_and_with_post() {
    let rig = Rig::start().await;
    let bob = rig.token("bob");
    let path = format!("/api/2.0/vector-search/indexes/{INDEX}");
    let ask = json!({ "columns": ["id", "seen_as"], "query_text": "x" }).to_string();
    for method in ["GET", "POST"] {
        let query = format!("{path}/query");
        let found = rig
            .read(method, &query, Some(&bob), full(ask.clone()))
            .await;
        let rows = found.json()["result"]["data_array"].clone();
        assert_eq!(rows.as_array().unwrap().len(), 4, "{method}");
        assert_eq!(rows[3][0], "doc-5");
        assert_eq!(rows[0][1], "bob@example.com");
    }
    let index = rig.get(&path, &bob).await.json();
    let url = index["status"]["index_url"].as_str().unwrap().to_owned();
    assert!(url.starts_with(&rig.workspace.url()));
}

#[tokio::test]
async fn a_genie_conversation_belongs_to_whoever_began_it() {
    let rig = Rig::start().await;
    let (alice, bob) = (rig.token("alice"), rig.token("bob"));
    let space = format!("/api/2.0/genie/spaces/{GENIE_SPACE}");
    let ask = json!({ "content": "How much?" });
    let begun = rig
        .post(&format!("{space}/start-conversation"), &bob, &ask)
        .await
        .json();
    let word = |name: &str| begun[name].as_str().unwrap().to_owned();
    let message = format!(
        "{space}/conversations/{}/messages/{}",
        word("conversation_id"),
        word("message_id")
    );
    assert_eq!(rig.get(&message, &alice).await.status, 404);
    assert_eq!(
        rig.get(&message, &bob).await.json()["status"],
        "EXECUTING_QUERY"
    );
    let done = rig.get(&message, &bob).await.json();
    assert_eq!(done["status"], "COMPLETED");
    let attachment = done["attachments"][1]["attachment_id"].as_str().unwrap();
    let result = format!("{message}/attachments/{attachment}/query-result");
    let rows = rig.get(&result, &bob).await.json();
    assert_eq!(rows["statement_response"]["result"]["row_count"], 2);
    assert_eq!(rig.get(&result, &alice).await.status, 404);
}

#[tokio::test]
async fn only_the_app_reaches_mlflow() {
    let rig = Rig::start().await;
    let path = format!("/api/2.0/mlflow/experiments/get?experiment_id={EXPERIMENT}");
    assert_eq!(rig.get(&path, &rig.token("alice")).await.status, 403);
    let app = rig.app_token("mlflow").await;
    assert_eq!(rig.get(&path, &app).await.status, 200);
    let body = json!({ "experiment_id": EXPERIMENT });
    let run = rig
        .post("/api/2.0/mlflow/runs/create", &app, &body)
        .await
        .json();
    let id = run["run"]["info"]["run_id"].as_str().unwrap();
    let metric = json!({ "run_id": id, "key": "m", "value": 1.5 });
    assert_eq!(
        rig.post("/api/2.0/mlflow/runs/log-metric", &app, &metric)
            .await
            .status,
        200
    );
    let read = rig
        .get(&format!("/api/2.0/mlflow/runs/get?run_id={id}"), &app)
        .await;
    assert_eq!(read.json()["run"]["data"]["metrics"][0]["value"], 1.5);
}

/// A body of `pieces` times 64 KiB, made while it is sent, and its digest.
fn long_body(pieces: u64) -> (Body, String) {
    let piece = |n: u64| Bytes::from(vec![u8::try_from(n % 251).unwrap(); 64 * 1024]);
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    (0..pieces).for_each(|n| hash.update(&piece(n)));
    let frames = (0..pieces).map(move |n| Ok::<_, BoxError>(Frame::data(piece(n))));
    let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
    (
        body,
        crate::embedded::signing_key::hex(hash.finish().as_ref()),
    )
}

#[tokio::test]
async fn a_long_file_comes_back_byte_for_byte_and_leaves_nothing_behind() {
    let scratch = tempfile::tempdir().unwrap();
    let rig = Rig::with(WorkspaceOptions {
        scratch: scratch.path().to_owned(),
        ..WorkspaceOptions::default()
    })
    .await;
    let alice = rig.token("alice");
    let path = format!("/api/2.0/fs/files{VOLUME}/deep/big%20file.bin");
    let (body, digest) = long_body(512);
    assert_eq!(rig.read("PUT", &path, Some(&alice), body).await.status, 204);
    let seen = rig.last_call();
    assert_eq!(
        (seen.body_len, &seen.body_digest, seen.body_complete),
        (32 << 20, &digest, true)
    );
    let back = rig.get(&path, &alice).await;
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &back.bytes);
    assert_eq!(crate::embedded::signing_key::hex(hash.as_ref()), digest);
    let head = rig.read("HEAD", &path, Some(&alice), empty()).await;
    assert_eq!(head.header("content-length"), "33554432");
    let again = rig.read("PUT", &path, Some(&alice), full("x")).await;
    assert_eq!(again.json()["error_code"], "ALREADY_EXISTS");
    let list = rig
        .get(&format!("/api/2.0/fs/directories{VOLUME}/deep"), &alice)
        .await;
    assert_eq!(list.json()["contents"][0]["name"], "big file.bin");
    assert_eq!(
        rig.read("DELETE", &path, Some(&alice), empty())
            .await
            .status,
        204
    );
    assert_eq!(
        rig.get(&path, &alice).await.json()["error_code"],
        "NOT_FOUND"
    );
    rig.workspace.stop().await;
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn presigned_links_work_without_a_credential_and_not_with_one() {
    let rig = Rig::with(WorkspaceOptions {
        presigned_downloads: true,
        ..WorkspaceOptions::default()
    })
    .await;
    let alice = rig.token("alice");
    let file = format!("/api/2.0/fs/files{VOLUME}/a.txt");
    rig.read("PUT", &file, Some(&alice), full("hello")).await;
    let ask = format!("/api/2.0/fs/create-download-url?path={VOLUME}/a.txt");
    let link = rig.read("POST", &ask, Some(&alice), empty()).await.json();
    let link = link["url"]
        .as_str()
        .unwrap()
        .strip_prefix(&rig.workspace.url());
    let link = link.unwrap().to_owned();
    assert_eq!(
        &rig.read("GET", &link, None, empty()).await.bytes[..],
        b"hello"
    );
    assert_eq!(rig.get(&link, &alice).await.status, 400);
    let other = link.replace("a.txt", "b.txt");
    assert_eq!(rig.read("GET", &other, None, empty()).await.status, 403);
}

#[tokio::test]
async fn faults_come_where_they_are_put_and_go_when_healed() {
    let rig = Rig::start().await;
    let control = rig.workspace.control();
    let alice = rig.token("alice");
    control.fail_next(Place::Api, Fault::retry_after(429, 7), 1);
    let busy = rig.get(ME, &alice).await;
    assert_eq!(
        (busy.status.as_u16(), busy.header("retry-after")),
        (429, "7")
    );
    assert_eq!(rig.get(ME, &alice).await.status, 200);

    control.fail(Place::Keys, Fault::status(503));
    let keys = rig.read("GET", "/oidc/jwks.json", None, empty()).await;
    assert_eq!(keys.status, 503);
    control.heal(Place::Keys);
    let keys = rig.read("GET", "/oidc/jwks.json", None, empty()).await;
    assert_eq!(keys.json()["keys"].as_array().unwrap().len(), 1);
    assert_eq!(control.key_fetches(), 2);

    control.fail(Place::Token, Fault::Garbage);
    let page = rig.grant(&[("grant_type", "client_credentials")]).await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");

    control.fail(Place::Workspace, Fault::Close);
    assert!(rig.send("GET", ME, Some(&alice), empty()).await.is_err());
    control.heal(Place::Workspace);
    assert_eq!(rig.get(ME, &alice).await.status, 200);
}

#[tokio::test]
async fn a_hanging_call_goes_on_when_healed() {
    let rig = Rig::start().await;
    let control = rig.workspace.control();
    let alice = rig.token("alice");
    control.fail(Place::Api, Fault::Hang);
    let heal = async {
        control.wait_until(|c| !c.calls_to(ME).is_empty()).await;
        assert_eq!(control.calls_to(ME)[0].status, None);
        control.heal(Place::Api);
    };
    let (answer, ()) = tokio::join!(rig.get(ME, &alice), heal);
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn revoked_app_tokens_and_withdrawn_keys_are_refused() {
    let rig = Rig::start().await;
    let control = rig.workspace.control();
    let (alice, app) = (rig.token("alice"), rig.app_token("all-apis").await);
    assert_eq!(control.revoke_app_tokens(), 1);
    assert_eq!(
        rig.get(ME, &app).await.json()["message"],
        "Invalid access token."
    );
    assert_eq!(rig.get(ME, &alice).await.status, 200);
    assert_eq!(
        rig.get(ME, &rig.app_token("all-apis").await).await.status,
        200
    );
    control.rotate_keys(false).await.unwrap();
    assert_eq!(rig.get(ME, &alice).await.status, 403);
    assert_eq!(rig.get(ME, &rig.token("alice")).await.status, 200);
}

/// A server's side of TLS for `localhost`, and a client that trusts it.
fn tls_for_localhost() -> (Arc<rustls::ServerConfig>, HyperSend) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let root = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(root.path(), made.cert.pem()).unwrap();
    let trust = crate::runtime::tls::client_config(Some(root.path())).unwrap();
    let client = HyperSend::new(trust, ClientLimits::default());
    (Arc::new(server), client)
}

#[tokio::test]
async fn it_serves_tls_and_http2_where_asked() {
    let (server, client) = tls_for_localhost();
    let workspace = Workspace::start(WorkspaceOptions {
        tls: Some(server),
        host: "localhost".to_owned(),
        ..WorkspaceOptions::default()
    })
    .await
    .unwrap();
    let rig = Rig { workspace, client };
    let answer = rig.get(ME, &rig.token("bob")).await;
    assert_eq!(answer.json()["userName"], "bob@example.com");
}

#[tokio::test]
async fn a_dropped_workspace_answers_no_more() {
    let rig = Rig::start().await;
    let Rig { workspace, client } = rig;
    let url = format!("{}{ME}", workspace.url());
    let connections = workspace.connections.clone();
    drop(workspace);
    connections.wait().await;
    let request = Request::get(url).body(empty()).unwrap();
    assert!(matches!(
        client.send(request).await,
        Err(SendFault::Connect(_))
    ));
}
