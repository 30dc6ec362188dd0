//! What requests touch, and what is refused because it could be read in two ways.

use http::HeaderValue;
use serde_json::json;

use super::super::catalog::Catalog;
use super::touch::{follow_up_id, touches};
use super::*;

/// A catalogue with one operation of each way to name a resource.
fn catalog() -> &'static Catalog {
    static READ: std::sync::OnceLock<Catalog> = std::sync::OnceLock::new();
    READ.get_or_init(|| {
        Catalog::parse(
            r#"
version: test
scopes: [{name: s, users: true}]
folds: [table, volume, function, mcp]
operations:
  - {id: sql, method: POST, path: /sql, effect: write, scope: s, resource: {type: warehouse, body: warehouse_id}, creates: {kind: statement, body: statement_id}}
  - {id: sql.get, method: GET, path: "/sql/{id}", effect: read, scope: s, resource: {type: warehouse, follow_up: true}, follow_up: {kind: statement, path: id}}
  - {id: file, method: GET, path: "/files/{c}/{s}/{v}/{rest**%}", effect: read, scope: s, resource: {type: volume, path: "{c}.{s}.{v}"}}
  - {id: url, method: POST, path: /url, effect: read, scope: s, resource: {type: volume, query: path, like: "/Volumes/{c}/{s}/{v}/{rest**}", id: "{c}.{s}.{v}"}}
  - {id: secret, method: GET, path: /secret, effect: read, scope: s, resource: {type: secret, query: [scope, key], id: "{scope}/{key}"}}
  - {id: otel, method: POST, path: /otel, effect: write, scope: s, resource: {type: table, header: X-Table, like: "{c}.{s}.{t}", also: {type: schema, id: "{c}.{s}"}}}
  - {id: job, method: POST, path: /job, effect: write, scope: s, resource: {type: job, body: job_id, number: true}}
  - {id: search, method: POST, path: /search, effect: read, scope: s, resource: {type: experiment, body: "experiment_ids[]"}}
  - {id: run, method: POST, path: /run, effect: write, scope: s, resource: {type: experiment, follow_up: true}, follow_up: {kind: run, body: run_id, shared: true}}
  - {id: agent, method: POST, path: /agent, effect: write, scope: s, resources: [{type: endpoint, body: model}, {type: space, body: "tools[].genie_space.id", optional: true}, {type: function, body: "tools[].uc_function.name", optional: true}], variants: {body: "tools[]", tag: type, plain: [function], hosted: [genie_space, uc_function]}}
  - {id: mcp, method: POST, path: "/mcp/{catalog}/{schema}", effect: write, scope: s, resource: {type: mcp, path: "functions/{catalog}.{schema}"}, mcp: true, mcp_tools: function, follow_up: {kind: session, header: Mcp-Session-Id, optional: true}}
"#,
        )
        .unwrap_or_else(|problems| panic!("{problems:#?}"))
    })
}

#[derive(Default)]
struct Given<'a> {
    headers: &'a [(&'static str, &'static str)],
    body: Option<Value>,
    bound: Option<(&'a str, &'a str)>,
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the cases read better without `&`"
)]
fn asked(method: Method, target: &str, given: &Given<'_>) -> Result<Vec<String>, AskFault> {
    let (path, query) = { target.split_once('?') }.map_or((target, None), |(p, q)| (p, Some(q)));
    let path = CanonicalPath::parse(path).unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in given.headers {
        headers.append(*name, HeaderValue::from_static(value));
    }
    let request = Request {
        path: &path,
        query,
        headers: &headers,
        body: given.body.as_ref(),
    };
    let (_, operation) = catalog().find(&method, &path).unwrap();
    let named = follow_up_id(operation, &request)?;
    let follow_up = match (named, given.bound) {
        (None, _) => FollowUpView::None,
        (Some(_), None) => FollowUpView::Unknown,
        (Some(_), Some((kind, id))) => FollowUpView::Bound(Bound {
            owner: Owner::App,
            resource: Some(ResourceId {
                kind: kind.into(),
                id: id.into(),
            }),
        }),
    };
    let found = touches(operation, &request, &follow_up)?;
    let name = |touch: &Touch<'_>| {
        let names: Vec<_> = { touch.names() }
            .map(|r| format!("{}/{}", r.kind, r.id))
            .collect();
        let said = touch.message.and_then(|m| m.tool.or(m.method));
        format!(
            "{}{}",
            names.join("="),
            said.map_or(String::new(), |s| format!(" {s}"))
        )
    };
    Ok(found.iter().map(name).collect())
}

fn post(path: &str, body: Value) -> Result<Vec<String>, AskFault> {
    let given = Given {
        body: Some(body),
        ..Given::default()
    };
    asked(Method::POST, path, &given)
}

fn get(target: &str) -> Result<Vec<String>, AskFault> {
    asked(Method::GET, target, &Given::default())
}

#[test]
fn things_are_found_in_path_body_query_and_header() {
    let statement = json!({"warehouse_id": "w1", "statement": "select 1"});
    assert_eq!(post("/sql", statement).unwrap(), ["warehouse/w1"]);
    assert_eq!(get("/files/a/b/c/d.txt").unwrap(), ["volume/a.b.c"]);
    assert_eq!(
        get("/files/A/b/C/d.txt").unwrap(),
        ["volume/a.b.c"],
        "names of Unity Catalog fold"
    );
    assert_eq!(
        get("/secret?key=k&scope=my.scope").unwrap(),
        ["secret/my.scope/k"]
    );
    let path = "/url?path=%2FVolumes%2Fa%2Fb%2Fc%2Fx%20y.txt";
    assert_eq!(
        asked(Method::POST, path, &Given::default()).unwrap(),
        ["volume/a.b.c"]
    );
    let otel = Given {
        headers: &[("x-table", "Main.ops.spans")],
        ..Given::default()
    };
    assert_eq!(
        asked(Method::POST, "/otel", &otel).unwrap(),
        ["table/main.ops.spans=schema/Main.ops"]
    );
    assert_eq!(post("/job", json!({"job_id": 7})).unwrap(), ["job/7"]);
    assert_eq!(post("/job", json!({"job_id": "7"})).unwrap(), ["job/7"]);
    assert_eq!(
        post("/search", json!({"experiment_ids": ["1", "2"]})).unwrap(),
        ["experiment/1", "experiment/2"]
    );
}

#[test]
fn an_id_of_an_earlier_answer_stands_for_what_that_call_touched() {
    let bound = Given {
        bound: Some(("warehouse", "w2")),
        ..Given::default()
    };
    assert_eq!(
        asked(Method::GET, "/sql/s1", &bound).unwrap(),
        ["warehouse/w2"]
    );
    assert!(get("/sql/s1").unwrap().is_empty());
    let run = Given {
        body: Some(json!({"run_id": "r"})),
        bound: Some(("experiment", "7")),
        ..Given::default()
    };
    assert_eq!(asked(Method::POST, "/run", &run).unwrap(), ["experiment/7"]);
    assert!(matches!(post("/run", json!({})), Err(AskFault::Once(_))));
}

#[test]
fn several_things_in_one_call_are_all_found() {
    let tools = json!([
        {"type": "genie_space", "genie_space": {"id": "g1"}},
        {"type": "uc_function", "uc_function": {"name": "a.b.C"}},
        {"type": "function", "name": "mine"},
    ]);
    assert_eq!(
        post("/agent", json!({"model": "m", "tools": tools})).unwrap(),
        ["endpoint/m", "space/g1", "function/a.b.c"]
    );
    assert_eq!(
        post("/agent", json!({"model": "m"})).unwrap(),
        ["endpoint/m"]
    );
    for strange in [
        json!([{"type": "web_search"}]),
        json!([{"genie_space": {"id": "g1"}}]),
        json!([{"type": "genie_space", "space": "g1"}]),
        json!([{"type": "genie_space", "genie_space": "g1"}]),
        json!(["genie_space"]),
    ] {
        let answer = post("/agent", json!({"model": "m", "tools": strange}));
        assert!(matches!(answer, Err(AskFault::Variant(..))), "{answer:?}");
    }
    let many: Vec<_> = (0..=TOUCHES_MAX).map(|i| i.to_string()).collect();
    assert_eq!(
        post("/search", json!({"experiment_ids": many})),
        Err(AskFault::TooMany)
    );
}

#[test]
fn each_message_of_mcp_is_one_touch_and_a_tool_is_what_it_stands_for() {
    let call = |name: &str| json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name}});
    assert_eq!(
        post("/mcp/Prod/billing", call("Prod__billing__refund")).unwrap(),
        ["mcp/functions/prod.billing=function/prod.billing.refund Prod__billing__refund"]
    );
    let batch = json!([{"jsonrpc": "2.0", "method": "tools/list"}, call("other"), call("other")]);
    assert_eq!(
        post("/mcp/prod/billing", batch).unwrap(),
        [
            "mcp/functions/prod.billing tools/list",
            "mcp/functions/prod.billing other"
        ]
    );
    assert!(matches!(
        post("/mcp/a/b", json!({"a": 1})),
        Err(AskFault::Mcp(_))
    ));
    assert!(matches!(
        post("/mcp/a.b/c", call("x")),
        Err(AskFault::Id(_))
    ));
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let missing = |answer| matches!(answer, Err(AskFault::MemberMissing(_)));
    for body in [
        json!({}),
        json!([]),
        json!(null),
        json!({"warehouse_id": null}),
        json!({"warehouse_id": ["w"]}),
        json!({"warehouse_id": 1.5}),
        json!({"warehouse_id": true}),
    ] {
        assert!(missing(post("/sql", body.clone())), "{body}");
    }
    assert!(missing(post("/search", json!({"experiment_ids": "1"}))));
    assert!(missing(post("/search", json!({"experiment_ids": []}))));
    assert!(missing(post(
        "/search",
        json!({"experiment_ids": ["1", {}]})
    )));
    for alias in ["warehouseId", "WAREHOUSE_ID", "warehouse-id"] {
        let answer = post("/sql", json!({"warehouse_id": "a", alias: "b"}));
        assert!(matches!(answer, Err(AskFault::MemberAlias(..))), "{alias}");
    }
    let nested = json!({"model": "m", "tools": [{"type": "genie_space", "genie_space": {"id": "g", "ID": "h"}}]});
    assert!(matches!(
        post("/agent", nested),
        Err(AskFault::MemberAlias(..))
    ));
    let id = |answer| matches!(answer, Err(AskFault::Id(_)));
    assert!(id(post("/sql", json!({"warehouse_id": ""}))));
    assert!(id(post("/sql", json!({"warehouse_id": "a\u{0}"}))));
    assert!(id(post(
        "/sql",
        json!({"warehouse_id": "a".repeat(RESOURCE_ID_BYTES_MAX + 1)})
    )));
    for number in ["07", "+7", " 7", "7 ", "0x7", ""] {
        assert!(id(post("/job", json!({"job_id": number}))), "{number:?}");
    }
    assert!(id(get("/files/a.b/c/d/e")));
    assert!(id(get("/secret?scope=a/b&key=k")));
    let once = |answer| matches!(answer, Err(AskFault::Once(_)));
    assert!(once(get("/secret?scope=a&key=k&key=l")));
    assert!(once(get("/secret?scope=a&key=k&%6bey=l")));
    assert!(once(get("/secret?scope=a")));
    for headers in [&[][..], &[("x-table", "a.b.c"), ("x-table", "a.b.d")]] {
        let given = Given {
            headers,
            ..Given::default()
        };
        assert!(once(asked(Method::POST, "/otel", &given)), "{headers:?}");
    }
}

#[test]
fn another_workspace_cannot_be_chosen_by_the_query() {
    assert!(check_workspace_selectors(Some("o=123&x=1"), Some("123")).is_ok());
    assert!(check_workspace_selectors(Some("o=124"), Some("123")).is_err());
    assert!(check_workspace_selectors(Some("%6f=124"), Some("123")).is_err());
    assert!(check_workspace_selectors(Some("o=124"), None).is_err());
    assert!(check_workspace_selectors(None, None).is_ok());
}
