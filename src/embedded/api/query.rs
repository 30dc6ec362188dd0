//! What the few SQL texts of the embedded workspace mean. Not a SQL engine, and not meant to become one.
//!
//! The row filter is the point: the same text gives other rows to other people. Used by `sql.rs` and `genie.rs`.

use serde_json::Value;

use crate::embedded::grants::Caller;
use crate::embedded::world::{TABLE_ORDERS, TABLE_RESTRICTED};

/// The most rows `range(n)` gives.
const RANGE_ROWS_MAX: usize = 100_000;

/// The orders and who may see them.
const ORDERS: [(&str, &str, &str, &str); 6] = [
    ("1", "alice@example.com", "EMEA", "1200.00"),
    ("2", "alice@example.com", "EMEA", "310.50"),
    ("3", "alice@example.com", "AMER", "99.90"),
    ("4", "bob@example.com", "APAC", "840.00"),
    ("5", "bob@example.com", "APAC", "15.25"),
    ("6", "carol@example.com", "AMER", "5000.00"),
];

/// Result columns: name and type.
pub(in crate::embedded) type Columns = Vec<(&'static str, &'static str)>;

/// How a statement ended.
#[derive(Clone)]
pub(in crate::embedded) enum Outcome {
    /// Rows of text, as the JSON_ARRAY format has them.
    Rows {
        columns: Columns,
        rows: Vec<Vec<String>>,
    },
    /// A failure inside a 200.
    Failed { code: &'static str, message: String },
}

/// The rows of the orders table that this caller's row filter lets through.
pub(in crate::embedded) fn orders(caller: &Caller) -> Outcome {
    Outcome::Rows {
        columns: vec![
            ("order_id", "INT"),
            ("owner", "STRING"),
            ("region", "STRING"),
            ("amount", "DECIMAL"),
        ],
        rows: ORDERS
            .iter()
            .filter(|order| caller.is_app || order.1 == caller.name)
            .map(|o| [o.0, o.1, o.2, o.3].map(str::to_owned).to_vec())
            .collect(),
    }
}

/// Runs a statement for a caller. `body` may hold named parameters.
pub(in crate::embedded) fn run(text: &str, body: &Value, caller: &Caller) -> Outcome {
    let folded = text.trim().trim_end_matches(';').to_lowercase();
    let words: Vec<&str> = folded.split_whitespace().collect();
    let flat = words.join(" ");
    if flat.contains("current_user()") && !flat.contains(" from ") {
        return one("current_user()", "STRING", caller.name.clone());
    }
    if let Some(table) = words.iter().skip_while(|w| **w != "from").nth(1) {
        return from_table(table, &flat, caller);
    }
    match flat.strip_prefix("select ") {
        Some(literal) if literal.parse::<i64>().is_ok() => one("1", "INT", literal.to_owned()),
        Some(name) if name.starts_with(':') => parameter(name, body),
        Some(_) | None => Outcome::Failed {
            code: "BAD_REQUEST",
            message: "[PARSE_SYNTAX_ERROR] The embedded workspace does not know this statement."
                .to_owned(),
        },
    }
}

fn from_table(table: &str, flat: &str, caller: &Caller) -> Outcome {
    let rows = match table {
        TABLE_ORDERS => orders(caller),
        TABLE_RESTRICTED if caller.is_first_user => one("salary", "INT", "1".to_owned()),
        TABLE_RESTRICTED => Outcome::Failed {
            code: "PERMISSION_DENIED",
            message: format!(
                "[INSUFFICIENT_PERMISSIONS] User {} does not have SELECT on Table '{table}'.",
                caller.name
            ),
        },
        other => match range_rows(other) {
            Some(count) => Outcome::Rows {
                columns: vec![("id", "LONG")],
                rows: (0..count).map(|n| vec![n.to_string()]).collect(),
            },
            None => Outcome::Failed {
                code: "BAD_REQUEST",
                message: format!("[TABLE_OR_VIEW_NOT_FOUND] The table {other} cannot be found."),
            },
        },
    };
    match rows {
        Outcome::Rows { rows, .. } if flat.contains("count(*)") => {
            one("count(1)", "LONG", rows.len().to_string())
        }
        other => other,
    }
}

fn range_rows(table: &str) -> Option<usize> {
    let count = table.strip_prefix("range(")?.strip_suffix(')')?;
    count.parse().ok().map(|n: usize| n.min(RANGE_ROWS_MAX))
}

fn parameter(name: &str, body: &Value) -> Outcome {
    let given = body.get("parameters").and_then(Value::as_array);
    let value = given.into_iter().flatten().find_map(|p| {
        let is_it = p.get("name").and_then(Value::as_str) == name.strip_prefix(':');
        p.get("value").filter(|_| is_it)?.as_str()
    });
    match value {
        Some(value) => one("parameter", "STRING", value.to_owned()),
        None => Outcome::Failed {
            code: "BAD_REQUEST",
            message: format!("[UNBOUND_SQL_PARAMETER] Found the unbound parameter {name}."),
        },
    }
}

fn one(name: &'static str, kind: &'static str, value: String) -> Outcome {
    Outcome::Rows {
        columns: vec![(name, kind)],
        rows: vec![vec![value]],
    }
}
