//! Where a call goes: to the workspace, or to an upstream under `/@NAME/` (`outbound.upstreams`).
//!
//! Read from the path and the configuration alone, never from a header. What follows the name is the path of the call: decided
//! on and forwarded as it stands. Knows no policy. Read `policy.rs` next, whose grants carry a destination.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;

use super::ask::{AskFault, FollowUpView, Request, Resource, Touch, touch};
use super::catalog::{APP, Catalog, Operation};
use super::identity::Origin;
use super::mcp;
use super::path::{CanonicalPath, PathFault};

/// The longest name of an upstream, in characters: what a label of a host name may have.
pub const UPSTREAM_NAME_CHARS_MAX: usize = 63;
/// What the paths of upstreams begin with, and no path of the workspace does.
pub const UPSTREAM_MARK: &str = "/@";

/// A further host: an MCP server or an agent that is an app of its own.
#[derive(Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Reached under `/@NAME/`.
    pub name: Arc<str>,
    /// The Databricks App behind it, by which the policy knows it.
    pub app: Arc<str>,
    /// Where it is.
    pub origin: Origin,
}

impl Upstream {
    /// What its paths begin with on the outbound listener.
    pub fn prefix(&self) -> String {
        format!("{UPSTREAM_MARK}{}", self.name)
    }

    /// What every call to it touches, whatever the call.
    pub fn resource(&self) -> Resource<'_> {
        Resource {
            kind: APP,
            id: Cow::Borrowed(&self.app),
        }
    }
}

/// Where a call goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// The workspace: what the catalogue, follow-up ids and raw routes speak of.
    Workspace,
    /// Another app.
    Upstream(Arc<Upstream>),
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DestinationFault {
    /// It has two readings.
    #[error(transparent)]
    Path(#[from] PathFault),
    /// Nothing follows the name, not even a slash.
    #[error("the path ends with the name of the upstream; write /@NAME/ and the path there")]
    NoPath,
    /// Nobody has this name.
    #[error("no upstream has this name; {0}")]
    NoSuchUpstream(Box<str>),
}

/// The configured upstreams.
#[derive(Debug, Clone, Default)]
pub struct Upstreams(Vec<Arc<Upstream>>);

impl Upstreams {
    /// These, whose names differ.
    pub fn new(all: Vec<Arc<Upstream>>) -> Self {
        Self(all)
    }

    /// All, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.0.iter()
    }

    /// Where the path of a request target leads, and the path there.
    ///
    /// # Errors
    /// [`DestinationFault`]; a path with two readings is refused before anybody asks where it leads.
    pub fn read(&self, raw: &str) -> Result<(Destination, CanonicalPath), DestinationFault> {
        let path = CanonicalPath::parse(raw)?;
        let Some(rest) = raw.strip_prefix(UPSTREAM_MARK) else {
            // An escaped `@` would be an upstream to one reader and a path of the workspace to another.
            return match path.segment(0) {
                Some(first) if first.starts_with('@') => Err(PathFault::Escape.into()),
                Some(_) | None => Ok((Destination::Workspace, path)),
            };
        };
        let end = rest.find('/').unwrap_or(rest.len());
        let (name, there) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let Some(upstream) = self.0.iter().find(|u| *u.name == *name) else {
            return Err(DestinationFault::NoSuchUpstream(self.names().into()));
        };
        if there.is_empty() {
            return Err(DestinationFault::NoPath);
        }
        let path = CanonicalPath::parse(there)?;
        Ok((Destination::Upstream(Arc::clone(upstream)), path))
    }

    fn names(&self) -> String {
        if self.0.is_empty() {
            return "none is configured (outbound.upstreams)".to_owned();
        }
        let names: Vec<&str> = self.0.iter().map(|u| &*u.name).collect();
        format!("configured: {}", names.join(", "))
    }
}

impl Destination {
    /// The catalogue's operation; only the workspace has any.
    pub fn operation<'c>(
        &self,
        catalog: &'c Catalog,
        method: &Method,
        path: &CanonicalPath,
    ) -> Option<(usize, &'c Arc<Operation>)> {
        match self {
            Self::Workspace => catalog.find(method, path),
            Self::Upstream(_) => None,
        }
    }

    /// What a call there touches: in the workspace that is for the catalogue to say; an upstream is its app, once for each
    /// message of MCP where the body was read.
    ///
    /// # Errors
    /// [`AskFault`] when a place that decides is missing or can be read in two ways.
    pub fn touches<'a>(
        &'a self,
        operation: Option<&'a Operation>,
        request: &Request<'a>,
        follow_up: &'a FollowUpView,
    ) -> Result<Vec<Touch<'a>>, AskFault> {
        let upstream = match (self, operation) {
            (Self::Workspace, None) => return Ok(Vec::new()),
            (Self::Workspace, Some(operation)) => {
                return touch::touches(operation, request, follow_up);
            }
            (Self::Upstream(upstream), _) => upstream,
        };
        let app = Touch {
            resource: Some(upstream.resource()),
            ..Touch::NOTHING
        };
        if request.body.is_none() {
            return Ok(vec![app]);
        }
        let messages = mcp::messages(request.body, request.headers)?;
        let touches = messages.into_iter().map(|message| Touch {
            message: Some(message),
            ..app.clone()
        });
        Ok(touches.collect())
    }

    /// A path there, as the agent writes it.
    pub fn as_asked(&self, path: &CanonicalPath) -> String {
        match self {
            Self::Workspace => path.as_str().to_owned(),
            Self::Upstream(upstream) => format!("{}{}", upstream.prefix(), path.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstreams(names: &[&str]) -> Upstreams {
        let one = |name: &&str| {
            Arc::new(Upstream {
                name: (*name).into(),
                app: format!("mcp-{name}").into(),
                origin: Origin::parse(&format!("https://{name}.example")).unwrap(),
            })
        };
        Upstreams::new(names.iter().map(one).collect())
    }

    fn read(raw: &str) -> Result<String, DestinationFault> {
        let (destination, path) = upstreams(&["tools", "tools-2"]).read(raw)?;
        let place = match &destination {
            Destination::Workspace => "workspace",
            Destination::Upstream(upstream) => &*upstream.app,
        };
        assert_eq!(destination.as_asked(&path), raw);
        Ok(format!("{place} {}", path.as_str()))
    }

    #[test]
    fn what_follows_the_name_is_the_path_there() {
        for (raw, expected) in [
            ("/@tools/mcp", "mcp-tools /mcp"),
            ("/@tools/", "mcp-tools /"),
            ("/@tools/mcp/", "mcp-tools /mcp/"),
            ("/@tools-2/a%20b/@tools/c", "mcp-tools-2 /a%20b/@tools/c"),
            ("/api/2.0/@tools/mcp", "workspace /api/2.0/@tools/mcp"),
            ("/tools/mcp", "workspace /tools/mcp"),
            ("/", "workspace /"),
        ] {
            assert_eq!(read(raw).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn a_path_with_two_readings_leads_nowhere() {
        for raw in [
            "/@tools/../x",
            "/@tools/%2e%2e/x",
            "/@tools//mcp",
            "//@tools/mcp",
            "/@tools/mcp;x",
            "/@tools\\mcp",
            "/./@tools/mcp",
            "/%40tools/mcp",
        ] {
            assert!(matches!(read(raw), Err(DestinationFault::Path(_))), "{raw}");
        }
        assert_eq!(read("/@tools"), Err(DestinationFault::NoPath));
    }

    #[test]
    fn only_the_very_name_is_the_name() {
        for raw in [
            "/@TOOLS/mcp",
            "/@tool/mcp",
            "/@tools%2Fx",
            "/@tools:443/x",
            "/@",
            "/@/x",
        ] {
            let fault = read(raw).unwrap_err();
            assert_eq!(
                fault.to_string(),
                "no upstream has this name; configured: tools, tools-2",
                "{raw}"
            );
        }
        let none = upstreams(&[]).read("/@tools/mcp").unwrap_err();
        assert!(none.to_string().contains("none is configured"), "{none}");
    }
}
