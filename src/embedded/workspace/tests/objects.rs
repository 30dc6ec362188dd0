//! What the table of fates cannot show: results in pieces, hosted tools, partitions, minted credentials, what reaches outside.

use super::*;
use crate::embedded::world;

const GATEWAY: &str = "/ai-gateway/mlflow/v1/responses";

#[tokio::test]
async fn users_and_app_have_stable_numbers() {
    let rig = Rig::start().await;
    let id = |answer: Read| answer.json()["id"].as_str().unwrap().to_owned();
    let alice = id(rig.get(ME, &rig.token("alice")).await);
    let bob = id(rig.get(ME, &rig.token("bob")).await);
    assert_eq!((alice.as_str(), bob.as_str()), ("1001", "1002"));
    assert_eq!(id(rig.get(ME, &rig.token("alice")).await), alice);
}

#[tokio::test]
async fn the_query_history_is_ones_own() {
    let rig = Rig::start().await;
    let (alice, bob) = (rig.token("alice"), rig.token("bob"));
    rig.sql(&alice, "select 41").await;
    rig.sql(&bob, "select 42").await;
    let history = rig.get("/api/2.0/sql/history/queries", &bob).await.json();
    assert_eq!(history["res"].as_array().unwrap().len(), 1);
    assert_eq!(history["res"][0]["query_text"], "select 42");
    assert_eq!(history["res"][0]["warehouse_id"], WAREHOUSE);
}

#[tokio::test]
async fn an_unreadable_thrift_body_is_told_in_headers() {
    let rig = Rig::start().await;
    let path = format!("/sql/1.0/warehouses/{WAREHOUSE}");
    let bob = rig.token("bob");
    let answer = rig.read("POST", &path, Some(&bob), full("junk")).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer
            .header("x-thriftserver-error-message")
            .contains("Thrift")
    );
}

fn hosted(tag: &str, member: &str, object: &str) -> Value {
    let mut tool = json!({ "type": tag });
    tool[tag] = json!({ member: object });
    json!({ "model": CHAT_ENDPOINT, "input": "hi", "tools": [{ "type": "function", "name": "f" }, tool] })
}

#[tokio::test]
async fn every_hosted_tool_takes_scope_and_grant_of_its_object() {
    let rig = Rig::start().await;
    let narrow = rig.token_for("bob", "ai-gateway");
    let wide = "ai-gateway genie mcp.functions catalog.connections model-serving";
    let (alice, bob) = (rig.token_for("alice", wide), rig.token_for("bob", wide));
    for (tag, member, open, restricted, shown) in [
        (
            "genie_space",
            "id",
            GENIE_SPACE,
            world::GENIE_SPACE_RESTRICTED,
            "genie",
        ),
        (
            "uc_function",
            "name",
            world::FUNCTION,
            world::FUNCTION_RESTRICTED,
            "unity-catalog",
        ),
        (
            "uc_connection",
            "name",
            world::CONNECTION,
            world::CONNECTION_RESTRICTED,
            "unity-catalog",
        ),
        (
            "knowledge_assistant",
            "knowledge_assistant_id",
            world::KNOWLEDGE_ASSISTANT,
            world::KNOWLEDGE_ASSISTANT_RESTRICTED,
            "model-serving",
        ),
    ] {
        let (open, closed) = (hosted(tag, member, open), hosted(tag, member, restricted));
        assert_eq!(rig.post(GATEWAY, &bob, &open).await.status, 200, "{tag}");
        assert_eq!(
            rig.post(GATEWAY, &alice, &closed).await.status,
            200,
            "{tag}"
        );
        let denied = rig.post(GATEWAY, &bob, &closed).await.json();
        assert_eq!(denied["error_code"], "PERMISSION_DENIED", "{tag}");
        let unscoped = rig.post(GATEWAY, &narrow, &open).await.text();
        assert!(
            unscoped.contains(&format!("required scopes: {shown}")),
            "{unscoped}"
        );
        let absent = rig.post(GATEWAY, &bob, &hosted(tag, member, "none")).await;
        assert_eq!(absent.status, 404, "{tag}");
        let elsewhere = rig.post("/serving-endpoints/responses", &bob, &open).await;
        assert_eq!(elsewhere.status, 400, "{tag}");
    }
    let unknown = hosted("web_search", "name", "x");
    assert_eq!(rig.post(GATEWAY, &bob, &unknown).await.status, 400);
}

#[tokio::test]
async fn an_app_as_a_tool_is_for_the_app_itself() {
    let rig = Rig::start().await;
    let alice = rig.token_for("alice", "ai-gateway");
    let app_tool = hosted("app", "name", world::APP);
    assert_eq!(rig.post(GATEWAY, &alice, &app_tool).await.status, 400);
    let app = rig.app_token("all-apis").await;
    assert_eq!(rig.post(GATEWAY, &app, &app_tool).await.status, 200);
    let restricted = hosted("app", "name", world::APP_RESTRICTED);
    assert_eq!(rig.post(GATEWAY, &app, &restricted).await.status, 403);
}

#[tokio::test]
async fn spans_of_a_hosted_response_go_where_the_caller_may_write() {
    let rig = Rig::start().await;
    let bob = rig.token_for("bob", "ai-gateway genie");
    let mut traced = hosted("genie_space", "id", GENIE_SPACE);
    for (schema, prefix, status) in [
        ("sales", json!("agent"), 200),
        ("sales", Value::Null, 200),
        ("hr", json!("agent"), 403),
        ("hr", Value::Null, 403),
        ("sales", json!("none"), 404),
    ] {
        traced["trace_destination"] =
            json!({ "catalog_name": "main", "schema_name": schema, "table_prefix": prefix });
        assert_eq!(
            rig.post(GATEWAY, &bob, &traced).await.status,
            status,
            "{traced}"
        );
    }
}

#[tokio::test]
async fn a_response_in_the_background_is_done_later_and_is_its_makers() {
    let rig = Rig::start().await;
    let (alice, bob) = (
        rig.token_for("alice", "ai-gateway"),
        rig.token_for("bob", "ai-gateway"),
    );
    let ask = json!({ "model": CHAT_ENDPOINT, "input": "hi", "background": true });
    let both = json!({ "model": CHAT_ENDPOINT, "input": "hi", "background": true, "stream": true });
    assert_eq!(rig.post(GATEWAY, &bob, &both).await.status, 400);
    let begun = rig.post(GATEWAY, &bob, &ask).await.json();
    assert_eq!(begun["status"], "queued");
    let path = format!("{GATEWAY}/{}", begun["id"].as_str().unwrap());
    assert_eq!(rig.get(&path, &alice).await.status, 404);
    assert_eq!(rig.get(&path, &bob).await.json()["status"], "in_progress");
    assert_eq!(rig.get(&path, &bob).await.json()["status"], "completed");
}

#[tokio::test]
async fn completions_and_responses_are_streamed_where_asked() {
    let rig = Rig::start().await;
    let bob = rig.token("bob");
    for (path, part) in [
        ("/serving-endpoints/responses", "response.completed"),
        ("/serving-endpoints/completions", "text_completion"),
    ] {
        let ask = json!({ "model": CHAT_ENDPOINT, "input": "hi", "prompt": "hi", "stream": true });
        let answer = rig.post(path, &bob, &ask).await;
        assert_eq!(answer.header("content-type"), "text/event-stream");
        assert!(answer.text().contains(part), "{path}");
        assert!(answer.text().ends_with("data: [DONE]\n\n"), "{path}");
    }
}

#[tokio::test]
async fn lists_show_what_the_caller_may_use() {
    let rig = Rig::start().await;
    let alice = rig.token_for("alice", "all-apis");
    let app = rig.app_token("all-apis").await;
    let uc = "/api/2.1/unity-catalog";
    for (path, member) in [
        (format!("{uc}/catalogs"), "catalogs"),
        (format!("{uc}/schemas?catalog_name=main"), "schemas"),
        (format!("{uc}/table-summaries?catalog_name=main"), "tables"),
        (
            format!("{uc}/functions?catalog_name=main&schema_name=sales"),
            "functions",
        ),
        (format!("{uc}/connections"), "connections"),
        (format!("{uc}/memory-stores"), "memory_stores"),
        (
            "/api/2.0/database/instances".to_owned(),
            "database_instances",
        ),
        ("/api/2.0/vector-search/endpoints".to_owned(), "endpoints"),
        ("/api/2.0/secrets/scopes/list".to_owned(), "scopes"),
        ("/api/2.0/apps".to_owned(), "apps"),
    ] {
        let count = |answer: Read| answer.json()[member].as_array().unwrap().len();
        let (hers, its) = (rig.get(&path, &alice).await, rig.get(&path, &app).await);
        assert_eq!(count(hers), count(its) + 1, "{path}");
    }
    let exists = |name: &str| format!("{uc}/tables/{name}/exists");
    let found = rig.get(&exists(world::TABLE_ORDERS), &app).await;
    assert_eq!(found.json()["table_exists"], true);
    let hidden = rig.get(&exists(world::TABLE_RESTRICTED), &app).await;
    assert_eq!(hidden.json()["table_exists"], false);
    let nowhere = rig
        .get(&format!("{uc}/tables?catalog_name=main"), &app)
        .await;
    assert_eq!(nowhere.status, 400);
}

#[tokio::test]
async fn a_search_goes_on_where_its_page_ended() {
    let rig = Rig::start().await;
    let bob = rig.token("bob");
    let path = format!("/api/2.0/vector-search/indexes/{INDEX}");
    let ask = json!({ "columns": ["id"], "query_text": "x", "num_results": 3 });
    let first = rig.post(&format!("{path}/query"), &bob, &ask).await.json();
    let token = first["next_page_token"].as_str().unwrap();
    let next = json!({ "page_token": token, "endpoint_name": world::VECTOR_ENDPOINT });
    let next_page = format!("{path}/query-next-page");
    let second = rig.post(&next_page, &bob, &next).await.json();
    assert_eq!(second["result"]["data_array"][0][0], "doc-5");
    assert_eq!(second["next_page_token"], "");
    let bad = rig
        .post(&next_page, &bob, &json!({ "page_token": "!" }))
        .await;
    assert_eq!(bad.status, 400);
    let scan = json!({ "num_results": 2, "last_primary_key": "doc-1" });
    let scan = rig.post(&format!("{path}/scan"), &bob, &scan).await.json();
    assert_eq!(scan["last_primary_key"], "doc-3");
}

#[tokio::test]
async fn what_leaves_through_a_connection_holds_no_credential() {
    let rig = Rig::start().await;
    let bob = rig.token_for("bob", "catalog.connections");
    let bearer = format!("Bearer {bob}");
    let url = format!(
        "{}/api/2.0/unity-catalog/connections/{}/proxy/a/b?q=1",
        rig.workspace.url(),
        world::CONNECTION
    );
    let headers = [
        ("authorization", bearer.as_str()),
        ("cookie", "c"),
        ("x-databricks-org-id", "1"),
        ("x-own", "2"),
    ];
    let answer = Read::of(rig.ask("PATCH", &url, &headers, full("body")).await).await;
    assert!(answer.headers.contains_key("mcp-session-id"));
    let received = answer.json()["received"].clone();
    assert_eq!(received["path"], "/a/b");
    assert_eq!(received["params"], json!([["q", "1"]]));
    assert_eq!(received["body"], "body");
    assert_eq!(received["headers"]["x-own"], "2");
    for name in ["authorization", "cookie", "x-databricks-org-id"] {
        assert!(received["headers"].get(name).is_none(), "{name}");
    }
    let path = "/api/2.0/external-function";
    let unparsed = json!({ "connection_name": world::CONNECTION, "method": "POST", "path": "/", "json": { "a": 1 } });
    assert_eq!(rig.post(path, &bob, &unparsed).await.status, 400);
    let parsed = json!({ "connection_name": world::CONNECTION, "method": "POST", "path": "/", "json": "{\"a\":1}" });
    let answer = rig.post(path, &bob, &parsed).await.json();
    assert_eq!(answer["received"]["body"]["a"], 1);
}

#[tokio::test]
async fn a_minted_database_credential_can_be_told_from_anything_else() {
    let rig = Rig::start().await;
    let bob = rig.token_for("bob", "postgres");
    let path = "/api/2.0/database/credentials";
    let both = json!({ "instance_names": [world::DATABASE_INSTANCE, world::DATABASE_INSTANCE_RESTRICTED] });
    assert_eq!(rig.post(path, &bob, &both).await.status, 403);
    assert_eq!(rig.post(path, &bob, &json!({})).await.status, 400);
    let one = json!({ "instance_names": [world::DATABASE_INSTANCE] });
    let minted = rig.post(path, &bob, &one).await.json();
    let token = minted["token"].as_str().unwrap();
    assert!(token.starts_with(world::LAKEBASE_CREDENTIAL_PREFIX));
    let path = "/api/2.0/postgres/credentials";
    for (body, status) in [
        (json!({ "endpoint": world::POSTGRES_BRANCH }), 400),
        (
            json!({ "endpoint": format!("{}/endpoints/none", world::POSTGRES_BRANCH) }),
            404,
        ),
        (
            json!({ "endpoint": format!("{}/endpoints/primary", world::POSTGRES_BRANCH), "ttl": "60s" }),
            400,
        ),
        (
            json!({ "endpoint": format!("{}/endpoints/primary", world::POSTGRES_BRANCH), "ttl": "600s" }),
            200,
        ),
    ] {
        assert_eq!(rig.post(path, &bob, &body).await.status, status, "{body}");
    }
}

#[tokio::test]
async fn presigned_calls_must_name_a_path_the_caller_may_reach() {
    let rig = Rig::start().await;
    let bob = rig.token("bob");
    let download = "/api/2.0/fs/create-download-url";
    assert_eq!(rig.post(download, &bob, &json!({})).await.status, 400);
    for path in [
        "create-upload-part-urls",
        "create-resumable-upload-url",
        "create-abort-upload-url",
    ] {
        let path = format!("/api/2.0/fs/{path}");
        assert_eq!(rig.post(&path, &bob, &json!({})).await.status, 400);
        let own = json!({ "path": format!("{VOLUME}/a") });
        let off = rig.post(&path, &bob, &own).await.json();
        assert_eq!(off["details"][1]["reason"], "FILES_API_API_IS_NOT_ENABLED");
        let foreign = json!({ "path": format!("{VOLUME_RESTRICTED}/a") });
        let denied = rig.post(&path, &bob, &foreign).await.json();
        assert!(denied["message"].as_str().unwrap().contains("READ VOLUME"));
    }
}

#[tokio::test]
async fn memories_are_kept_apart_by_scope_and_by_nothing_else() {
    let rig = Rig::start().await;
    let app = rig.app_token("all-apis").await;
    let store = format!(
        "/api/2.1/unity-catalog/memory-stores/{}",
        world::MEMORY_STORE
    );
    let entries = format!("{store}/entries");
    let entry =
        json!({ "path": "/memories/tea.md", "description": "Drinks", "contents": "likes tea" });
    let write = json!({ "scope": "1001", "memory_entry": entry });
    assert_eq!(rig.post(&entries, &app, &write).await.status, 200);
    let again = rig.post(&entries, &app, &write).await;
    assert_eq!(again.json()["error_code"], "ALREADY_EXISTS");
    let unscoped = json!({ "memory_entry": entry });
    let by_query = format!("{entries}?scope=1001");
    assert_eq!(rig.post(&by_query, &app, &unscoped).await.status, 400);
    let elsewhere = json!({ "scope": "1001", "memory_entry": { "path": "/tea.md" } });
    assert_eq!(rig.post(&entries, &app, &elsewhere).await.status, 400);

    let list = |scope: &str| format!("{entries}?scope={scope}");
    let own = rig.get(&list("1001"), &app).await.json();
    assert_eq!(own["entries"][0]["description"], "Drinks");
    assert!(own["entries"][0].get("contents").is_none());
    let others = rig.get(&list("1002"), &app).await.json();
    assert_eq!(others["entries"], json!([]));
    let search = |scope: &str| json!({ "scope": scope, "query": "TEA" });
    let path = format!("{entries}:search");
    let found = rig.post(&path, &app, &search("1001")).await.json();
    assert_eq!(found["entries"][0]["contents"], "likes tea");
    let found = rig.post(&path, &app, &search("1002")).await.json();
    assert_eq!(found["entries"], json!([]));

    let named = |scope: &str| format!("scope={scope}&path=/memories/tea.md");
    let got = format!("{entries}:get?{}", named("1002"));
    assert_eq!(rig.get(&got, &app).await.json()["error_code"], "NOT_FOUND");
    let delete = |scope: &str| format!("{entries}?{}", named(scope));
    let gone = rig
        .read("DELETE", &delete("1002"), Some(&app), empty())
        .await;
    assert_eq!(gone.status, 404);
    let gone = rig
        .read("DELETE", &delete("1001"), Some(&app), empty())
        .await;
    assert_eq!(gone.status, 200);
    let own = rig.get(&list("1001"), &app).await.json();
    assert_eq!(own["entries"], json!([]));
}

#[tokio::test]
async fn a_memory_is_changed_by_one_edit_at_a_time() {
    let rig = Rig::start().await;
    let app = rig.app_token("all-apis").await;
    let entries = format!(
        "/api/2.1/unity-catalog/memory-stores/{}/entries",
        world::MEMORY_STORE
    );
    let entry = json!({ "path": "/memories/a.md", "contents": "one one\ntwo" });
    let write = json!({ "scope": "1001", "memory_entry": entry });
    rig.post(&entries, &app, &write).await;
    for (edit, left) in [
        (
            json!({ "str_replace": { "old_str": "one", "new_str": "1" } }),
            None,
        ),
        (
            json!({ "str_replace": { "old_str": "two", "new_str": "2" } }),
            Some("one one\n2"),
        ),
        (
            json!({ "insert": { "insert_line": 1, "insert_text": "x" } }),
            Some("one one\nx\n2"),
        ),
        (
            json!({ "insert": { "insert_line": 9, "insert_text": "x" } }),
            None,
        ),
        (json!({ "replace_all": { "contents": "new" } }), Some("new")),
        (
            json!({ "insert": { "insert_text": "end" } }),
            Some("new\nend"),
        ),
        (json!({}), None),
        (
            json!({ "replace_all": { "contents": "a" }, "insert": { "insert_text": "b" } }),
            None,
        ),
    ] {
        let mut body = edit.clone();
        body["scope"] = json!("1001");
        body["path"] = json!("/memories/a.md");
        let body = full(body.to_string());
        let answer = rig.read("PATCH", &entries, Some(&app), body).await;
        match left {
            Some(left) => assert_eq!(answer.json()["contents"], left, "{edit}"),
            None => assert_eq!(answer.status, 400, "{edit}"),
        }
    }
}

#[tokio::test]
async fn a_run_of_a_job_is_done_at_the_second_look() {
    let rig = Rig::start().await;
    let app = rig.app_token("jobs").await;
    let job: u64 = world::JOB.parse().unwrap();
    let begun = rig
        .post("/api/2.2/jobs/run-now", &app, &json!({ "job_id": job }))
        .await
        .json();
    let run = format!("run_id={}", begun["run_id"]);
    let look = format!("/api/2.2/jobs/runs/get?{run}");
    let state = |answer: Read| answer.json()["state"]["life_cycle_state"].clone();
    assert_eq!(state(rig.get(&look, &app).await), "RUNNING");
    assert_eq!(state(rig.get(&look, &app).await), "TERMINATED");
    let output = rig
        .get(&format!("/api/2.2/jobs/runs/get-output?{run}"), &app)
        .await;
    assert!(output.json()["notebook_output"]["result"].is_string());
    assert_eq!(
        rig.get("/api/2.2/jobs/runs/get?run_id=99", &app)
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn a_secret_is_found_by_scope_and_key() {
    use base64::Engine as _;
    let rig = Rig::start().await;
    let app = rig.app_token("secrets").await;
    let path = |key: &str| {
        format!(
            "/api/2.0/secrets/get?scope={}&key={key}",
            world::SECRET_SCOPE
        )
    };
    let secret = rig.get(&path(world::SECRET_KEY), &app).await.json();
    let value = base64::engine::general_purpose::STANDARD.decode(secret["value"].as_str().unwrap());
    assert!(
        value
            .unwrap()
            .starts_with(world::SECRET_VALUE_PREFIX.as_bytes())
    );
    assert_eq!(rig.get(&path("none"), &app).await.status, 404);
}
