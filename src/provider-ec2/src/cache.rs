//! A cache whose entries end with time, on the one clock. Nothing sweeps it in the background: what has ended is
//! dropped when the cache is written to.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Values by key, each until its time is over.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    ttl: Duration,
    entries: Mutex<BTreeMap<K, (Instant, V)>>,
}

impl<K: Ord, V: Clone> Cache<K, V> {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            entries: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, key: &K, now: Instant) -> Option<V> {
        let entries = self.entries.lock();
        let (end, value) = entries.get(key)?;
        (*end > now).then(|| value.clone())
    }

    pub(crate) fn put(&self, key: K, value: V, now: Instant) {
        let mut entries = self.entries.lock();
        entries.retain(|_, (end, _)| *end > now);
        entries.insert(key, (now + self.ttl, value));
    }

    pub(crate) fn remove(&self, key: &K) {
        self.entries.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn entries_end_with_time() {
        let cache = Cache::new(Duration::from_secs(60));
        cache.put("a", 1, Instant::now());
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(cache.get(&"a", Instant::now()), Some(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(cache.get(&"a", Instant::now()), None);
        cache.put("a", 2, Instant::now());
        cache.remove(&"a");
        assert_eq!(cache.get(&"a", Instant::now()), None);
    }
}
