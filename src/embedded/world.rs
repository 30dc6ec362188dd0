//! The objects of the embedded workspace and who may use them: the same in every run, so that tests can name them.
//!
//! Objects marked restricted are for the first user alone; neither other users nor the app have a grant on them.

use super::answer::Refusal;
use super::workspace::{AppCredential, EmbeddedUser};
use crate::domain::scope::ScopeSet;

/// A warehouse that everybody may use.
pub const WAREHOUSE: &str = "1234abcd5678ef90";
/// A warehouse for the first user alone.
pub const WAREHOUSE_RESTRICTED: &str = "a11ce00000000001";
/// A table whose rows differ by user: each sees their own, the app sees all.
pub const TABLE_ORDERS: &str = "main.sales.orders";
/// A table for the first user alone.
pub const TABLE_RESTRICTED: &str = "main.hr.salaries";
/// A chat model.
pub const CHAT_ENDPOINT: &str = "demo-chat";
/// A chat model for the first user alone.
pub const CHAT_ENDPOINT_RESTRICTED: &str = "demo-chat-restricted";
/// An embedding model.
pub const EMBEDDING_ENDPOINT: &str = "demo-embeddings";
/// A vector search index.
pub const INDEX: &str = "main.sales.docs_index";
/// A vector search index for the first user alone.
pub const INDEX_RESTRICTED: &str = "main.hr.docs_index";
/// The vector search endpoint of both.
pub const VECTOR_ENDPOINT: &str = "demo-vectors";
/// A Genie space.
pub const GENIE_SPACE: &str = "01f0aaaa000000000000000000000001";
/// A Genie space for the first user alone.
pub const GENIE_SPACE_RESTRICTED: &str = "01f0aaaa000000000000000000000002";
/// A volume.
pub const VOLUME: &str = "/Volumes/main/sales/files";
/// A volume for the first user alone.
pub const VOLUME_RESTRICTED: &str = "/Volumes/main/hr/private";
/// An MLflow experiment, of the app.
pub const EXPERIMENT: &str = "100000000000001";
/// A job, of the app.
pub const JOB: &str = "200000000000001";

/// Whether only the first user has a grant on it.
pub(super) fn is_restricted(object: &str) -> bool {
    [
        WAREHOUSE_RESTRICTED,
        TABLE_RESTRICTED,
        CHAT_ENDPOINT_RESTRICTED,
        INDEX_RESTRICTED,
        GENIE_SPACE_RESTRICTED,
    ]
    .contains(&object)
        || object
            .strip_prefix(VOLUME_RESTRICTED)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Somebody with a good token.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// E-mail address or client id: the key of everything that belongs to one identity.
    pub(super) name: String,
    /// As people read it.
    pub(super) display: String,
    pub(super) is_app: bool,
    pub(super) is_first_user: bool,
    pub(super) scopes: ScopeSet,
}

impl Caller {
    /// Whoever the subject of a token is, or nobody this workspace knows.
    pub(super) fn find(
        subject: &str,
        scopes: ScopeSet,
        users: &[EmbeddedUser],
        app: &AppCredential,
    ) -> Option<Self> {
        if subject == app.client_id {
            return Some(Self {
                name: subject.to_owned(),
                display: "app".to_owned(),
                is_app: true,
                is_first_user: false,
                scopes,
            });
        }
        let place = users
            .iter()
            .position(|u| u.email.eq_ignore_ascii_case(subject))?;
        let user = users.get(place)?;
        Some(Self {
            name: user.email.clone(),
            display: user.name.clone(),
            is_app: false,
            is_first_user: place == 0,
            scopes,
        })
    }

    /// Lets through whoever has a grant on the object.
    pub(super) fn may_use(&self, kind: &str, object: &str) -> Result<(), Refusal> {
        if self.is_first_user || !is_restricted(object) {
            Ok(())
        } else {
            Err(Refusal::no_permission(
                &self.name,
                &format!("{kind} {object}"),
            ))
        }
    }

    /// Lets through whoever has a grant on an object that exists.
    pub(super) fn may_use_one_of(
        &self,
        kind: &str,
        object: &str,
        known: &[&str],
    ) -> Result<(), Refusal> {
        if known.contains(&object) {
            self.may_use(kind, object)
        } else {
            Err(Refusal::unknown(&format!("{kind} {object}")))
        }
    }
}
