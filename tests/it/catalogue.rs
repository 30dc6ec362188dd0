//! Every operation of the catalogue, one by one: found by its call, touching what it says, allowed by the narrowest route and
//! refused next to it.
//!
//! The calls stand in `tests/policy_cases/catalog.yaml`; `case.rs` reads them and asks, `holes.rs` holds calls that name more
//! than they seem to. No network, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;

use http::Method;
use valetkey::domain::catalog::{Catalog, Effect, Operation, ResourceFrom};
use valetkey::domain::compile::{Settings, compile, starter};
use valetkey::domain::policy::Policy;
use valetkey::domain::problem::Problem;
use valetkey::domain::route::{PolicyOrigin, RouteSource, RunAs};
use valetkey::domain::scope::ScopeSet;
use valetkey::explain::{Answer, As};

use self::case::{Asked, Case, table};

mod case;
mod holes;

/// So that calls which hand out storage URLs are tried like the others.
const OPEN: Settings = Settings {
    origin: PolicyOrigin::Routes,
    presigned_allowed: true,
    observe_until: None,
};

fn catalog() -> Arc<Catalog> {
    Catalog::built_in().unwrap()
}

/// A case with its operation, and a count of what was refused.
struct Trial {
    catalog: Arc<Catalog>,
    operation: Arc<Operation>,
    case: Case,
    refusals: usize,
}

/// A route on a thing, an operation, or both.
fn route(resource: Option<&str>, operation: Option<&str>, run_as: RunAs) -> RouteSource {
    RouteSource {
        name: format!(
            "r-{}-{}",
            resource.unwrap_or("any"),
            operation.unwrap_or("any")
        ),
        // Of no file: there a user route that nobody can pass is refused before it is asked.
        line: 0,
        resource: resource.map(Into::into),
        operation: operation.map(Into::into),
        methods: Vec::new(),
        path: None,
        body: BTreeMap::new(),
        tools: Vec::new(),
        effect: None,
        run_as,
        scope: None,
    }
}

impl Trial {
    fn new(catalog: &Arc<Catalog>, case: Case) -> Self {
        let operation = { catalog.operations().iter() }.find(|o| *o.id == case.op);
        let operation = operation.unwrap_or_else(|| panic!("the catalogue has no {}", case.op));
        Self {
            catalog: Arc::clone(catalog),
            operation: Arc::clone(operation),
            case,
            refusals: 0,
        }
    }

    /// The identity that should do: the user where a user scope exists.
    fn identity(&self) -> (RunAs, As) {
        if self.operation.user_scope {
            let of_things = self
                .operation
                .resources
                .iter()
                .filter_map(|r| r.scope.clone());
            let held = ScopeSet::new(self.operation.scopes().cloned().chain(of_things));
            (RunAs::User, As::User(held))
        } else {
            (RunAs::App, As::App)
        }
    }

    fn policy(&self, routes: &[RouteSource]) -> Policy {
        self.compiled(routes)
            .unwrap_or_else(|problems| panic!("{}: {problems:?}", self.case.op))
    }

    fn compiled(&self, routes: &[RouteSource]) -> Result<Policy, Vec<Problem>> {
        compile(routes, Arc::clone(&self.catalog), OPEN)
    }

    /// One route for each thing touched (all on the operation), or one on the operation alone.
    fn narrow(&self, touched: &[String], run_as: RunAs) -> Vec<RouteSource> {
        let operation = Some(&*self.case.op);
        if touched.is_empty() {
            return vec![route(None, operation, run_as)];
        }
        let distinct: BTreeSet<&String> = touched.iter().collect();
        { distinct.into_iter() }
            .map(|id| route(Some(id), operation, run_as))
            .collect()
    }

    fn allowed(&self, routes: &[RouteSource], asked: &Asked, caller: &As) -> Answer {
        let answer = asked.ask(&self.policy(routes), caller);
        assert!(
            answer.allowed,
            "{} is refused ({:?}: {}) under {routes:#?}: {asked:#?}",
            self.case.op, answer.reason, answer.text
        );
        answer
    }

    fn refused(&mut self, why: &str, routes: &[RouteSource], asked: &Asked, caller: &As) -> Answer {
        let answer = asked.ask(&self.policy(routes), caller);
        assert!(
            !answer.allowed,
            "{} is allowed although {why}, under {routes:#?}: {asked:#?}",
            self.case.op
        );
        self.refusals += 1;
        answer
    }

    /// Routes that can never match are refused when they are read, which is as good.
    fn refused_or_impossible(
        &mut self,
        why: &str,
        routes: &[RouteSource],
        asked: &Asked,
        caller: &As,
    ) {
        if self.compiled(routes).is_ok() {
            self.refused(why, routes, asked, caller);
        } else {
            self.refusals += 1;
        }
    }

    /// The call is found and touches what the table says, and the narrowest routes let it through.
    fn accept(&self) {
        let (run_as, caller) = self.identity();
        let asked = self.case.asked();
        let narrow = self.narrow(&self.case.touches, run_as);
        let answer = self.allowed(&narrow, &asked, &caller);
        assert_eq!(
            answer.operation.as_deref(),
            Some(&*self.case.op),
            "{asked:?}"
        );
        let (first, second) = names(&answer);
        assert_eq!(first, self.case.touches, "{}", self.case.op);
        assert_eq!(second, self.case.also, "{}", self.case.op);
        if !second.is_empty() && second.len() == first.len() {
            self.allowed(&self.narrow(&second, run_as), &asked, &caller);
        }
        if let Some(tool) = &self.case.tool {
            let mut tools = narrow.clone();
            tools.iter_mut().for_each(|r| r.tools = vec![tool.clone()]);
            self.allowed(&tools, &asked, &caller);
        }
        let mut effects = narrow;
        effects
            .iter_mut()
            .for_each(|r| r.effect = Some(self.operation.effect));
        self.allowed(&effects, &asked, &caller);
        if self.operation.effect != Effect::Admin && !self.case.touches.is_empty() {
            let mut things = self.narrow(&self.case.touches, run_as);
            things.iter_mut().for_each(|r| r.operation = None);
            self.allowed(&things, &asked, &caller);
        }
    }

    fn refuse(&mut self) {
        self.refuse_elsewhere();
        self.refuse_other_methods();
        self.refuse_without_what_decides();
        self.refuse_other_callers();
        self.refuse_narrower_effect();
        self.refuse_admin_unless_named();
        self.refuse_tools_and_ids();
    }

    /// Neither does a route on another thing allow this call, nor a route on this thing the call elsewhere.
    fn refuse_elsewhere(&mut self) {
        let Some(elsewhere) = self.case.elsewhere() else {
            return;
        };
        let (run_as, caller) = self.identity();
        let by_name = [route(None, Some(&self.case.op), run_as)];
        let (first, second) = names(&self.allowed(&by_name, &elsewhere, &caller));
        assert_ne!(first, self.case.touches, "{}", self.case.op);
        let asked = self.case.asked();
        for touched in [first, second].iter().filter(|t| !t.is_empty()) {
            let routes = self.narrow(touched, run_as);
            self.refused("the route is on another thing", &routes, &asked, &caller);
        }
        for touched in [self.case.touches.clone(), self.case.also.clone()] {
            if !touched.is_empty() {
                let routes = self.narrow(&touched, run_as);
                self.refused("it goes elsewhere", &routes, &elsewhere, &caller);
            }
        }
    }

    fn refuse_other_methods(&mut self) {
        let (run_as, caller) = self.identity();
        let routes = self.narrow(&self.case.touches, run_as);
        for method in [
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::OPTIONS,
        ] {
            if method != self.operation.method {
                let mut asked = self.case.asked();
                asked.method = method;
                self.refused("the method is another", &routes, &asked, &caller);
            }
        }
    }

    /// The call without the member, parameter or header in which the thing stands.
    fn refuse_without_what_decides(&mut self) {
        let (run_as, caller) = self.identity();
        let routes = self.narrow(&self.case.touches, run_as);
        let asked = self.case.asked();
        let operation = Arc::clone(&self.operation);
        for rule in operation.resources.iter().filter(|rule| !rule.optional) {
            let lacking = match &rule.from {
                ResourceFrom::Body(member) => vec![asked.without_member(member.as_str())],
                ResourceFrom::Members(all) => { all.parts.iter() }
                    .map(|(_, part)| {
                        let array = all.array.iter().map(|array| array.as_str());
                        let path: Vec<&str> = array.chain([part.as_str()]).collect();
                        asked.without_member(&path.join("."))
                    })
                    .collect(),
                ResourceFrom::Query(names) => {
                    names.iter().map(|name| asked.without_query(name)).collect()
                }
                ResourceFrom::Header(name) => {
                    let mut lacking = asked.clone();
                    lacking.headers.remove(name.as_str());
                    vec![lacking]
                }
                ResourceFrom::Path(_) | ResourceFrom::FollowUp => Vec::new(),
            };
            for lacking in lacking {
                let answer = self.refused("what decides is missing", &routes, &lacking, &caller);
                assert_eq!(answer.reason, Some("bad_request"), "{}", self.case.op);
            }
        }
    }

    /// A user without the scope, the app where a user is asked for, and a user where no scope could help.
    fn refuse_other_callers(&mut self) {
        let asked = self.case.asked();
        let as_user = self.narrow(&self.case.touches, RunAs::User);
        let nobody = As::User(ScopeSet::default());
        let answer = self.refused("the user has no scope", &as_user, &asked, &nobody);
        assert_eq!(answer.reason, Some("scope_missing"), "{}", self.case.op);
        let answer = self.refused("the app calls", &as_user, &asked, &As::App);
        assert_eq!(answer.reason, Some("user_required"), "{}", self.case.op);
        let catalog = Arc::clone(&self.catalog);
        let every = { catalog.scopes().iter() }.filter(|row| row.users);
        if self.operation.user_scope {
            let needed: Vec<_> = self.operation.scopes().cloned().collect();
            let others = every.filter(|row| !needed.iter().any(|need| row.name.covers(need)));
            let held = As::User(ScopeSet::new(others.map(|row| row.name.clone())));
            self.refused("the user has other scopes", &as_user, &asked, &held);
        } else {
            let held = As::User(ScopeSet::new(every.map(|row| row.name.clone())));
            self.refused("no user can have the scope", &as_user, &asked, &held);
        }
    }

    /// A route of a smaller effect is refused with the call, or already as one that can never match.
    fn refuse_narrower_effect(&mut self) {
        let (run_as, caller) = self.identity();
        let asked = self.case.asked();
        for most in [Effect::Read, Effect::Write] {
            if most >= self.operation.effect {
                continue;
            }
            let mut routes = self.narrow(&self.case.touches, run_as);
            routes.iter_mut().for_each(|r| r.effect = Some(most));
            assert!(self.compiled(&routes).is_err(), "{}", self.case.op);
            if !self.case.touches.is_empty() {
                routes.iter_mut().for_each(|r| r.operation = None);
                self.refused_or_impossible("it does more", &routes, &asked, &caller);
            }
        }
    }

    /// Neither the starter policy, nor a family, nor the thing alone reaches an operation of admin effect.
    fn refuse_admin_unless_named(&mut self) {
        if self.operation.effect != Effect::Admin {
            return;
        }
        let (run_as, caller) = self.identity();
        let asked = self.case.asked();
        let answer = asked.ask(&starter(Arc::clone(&self.catalog), OPEN), &caller);
        assert!(
            !answer.allowed,
            "the starter policy allows {}",
            self.case.op
        );
        self.refusals += 1;
        let family = self.case.op.split('.').next().unwrap_or_default();
        let family = [route(None, Some(&format!("{family}.*")), run_as)];
        self.refused_or_impossible("only the family is named", &family, &asked, &caller);
        let mut things = self.narrow(&self.case.touches, run_as);
        if !self.case.touches.is_empty() {
            things.iter_mut().for_each(|r| r.operation = None);
            self.refused_or_impossible("only the thing is named", &things, &asked, &caller);
        }
    }

    /// Another tool, an id that is not known, another user's partition, storage URLs.
    fn refuse_tools_and_ids(&mut self) {
        let (run_as, caller) = self.identity();
        let routes = self.narrow(&self.case.touches, run_as);
        let asked = self.case.asked();
        if self.case.tool.is_some() {
            let mut tools = routes.clone();
            tools
                .iter_mut()
                .for_each(|r| r.tools = vec!["another_tool".to_owned()]);
            self.refused("the tool is another", &tools, &asked, &caller);
        }
        if self.operation.follows_up() {
            let unknown = Asked {
                bound: None,
                ..asked.clone()
            };
            self.refused("its id is not known", &routes, &unknown, &caller);
        }
        if self.operation.partition.is_some() {
            let foreign = Asked {
                foreign_partition: true,
                ..asked.clone()
            };
            let answer = self.refused("the partition is another's", &routes, &foreign, &caller);
            assert_eq!(answer.reason, Some("partition_foreign"), "{}", self.case.op);
        }
        if self.operation.presigned {
            let policy = compile(&routes, Arc::clone(&self.catalog), Settings::default()).unwrap();
            let answer = asked.ask(&policy, &caller);
            assert_eq!(answer.reason, Some("presigned_refused"), "{}", self.case.op);
            self.refusals += 1;
        }
    }
}

/// First and second names of what was touched, without repetitions of several messages.
fn names(answer: &Answer) -> (Vec<String>, Vec<String>) {
    let mut first = Vec::new();
    let mut second = Vec::new();
    for text in &answer.resources {
        let text = text.split(" (").next().unwrap_or(text);
        let mut halves = text.split(" = ").filter(|half| !half.is_empty());
        first.extend(halves.next().map(str::to_owned));
        second.extend(halves.next().map(str::to_owned));
    }
    (first, second)
}

#[test]
fn every_operation_has_a_case() {
    let cases: BTreeSet<String> = table().into_iter().map(|case| case.op).collect();
    let catalog = catalog();
    let missing: Vec<_> = { catalog.operations().iter() }
        .map(|operation| &*operation.id)
        .filter(|id| !cases.contains(*id))
        .collect();
    assert!(missing.is_empty(), "without a case: {missing:?}");
}

#[test]
fn every_operation_is_allowed_by_the_narrowest_route_and_refused_beside_it() {
    let catalog = catalog();
    let mut families: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for case in table() {
        let family = case.op.split('.').next().unwrap_or_default().to_owned();
        let mut trial = Trial::new(&catalog, case);
        trial.accept();
        trial.refuse();
        let row = families.entry(family).or_default();
        row[0] += usize::from(seen.insert(trial.case.op.clone()));
        row[1] += 1;
        row[2] += trial.refusals;
    }
    let mut report = "catalogue: family, operations, cases, refusals tried\n".to_owned();
    let mut sum = [0; 3];
    for (family, row) in &families {
        report += &format!("  {family:<16}{:>5}{:>6}{:>8}\n", row[0], row[1], row[2]);
        sum.iter_mut().zip(row).for_each(|(all, one)| *all += one);
    }
    report += &format!("  {:<16}{:>5}{:>6}{:>8}\n", "all", sum[0], sum[1], sum[2]);
    // Not by println!: the coverage is meant to be seen without --nocapture.
    std::io::stderr().write_all(report.as_bytes()).unwrap();
}
