//! Statement and conversation ids, bound to whoever got them and to what the call touched (PRODUCT 6.2).
//!
//! A bounded table: past the limit the oldest binding is forgotten, which makes a later call `unknown`, never somebody else's.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::ask::{Bound, FollowUpView};

/// The most bindings kept.
pub const FOLLOW_UPS_MAX: usize = 100_000;

/// The longest id that is bound, in bytes.
const ID_BYTES_MAX: usize = 256;

type Key = (Arc<str>, Box<str>);

/// The bindings of this process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct FollowUps(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    bindings: HashMap<Key, Bound>,
    order: VecDeque<Key>,
}

impl FollowUps {
    /// Binds an id that an answer gave out. The first binding stands: an id cannot be taken over.
    pub fn bind(&self, kind: &Arc<str>, id: &str, bound: Bound) {
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return;
        }
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key: Key = (Arc::clone(kind), id.into());
        if table.bindings.contains_key(&key) {
            return;
        }
        table.order.push_back((Arc::clone(&key.0), key.1.clone()));
        table.bindings.insert(key, bound);
        if table.order.len() > FOLLOW_UPS_MAX
            && let Some(oldest) = table.order.pop_front()
        {
            table.bindings.remove(&oldest);
        }
    }

    /// What is known of the id that a request names; `None` where it names none.
    pub fn view(&self, named: Option<(&str, &str)>) -> FollowUpView {
        let Some((kind, id)) = named else {
            return FollowUpView::None;
        };
        let found = self.bound(kind, id);
        found.map_or(FollowUpView::Unknown, FollowUpView::Bound)
    }

    /// Whose id it is, and what it stands for.
    pub fn bound(&self, kind: &str, id: &str) -> Option<Bound> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::from(kind), Box::from(id));
        table.bindings.get(&key).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ask::Owner;

    fn view(table: &FollowUps, id: &str) -> FollowUpView {
        table.view(Some(("statement", id)))
    }

    #[test]
    fn the_first_binding_stands_and_others_are_unknown() {
        let table = FollowUps::default();
        let mine = Bound {
            owner: Owner::App,
            resource: None,
        };
        let other = Bound {
            owner: Owner::User(crate::domain::identity::UserId::parse("bob").unwrap()),
            resource: None,
        };
        table.bind(&"statement".into(), "s1", mine.clone());
        table.bind(&"statement".into(), "s1", other);
        assert_eq!(view(&table, "s1"), FollowUpView::Bound(mine));
        assert_eq!(view(&table, "s2"), FollowUpView::Unknown);
        assert_eq!(table.view(None), FollowUpView::None);
    }

    #[test]
    fn the_oldest_binding_is_forgotten_past_the_limit() {
        let table = FollowUps::default();
        for i in 0..=FOLLOW_UPS_MAX {
            table.bind(
                &"statement".into(),
                &format!("s{i}"),
                Bound {
                    owner: Owner::App,
                    resource: None,
                },
            );
        }
        assert_eq!(view(&table, "s0"), FollowUpView::Unknown);
        assert!(matches!(view(&table, "s1"), FollowUpView::Bound(_)));
    }
}
