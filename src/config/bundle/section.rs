//! The key `bundle` of the configuration: a path alone, or a path with the app and the target that are meant.
//!
//! Paths begin at the folder of the configuration file, for both are checked in side by side. Read `bundle.rs` next.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de};

use super::{Loaded, Request, Watched, load};
use crate::config::check::Checker;
use crate::config::read::Given;
use crate::config::{Env, read, substitute, yaml};

/// The shape name by which the reader knows that a bare path is welcome too.
pub const BUNDLE: &str = "Bundle";
const FIELDS: &[&str] = &["file", "app", "target"];

/// As it is written.
pub enum RawBundle {
    /// The path alone.
    Path(String),
    /// `{file: …, app: …, target: …}`.
    Named {
        /// The root file or its folder.
        file: Given<String>,
        /// The app's key.
        app: Given<String>,
        /// The target.
        target: Given<String>,
    },
}

impl<'de> Deserialize<'de> for RawBundle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BundleVisitor;

        impl<'de> Visitor<'de> for BundleVisitor {
            type Value = RawBundle;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or {file: PATH, app: KEY, target: NAME}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawBundle, E> {
                Ok(RawBundle::Path(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawBundle, A::Error> {
                let (mut file, mut app, mut target) =
                    (Given::default(), Given::default(), Given::default());
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "file" => file = map.next_value()?,
                        "app" => app = map.next_value()?,
                        // The reader lets no other key through.
                        _ => target = map.next_value()?,
                    }
                }
                Ok(RawBundle::Named { file, app, target })
            }
        }

        deserializer.deserialize_struct(BUNDLE, FIELDS, BundleVisitor)
    }
}

impl JsonSchema for RawBundle {
    fn schema_name() -> Cow<'static, str> {
        "Bundle".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": {
                        "file": { "type": "string", "description": "The root file or its folder, from the folder of this file." },
                        "app": { "type": "string", "description": "The app's key under resources.apps. Default: the only one, or the one named as DATABRICKS_APP_NAME." },
                        "target": { "type": "string", "description": "The target. Default: DATABRICKS_BUNDLE_TARGET, else the bundle's default target." },
                    },
                    "required": ["file"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

/// Reads the bundle that is named, if one is.
pub fn check(given: &Given<RawBundle>, folder: &Path, c: &mut Checker<'_>) -> Option<Loaded> {
    let (file, app, target) = match given.get()? {
        RawBundle::Path(path) => (Some(path.as_str()), None, None),
        RawBundle::Named { file, app, target } => {
            if file.is_absent() {
                let problem = given.problem("does not say which file");
                c.report(problem.hint("add `file: ./databricks.yml`"));
            }
            (c.text(file), c.text(app), c.text(target))
        }
    };
    let file = file?;
    if file.trim().is_empty() {
        let problem = given.problem("is empty");
        c.report(problem.hint("write a path, or remove the key"));
        return None;
    }
    let request = Request {
        file: &folder.join(file),
        app,
        target,
        variables: &[],
        env: c.env,
    };
    match load(&request) {
        Ok(loaded) => Some(loaded),
        Err(mut problems) => {
            c.problems.append(&mut problems);
            None
        }
    }
}

/// The files of the bundle that a configuration names, as far as a configuration with mistakes tells: what is mended there
/// must be noticed.
pub fn watched(text: &str, folder: &Path, env: &Env) -> Option<Watched> {
    let mut tree = yaml::parse(text).ok()?;
    substitute::substitute(&mut tree, env, &mut Vec::new());
    let raw: crate::config::raw::RawConfig = read::read(&tree, &mut Vec::new());
    let file: PathBuf = match raw.bundle.get()? {
        RawBundle::Path(path) => folder.join(path),
        RawBundle::Named { file, .. } => folder.join(file.get()?),
    };
    Some(Watched::of(&file))
}
