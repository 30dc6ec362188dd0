//! `check --catalog`: what can be called, with which effect and scope, and where the resource of each call stands.

use serde_json::{Value, json};

use super::{complain, exit, print, report, table};
use crate::domain::catalog::{Catalog, Composed, Operation, ResourceFrom, ResourceRule, ScopeRow};
use crate::domain::problem::nearest;

/// Prints the operations that the name means: one, a family with or without its `.*`, or all.
pub fn list(name: &str, as_json: bool) -> u8 {
    let catalog = match Catalog::built_in() {
        Ok(catalog) => catalog,
        Err(problems) => return report(&problems),
    };
    let mut found = catalog.named(name);
    if found.is_empty() {
        found = catalog.named(&format!("{name}.*"));
    }
    let all = catalog.operations();
    let named: Vec<&Operation> = { found.iter() }
        .filter_map(|index| all.get(*index).map(|o| &**o))
        .collect();
    if named.is_empty() {
        let families = all.iter().filter_map(|o| o.id.split('.').next());
        let known = families.chain(all.iter().map(|o| &*o.id));
        let near = nearest(name, known)
            .map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"));
        let text = format!("`{name}` is no operation or family of the catalogue{near}");
        return complain(&text, exit::USAGE);
    }
    if as_json {
        let operations: Vec<Value> = named.iter().map(|o| to_json(o, &catalog)).collect();
        let all = json!({"catalog": catalog.version(), "operations": operations});
        return print(&format!("{all:#}\n"));
    }
    let head = [
        "OPERATION",
        "METHOD",
        "EFFECT",
        "SCOPE",
        "USERS",
        "RESOURCE",
        "PATH",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(named.iter().map(|operation| row(operation, &catalog)));
    let mut text = table(&rows);
    text.push_str(&format!(
        "{} of {} operations, catalogue of {}; USERS: whether an app can request such a scope for its users\n",
        named.len(),
        all.len(),
        catalog.version()
    ));
    print(&text)
}

fn row(operation: &Operation, catalog: &Catalog) -> Vec<String> {
    let scopes: Vec<String> = operation
        .scopes()
        .map(|scope| {
            let older = older(catalog, scope.as_str());
            if older.is_empty() {
                scope.to_string()
            } else {
                format!("{scope} ({})", older.join(", "))
            }
        })
        .collect();
    let resources: Vec<String> = operation.resources.iter().map(words).collect();
    let resources = match (&*resources, &operation.mcp) {
        ([], _) => "-".to_owned(),
        (_, Some(mcp)) => {
            let tool = { mcp.tools.as_ref() }.map(|kind| format!("; {kind} by the tool's name"));
            format!("{}{}", resources.join("; "), tool.unwrap_or_default())
        }
        (_, None) => resources.join("; "),
    };
    vec![
        operation.id.to_string(),
        operation.method.to_string(),
        operation.effect.as_str().to_owned(),
        scopes.join(" or "),
        if operation.user_scope { "yes" } else { "no" }.to_owned(),
        resources,
        operation.path.as_str().to_owned(),
    ]
}

fn older<'c>(catalog: &'c Catalog, scope: &str) -> &'c [Box<str>] {
    let mut rows = catalog.scopes().iter();
    let row: Option<&ScopeRow> = rows.find(|row| row.name.as_str() == scope);
    row.map_or(&[], |row| &row.older)
}

/// Such as `sql_warehouse in body warehouse_id`.
fn words(rule: &ResourceRule) -> String {
    let (place, at) = place(rule);
    let also = { rule.also.as_ref() }.map(|also| format!(" = {}", also.kind));
    let optional = if rule.optional { ", if there" } else { "" };
    format!(
        "{}{} in {place} {at}{optional}",
        rule.kind,
        also.unwrap_or_default()
    )
}

fn place(rule: &ResourceRule) -> (&'static str, String) {
    match &rule.from {
        ResourceFrom::Path(shape) => ("path", shape.as_str().to_owned()),
        ResourceFrom::Body(member) => ("body", member.as_str().to_owned()),
        ResourceFrom::Members(Composed { text, .. }) => ("body", text.to_string()),
        ResourceFrom::Query(names) => ("query", names.join(" and ")),
        ResourceFrom::Header(name) => ("header", name.to_string()),
        ResourceFrom::FollowUp => ("what", "the id was given out for".to_owned()),
    }
}

fn to_json(operation: &Operation, catalog: &Catalog) -> Value {
    let resources: Vec<Value> = { operation.resources.iter() }
        .map(|rule| {
            let (place, at) = match rule.from {
                ResourceFrom::FollowUp => ("follow_up", None),
                _ => {
                    let (place, at) = place(rule);
                    (place, Some(at))
                }
            };
            let also = rule.also.as_ref().map(|also| &*also.kind);
            json!({"type": &*rule.kind, "in": place, "at": at, "also": also, "optional": rule.optional})
        })
        .collect();
    let accepts: Vec<&str> = operation
        .accepts
        .iter()
        .map(|scope| scope.as_str())
        .collect();
    let older: Vec<&str> = { older(catalog, operation.scope.as_str()).iter() }
        .map(|name| &**name)
        .collect();
    json!({
        "id": &*operation.id,
        "method": operation.method.as_str(),
        "path": operation.path.as_str(),
        "effect": operation.effect.as_str(),
        "scope": operation.scope.as_str(),
        "older": older,
        "accepts": accepts,
        "users": operation.user_scope,
        "resources": resources,
        "tools": operation.mcp.as_ref().and_then(|mcp| mcp.tools.as_deref()),
        "follow_up": operation.follow_up.as_ref().map(|follow_up| &*follow_up.kind),
        "presigned": operation.presigned || operation.presigned_unless.is_some(),
    })
}
