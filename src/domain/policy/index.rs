//! Finds the first route that matches without trying each.
//!
//! Gives exactly the answer of the ordered list (a property test in `tests.rs`): the lists here only narrow down which routes
//! are asked, and `matcher.rs` has the last word on each. What is looked up are exact ids, the starts of ids by their lengths,
//! paths, and values of body members, so that ten thousand routes cost as much as ten. Made by `compile.rs`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use http::Method;
use serde_json::Value;

use super::Route;
use super::matcher::member_text;
use crate::domain::ask::{Call, Touch};
use crate::domain::catalog::APP;
use crate::domain::destination::Destination;
use crate::domain::path::CanonicalPath;
use crate::domain::template::Trie;

/// Numbers of routes, rising.
type Numbers = Vec<u32>;

/// The index of one policy.
#[derive(Debug, Default)]
pub(in crate::domain) struct Index {
    /// By operation: routes that name it and neither resource nor path.
    by_operation: Vec<Numbers>,
    /// By kind: routes that name a resource.
    by_kind: HashMap<Arc<str>, Resources>,
    /// By path: the number of a group.
    by_path: Trie,
    groups: Vec<Group>,
    /// Routes for apps that list tools.
    listing: Numbers,
}

/// The routes for resources of one kind.
#[derive(Debug, Default)]
struct Resources {
    exact: HashMap<String, Numbers>,
    /// By the start of an id.
    starts: HashMap<String, Numbers>,
    /// The lengths in bytes that starts have, each once.
    lengths: Vec<usize>,
}

/// The raw routes of one path template.
#[derive(Debug, Default)]
struct Group {
    /// Those without body conditions.
    plain: Numbers,
    /// Those with some, by their first condition: member → value → routes.
    by_member: HashMap<String, HashMap<String, Numbers>>,
    /// All members that some condition names.
    members: BTreeSet<String>,
    /// The methods of those with some; empty inside = any.
    body_methods: Vec<Vec<Method>>,
}

impl Index {
    /// The index of these routes over a catalogue of so many operations.
    pub(in crate::domain) fn of(routes: &[Arc<Route>], operations: usize) -> Self {
        let mut index = Self {
            by_operation: vec![Vec::new(); operations],
            ..Self::default()
        };
        let mut groups = HashMap::new();
        for (route, number) in routes.iter().zip(0u32..) {
            let on = &route.on;
            if on.is_for(APP) && !on.tools.is_empty() {
                index.listing.push(number);
            }
            match (&on.resource, &on.path, &on.operations) {
                (Some(resource), _, _) => {
                    let of_kind = index.by_kind.entry(Arc::clone(&resource.kind));
                    of_kind
                        .or_default()
                        .add(&resource.id, resource.prefix, number);
                }
                (None, Some(path), _) => {
                    let next = index.groups.len();
                    let group = *groups.entry(path.as_str()).or_insert(next);
                    if group == next {
                        index.groups.push(Group::default());
                        let value = u32::try_from(group).unwrap_or(u32::MAX);
                        index.by_path.insert(path, value);
                    }
                    if let Some(group) = index.groups.get_mut(group) {
                        group.add(route, number);
                    }
                }
                (None, None, Some(operations)) => {
                    for operation in operations {
                        if let Some(numbers) = index.by_operation.get_mut(*operation) {
                            numbers.push(number);
                        }
                    }
                }
                (None, None, None) => {}
            }
        }
        index
    }

    /// The first route that matches the call as far as this touch goes.
    pub(in crate::domain) fn first<'r>(
        &self,
        routes: &'r [Arc<Route>],
        call: &Call<'_>,
        touch: &Touch<'_>,
    ) -> Option<&'r Arc<Route>> {
        let mut best: Option<(u32, &'r Arc<Route>)> = None;
        let mut consider = |numbers: &Numbers| {
            let before = |number: &&u32| best.is_none_or(|(best, _)| **number < best);
            let candidates = numbers
                .iter()
                .take_while(before)
                .filter_map(|number| routes.get(*number as usize).map(|route| (*number, route)));
            let found = { candidates }.find(|(_, route)| route.on.matches(call, touch));
            best = found.or(best);
        };
        if let Some((operation, _)) = call.operation {
            self.by_operation
                .get(operation)
                .into_iter()
                .for_each(&mut consider);
        }
        for resource in touch.names() {
            if let Some(of_kind) = self.by_kind.get(resource.kind) {
                of_kind.visit(&resource.id, &mut consider);
            }
        }
        if *call.destination == Destination::Workspace {
            self.by_path.visit(call.path, &mut |group| {
                if let Some(group) = self.groups.get(group as usize) {
                    group.visit(call.body, &mut consider);
                }
                false
            });
        }
        best.map(|(_, route)| route)
    }

    /// Whether some raw route for this path has conditions on the body.
    pub(in crate::domain) fn reads_body(&self, method: &Method, path: &CanonicalPath) -> bool {
        self.by_path.visit(path, &mut |group| {
            self.groups
                .get(group as usize)
                .is_some_and(|group| group.reads_body(method))
        })
    }

    /// The routes for apps that list tools.
    pub(in crate::domain) fn lists_tools<'r>(
        &'r self,
        routes: &'r [Arc<Route>],
    ) -> impl Iterator<Item = &'r Arc<Route>> {
        let numbers = self.listing.iter();
        numbers.filter_map(|number| routes.get(*number as usize))
    }

    /// The body members that raw routes for this path have conditions on.
    pub(in crate::domain) fn body_members(&self, path: &CanonicalPath) -> Vec<&str> {
        let mut members = Vec::new();
        self.by_path.visit(path, &mut |group| {
            if let Some(group) = self.groups.get(group as usize) {
                members.extend(group.members.iter().map(String::as_str));
            }
            false
        });
        members
    }

    /// The routes on exactly this id and on every start of it, list by list.
    pub(in crate::domain) fn on<'r>(
        &'r self,
        kind: &str,
        id: &'r str,
    ) -> impl Iterator<Item = &'r [u32]> {
        let of_kind = self.by_kind.get(kind).into_iter();
        of_kind
            .flat_map(|of_kind| of_kind.lists(id))
            .map(Vec::as_slice)
    }

    /// The routes that name the operation alone.
    pub(in crate::domain) fn named(&self, operation: usize) -> &[u32] {
        self.by_operation.get(operation).map_or(&[], Vec::as_slice)
    }
}

impl Resources {
    fn add(&mut self, id: &str, prefix: bool, number: u32) {
        let numbers = if prefix {
            if !self.lengths.contains(&id.len()) {
                self.lengths.push(id.len());
            }
            &mut self.starts
        } else {
            &mut self.exact
        };
        numbers.entry(id.to_owned()).or_default().push(number);
    }

    fn visit(&self, id: &str, consider: &mut impl FnMut(&Numbers)) {
        self.lists(id).for_each(consider);
    }

    fn lists<'r>(&'r self, id: &'r str) -> impl Iterator<Item = &'r Numbers> {
        // A length inside a character cuts nothing off, and no start ends there.
        let starts = self.lengths.iter().filter_map(|length| id.get(..*length));
        let starts = starts.filter_map(|start| self.starts.get(start));
        self.exact.get(id).into_iter().chain(starts)
    }
}

impl Group {
    fn add(&mut self, route: &Route, number: u32) {
        let Some((member, allowed)) = route.on.body.first() else {
            self.plain.push(number);
            return;
        };
        let named = route.on.body.iter().map(|(member, _)| member.clone());
        self.members.extend(named);
        let by_value = self.by_member.entry(member.clone()).or_default();
        for value in allowed {
            let numbers = by_value.entry(value.clone()).or_default();
            if numbers.last() != Some(&number) {
                numbers.push(number);
            }
        }
        if !self.body_methods.contains(&route.on.methods) {
            self.body_methods.push(route.on.methods.clone());
        }
    }

    fn visit(&self, body: Option<&Value>, consider: &mut impl FnMut(&Numbers)) {
        consider(&self.plain);
        for (member, by_value) in &self.by_member {
            let value = body.and_then(|body| body.get(member)).and_then(member_text);
            let numbers = value.and_then(|value| by_value.get(&*value));
            numbers.into_iter().for_each(&mut *consider);
        }
    }

    fn reads_body(&self, method: &Method) -> bool {
        self.body_methods
            .iter()
            .any(|methods| methods.is_empty() || methods.contains(method))
    }
}
