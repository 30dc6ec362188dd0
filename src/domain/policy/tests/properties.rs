//! Properties of any policy: rank, narrowing, and bodies that mean the same.

use std::collections::HashSet;

use super::super::super::strict_json;
use super::*;
use crate::domain::ask::{AskFault, Request, check_members};

/// Calls that reach every kind of matcher of [`any_route`].
fn any_call() -> impl Strategy<Value = (Method, &'static str)> {
    prop_oneof![
        Just((Method::POST, STATEMENTS)),
        Just((Method::POST, "/serving-endpoints/m1/invocations")),
        Just((Method::POST, "/serving-endpoints/chat/completions")),
        Just((Method::GET, "/api/2.0/sql/warehouses/w1")),
        Just((Method::GET, "/api/2.0/sql/warehouses")),
        Just((Method::GET, "/api/2.0/other")),
    ]
}

/// Every way to write one object: order of members, blanks, escapes, a further member.
fn written(members: &[(String, Value)], order: usize, blank: &str, escape: bool) -> Vec<u8> {
    let mut members: Vec<_> = members.to_vec();
    let by = order.min(members.len());
    members.rotate_left(by);
    let name = |name: &str| {
        let whole = Value::from(name).to_string();
        match name.chars().next().filter(|c| escape && c.is_ascii()) {
            Some(first) => format!("\"\\u{:04x}{}", first as u32, &whole[2..]),
            None => whole,
        }
    };
    let pairs: Vec<String> = { members.iter() }
        .map(|(key, value)| format!("{}{blank}:{blank}{value}", name(key)))
        .collect();
    format!(
        "{blank}{{{blank}{}{blank}}}{blank}",
        pairs.join(&format!("{blank},{blank}"))
    )
    .into_bytes()
}

/// What the sidecar does with a body: refuses it as unreadable, or decides.
fn judged(policy: &Policy, method: &Method, target: &str, bytes: &[u8]) -> Result<bool, String> {
    let json = strict_json::parse(bytes, 32).map_err(|fault| fault.to_string())?;
    let path = CanonicalPath::parse(target).unwrap();
    let operation = policy.catalog().find(method, &path);
    let headers = http::HeaderMap::new();
    let request = Request {
        path: &path,
        query: None,
        headers: &headers,
        body: Some(&json),
    };
    let unclear = |fault: AskFault| fault.to_string();
    check_members(Some(&json), policy.body_members(&path)).map_err(unclear)?;
    let touches = operation.map_or_else(
        || Ok(vec![]),
        |(_, o)| touch::touches(o, &request, &FollowUpView::None),
    );
    let touches = touches.map_err(unclear)?;
    let call = Call {
        method,
        destination: &Destination::Workspace,
        path: &path,
        body: Some(&json),
        caller: CallerView::App,
        operation,
        touches: &touches,
        follow_up: &FollowUpView::None,
        partition: Partition::None,
        now: Timestamp::UNIX_EPOCH,
    };
    Ok(decide(policy, &call).is_ok())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The rank of a route is its place: no two are equal, and the least that matches decides.
    #[test]
    fn no_two_routes_of_equal_rank_match_one_call(routes in prop::collection::vec(any_route(), 0..10), (method, target) in any_call(), id in "w[12]|m1") {
        let named: Vec<RouteSource> = routes.into_iter().enumerate().map(|(i, r)| RouteSource { name: format!("r{i}"), ..r }).collect();
        let policy = compile(&named, catalog(), Settings::default()).unwrap();
        let names: HashSet<_> = policy.routes().iter().map(|r| r.name.to_string()).collect();
        prop_assert_eq!(names.len(), policy.routes().len());
        let body = Some(json!({"warehouse_id": id, "model": id}));
        let answer = ask(&policy, "app", method.clone(), target, body.clone());
        // Alone, no route before the one that decided has anything to say to this call.
        if let Some((winner, _)) = answer.split_once('/') {
            let place: usize = winner[1..].parse().unwrap();
            for earlier in named.iter().take(place) {
                let alone = compile(std::slice::from_ref(earlier), catalog(), Settings::default()).unwrap();
                prop_assert_eq!(ask(&alone, "app", method.clone(), target, body.clone()), "no_route");
            }
        }
    }

    /// Over routes of one identity: whatever a policy with a narrower resource allows, the wider one allows too.
    #[test]
    fn a_narrower_resource_never_widens(routes in prop::collection::vec(any_route(), 1..6), at in 0usize..6, run_as in prop_oneof![Just(RunAs::App), Just(RunAs::Caller)], (method, target) in any_call(), id in "w[123]|wü|m[12]") {
        let wide: Vec<RouteSource> = routes.into_iter().map(|r| RouteSource { run_as, ..r }).collect();
        let mut narrow = wide.clone();
        let at = at.min(narrow.len() - 1);
        let Some(resource) = narrow[at].resource.as_mut().filter(|r| r.ends_with('*')) else { return Ok(()) };
        resource.pop();
        resource.push_str(&id);
        let body = Some(json!({"warehouse_id": id, "model": id}));
        let allowed = |routes: &[RouteSource]| ask(&compile(routes, catalog(), Settings::default()).unwrap(), "app", method.clone(), target, body.clone()).contains('/');
        prop_assert!(!allowed(&narrow) || allowed(&wide));
    }

    /// Padding, order, escapes and further members never turn a refusal into a pass, nor a pass into another answer.
    #[test]
    fn the_same_body_written_otherwise_gets_the_same_answer(routes in prop::collection::vec(any_route(), 0..6), (method, target) in any_call(), id in "w[123]|m[12]", order in 0usize..4, blank in "[ \t\r\n]{0,3}", escape in any::<bool>(), padding in 0usize..2000) {
        let policy = compile(&routes, catalog(), Settings::default()).unwrap();
        let members = [
            ("warehouse_id".to_owned(), json!(id)),
            ("model".to_owned(), json!(id)),
            ("statement".to_owned(), json!("select 1")),
        ];
        let plain = judged(&policy, &method, target, &written(&members, 0, "", false));
        let mut padded = members.to_vec();
        padded.push(("padding".to_owned(), json!("x".repeat(padding))));
        let other = judged(&policy, &method, target, &written(&padded, order, &blank, escape));
        prop_assert_eq!(plain, other);
    }

    /// A member that stands twice, or in a second spelling, is refused wherever it decides.
    #[test]
    fn a_doubled_member_never_passes_where_it_decides(id in "w[12]", other in "w[12]", second in "warehouse_id|warehouseId|WAREHOUSE_ID|warehouse-id|Warehouse_Id", first in any::<bool>()) {
        let policy = compile(&[on_resource("sql", RunAs::App, "sql_warehouse/*")], catalog(), Settings::default()).unwrap();
        let (a, b) = (json!("warehouse_id"), json!(second));
        let (one, two) = if first { (&a, &b) } else { (&b, &a) };
        let text = format!("{{{one}:{},{two}:{}}}", json!(id), json!(other));
        prop_assert!(judged(&policy, &Method::POST, STATEMENTS, text.as_bytes()).is_err());
    }
}
