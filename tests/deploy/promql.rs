//! As much of PromQL as tells which metrics an expression names, with which labels. Prometheus itself reads the rest.

use std::collections::{BTreeMap, BTreeSet};

/// The metrics of an expression, each with the labels (and values, where compared with `=`) that its selectors name.
pub type Named = BTreeMap<String, Vec<(String, Option<String>)>>;

/// What an expression names.
#[derive(Debug, Default)]
pub struct Expression {
    pub metrics: Named,
    /// Labels in `by (…)`, `on (…)` and `without (…)`.
    pub grouping: BTreeSet<String>,
}

/// Reads an expression.
pub fn read(text: &str) -> Expression {
    let mut found = Expression::default();
    let bytes = text.as_bytes();
    let is_word = |at: usize| {
        bytes
            .get(at)
            .is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
    };
    let mut at = 0;
    while at < bytes.len() {
        if matches!(bytes[at], b'"' | b'\'') {
            at += 1 + text[at + 1..].find(char::from(bytes[at])).unwrap() + 1;
            continue;
        }
        if !is_word(at) {
            at += 1;
            continue;
        }
        let end = (at..).find(|end| !is_word(*end)).unwrap();
        let word = &text[at..end];
        let rest = text[end..].trim_start();
        at = end;
        if ["by", "on", "without", "ignoring"].contains(&word) && rest.starts_with('(') {
            let (list, _) = rest[1..].split_once(')').unwrap();
            let labels = list.split(',').map(|label| label.trim().to_owned());
            found.grouping.extend(labels);
            at = text.len() - rest.len() + 1 + list.len();
        } else if word == "up"
            || ["valetkey_", "process_"]
                .iter()
                .any(|p| word.starts_with(p))
        {
            let labels = found.metrics.entry(word.to_owned()).or_default();
            if let Some(inside) = rest.strip_prefix('{') {
                let (list, _) = inside.split_once('}').unwrap();
                labels.extend(list.split(',').map(matcher));
                at = text.len() - inside.len() + list.len();
            }
        }
    }
    found
}

fn matcher(text: &str) -> (String, Option<String>) {
    let end = text.find(['=', '!']).unwrap();
    let value = text[end..]
        .strip_prefix("=\"")
        .map(|value| value.trim_end_matches('"').to_owned());
    (text[..end].trim().to_owned(), value)
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn metrics_labels_and_groupings_are_found() {
        let read = read(
            "sum by (job, le) (rate(valetkey_a_total{result!=\"ok\", kind=\"app\"}[5m])) and on(x) up == 1 or process_b > 2",
        );
        let names: Vec<&String> = read.metrics.keys().collect();
        assert_eq!(names, ["process_b", "up", "valetkey_a_total"]);
        let labels = &read.metrics["valetkey_a_total"];
        assert_eq!(labels[0], ("result".to_owned(), None));
        assert_eq!(labels[1], ("kind".to_owned(), Some("app".to_owned())));
        let grouping: Vec<&String> = read.grouping.iter().collect();
        assert_eq!(grouping, ["job", "le", "x"]);
    }
}
