//! Genie: two spaces, and conversations that belong to whoever began them.
//!
//! Every question is answered at the second look with a text and a query over the caller's own orders.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::query::{Outcome, orders};
use super::sql::manifest;
use crate::embedded::answer::{Answer, Refusal, json_ok, put};
use crate::embedded::call::{Call, word};
use crate::embedded::control::lock;
use crate::embedded::grants::{Caller, GENIE_SPACES};
use crate::embedded::workspace::Site;
use crate::embedded::world::GENIE_SPACE;

/// Conversations kept; more are refused.
const CONVERSATIONS_MAX: usize = 1000;
/// Messages kept in one conversation.
const MESSAGES_MAX: usize = 1000;

/// The conversations so far, by id.
#[derive(Default)]
pub(in crate::embedded) struct Conversations(Mutex<BTreeMap<String, Conversation>>);

struct Conversation {
    space: String,
    owner: String,
    title: String,
    created: i64,
    messages: Vec<Message>,
}

#[derive(Clone)]
struct Message {
    id: String,
    content: String,
    created: i64,
    looks: u32,
}

pub(in crate::embedded) async fn answer(
    site: &Site,
    call: &mut Call,
    path: &[&str],
) -> Result<Answer, Refusal> {
    let ["api", "2.0", "genie", "spaces", rest @ ..] = path else {
        return Err(call.no_endpoint());
    };
    let Some((space, rest)) = rest.split_first() else {
        let visible = call.caller.visible(GENIE_SPACES);
        let list: Vec<Value> = visible.map(space_description).collect();
        return Ok(json_ok(&json!({ "spaces": list })));
    };
    call.caller.may_use(GENIE_SPACES, space)?;
    let now = site.issuer.clock.now().as_millisecond();
    let all = &site.conversations;
    let owner = call.caller.name.clone();
    match (call.method.as_str(), rest) {
        ("GET", []) => Ok(json_ok(&space_description(space))),
        ("POST", ["start-conversation"]) => {
            let body = call.json().await?;
            all.begin(space, &owner, word(&body, "content")?, now)
                .map(|v| json_ok(&v))
        }
        ("GET", ["conversations"]) => Ok(json_ok(&all.list(space, &owner))),
        ("DELETE", ["conversations", id]) => {
            all.forget((*space, *id, owner.as_str()))?;
            Ok(json_ok(&json!({})))
        }
        (_, ["conversations", id, "messages", rest @ ..]) => {
            let place = (*space, *id, owner.as_str());
            on_messages(site, call, place, rest).await
        }
        _ => Err(call.no_endpoint()),
    }
}

/// Begins a conversation with a question.
pub(super) fn ask(
    site: &Site,
    caller: &Caller,
    space: &str,
    question: &str,
) -> Result<Value, Refusal> {
    let now = site.issuer.clock.now().as_millisecond();
    site.conversations.begin(space, &caller.name, question, now)
}

/// Looks at a message once more; `place` is space, conversation and owner.
pub(super) fn look(
    site: &Site,
    place: (&str, &str, &str),
    message: &str,
) -> Result<Value, Refusal> {
    let id = place.1;
    let found = site
        .conversations
        .with(place, |c| Some(c.look(message)?.answer(c, id)))?;
    found.ok_or_else(|| no_message(message))
}

/// Calls below a conversation's messages; `place` is space, conversation and owner.
async fn on_messages(
    site: &Site,
    call: &mut Call,
    place: (&str, &str, &str),
    rest: &[&str],
) -> Result<Answer, Refusal> {
    let id = place.1;
    let all = &site.conversations;
    let now = site.issuer.clock.now().as_millisecond();
    match (call.method.as_str(), rest) {
        ("POST", []) => {
            let body = call.json().await?;
            let content = word(&body, "content")?;
            let added = all.with(place, |c| c.add(content, now).map(|m| m.answer(c, id)))?;
            added.map(|v| json_ok(&v))
        }
        ("GET", []) => {
            let list: Vec<Value> = all.with(place, |c| {
                let messages = c.messages.iter();
                messages.map(|m| m.answer(c, id)).collect()
            })?;
            Ok(json_ok(&json!({ "messages": list })))
        }
        ("GET", [message]) => look(site, place, message).map(|v| json_ok(&v)),
        (
            "GET" | "POST",
            [message, "attachments", _, "query-result" | "execute-query"]
            | [message, "query-result", ..],
        ) => {
            if all.with(place, |c| c.look(message).is_some())? {
                Ok(json_ok(&query_result(call)))
            } else {
                Err(no_message(message))
            }
        }
        ("POST", [message, "feedback"]) => {
            let known = all.with(place, |c| c.messages.iter().any(|m| m.id == *message))?;
            if known {
                Ok(json_ok(&json!({})))
            } else {
                Err(no_message(message))
            }
        }
        _ => Err(call.no_endpoint()),
    }
}

fn no_message(id: &str) -> Refusal {
    Refusal::unknown(&format!("The message {id}"))
}

fn space_description(space: &str) -> Value {
    let title = if space == GENIE_SPACE {
        "Sales"
    } else {
        "Restricted"
    };
    json!({ "space_id": space, "title": title, "description": "Questions about orders" })
}

fn query_result(call: &Call) -> Value {
    let (columns, rows) = match orders(&call.caller) {
        Outcome::Rows { columns, rows } => (columns, rows),
        Outcome::Failed { .. } => (Vec::new(), Vec::new()),
    };
    json!({ "statement_response": {
        "statement_id": uuid::Uuid::now_v7().to_string(),
        "status": { "state": "SUCCEEDED" },
        "manifest": manifest(&columns, &rows),
        "result": { "chunk_index": 0, "row_offset": 0, "row_count": rows.len(), "data_array": rows },
    }})
}

impl Conversations {
    fn begin(&self, space: &str, owner: &str, content: &str, now: i64) -> Result<Value, Refusal> {
        let mut all = lock(&self.0);
        if all.len() >= CONVERSATIONS_MAX {
            return Err(Refusal::too_large(
                "This workspace keeps no more conversations.",
            ));
        }
        let id = uuid::Uuid::now_v7().simple().to_string();
        let mut made = Conversation {
            space: space.to_owned(),
            owner: owner.to_owned(),
            title: content.to_owned(),
            created: now,
            messages: Vec::new(),
        };
        let message = made.add(content, now)?;
        let answer = json!({
            "conversation_id": id,
            "message_id": message.id,
            "conversation": made.answer(&id),
            "message": message.answer(&made, &id),
        });
        all.insert(id, made);
        Ok(answer)
    }

    fn list(&self, space: &str, owner: &str) -> Value {
        let all = lock(&self.0);
        let own = all
            .iter()
            .filter(|(_, c)| c.space == space && c.owner == owner);
        let list: Vec<Value> = own.map(|(id, c)| c.answer(id)).collect();
        json!({ "conversations": list })
    }

    fn forget(&self, (space, id, owner): (&str, &str, &str)) -> Result<(), Refusal> {
        self.with((space, id, owner), |_| ())?;
        lock(&self.0).remove(id);
        Ok(())
    }

    /// Works on a conversation of this owner; anybody else's does not exist.
    fn with<T>(
        &self,
        (space, id, owner): (&str, &str, &str),
        work: impl FnOnce(&mut Conversation) -> T,
    ) -> Result<T, Refusal> {
        let mut all = lock(&self.0);
        let found = all
            .get_mut(id)
            .filter(|c| c.space == space && c.owner == owner);
        found
            .map(work)
            .ok_or_else(|| Refusal::unknown(&format!("The conversation {id}")))
    }
}

impl Conversation {
    fn add(&mut self, content: &str, now: i64) -> Result<Message, Refusal> {
        if self.messages.len() >= MESSAGES_MAX {
            return Err(Refusal::too_large(
                "This conversation takes no more messages.",
            ));
        }
        let message = Message {
            id: uuid::Uuid::now_v7().simple().to_string(),
            content: content.to_owned(),
            created: now,
            looks: 0,
        };
        self.messages.push(message.clone());
        Ok(message)
    }

    fn look(&mut self, id: &str) -> Option<Message> {
        let message = self.messages.iter_mut().find(|m| m.id == id)?;
        message.looks = message.looks.saturating_add(1);
        Some(message.clone())
    }

    fn answer(&self, id: &str) -> Value {
        json!({
            "id": id, "conversation_id": id, "space_id": self.space, "title": self.title,
            "created_timestamp": self.created, "last_updated_timestamp": self.created,
        })
    }
}

impl Message {
    fn answer(&self, conversation: &Conversation, conversation_id: &str) -> Value {
        let mut answer = json!({
            "id": self.id, "message_id": self.id, "conversation_id": conversation_id,
            "space_id": conversation.space, "content": self.content,
            "created_timestamp": self.created, "last_updated_timestamp": self.created,
            "status": match self.looks { 0 => "SUBMITTED", 1 => "EXECUTING_QUERY", _ => "COMPLETED" },
        });
        if self.looks >= 2 {
            let attachments = json!([
                {
                    "attachment_id": format!("{}a", self.id),
                    "text": { "content": format!("{} asked: {}", conversation.owner, self.content) },
                },
                {
                    "attachment_id": format!("{}b", self.id),
                    "query": { "query": "SELECT * FROM main.sales.orders", "description": "Your orders" },
                },
            ]);
            put(&mut answer, "attachments", attachments);
        }
        answer
    }
}
