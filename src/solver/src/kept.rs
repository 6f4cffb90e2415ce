//! Things that are made when somebody asks for them first and kept for all who ask for the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// See the module.
#[derive(Debug)]
pub(crate) struct Kept<K, V> {
    all: Mutex<BTreeMap<K, Arc<V>>>,
    /// No more than so many: once there are, all are forgotten.
    most: usize,
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self::at_most(usize::MAX)
    }
}

impl<K, V> Kept<K, V> {
    pub(crate) fn at_most(most: usize) -> Self {
        Self {
            all: Mutex::new(BTreeMap::new()),
            most,
        }
    }
}

impl<K: Ord + Clone, V> Kept<K, V> {
    /// The one for a key. Others wait while it is made.
    pub(crate) fn get(&self, key: &K, make: impl FnOnce() -> V) -> Arc<V> {
        let mut all = self.all.lock();
        if let Some(known) = all.get(key) {
            return Arc::clone(known);
        }
        let made = Arc::new(make());
        if all.len() >= self.most {
            all.clear();
        }
        all.insert(key.clone(), Arc::clone(&made));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_made_once_and_no_more_are_kept_than_wanted() {
        let kept: Kept<u8, u8> = Kept::at_most(1);
        assert_eq!(*kept.get(&1, || 10), 10);
        assert_eq!(*kept.get(&1, || 11), 10, "kept");
        assert_eq!(*kept.get(&2, || 20), 20);
        assert_eq!(*kept.get(&2, || 21), 20, "the one that is kept now");
        assert_eq!(*kept.get(&1, || 12), 12, "forgotten");
    }
}
