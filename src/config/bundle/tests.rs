//! How bundles are resolved, rule by rule, and what every mistake is answered. Whole bundles are in `tests/bundles`.

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A bundle in a folder of its own, and what it is read with.
struct Bundle {
    folder: TempDir,
    env: Env,
    variables: Vec<(String, String)>,
    app: Option<&'static str>,
    target: Option<&'static str>,
}

impl Bundle {
    fn new(root: &str) -> Self {
        let bundle = Self {
            folder: tempfile::tempdir().unwrap(),
            env: Env::default(),
            variables: Vec::new(),
            app: None,
            target: None,
        };
        bundle.file("databricks.yml", root)
    }

    fn file(self, name: &str, text: &str) -> Self {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn var(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    fn env(self, pairs: &[(&str, &str)]) -> Self {
        let env = pairs.iter().copied().collect();
        Self { env, ..self }
    }

    fn app(self, app: &'static str) -> Self {
        Self {
            app: Some(app),
            ..self
        }
    }

    fn target(self, target: &'static str) -> Self {
        Self {
            target: Some(target),
            ..self
        }
    }

    fn load(&self) -> Result<Loaded, Vec<Problem>> {
        load(&Request {
            file: &self.folder.path().join("databricks.yml"),
            app: self.app,
            target: self.target,
            variables: &self.variables,
            env: &self.env,
        })
    }

    /// `name=kind/id permission`, one per resource, then the scopes.
    fn shown(&self) -> Vec<String> {
        let declared = self.good();
        let resources = declared.resources.iter();
        let mut shown: Vec<String> = resources
            .map(|r| format!("{}={}/{} {}", r.name, r.kind.as_str(), r.id, r.permission))
            .collect();
        shown.extend(declared.user_scopes.iter().map(|s| s.scope.to_string()));
        shown
    }

    fn good(&self) -> Declared {
        let problems = |p: Vec<Problem>| panic!("{:#?}", self.words(&p));
        self.load().unwrap_or_else(problems).declared
    }

    /// Without the folder's name, which is another in each run.
    fn words(&self, problems: &[Problem]) -> Vec<String> {
        let folder = format!("{}/", self.folder.path().display());
        let words = problems.iter().map(|p| p.to_string().replace(&folder, ""));
        words.collect()
    }

    #[track_caller]
    fn gives(&self, expected: &[&str]) {
        assert_eq!(self.shown(), expected);
        assert_eq!(self.words(&self.good().left_out), [""; 0]);
    }

    #[track_caller]
    fn leaves_out(&self, expected: &[&str]) {
        assert_eq!(self.words(&self.good().left_out), expected);
    }

    #[track_caller]
    fn is_refused(&self, expected: &[&str]) {
        let problems = self.load().map(|_| ()).unwrap_err();
        assert_eq!(self.words(&problems), expected);
    }
}

/// One warehouse whose id is this, with what else is to stand in the file.
fn warehouse(id: &str, rest: &str) -> Bundle {
    Bundle::new(&format!(
        "resources:\n  apps:\n    a:\n      resources:\n        - name: w\n          sql_warehouse:\n            id: {id}\n            permission: CAN_USE\n{rest}"
    ))
}

const APP: &str =
    "resources: {apps: {a: {resources: [{name: w, job: {id: 1, permission: CAN_VIEW}}]}}}\n";

mod mistakes;
mod resolving;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever variables refer to, the end is an answer.
    #[test]
    fn resolving_ends_and_never_panics(values in proptest::collection::vec("(\\$\\{var\\.[a-d]\\}|\\$\\{|\\}|\\$|var\\.|[a-d]){0,6}", 4)) {
        let mut rest = "variables:\n".to_owned();
        for (name, value) in ["a", "b", "c", "d"].iter().zip(&values) {
            rest.push_str(&format!("  {name}: {{default: '{value}'}}\n"));
        }
        let _ = warehouse("'${var.a}'", &rest).load();
    }
}
