//! A bounded map of single flights: one fetch per key for any number of callers.
//!
//! Adds to `single_flight.rs` what a family of fetched things needs: a limit with eviction, forgetting what nobody asks for
//! any more, and a replacement that many reports cause once. Knows nothing of tokens; `app_tokens.rs` and
//! `exchanged_tokens.rs` use it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::single_flight::SingleFlight;

/// After one replacement on a report, further reports about that key change nothing for this long: a value that is refused
/// although it is brand new is not mended by fetching another one per call.
pub const REPLACEMENT_INTERVAL_MIN: Duration = Duration::from_secs(30);
/// An entry without a live value that nobody asked for during this time is forgotten, with whatever its fetch holds.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);
/// How often the whole map is looked through for such entries.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Many fetched things, each with its own flight.
pub struct KeyedFlight<K, T, E> {
    entries_max: usize,
    table: Mutex<Table<K, T, E>>,
}

struct Table<K, T, E> {
    entries: HashMap<K, Entry<T, E>>,
    swept: Instant,
}

struct Entry<T, E> {
    flight: SingleFlight<T, E>,
    used: Instant,
    replaced: Option<Instant>,
}

/// A key whose last fetch failed.
#[derive(Debug, Clone)]
pub struct Failing<K, E> {
    /// Which one.
    pub key: K,
    /// How the last fetch failed.
    pub error: E,
    /// Whether an older value still lives and is served meanwhile.
    pub serving: bool,
}

impl<K, T, E> KeyedFlight<K, T, E>
where
    K: Clone + Eq + Hash,
    T: Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// An empty map that never holds more than `entries_max` keys; beyond that the least recently used one goes.
    pub fn new(entries_max: usize) -> Self {
        let table = Table {
            entries: HashMap::new(),
            swept: Instant::now(),
        };
        Self {
            entries_max: entries_max.max(1),
            table: Mutex::new(table),
        }
    }

    /// The live value of a key. `make` gives the flight of a key that is not there yet; a value that `is_live` refuses is
    /// fetched anew once (its end by another clock than the flight's).
    ///
    /// # Errors
    /// What the flight says.
    pub async fn get(
        &self,
        key: &K,
        is_live: impl Fn(&T) -> bool,
        make: impl FnOnce() -> SingleFlight<T, E>,
    ) -> Result<Arc<T>, E> {
        let flight = self.flight(key, make);
        let value = flight.get().await?;
        if is_live(&value) {
            return Ok(value);
        }
        flight.invalidate(&value);
        flight.get().await
    }

    /// Takes a report that `seen` was refused where it was used. The answer is whether asking again gives another value:
    /// true for every caller that reports the one that is being replaced, false within [`REPLACEMENT_INTERVAL_MIN`] after
    /// that for its successor.
    pub fn invalidate(&self, key: &K, seen: &Arc<T>) -> bool {
        let mut table = self.lock();
        let Some(entry) = table.entries.get_mut(key) else {
            return true;
        };
        match entry.flight.peek() {
            Some(current) if Arc::ptr_eq(&current, seen) => {
                let now = Instant::now();
                let too_soon = entry
                    .replaced
                    .is_some_and(|at| now < at + REPLACEMENT_INTERVAL_MIN);
                if too_soon {
                    return false;
                }
                entry.replaced = Some(now);
                entry.flight.invalidate(seen);
                true
            }
            Some(_) | None => true,
        }
    }

    /// Every key whose last fetch failed.
    pub fn failing(&self) -> Vec<Failing<K, E>> {
        let table = self.lock();
        let failing = table.entries.iter().filter_map(|(key, entry)| {
            Some(Failing {
                key: key.clone(),
                error: entry.flight.failure()?,
                serving: entry.flight.peek().is_some(),
            })
        });
        failing.collect()
    }

    /// Whether some key has a live value.
    pub fn any_live(&self) -> bool {
        let table = self.lock();
        table
            .entries
            .values()
            .any(|entry| entry.flight.peek().is_some())
    }

    /// How many keys are held.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether no key is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn flight(&self, key: &K, make: impl FnOnce() -> SingleFlight<T, E>) -> SingleFlight<T, E> {
        let now = Instant::now();
        let mut table = self.lock();
        if let Some(entry) = table.entries.get_mut(key) {
            entry.used = now;
            return entry.flight.clone();
        }
        if table.entries.len() >= self.entries_max || now >= table.swept + SWEEP_INTERVAL {
            table.sweep(now);
        }
        if table.entries.len() >= self.entries_max {
            table.evict();
        }
        let flight = make();
        let entry = Entry {
            flight: flight.clone(),
            used: now,
            replaced: None,
        };
        table.entries.insert(key.clone(), entry);
        flight
    }

    fn lock(&self) -> MutexGuard<'_, Table<K, T, E>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, T, E> Table<K, T, E>
where
    K: Clone + Eq + Hash,
    T: Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    fn sweep(&mut self, now: Instant) {
        self.swept = now;
        self.entries
            .retain(|_, entry| now < entry.used + FORGOTTEN_AFTER || !entry.flight.is_idle());
    }

    /// Callers that wait for the flight that goes keep it alive themselves: nobody is stranded. An idle one goes first.
    fn evict(&mut self) {
        let oldest = self
            .entries
            .iter()
            .min_by_key(|(_, entry)| (!entry.flight.is_idle(), entry.used))
            .map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests;
