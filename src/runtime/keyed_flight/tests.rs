//! Limits, forgetting and replacement, with a fetch that only counts.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::runtime::single_flight::{Failure, Fresh};

const LIFE: Duration = Duration::from_secs(1000);

#[derive(Clone, Default)]
struct Source {
    calls: Arc<AtomicUsize>,
    broken: Arc<std::sync::atomic::AtomicBool>,
}

impl Source {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn flight(&self) -> SingleFlight<usize, &'static str> {
        let source = self.clone();
        SingleFlight::new(move || {
            let source = source.clone();
            async move {
                let n = source.calls.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
                if source.broken.load(Ordering::SeqCst) {
                    return Err(Failure {
                        error: "down",
                        retry_after: None,
                    });
                }
                Ok(Fresh::for_life(n, LIFE))
            }
        })
    }

    async fn get(
        &self,
        map: &KeyedFlight<u32, usize, &'static str>,
        key: u32,
    ) -> Result<Arc<usize>, &'static str> {
        map.get(&key, |_| true, || self.flight()).await
    }
}

#[tokio::test(start_paused = true)]
async fn each_key_is_fetched_once() {
    let (source, map) = (Source::default(), Arc::new(KeyedFlight::new(8)));
    let all = (0..300).map(|i| {
        let (source, map) = (source.clone(), Arc::clone(&map));
        tokio::spawn(async move { source.get(&map, i % 3).await })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.unwrap().unwrap();
    }
    assert_eq!((source.calls(), map.len()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_full_map_gives_up_what_was_used_longest_ago() {
    let (source, map) = (Source::default(), KeyedFlight::new(3));
    for key in [1, 2, 3] {
        source.get(&map, key).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    source.get(&map, 1).await.unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    source.get(&map, 4).await.unwrap();
    assert_eq!((source.calls(), map.len()), (4, 3));
    source.get(&map, 1).await.unwrap();
    source.get(&map, 3).await.unwrap();
    assert_eq!(source.calls(), 4, "1 and 3 were kept");
    source.get(&map, 2).await.unwrap();
    assert_eq!((source.calls(), map.len()), (5, 3), "2 was not");
}

#[tokio::test(start_paused = true)]
async fn a_caller_whose_entry_is_evicted_still_gets_its_value() {
    let (source, map) = (Source::default(), Arc::new(KeyedFlight::new(1)));
    let waiting = tokio::spawn({
        let (source, map) = (source.clone(), Arc::clone(&map));
        async move { source.get(&map, 1).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(**source.get(&map, 2).await.as_ref().unwrap(), 2);
    assert_eq!(*waiting.await.unwrap().unwrap(), 1);
    assert_eq!(map.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_over_and_unused_is_forgotten() {
    let (source, map) = (Source::default(), KeyedFlight::new(100));
    for key in 0..50 {
        source.get(&map, key).await.unwrap();
    }
    tokio::time::advance(LIFE / 2).await;
    source.get(&map, 50).await.unwrap();
    assert_eq!(map.len(), 51, "unused, but alive");
    tokio::time::advance(LIFE / 2).await;
    source.get(&map, 51).await.unwrap();
    assert_eq!(map.len(), 2, "50 lives, 51 is new");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_reports_cause_one_replacement_and_a_refused_successor_none_at_once() {
    let (source, map) = (Source::default(), KeyedFlight::new(8));
    let first = source.get(&map, 1).await.unwrap();
    for _ in 0..100 {
        assert!(
            map.invalidate(&1, &first),
            "every reporter may ask once more"
        );
    }
    let second = source.get(&map, 1).await.unwrap();
    assert!(
        map.invalidate(&1, &first),
        "a late report of the first: the second is at hand"
    );
    assert_eq!(
        (*source.get(&map, 1).await.unwrap(), source.calls()),
        (2, 2)
    );
    for _ in 0..100 {
        assert!(
            !map.invalidate(&1, &second),
            "brand new and refused: no third"
        );
    }
    assert_eq!(
        (*source.get(&map, 1).await.unwrap(), source.calls()),
        (2, 2)
    );
    tokio::time::advance(REPLACEMENT_INTERVAL_MIN).await;
    assert!(map.invalidate(&1, &second));
    assert_eq!(*source.get(&map, 1).await.unwrap(), 3);
    assert!(
        map.invalidate(&9, &second),
        "an unknown key is simply fetched"
    );
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_dead_by_another_clock_is_fetched_anew_once() {
    let (source, map) = (Source::default(), KeyedFlight::new(8));
    source.get(&map, 1).await.unwrap();
    let value = map.get(&1, |n| *n > 1, || source.flight()).await.unwrap();
    assert_eq!(*value, 2);
    let value = map.get(&1, |_| false, || source.flight()).await.unwrap();
    assert_eq!((*value, source.calls()), (3, 3), "not for ever");
}

#[tokio::test(start_paused = true)]
async fn failing_keys_are_listed_until_they_recover() {
    let (source, map) = (Source::default(), KeyedFlight::new(8));
    source.get(&map, 1).await.unwrap();
    assert!(map.failing().is_empty() && map.any_live());
    source.broken.store(true, Ordering::SeqCst);
    source.get(&map, 2).await.unwrap_err();
    tokio::time::advance(LIFE.mul_f64(0.8)).await;
    source.get(&map, 1).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut failing = map.failing();
    failing.sort_by_key(|f| f.key);
    let told: Vec<_> = failing
        .iter()
        .map(|f| (f.key, f.error, f.serving))
        .collect();
    assert_eq!(told, [(1, "down", true), (2, "down", false)]);
    source.broken.store(false, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(5)).await;
    source.get(&map, 2).await.unwrap();
    source.get(&map, 1).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(map.failing().is_empty());
}
