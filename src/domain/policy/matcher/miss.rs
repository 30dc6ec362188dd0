//! Why a route does not match a call, for people: `explain` names the nearest route that lost and what would have to change.
//!
//! Must agree with `Matcher::matches`: no miss means a match (a property test in `policy/tests.rs`).

use http::Method;

use super::{Matcher, member_is};
use crate::domain::ask::{Call, Touch};
use crate::domain::catalog::{Effect, MCP};

/// One condition of a route that a call does not meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    /// The key of the route.
    pub key: &'static str,
    /// What the route asks for.
    pub wanted: String,
    /// What the call has.
    pub given: String,
    /// How far apart the two are.
    pub weight: u32,
}

impl Miss {
    /// The distance at which a route has nothing to do with a call.
    pub const NOTHING_IN_COMMON: u32 = 4;
    const FAR: u32 = 4;
    const NEAR: u32 = 1;

    /// Whether the call touches another thing than the route names.
    pub fn is_of_resource(&self) -> bool {
        self.key == "resource"
    }
}

impl std::fmt::Display for Miss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {} where the call has {}",
            self.key, self.wanted, self.given
        )
    }
}

impl Matcher {
    /// Every condition that the call, as far as this touch goes, does not meet.
    pub fn misses(&self, call: &Call<'_>, touch: &Touch<'_>) -> Vec<Miss> {
        let named = [
            (!self.fits_operation(call)).then(|| self.operation_miss(call)),
            (!self.fits_effect(call)).then(|| self.effect_miss(call)),
            (!self.fits_resource(touch)).then(|| self.resource_miss(touch)),
            (!self.fits_tools(call, touch)).then(|| self.tools_miss(touch)),
            (!self.fits_method(call)).then(|| self.method_miss(call)),
            (!self.fits_path(call)).then(|| self.path_miss(call)),
        ];
        let conditions = self.body.iter();
        let unmet = conditions.filter(|(key, allowed)| !member_is(call.body, key, allowed));
        let members = unmet.map(|(key, allowed)| Miss {
            key: "body",
            wanted: format!("{key} in [{}]", allowed.join(", ")),
            given: "another value or none".to_owned(),
            weight: Miss::NEAR,
        });
        named.into_iter().flatten().chain(members).collect()
    }

    fn operation_miss(&self, call: &Call<'_>) -> Miss {
        let given = call.operation.map_or("none", |(_, o)| &*o.id);
        let family = |id: &str| id.split('.').next().map(str::to_owned);
        let related = family(&self.operations_text) == family(given);
        let wanted = match &self.operations {
            Some(_) => self.operations_text.clone(),
            None => "one that is named in full, as every operation of admin effect must be".into(),
        };
        Miss {
            key: "operation",
            wanted,
            given: given.to_owned(),
            weight: if related { Miss::NEAR * 2 } else { Miss::FAR },
        }
    }

    fn effect_miss(&self, call: &Call<'_>) -> Miss {
        let given = call.operation.map_or("none", |(_, o)| o.effect.as_str());
        Miss {
            key: "effect",
            wanted: self.effect.map_or("any", Effect::as_str).to_owned(),
            given: given.to_owned(),
            weight: Miss::NEAR,
        }
    }

    fn resource_miss(&self, touch: &Touch<'_>) -> Miss {
        let wanted = self.resource.as_ref();
        let names: Vec<String> = { touch.names() }
            .map(|r| format!("{}/{}", r.kind, r.id))
            .collect();
        let same_kind = touch
            .names()
            .any(|r| wanted.is_some_and(|w| is_akin((&w.kind, &w.id), (r.kind, &r.id))));
        Miss {
            key: "resource",
            wanted: wanted.map(ToString::to_string).unwrap_or_default(),
            given: if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(" = ")
            },
            weight: if same_kind { Miss::NEAR } else { Miss::FAR },
        }
    }

    fn tools_miss(&self, touch: &Touch<'_>) -> Miss {
        let said = touch.message.and_then(|m| m.tool.or(m.method));
        Miss {
            key: "tools",
            wanted: format!("[{}]", self.tools.join(", ")),
            given: said.unwrap_or("a body that is no MCP message").to_owned(),
            weight: Miss::NEAR,
        }
    }

    fn method_miss(&self, call: &Call<'_>) -> Miss {
        let methods: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
        Miss {
            key: "method",
            wanted: methods.join(", "),
            given: call.method.to_string(),
            weight: Miss::NEAR,
        }
    }

    fn path_miss(&self, call: &Call<'_>) -> Miss {
        let wanted = self.path.as_ref().map(|path| path.as_str().to_owned());
        Miss {
            key: "path",
            wanted: wanted.unwrap_or_default(),
            given: call.path.as_str().to_owned(),
            weight: Miss::FAR,
        }
    }
}

/// Of the same kind; MCP servers also of the same sort: what functions are called by says nothing about Genie.
fn is_akin((kind, id): (&str, &str), (other_kind, other): (&str, &str)) -> bool {
    let sort = |id: &str| id.split('/').next().map(str::to_owned);
    kind == other_kind && (kind != MCP || sort(id) == sort(other))
}
