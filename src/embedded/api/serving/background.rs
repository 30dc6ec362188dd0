//! Responses made in the background: begun by one call, looked at by later ones, each for whoever began it alone.
//!
//! Done at the second look. Knows nothing of HTTP.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde_json::Value;

use super::shapes::response;
use crate::embedded::answer::Refusal;
use crate::embedded::control::lock;

/// Responses remembered; the oldest go first.
const RESPONSES_MAX: usize = 1000;

/// The responses begun so far.
#[derive(Default)]
pub(in crate::embedded) struct Background(Mutex<VecDeque<Begun>>);

struct Begun {
    id: String,
    owner: String,
    model: String,
    created: i64,
    said: String,
    looks: u32,
}

impl Begun {
    fn answer(&self) -> Value {
        let status = match self.looks {
            0 => "queued",
            1 => "in_progress",
            _ => "completed",
        };
        response(&self.id, &self.model, self.created, &self.said, status)
    }
}

impl Background {
    /// Begins a response and answers that it waits.
    pub(super) fn begin(&self, owner: &str, model: &str, created: i64, said: String) -> Value {
        let begun = Begun {
            id: uuid::Uuid::now_v7().simple().to_string(),
            owner: owner.to_owned(),
            model: model.to_owned(),
            created,
            said,
            looks: 0,
        };
        let answer = begun.answer();
        let mut all = lock(&self.0);
        if all.len() >= RESPONSES_MAX {
            all.pop_front();
        }
        all.push_back(begun);
        answer
    }

    /// How far a response of this owner is; anybody else's does not exist.
    pub(super) fn look(&self, id: &str, owner: &str) -> Result<Value, Refusal> {
        let mut all = lock(&self.0);
        let bare = id.strip_prefix("resp_").unwrap_or(id);
        let found = all.iter_mut().find(|b| b.id == bare && b.owner == owner);
        let begun = found.ok_or_else(|| Refusal::unknown(&format!("The response {id}")))?;
        begun.looks = begun.looks.saturating_add(1);
        Ok(begun.answer())
    }
}
