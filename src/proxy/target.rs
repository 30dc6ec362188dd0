//! Where an answer came from, and what the addresses in it become so that the agent comes back to the sidecar.
//!
//! Addresses are those that the agent uses by its way (`way.rs`), never from the `Host` header. Knows no policy.
//! `outbound.rs` is the story it is part of; `tap.rs` changes what stands in bodies.

use std::sync::Arc;

use http::header::LOCATION;
use http::{HeaderValue, Response};

use crate::domain::ask::ResourceId;
use crate::domain::catalog::APP;
use crate::domain::destination::{Destination, Upstream};
use crate::domain::path::CanonicalPath;
use crate::runtime::http_client::Body;

use super::Proxy;
use super::way::Way;

/// Where the front door of an app sends whoever it does not let in: the workspace's login, or its own (facts 1.4).
const LOGINS: [&str; 2] = ["/oidc", "/.auth"];

/// What a call was made to.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The workspace, or an upstream.
    pub destination: &'a Destination,
    /// The path there.
    pub path: &'a CanonicalPath,
    /// How the call came.
    pub way: &'a Way,
}

impl Target<'_> {
    /// Whether an upstream sends the caller to a login, which no client of an API can follow. A redirect of the workspace is
    /// the client's to read, as ever.
    pub fn leads_to_login(&self, response: &Response<Body>) -> bool {
        let asks = matches!(self.destination, Destination::Upstream(_))
            && response.status().is_redirection();
        asks && location(response).is_some_and(|location| {
            let path = location.split_once("://").map_or_else(
                || {
                    location
                        .strip_prefix("//")
                        .map_or(location, after_authority)
                },
                |(_, rest)| after_authority(rest),
            );
            let path = path.split(['?', '#']).next().unwrap_or_default();
            LOGINS.iter().any(|login| {
                path.strip_prefix(login)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        })
    }

    /// A `Location` there points at the sidecar instead; redirects are passed, never followed.
    pub fn relocate(&self, proxy: &Proxy, response: &mut Response<Body>) {
        let here = location(response).and_then(|location| match self.destination {
            Destination::Workspace => {
                let rest = proxy.workspace_origin.inside(location)?;
                Some(format!("{}{rest}", self.here(proxy)))
            }
            Destination::Upstream(upstream) => {
                let rest = upstream.origin.inside(location).map(str::to_owned);
                let rest = rest.or_else(|| resolved(self.path.as_str(), location))?;
                Some(format!("{}{rest}", self.here(proxy)))
            }
        });
        if let Some(here) = here.and_then(|here| HeaderValue::try_from(here).ok()) {
            response.headers_mut().insert(LOCATION, here);
        }
    }

    /// What stands for an address in a JSON answer of the workspace; `None` where nothing can, and the address must go.
    pub fn stand_in(
        &self,
        proxy: &Proxy,
        touched: Option<&ResourceId>,
        url: &str,
    ) -> Option<String> {
        let touched = touched?;
        if *touched.kind == *APP {
            let all = || proxy.upstreams.iter();
            let there = all().find(|u| u.origin.inside(url).is_some());
            let named = || all().find(|u| u.app == touched.id);
            let to = |u: &Arc<Upstream>| Destination::Upstream(Arc::clone(u));
            return there
                .or_else(named)
                .map(|u| self.way.address(proxy, &to(u)));
        }
        if *touched.kind != *"vector_search_index" {
            return None;
        }
        // The other address of an index serves what its own path here does (clients 4).
        let own = self.path.as_str().trim_end_matches('/');
        Some(format!("{}{own}", self.here(proxy)))
    }

    /// Where the agent reaches what it called.
    fn here(&self, proxy: &Proxy) -> String {
        self.way.address(proxy, self.destination)
    }
}

fn location(response: &Response<Body>) -> Option<&str> {
    response.headers().get(LOCATION)?.to_str().ok()
}

fn after_authority(rest: &str) -> &str {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    rest.get(end..).unwrap_or_default()
}

/// A relative reference against the path that was asked for (RFC 3986 section 5.2): seen from the sidecar it would lead
/// elsewhere. `None` for what is not relative to this host.
fn resolved(base: &str, reference: &str) -> Option<String> {
    let end = reference.find(['?', '#']).unwrap_or(reference.len());
    let (path, rest) = reference.split_at_checked(end)?;
    let first = path.split('/').next().unwrap_or_default();
    if path.starts_with("//") || first.contains(':') {
        return None;
    }
    if path.is_empty() {
        return Some(format!("{base}{rest}"));
    }
    let folder = base.rfind('/').and_then(|slash| base.get(..slash));
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{}/{path}", folder.unwrap_or_default())
    };
    let mut segments: Vec<&str> = Vec::new();
    let ends_in_folder = whole.ends_with(['/']) || whole.ends_with("/.") || whole.ends_with("/..");
    for segment in whole.split('/').filter(|segment| !segment.is_empty()) {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let slash = if ends_in_folder && !segments.is_empty() {
        "/"
    } else {
        ""
    };
    Some(format!("/{}{slash}{rest}", segments.join("/")))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::domain::destination::Upstreams;
    use crate::domain::identity::Origin;
    use crate::runtime::http_client::empty;

    #[test]
    fn relative_references_are_read_against_the_path_that_was_asked_for() {
        for (reference, expected) in [
            ("/mcp/", Some("/mcp/")),
            ("/", Some("/")),
            ("/a?b=/../c#d", Some("/a?b=/../c#d")),
            ("mcp/", Some("/api/mcp/")),
            ("./x", Some("/api/x")),
            ("../x", Some("/x")),
            ("../../../../x", Some("/x")),
            ("..", Some("/")),
            ("?page=2", Some("/api/tools?page=2")),
            ("#part", Some("/api/tools#part")),
            ("", Some("/api/tools")),
            ("https://elsewhere.example/x", None),
            ("//elsewhere.example/x", None),
            ("mailto:x", None),
        ] {
            let actual = resolved("/api/tools", reference);
            assert_eq!(actual.as_deref(), expected, "{reference}");
        }
    }

    #[test]
    fn only_the_front_doors_login_is_one() {
        let upstream = Upstreams::new(vec![Arc::new(Upstream {
            name: "tools".into(),
            app: "tools".into(),
            origin: Origin::parse("https://tools.example").unwrap(),
        })]);
        let leads = |status: u16, path: &str, location: &str| {
            let (destination, path) = upstream.read(path).unwrap();
            let mut response = Response::new(empty());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            let value = HeaderValue::from_str(location).unwrap();
            response.headers_mut().insert(LOCATION, value);
            let target = Target {
                destination: &destination,
                path: &path,
                way: &Way::Direct { secure: false },
            };
            target.leads_to_login(&response)
        };
        for location in [
            "https://ws.example/oidc/oauth2/v2.0/authorize?client_id=x",
            "https://tools.example/.auth/login",
            "//tools.example/.auth",
            "/.auth/callback",
            "/oidc?x",
        ] {
            assert!(leads(302, "/@tools/mcp", location), "{location}");
            assert!(leads(307, "/@tools/mcp", location), "{location}");
            assert!(!leads(200, "/@tools/mcp", location), "{location}");
            assert!(!leads(302, "/api/2.0/x", location), "{location}");
        }
        for location in [
            "/mcp/",
            "/oidcx",
            "https://a.example/x?y=/oidc/",
            "oidc/x",
            "/x/.auth/y",
        ] {
            assert!(!leads(302, "/@tools/mcp", location), "{location}");
        }
    }
}
