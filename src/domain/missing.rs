//! Which plane a refused call lacks: declared by the app, granted to it, consented by the user, or a right on the object.
//!
//! A scope passes through three planes before a token carries it (facts 2.3), and the platform's refusal is the same text for
//! all of them; what the sidecar knows of the token, the configuration and other users' tokens tells them apart. Pure, and
//! only as good as what is known: where nothing is, nothing is said. `platform_refusal.rs` reads the text.

use std::fmt::Write as _;

use http::HeaderValue;

use super::platform_refusal::{Required, Said};
use super::scope::{Scope, ScopeSet};

/// What is missing: a closed list (README), for header, audit record and metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Plane {
    /// The app does not declare the scope for its users.
    Declared,
    /// The app declares it, as far as is known, and its tokens do not carry it or carry it in vain.
    Granted,
    /// Tokens of other users carry it: this user consented before it was declared.
    Consented,
    /// The scope is there; whoever called has no right on the object.
    ObjectGrant,
}

impl Plane {
    /// Every plane.
    pub const ALL: [Self; 4] = [
        Self::Declared,
        Self::Granted,
        Self::Consented,
        Self::ObjectGrant,
    ];

    /// The word in header and metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "declared",
            Self::Granted => "granted",
            Self::Consented => "consented",
            Self::ObjectGrant => "object_grant",
        }
    }

    /// The `reason` in audit records.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Declared => "missing_declared",
            Self::Granted => "missing_granted",
            Self::Consented => "missing_consented",
            Self::ObjectGrant => "missing_object_grant",
        }
    }
}

/// What to do about it: fixed texts, so that nothing of the platform's answer is ever repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// Declare the scope.
    Declare,
    /// Look at the allow-list, stop and start the app.
    AllowAndRestart,
    /// Let this user consent again.
    ConsentAgain,
    /// Unity Catalog's own scope cannot be requested; four narrower ones can.
    UseCatalogScopes,
    /// The scope cannot be requested at all.
    RunAsApp,
    /// The user's token holds what is asked for by our reading, and not by the API's.
    NameWidened,
    /// The exchanged token was asked for something narrower.
    WidenExchange,
    /// The app's token was asked for something narrower.
    WidenApp,
    /// The app's token holds all APIs, or what is asked for, in vain.
    NameForApp,
    /// Give the user a right.
    GrantUser,
    /// Give the app a right.
    GrantApp,
}

impl Remedy {
    /// Every remedy.
    pub const ALL: [Self; 11] = [
        Self::Declare,
        Self::AllowAndRestart,
        Self::ConsentAgain,
        Self::UseCatalogScopes,
        Self::RunAsApp,
        Self::NameWidened,
        Self::WidenExchange,
        Self::WidenApp,
        Self::NameForApp,
        Self::GrantUser,
        Self::GrantApp,
    ];

    /// The text in the header: printable ASCII without quotes.
    pub fn text(self) -> &'static str {
        match self {
            Self::Declare => {
                "add the scope to the app's user_api_scopes and to users.scopes, stop and start the app, let its users consent again"
            }
            Self::AllowAndRestart => {
                "see that the workspace's allow-list of app scopes holds it, then stop and start the app and let the user consent again"
            }
            Self::ConsentAgain => {
                "other users' tokens carry it: this user withdraws the old consent to the app, opens it anew and consents again"
            }
            Self::UseCatalogScopes => {
                "no app can request unity-catalog for its users: declare catalog.catalogs:read, catalog.schemas:read, catalog.tables:read or catalog.connections, or route the call as: app"
            }
            Self::RunAsApp => "no app can request this scope for its users: route the call as: app",
            Self::NameWidened => {
                "the user's token holds this scope and the API does not accept it: declare the scope that the API's reference page names, or route the call as: app"
            }
            Self::WidenExchange => {
                "the token was exchanged for a narrower scope than the user holds: set scope: on the route"
            }
            Self::WidenApp => {
                "the app's token was asked for a narrower scope: set scope: on the route, or app.scopes: all-apis"
            }
            Self::NameForApp => {
                "the app's token holds this scope by name or by all-apis, and the API does not accept it: set scope: on the route to what its reference page names, with app.scopes: per-route"
            }
            Self::GrantUser => "the scope is there: grant this user the permission on the object",
            Self::GrantApp => {
                "the scope is there: grant the app's service principal the permission on the object, by declaring it as a resource in the bundle"
            }
        }
    }
}

/// As whom the call ran, and what is known of the scopes on that side.
#[derive(Debug, Clone, Copy)]
pub enum Ran<'a> {
    /// As the app.
    App {
        /// What the app's token is good for.
        held: &'a ScopeSet,
    },
    /// As the user.
    User {
        /// What the token that was attached is good for.
        held: &'a ScopeSet,
        /// What the user's own token is good for; the same unless it was exchanged.
        token: &'a ScopeSet,
        /// What the app declares for its users, where the configuration says so.
        declared: Option<&'a ScopeSet>,
        /// Every scope that a verified token of this client carried.
        of_client: &'a ScopeSet,
    },
}

/// What is missing, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// On which plane.
    pub plane: Plane,
    /// The scope, unless it is a right on an object.
    pub scope: Option<Scope>,
    /// As the platform spelled it, for the log.
    pub said: Option<Required>,
    /// What to do.
    pub remedy: Remedy,
}

impl Missing {
    /// What a refusal means for a call that ran so; `asked` is the scope that the call was thought to need, for texts that
    /// name none. `None` where nothing is known.
    pub fn find(said: &Said, ran: Ran<'_>, asked: Option<&Scope>) -> Option<Self> {
        match said {
            Said::Scopes(required) => {
                let (Ran::App { held } | Ran::User { held, .. }) = ran;
                let said = required
                    .iter()
                    .find(|required| !held.covers(&required.scope))
                    .or_else(|| required.first());
                let scope = said.map(|required| &required.scope).or(asked)?;
                let (plane, remedy) = of_scope(scope, ran);
                Some(Self {
                    plane,
                    scope: Some(scope.clone()),
                    said: said.cloned(),
                    remedy,
                })
            }
            Said::Object => Some(Self {
                plane: Plane::ObjectGrant,
                scope: None,
                said: None,
                remedy: match ran {
                    Ran::App { .. } => Remedy::GrantApp,
                    Ran::User { .. } => Remedy::GrantUser,
                },
            }),
            Said::Token | Said::Address | Said::Nothing => None,
        }
    }

    /// The value of [`MISSING`](super::headers::MISSING); `None` never, as the tests show.
    pub fn header(&self) -> Option<HeaderValue> {
        let mut text = self.plane.as_str().to_owned();
        if let Some(scope) = &self.scope {
            // The alphabet of scopes has neither quote nor backslash. Writing into a `String` does not fail.
            let _ = write!(text, "; scope=\"{scope}\"");
        }
        let _ = write!(text, "; remedy=\"{}\"", self.remedy.text());
        HeaderValue::try_from(text).ok()
    }
}

/// The tests are in the order in which they are certain: a name that no app can get is no matter of declaring it, and a scope
/// that the token carries was declared, whatever the configuration says.
fn of_scope(scope: &Scope, ran: Ran<'_>) -> (Plane, Remedy) {
    match ran {
        Ran::App { held } if held.covers(scope) => (Plane::Granted, Remedy::NameForApp),
        Ran::App { .. } => (Plane::Granted, Remedy::WidenApp),
        Ran::User {
            held,
            token,
            declared,
            of_client,
        } => {
            if let Some(remedy) = not_for_users(scope) {
                (Plane::Granted, remedy)
            } else if held.covers(scope) {
                (Plane::Granted, Remedy::NameWidened)
            } else if token.covers(scope) {
                (Plane::Granted, Remedy::WidenExchange)
            } else if declared.is_some_and(|d| !d.covers(scope)) && !is_default(scope) {
                (Plane::Declared, Remedy::Declare)
            } else if of_client.covers(scope) {
                (Plane::Consented, Remedy::ConsentAgain)
            } else {
                (Plane::Granted, Remedy::AllowAndRestart)
            }
        }
    }
}

/// What to do instead of requesting a scope that the platform lets no app request (facts 4.2).
fn not_for_users(scope: &Scope) -> Option<Remedy> {
    let family = scope.as_str().split(['.', ':']).next().unwrap_or_default();
    match family {
        "unity-catalog" => Some(Remedy::UseCatalogScopes),
        "all-apis" | "authentication" | "clusters" | "jobs" | "mlflow" | "pipelines"
        | "secrets" => Some(Remedy::RunAsApp),
        _ => None,
    }
}

/// The two that every app has without declaring them.
fn is_default(scope: &Scope) -> bool {
    ["iam.access-control:read", "iam.current-user:read"].contains(&scope.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> ScopeSet {
        ScopeSet::parse(text.split_whitespace())
    }

    fn scopes(names: &[&str]) -> Said {
        let required = names.iter().map(|name| Required {
            scope: Scope::parse(name).unwrap(),
            said: (*name).into(),
        });
        Said::Scopes(required.collect())
    }

    /// What a user with this token misses, and what is said of it.
    fn user(
        said: &Said,
        token: &str,
        declared: Option<&str>,
        of_client: &str,
    ) -> Option<(Plane, Remedy, Option<String>)> {
        let (token, declared, of_client) = (set(token), declared.map(set), set(of_client));
        let ran = Ran::User {
            held: &token,
            token: &token,
            declared: declared.as_ref(),
            of_client: &of_client,
        };
        let missing = Missing::find(said, ran, Some(&Scope::parse("sql").unwrap()))?;
        let scope = missing.scope.map(|scope| scope.to_string());
        Some((missing.plane, missing.remedy, scope))
    }

    fn expected(
        plane: Plane,
        remedy: Remedy,
        scope: &str,
    ) -> Option<(Plane, Remedy, Option<String>)> {
        Some((plane, remedy, Some(scope.to_owned())))
    }

    #[test]
    fn a_users_scope_is_missing_on_the_first_plane_that_is_known_to_lack_it() {
        let genie = scopes(&["genie"]);
        let declare = expected(Plane::Declared, Remedy::Declare, "genie");
        assert_eq!(user(&genie, "sql", Some("sql"), "sql"), declare);
        assert_eq!(
            user(&genie, "sql", Some("sql"), "sql genie"),
            declare,
            "what the configuration says goes before what tokens of old carried"
        );
        let consent = expected(Plane::Consented, Remedy::ConsentAgain, "genie");
        assert_eq!(user(&genie, "sql", Some("sql genie"), "genie"), consent);
        assert_eq!(user(&genie, "sql", None, "sql genie"), consent);
        let grant = expected(Plane::Granted, Remedy::AllowAndRestart, "genie");
        assert_eq!(user(&genie, "sql", Some("dashboards.genie"), "sql"), grant);
        assert_eq!(user(&genie, "sql", None, "sql"), grant);
        assert_eq!(user(&scopes(&["dashboards.genie"]), "sql", None, ""), grant);
    }

    #[test]
    fn a_scope_that_the_token_holds_is_refused_for_its_name() {
        let held = expected(Plane::Granted, Remedy::NameWidened, "sql");
        assert_eq!(user(&scopes(&["sql"]), "sql", Some("genie"), "sql"), held);
        assert_eq!(
            user(&scopes(&["sql", "genie"]), "sql", Some("sql"), "sql"),
            expected(Plane::Declared, Remedy::Declare, "genie"),
            "of several, the one that is not held"
        );
    }

    #[test]
    fn a_scope_that_no_app_can_request_is_nobodys_to_declare() {
        for declared in [None, Some("sql"), Some("catalog.tables:read")] {
            assert_eq!(
                user(&scopes(&["unity-catalog"]), "sql", declared, "sql"),
                expected(Plane::Granted, Remedy::UseCatalogScopes, "unity-catalog")
            );
            for name in ["mlflow", "jobs", "all-apis", "authentication", "secrets"] {
                assert_eq!(
                    user(&scopes(&[name]), "sql", declared, "sql"),
                    expected(Plane::Granted, Remedy::RunAsApp, name)
                );
            }
        }
    }

    #[test]
    fn the_scopes_that_every_app_has_need_no_declaring() {
        let said = scopes(&["iam.current-user:read"]);
        let scope = "iam.current-user:read";
        assert_eq!(
            user(&said, "sql", Some("sql"), "sql"),
            expected(Plane::Granted, Remedy::AllowAndRestart, scope)
        );
        assert_eq!(
            user(&said, "sql", Some("sql"), scope),
            expected(Plane::Consented, Remedy::ConsentAgain, scope)
        );
    }

    #[test]
    fn a_text_that_names_no_scope_means_the_one_that_the_call_needs() {
        assert_eq!(
            user(&scopes(&[]), "genie", Some("genie"), "genie"),
            expected(Plane::Declared, Remedy::Declare, "sql")
        );
        let none = Missing::find(&scopes(&[]), Ran::App { held: &set("") }, None);
        assert_eq!(none, None);
    }

    #[test]
    fn an_exchanged_token_can_be_narrower_than_the_users() {
        let (held, token) = (set("sql"), set("sql genie"));
        let ran = Ran::User {
            held: &held,
            token: &token,
            declared: None,
            of_client: &token,
        };
        let missing = Missing::find(&scopes(&["genie"]), ran, None).unwrap();
        assert_eq!(
            (missing.plane, missing.remedy),
            (Plane::Granted, Remedy::WidenExchange)
        );
    }

    #[test]
    fn the_app_misses_a_wider_token_or_a_grant() {
        let app = |said: &Said, held: &str| {
            let missing = Missing::find(said, Ran::App { held: &set(held) }, None)?;
            Some((missing.plane, missing.remedy))
        };
        let sql = scopes(&["sql"]);
        assert_eq!(app(&sql, "files"), Some((Plane::Granted, Remedy::WidenApp)));
        for held in ["sql", "all-apis"] {
            assert_eq!(app(&sql, held), Some((Plane::Granted, Remedy::NameForApp)));
        }
        let grant = Some((Plane::ObjectGrant, Remedy::GrantApp));
        assert_eq!(app(&Said::Object, "sql"), grant);
        let of_user = user(&Said::Object, "sql", Some("genie"), "");
        assert_eq!(of_user, Some((Plane::ObjectGrant, Remedy::GrantUser, None)));
    }

    #[test]
    fn what_is_no_plane_is_not_spoken_of() {
        for said in [Said::Token, Said::Address, Said::Nothing] {
            assert_eq!(user(&said, "sql", Some("genie"), ""), None);
        }
    }

    #[test]
    fn every_header_is_one_quoted_ascii_line() {
        for plane in Plane::ALL {
            assert_eq!(plane.reason(), format!("missing_{}", plane.as_str()));
            for remedy in Remedy::ALL {
                let text = remedy.text();
                let plain = |b: u8| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\';
                assert!(text.bytes().all(plain) && text.len() < 200, "{text}");
                let missing = Missing {
                    plane,
                    scope: Scope::parse("files.files"),
                    said: None,
                    remedy,
                };
                let header = missing.header().unwrap();
                let expected = format!("{}; scope=\"files\"; remedy=\"{text}\"", plane.as_str());
                assert_eq!(header.to_str().unwrap(), expected);
            }
        }
    }
}
