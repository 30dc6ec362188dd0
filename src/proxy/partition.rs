//! Whose partition a call names, where its operation has one (memory stores).
//!
//! The platform lets the app's service principal see every partition, so the only thing that keeps users apart is that the
//! name is a verified user's (facts 6.8). Agents of the templates make these calls as the app and name the user by the number
//! that SCIM `Me` answers; that number is bound to the user when the answer goes by. Knows no routes.

use crate::domain::ask::{AskFault, Owner, Partition, Request, touch};
use crate::domain::catalog::{Creates, Operation};
use crate::runtime::session::{Caller, Session};

use super::Proxy;

/// The kind under which the number of a user is bound.
const USER_ID: &str = "user_id";

/// Whether what an answer gives out is the number of a user.
pub fn names_users(creates: &Creates) -> bool {
    *creates.kind == *USER_ID
}

/// Whose partition the request names: a user must name itself; the app must name a user whom it is serving now.
///
/// # Errors
/// [`AskFault`] when the name is missing or stands twice.
pub fn view(
    proxy: &Proxy,
    operation: &Operation,
    request: &Request<'_>,
    caller: &Caller,
) -> Result<Partition, AskFault> {
    let Some(named) = touch::partition(operation, request)? else {
        return Ok(Partition::None);
    };
    let bound = proxy.follow_ups.bound(USER_ID, &named);
    let is_named = |session: &Session| {
        let subject = session.subject();
        let token = session.token();
        let numbered = |owner: &Owner| matches!(owner, Owner::User(user) if user == subject);
        *named == *subject.as_str()
            || token.email().is_some_and(|email| *named == *email.as_str())
            || bound.as_ref().is_some_and(|bound| numbered(&bound.owner))
    };
    let own = match caller {
        Caller::User(session) => is_named(session),
        Caller::App => proxy.sessions.serves(is_named),
    };
    Ok(if own {
        Partition::Own
    } else {
        Partition::Foreign
    })
}
