//! Ids in routes that no call can have, and starts of ids that mean more than they seem to.

use super::problem;
use super::thing::format;
use crate::domain::catalog::shape::Shape;
use crate::domain::catalog::{MCP, Operation};
use crate::domain::policy::Policy;
use crate::domain::policy::matcher::ResourceMatcher;
use crate::domain::problem::{Problem, nearest};
use crate::domain::route::RunAs;

/// Kinds of Unity Catalog with the least and the most names that their ids have.
const LEVELS: [(&str, usize, usize); 9] = [
    ("schema", 2, 2),
    ("table", 3, 3),
    ("volume", 3, 3),
    ("function", 3, 3),
    ("vector_search_index", 3, 3),
    ("memory_store", 3, 3),
    ("prompt", 3, 3),
    ("trace_location", 2, 3),
    ("catalog", 1, 1),
];
/// MCP servers whose ids are names of Unity Catalog.
const MCP_LEVELS: [(&str, usize, usize); 2] = [("functions/", 2, 3), ("vector-search/", 2, 3)];

pub(super) fn look(policy: &Policy, index: usize, found: &mut Vec<Problem>) {
    let Some(route) = policy.routes().get(index) else {
        return;
    };
    let Some(resource) = &route.on.resource else {
        return;
    };
    if let Some(hint) = impossible(policy, resource) {
        let message = format!("can never match: no call touches `{resource}`");
        found.push(problem(index, route, message).hint(hint));
    } else if let Some(name) = cut_name(resource).filter(|_| route.run_as != RunAs::Deny) {
        let message = format!(
            "`{resource}` ends within a name, so it means {name}2 and all others that begin with {name} too"
        );
        let hint = format!(
            "write `{}/{}.*` for {name} alone",
            resource.kind, resource.id
        );
        found.push(problem(index, route, message).hint(hint));
    }
}

/// The names of an id in Unity Catalog, and how many there may be.
fn levels(resource: &ResourceMatcher) -> Option<(&str, usize, usize)> {
    let id = &*resource.id;
    if *resource.kind == *MCP {
        let of_server = |(server, least, most): (&str, usize, usize)| {
            id.strip_prefix(server).map(|names| (names, least, most))
        };
        return MCP_LEVELS.into_iter().find_map(of_server);
    }
    let mut known = LEVELS.into_iter();
    known
        .find(|(kind, ..)| **kind == *resource.kind)
        .map(|(_, least, most)| (id, least, most))
}

/// The catalog or schema in whose name the start of an id ends.
fn cut_name(resource: &ResourceMatcher) -> Option<&str> {
    let (names, _, most) = levels(resource).filter(|_| resource.prefix)?;
    let last = names.rsplit('.').next().filter(|name| !name.is_empty())?;
    (names.split('.').count() < most).then_some(last)
}

/// What ids of the kind look like, where none can be this one.
fn impossible(policy: &Policy, resource: &ResourceMatcher) -> Option<String> {
    if let Some((names, least, most)) = levels(resource) {
        let count = names.split('.').count();
        let whole = names.split('.').all(|name| !name.is_empty());
        let fits = resource.prefix || (whole && (least..=most).contains(&count));
        return (!fits).then(|| {
            let before = resource.id.strip_suffix(names).unwrap_or_default();
            let all = ["CATALOG", "SCHEMA", "NAME"];
            let shown = all.get(..most).unwrap_or(&all).join(".");
            let star = if whole && count < least {
                format!(", or `{}/{}.*` for all of it", resource.kind, resource.id)
            } else {
                String::new()
            };
            format!("write {}/{before}{shown}{star}", resource.kind)
        });
    }
    let kind = &*resource.kind;
    let mut written: Vec<&Shape> = Vec::new();
    for operation in policy.catalog.operations() {
        if free(operation, kind) {
            return number_fault(policy, resource);
        }
        let rules = operation.resources.iter();
        written.extend(rules.flat_map(|rule| {
            let first = format(rule).filter(|_| *rule.kind == *kind);
            let second = { rule.also.as_ref() }.filter(|also| *also.kind == *kind);
            first.into_iter().chain(second.map(|also| &also.id))
        }));
    }
    let fits = |shape: &&Shape| {
        if resource.prefix {
            let start = shape.as_str().split('{').next().unwrap_or_default();
            start.starts_with(&resource.id) || resource.id.starts_with(start)
        } else {
            shape.read(&resource.id).is_some()
        }
    };
    if written.is_empty() || written.iter().any(fits) {
        return number_fault(policy, resource);
    }
    Some(forms(kind, &resource.id, &written))
}

/// Whether the kind has ids of any form in this operation.
fn free(operation: &Operation, kind: &str) -> bool {
    let mut rules = operation.resources.iter();
    rules.any(|rule| *rule.kind == *kind && format(rule).is_none() && rule.like.is_none())
}

fn number_fault(policy: &Policy, resource: &ResourceMatcher) -> Option<String> {
    let rules = { policy.catalog.operations().iter() }.flat_map(|o| &o.resources);
    let mut rules = rules.filter(|rule| *rule.kind == *resource.kind);
    let number = rules.any(|rule| rule.number);
    let digits = resource.id.bytes().all(|b| b.is_ascii_digit());
    (number && !digits).then(|| format!("a {} is named by its number", resource.kind))
}

fn forms(kind: &str, id: &str, written: &[&Shape]) -> String {
    let mut forms: Vec<String> = written
        .iter()
        .map(|shape| shape.as_str().replace(['{', '}'], ""))
        .collect();
    forms.sort();
    forms.dedup();
    let first = |text: &str| text.split('/').next().unwrap_or_default().to_owned();
    let starts: Vec<String> = forms.iter().map(|form| first(form)).collect();
    let near = nearest(&first(id), starts.iter().map(String::as_str));
    let near: Vec<&String> = match near {
        Some(near) => forms.iter().filter(|form| first(form) == near).collect(),
        None => forms.iter().collect(),
    };
    let near: Vec<String> = near.iter().map(|form| format!("{kind}/{form}")).collect();
    format!("write {}", near.join(" or "))
}
