//! The things that a request touches, each with both its names, and the ids that bind it to an earlier call.
//!
//! Goes by the operation's rules only; what is missing or can be read in two ways is refused. Knows no routes.

use std::borrow::Cow;

use serde_json::Value;

use super::value::{self, Need, name_of};
use super::{
    AskFault, Bound, FollowUpView, RESOURCE_ID_BYTES_MAX, Request, Resource, TOUCHES_MAX, Touch,
};
use crate::domain::catalog::shape::{Names, Shape};
use crate::domain::catalog::{
    Also, Composed, Mcp, Operation, ResourceFrom, ResourceRule, Variants,
};
use crate::domain::mcp::{self, Message};
use crate::domain::template::PathTemplate;

/// What a request touches: for MCP one touch for each message, otherwise one for each thing.
///
/// # Errors
/// [`AskFault`] when a place that decides is missing or can be read in two ways.
pub fn touches<'a>(
    operation: &'a Operation,
    request: &Request<'a>,
    follow_up: &'a FollowUpView,
) -> Result<Vec<Touch<'a>>, AskFault> {
    if let Some(variants) = &operation.variants {
        check_variants(variants, request)?;
    }
    let mut found = Vec::new();
    for rule in &operation.resources {
        let finder = Finder {
            rule,
            template: &operation.path,
            request,
        };
        finder.find(follow_up, &mut found)?;
    }
    if let Some(mcp) = &operation.mcp {
        found = spoken(mcp, &operation.path, request, &found)?;
    }
    if found.len() > TOUCHES_MAX {
        return Err(AskFault::TooMany);
    }
    Ok(found)
}

/// The kind and the follow-up id that a request names.
///
/// # Errors
/// [`AskFault`] when it is missing or stands twice.
pub fn follow_up_id<'a>(
    operation: &'a Operation,
    request: &Request<'a>,
) -> Result<Option<(&'a str, Cow<'a, str>)>, AskFault> {
    let Some(follow_up) = &operation.follow_up else {
        return Ok(None);
    };
    let id = value::at(&follow_up.place, &operation.path, request)?;
    if let Some(same) = &follow_up.same {
        let other = value::at(same, &operation.path, request)?;
        if other.is_some() && other != id {
            return Err(AskFault::MemberAlias(
                name_of(same).into(),
                name_of(&follow_up.place).into(),
            ));
        }
    }
    match id {
        Some(id) => Ok(Some((&follow_up.kind, id))),
        None if follow_up.optional => Ok(None),
        None => Err(AskFault::Once(name_of(&follow_up.place).into())),
    }
}

/// The partition that a request names, where its operation has one.
///
/// # Errors
/// [`AskFault`] when it is missing or stands twice.
pub fn partition<'a>(
    operation: &'a Operation,
    request: &Request<'a>,
) -> Result<Option<Cow<'a, str>>, AskFault> {
    let Some(place) = &operation.partition else {
        return Ok(None);
    };
    let named = value::at(place, &operation.path, request)?;
    let missing = || AskFault::Once(name_of(place).into());
    named
        .filter(|id| !id.is_empty())
        .ok_or_else(missing)
        .map(Some)
}

struct Finder<'a, 'r> {
    rule: &'a ResourceRule,
    template: &'a PathTemplate,
    request: &'r Request<'a>,
}

impl<'a> Finder<'a, '_> {
    fn find(
        &self,
        follow_up: &'a FollowUpView,
        found: &mut Vec<Touch<'a>>,
    ) -> Result<(), AskFault> {
        match &self.rule.from {
            ResourceFrom::Path(shape) => {
                let id = shape.compose(|name| self.template.bind(name, self.request.path));
                found.push(self.touch(id.ok_or_else(|| self.no_id())?)?);
            }
            ResourceFrom::Body(member) => {
                let ids = value::members(self.request.body, member, self.need())?;
                if ids.is_empty() && !self.rule.optional {
                    return Err(value::missing(member));
                }
                for id in ids {
                    found.push(self.touch(id)?);
                }
            }
            ResourceFrom::Members(composed) => self.composed(composed, found)?,
            ResourceFrom::Query(names) => found.extend(self.queried(names)?),
            ResourceFrom::Header(name) => {
                if let Some(id) = value::header(self.request.headers, name)? {
                    found.push(self.touch(Cow::Borrowed(id))?);
                } else if !self.rule.optional {
                    return Err(AskFault::Once(format!("header `{name}`").into()));
                }
            }
            // Where it is not known only routes that name the operation, not the resource, can match.
            ResourceFrom::FollowUp => {
                if let FollowUpView::Bound(Bound {
                    resource: Some(resource),
                    ..
                }) = follow_up
                {
                    found.push(Touch {
                        resource: Some(Resource {
                            kind: &resource.kind,
                            id: Cow::Borrowed(&resource.id),
                        }),
                        ..Touch::NOTHING
                    });
                }
            }
        }
        Ok(())
    }

    fn need(&self) -> Need {
        if self.rule.optional {
            Need::Optional
        } else {
            Need::Required
        }
    }

    /// One thing for the body, or for each element of the array, whose members name it together.
    fn composed(&self, all: &'a Composed, found: &mut Vec<Touch<'a>>) -> Result<(), AskFault> {
        let missing = || AskFault::MemberMissing(all.text.clone());
        let before = found.len();
        let holders = match &all.array {
            Some(array) => value::elements(self.request.body, array, self.need())?,
            None => self.request.body.into_iter().collect(),
        };
        for holder in holders {
            let mut values = Vec::with_capacity(all.parts.len());
            for (name, member) in &all.parts {
                let mut given = value::members(Some(holder), member, Need::Optional)?;
                values.extend(given.pop().map(|value| (&**name, value)));
            }
            if values.is_empty() && self.rule.optional {
                continue;
            }
            if values.len() != all.parts.len() {
                return Err(missing());
            }
            let value_of = |wanted: &str| {
                let found = values.iter().find(|(name, _)| *name == wanted);
                found.map(|(_, value)| value.clone())
            };
            let id = { self.rule.id.as_ref() }.and_then(|format| format.compose(value_of));
            found.push(self.touch_of(id.ok_or_else(|| self.no_id())?, value_of)?);
        }
        if found.len() == before && !self.rule.optional {
            return Err(missing());
        }
        Ok(())
    }

    fn queried(&self, names: &'a [Box<str>]) -> Result<Option<Touch<'a>>, AskFault> {
        let mut values = Vec::with_capacity(names.len());
        for name in names {
            match value::query(self.request.query, name)? {
                Some(value) => values.push((&**name, value)),
                None if self.rule.optional => return Ok(None),
                None => return Err(AskFault::Once(format!("query parameter `{name}`").into())),
            }
        }
        if let [_] = names {
            let only = values.pop().map(|(_, value)| Cow::Owned(value));
            return only.map(|id| self.touch(id)).transpose();
        }
        let value_of = |wanted: &str| {
            let found = values.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| Cow::Owned(value.clone()))
        };
        let id = { self.rule.id.as_ref() }.and_then(|format| format.compose(value_of));
        self.touch_of(id.ok_or_else(|| self.no_id())?, value_of)
            .map(Some)
    }

    /// A touch of the thing that this value names.
    fn touch(&self, value: Cow<'a, str>) -> Result<Touch<'a>, AskFault> {
        let Some(like) = &self.rule.like else {
            return self.touch_of(value, |name| self.template.bind(name, self.request.path));
        };
        let text = value.clone();
        let names = like.read(&text).ok_or_else(|| self.no_id())?;
        let value_of = |name: &str| piece(&names, name);
        let id = match &self.rule.id {
            Some(format) => format.compose(value_of).ok_or_else(|| self.no_id())?,
            None => value,
        };
        self.touch_of(id, value_of)
    }

    fn touch_of<'v>(
        &self,
        id: Cow<'a, str>,
        value_of: impl Fn(&str) -> Option<Cow<'v, str>>,
    ) -> Result<Touch<'a>, AskFault> {
        if self.rule.number && !is_canonical_number(&id) {
            return Err(self.no_id());
        }
        let also = self
            .rule
            .also
            .as_ref()
            .map(|also| self.second(also, value_of));
        Ok(Touch {
            resource: Some(self.checked(&self.rule.kind, id, self.rule.folds)?),
            also: also.transpose()?,
            scope: self.rule.scope.as_ref(),
            message: None,
        })
    }

    fn second<'v>(
        &self,
        also: &'a Also,
        value_of: impl Fn(&str) -> Option<Cow<'v, str>>,
    ) -> Result<Resource<'a>, AskFault> {
        let id = also.id.compose(value_of).ok_or_else(|| self.no_id())?;
        self.checked(&also.kind, Cow::Owned(id.into_owned()), also.folds)
    }

    fn checked(
        &self,
        kind: &'a str,
        id: Cow<'a, str>,
        folds: bool,
    ) -> Result<Resource<'a>, AskFault> {
        let whole = !id.is_empty() && id.len() <= RESOURCE_ID_BYTES_MAX;
        if !whole || id.chars().any(char::is_control) {
            return Err(self.no_id());
        }
        Ok(Resource {
            kind,
            id: folded(id, folds),
        })
    }

    fn no_id(&self) -> AskFault {
        AskFault::Id(self.rule.kind.as_ref().into())
    }
}

fn piece(names: &Names<'_, '_>, wanted: &str) -> Option<Cow<'static, str>> {
    let found = names.iter().find(|(name, _)| *name == wanted);
    found.map(|(_, piece)| Cow::Owned((*piece).to_owned()))
}

/// Unity Catalog compares its names without regard to case, so `MAIN.x` must not slip past a rule for `main.x`.
pub fn folded(id: Cow<'_, str>, folds: bool) -> Cow<'_, str> {
    if folds && id.chars().any(char::is_uppercase) {
        Cow::Owned(id.to_lowercase())
    } else {
        id
    }
}

/// `7` and no `07`, `+7` or `7 `, which servers read as the same number.
fn is_canonical_number(id: &str) -> bool {
    let digits = !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
    digits && (id == "0" || !id.starts_with('0'))
}

/// For each message a touch of the server; a tool of a schema's server is also the thing that it stands for.
fn spoken<'a>(
    mcp: &'a Mcp,
    template: &PathTemplate,
    request: &Request<'a>,
    servers: &[Touch<'a>],
) -> Result<Vec<Touch<'a>>, AskFault> {
    let mut found: Vec<Touch<'a>> = Vec::new();
    for message in mcp::messages(request.body, request.headers)? {
        for server in servers {
            let beneath = thing_beneath(mcp, template, request, message)?;
            let touch = Touch {
                also: beneath.or_else(|| server.also.clone()),
                message: Some(message),
                ..server.clone()
            };
            if !found.contains(&touch) {
                found.push(touch);
            }
        }
    }
    Ok(found)
}

/// `catalog__schema__name` on the server of `catalog.schema` is `catalog.schema.name`.
fn thing_beneath<'a>(
    mcp: &'a Mcp,
    template: &PathTemplate,
    request: &Request<'a>,
    message: Message<'a>,
) -> Result<Option<Resource<'a>>, AskFault> {
    let (Some(kind), Some(tool)) = (&mcp.tools, message.tool) else {
        return Ok(None);
    };
    let no_id = || AskFault::Id(kind.as_ref().into());
    let schema = Shape::parse("{catalog}.{schema}").map_err(|_| no_id())?;
    let schema = schema.compose(|name| template.bind(name, request.path));
    let schema = schema.ok_or_else(no_id)?;
    let prefix = format!("{}__", schema.replacen('.', "__", 1));
    let short = tool.strip_prefix(&*prefix);
    let plain =
        short.filter(|s| !s.is_empty() && !s.contains(|c: char| c == '.' || c.is_control()));
    Ok(plain.map(|short| Resource {
        kind,
        id: folded(Cow::Owned(format!("{schema}.{short}")), mcp.folds),
    }))
}

/// An element of unknown meaning could touch anything.
fn check_variants(variants: &Variants, request: &Request<'_>) -> Result<(), AskFault> {
    let fault = || {
        let hosted = variants.hosted.iter().map(|(tag, _)| tag);
        let known: Vec<&str> = { variants.plain.iter().chain(hosted) }
            .map(|word| &**word)
            .collect();
        AskFault::Variant(
            variants.array.as_str().into(),
            variants.tag.clone(),
            known.join(", ").into(),
        )
    };
    for element in value::elements(request.body, &variants.array, Need::Optional)? {
        let members = element.as_object().ok_or_else(fault)?;
        value::check_alias(members, &variants.tag)?;
        let tag = members.get(&*variants.tag).and_then(Value::as_str);
        let tag = tag.ok_or_else(fault)?;
        let holds = |member: &str| members.get(member).is_some_and(Value::is_object);
        let mut hosted = variants.hosted.iter();
        let hosted = hosted.any(|(word, member)| **word == *tag && holds(member));
        if !hosted && !variants.plain.iter().any(|word| **word == *tag) {
            return Err(fault());
        }
    }
    Ok(())
}
