//! Unity Catalog as a directory: catalogs, schemas, tables, functions, volumes, connections. Lists show what the caller may use.
//!
//! Reads only. Memory stores, which share the path, are in `memory.rs`; calls through a connection in `connections.rs`.

use serde_json::{Value, json};

use crate::embedded::answer::{Answer, Refusal, json_ok, put};
use crate::embedded::call::Call;
use crate::embedded::grants::{
    CATALOGS, CONNECTIONS, Caller, FUNCTIONS, Kind, SCHEMAS, TABLES, VOLUMES,
};

/// A collection: its place in the path, its kind, how one is described, and how many names say where it lies.
type Collection = (&'static str, Kind, fn(&str) -> Value, usize);

const COLLECTIONS: &[Collection] = &[
    ("catalogs", CATALOGS, catalog, 0),
    ("schemas", SCHEMAS, schema, 1),
    ("tables", TABLES, table, 2),
    ("functions", FUNCTIONS, function, 2),
    ("volumes", VOLUMES, volume, 2),
    ("connections", CONNECTIONS, connection, 0),
];

pub(in crate::embedded) fn answer(call: &Call, path: &[&str]) -> Result<Answer, Refusal> {
    let ("GET", ["api", "2.1", "unity-catalog", collection, rest @ ..]) =
        (call.method.as_str(), path)
    else {
        return Err(call.no_endpoint());
    };
    if let ("table-summaries", []) = (*collection, rest) {
        return summaries(call);
    }
    let found = COLLECTIONS.iter().find(|(name, ..)| name == collection);
    let Some((name, kind, describe, depth)) = found else {
        return Err(call.no_endpoint());
    };
    match rest {
        [] => {
            let place = container(call, *depth)?;
            let list: Vec<Value> = call
                .caller
                .visible(*kind)
                .filter(|object| lies_in(object, &place))
                .map(describe)
                .collect();
            Ok(json_ok(&json!({ *name: list })))
        }
        [object] => {
            call.caller.may_use(*kind, object)?;
            Ok(json_ok(&describe(object)))
        }
        [object, "exists"] if *name == "tables" => {
            let exists = call.caller.visible(TABLES).any(|table| table == *object);
            Ok(json_ok(&json!({ "table_exists": exists })))
        }
        _ => Err(call.no_endpoint()),
    }
}

/// The names of catalog and schema that a list is confined to, once the caller may use them.
fn container(call: &Call, depth: usize) -> Result<Vec<String>, Refusal> {
    let mut names: Vec<String> = Vec::new();
    for (name, kind) in [("catalog_name", CATALOGS), ("schema_name", SCHEMAS)]
        .into_iter()
        .take(depth)
    {
        let given = call.query(name).filter(|text| !text.is_empty());
        let missing = || Refusal::bad_request(format!("Missing required field: {name}"));
        names.push(given.ok_or_else(missing)?.to_owned());
        call.caller.may_use(kind, &names.join("."))?;
    }
    Ok(names)
}

fn lies_in(full_name: &str, place: &[String]) -> bool {
    full_name.split('.').zip(place).all(|(a, b)| a == b)
}

fn summaries(call: &Call) -> Result<Answer, Refusal> {
    let place = container(call, 1)?;
    let pattern = call.query("schema_name_pattern").unwrap_or("%");
    let wanted = pattern.trim_end_matches('%');
    let list: Vec<Value> = call
        .caller
        .visible(TABLES)
        .filter(|table| lies_in(table, &place))
        .filter(|table| parts(table).1.starts_with(wanted))
        .map(|table| json!({ "full_name": table, "table_type": "MANAGED" }))
        .collect();
    Ok(json_ok(&json!({ "tables": list })))
}

fn parts(full_name: &str) -> (&str, &str, &str) {
    let mut names = full_name.split('.');
    let mut next = || names.next().unwrap_or_default();
    (next(), next(), next())
}

/// What every securable below a schema has.
fn named(full_name: &str) -> Value {
    let (catalog, schema, name) = parts(full_name);
    json!({
        "full_name": full_name, "catalog_name": catalog, "schema_name": schema, "name": name,
        "owner": "embedded@example.com", "metastore_id": "e0b5e0b5-0000-4000-8000-00000000e7a5",
    })
}

fn with(mut object: Value, members: Value) -> Value {
    if let Value::Object(members) = members {
        for (name, value) in members {
            put(&mut object, &name, value);
        }
    }
    object
}

fn catalog(name: &str) -> Value {
    json!({
        "name": name, "full_name": name, "catalog_type": "MANAGED_CATALOG", "securable_type": "CATALOG",
        "owner": "embedded@example.com",
    })
}

fn schema(full_name: &str) -> Value {
    let (catalog, name, _) = parts(full_name);
    json!({
        "name": name, "full_name": full_name, "catalog_name": catalog, "catalog_type": "MANAGED_CATALOG",
        "owner": "embedded@example.com",
    })
}

fn table(full_name: &str) -> Value {
    with(
        named(full_name),
        json!({
            "table_type": "MANAGED", "data_source_format": "DELTA",
            "columns": [
                { "name": "order_id", "type_name": "INT", "type_text": "int", "position": 0 },
                { "name": "owner", "type_name": "STRING", "type_text": "string", "position": 1 },
            ],
        }),
    )
}

fn volume(full_name: &str) -> Value {
    let (catalog, schema, name) = parts(full_name);
    let place = format!("s3://embedded-volumes/{catalog}/{schema}/{name}");
    let own = json!({ "volume_type": "MANAGED", "storage_location": place, "volume_id": format!("id-of-{full_name}") });
    with(named(full_name), own)
}

fn connection(name: &str) -> Value {
    json!({
        "name": name, "full_name": name, "connection_type": "HTTP", "credential_type": "BEARER_TOKEN",
        "options": { "host": "https://tickets.example", "port": "443", "base_path": "/api", "is_mcp_connection": "true" },
        "owner": "embedded@example.com", "read_only": false,
    })
}

/// Each function takes one number and answers with the caller in it: see [`called`].
fn function(full_name: &str) -> Value {
    let parameter = json!({
        "name": "order_id", "type_name": "LONG", "type_text": "bigint", "position": 0, "parameter_mode": "IN",
        "parameter_type": "PARAM", "comment": "The number of an order",
        "type_json": "{\"name\":\"order_id\",\"type\":\"long\",\"nullable\":true,\"metadata\":{}}",
    });
    with(
        named(full_name),
        json!({
            "comment": comment(full_name), "data_type": "STRING", "full_data_type": "string",
            "input_params": { "parameters": [parameter] }, "routine_body": "SQL", "sql_data_access": "READS_SQL_DATA",
            "parameter_style": "S", "is_deterministic": true, "is_null_call": false, "security_type": "DEFINER",
            "routine_definition": "concat(current_user(), ':', order_id)", "specific_name": parts(full_name).2,
        }),
    )
}

/// What a function says of itself.
pub(super) fn comment(full_name: &str) -> String {
    format!("Tells something about an order: {}", parts(full_name).2)
}

/// What a function gives for an order: its own name, who called it, and the order.
pub(super) fn called(full_name: &str, caller: &Caller, order: &Value) -> String {
    let order = order.to_string().replace('"', "");
    format!("{}:{}:{order}", parts(full_name).2, caller.name)
}
