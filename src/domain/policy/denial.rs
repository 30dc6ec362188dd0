//! Why a call is refused: the closed list of reasons.
//!
//! Words only; `policy.rs` decides.

use std::sync::Arc;

use super::Route;
use crate::domain::scope::Scope;

/// Why a call is refused. Closed and documented (README): labels, audit records and headers carry these names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DenyReason {
    /// No route matches.
    NoRoute,
    /// The first matching route says `deny`.
    RouteDenies,
    /// The route runs as the user, and the caller presented the app's token.
    UserRequired,
    /// The session does not hold the scope.
    ScopeMissing,
    /// A user call on a path that the catalogue does not know, by a route without `scope`.
    ScopeUnknown,
    /// The call touches several resources that routes give to different identities.
    ResourcesDisagree,
    /// The call names a partition that is not the verified user's.
    PartitionForeign,
    /// The statement or conversation was created by somebody else.
    FollowUpForeign,
    /// The statement or conversation is not known here, and the call would run as the app.
    FollowUpUnknown,
    /// The call hands out storage URLs that bypass the sidecar.
    Presigned,
    /// The path holds escapes that no template admits.
    PathEscape,
}

impl DenyReason {
    /// Every reason, for documentation and tests.
    pub const ALL: [Self; 11] = [
        Self::NoRoute,
        Self::RouteDenies,
        Self::UserRequired,
        Self::ScopeMissing,
        Self::ScopeUnknown,
        Self::ResourcesDisagree,
        Self::PartitionForeign,
        Self::FollowUpForeign,
        Self::FollowUpUnknown,
        Self::Presigned,
        Self::PathEscape,
    ];

    /// The stable name.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::RouteDenies => "route_denies",
            Self::UserRequired => "user_required",
            Self::ScopeMissing => "scope_missing",
            Self::ScopeUnknown => "scope_unknown",
            Self::ResourcesDisagree => "resources_disagree",
            Self::PartitionForeign => "partition_foreign",
            Self::FollowUpForeign => "follow_up_foreign",
            Self::FollowUpUnknown => "follow_up_unknown",
            Self::Presigned => "presigned_refused",
            Self::PathEscape => "path_escape",
        }
    }

    /// Whether an observed policy lets the call through all the same: what the routes and scopes say is observed; what keeps
    /// users apart, or keeps a call to one reading, holds always.
    pub fn is_observable(self) -> bool {
        match self {
            Self::NoRoute
            | Self::RouteDenies
            | Self::UserRequired
            | Self::ScopeMissing
            | Self::ScopeUnknown
            | Self::ResourcesDisagree => true,
            Self::PartitionForeign
            | Self::FollowUpForeign
            | Self::FollowUpUnknown
            | Self::Presigned
            | Self::PathEscape => false,
        }
    }
}

/// A refusal, with what a developer needs to mend it.
#[derive(Debug, Clone)]
pub struct Denial {
    /// Why.
    pub reason: DenyReason,
    /// The route that decided, if one matched.
    pub route: Option<Arc<Route>>,
    /// The scope that was missing.
    pub scope: Option<Scope>,
}
