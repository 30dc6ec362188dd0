//! What the agent gets of an answer: cleaned, its ids bound to whoever called, its addresses leading back to the sidecar.
//!
//! `outbound.rs` is the story it is part of; `target.rs` knows addresses, `tap.rs` looks into bodies. Knows no policy.

use std::sync::Arc;

use http::Response;
use http_body_util::BodyExt as _;

use crate::domain::ask::{Bound, Owner, ResourceId};
use crate::domain::catalog::Operation;
use crate::domain::catalog::member::Place;
use crate::domain::headers;
use crate::domain::policy::Identity;
use crate::runtime::audit_writer::Receipt;
use crate::runtime::http_client::{Body, SendFault};
use crate::runtime::session::Caller;

use super::error::ProxyError;
use super::record::Created;
use super::sending::Failed;
use super::target::Target;
use super::{Proxy, partition, tap};

/// Whose answer it is.
pub struct Answered<'a> {
    /// The catalogue's operation.
    pub operation: Option<&'a Operation>,
    /// Where the call went.
    pub target: Target<'a>,
    /// Who called.
    pub caller: &'a Caller,
    /// As whom the call ran.
    pub identity: Identity,
    /// What the call touched; ids that the answer gives out stand for it.
    pub resource: Option<ResourceId>,
    /// Where the id that the answer gives out is noted for the record.
    pub created: Created,
}

impl Answered<'_> {
    /// Cleans the answer, binds the ids it gives out, and keeps the agent from walking around the sidecar by what it reads there.
    ///
    /// # Errors
    /// [`Failed`], with the receipt, when the answer is a login or breaks off while it is read.
    pub async fn hand_on(
        &self,
        proxy: &Proxy,
        mut response: Response<Body>,
        receipt: Receipt,
    ) -> Result<(Response<Body>, Receipt), Failed> {
        let Self {
            operation,
            target,
            resource,
            ..
        } = self;
        headers::clean_far_answer(response.headers_mut());
        if target.leads_to_login(&response) {
            return Err(Failed {
                error: ProxyError::UpstreamLogin,
                receipt: Some(receipt),
            });
        }
        target.relocate(proxy, &mut response);
        if let Some(member) = operation
            .and_then(|o| o.rewrites.as_deref())
            .filter(|_| response.status().is_success())
        {
            let stand_in = |url: &str| target.stand_in(proxy, resource.as_ref(), url);
            response = match tap::rewrite_member(response, member, stand_in).await {
                Ok(response) => response,
                Err(cause) => {
                    let error = ProxyError::Workspace(SendFault::Broken(cause));
                    return Err(Failed {
                        error,
                        receipt: Some(receipt),
                    });
                }
            };
        }
        if response.status().is_success() {
            response = self.bind(proxy, response);
        }
        Ok((response, receipt))
    }

    /// Binds the id that an answer gives out to whoever called and to what the call touched.
    fn bind(&self, proxy: &Proxy, response: Response<Body>) -> Response<Body> {
        let Some(creates) = self.operation.and_then(|o| o.creates.as_ref()) else {
            return response;
        };
        let owner = match self.caller {
            // The app's own number must not pass for that of the user on whose behalf it was self.
            Caller::User(_)
                if self.identity == Identity::App && partition::names_users(creates) =>
            {
                return response;
            }
            Caller::User(session) => Owner::User(session.subject().clone()),
            Caller::App => Owner::App,
        };
        let (table, kind) = (proxy.follow_ups.clone(), Arc::clone(&creates.kind));
        let bound = Bound {
            owner,
            resource: self.resource.clone(),
        };
        let noted = (self.created.clone(), Arc::clone(&kind));
        let bind = move |id: &str| table.bind(&kind, id, bound.clone());
        match &creates.place {
            Place::Body(member) => {
                let bind = move |id: &str| {
                    noted.0.note(&noted.1, id);
                    bind(id);
                };
                response.map(|body| tap::tap(body, member, bind).boxed_unsync())
            }
            // The id of a session is as good as a key to it, so it is bound but not recorded.
            Place::Header(name) => {
                let id = { response.headers().get(name) }.and_then(|value| value.to_str().ok());
                id.into_iter().for_each(bind);
                response
            }
            // The catalogue refuses both: neither is part of an answer.
            Place::Path(_) | Place::Query(_) => response,
        }
    }
}
