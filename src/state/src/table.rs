//! Objects of one kind with the version each was read at. Newer wins, whatever order they come in; deletions are
//! remembered, so that a late, older write does not bring an object back.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Most deletions remembered per kind. The window in which an older object can still arrive is that of a request
/// in flight, far shorter than this many deletions.
pub(crate) const MAX_GRAVES: usize = 16_384;

/// A resourceVersion as a number; none when the object carries none (objects read from files).
pub(crate) type Version = Option<u64>;

/// Reads a resourceVersion. Kubernetes has them compare as integers (KEP-5504).
pub(crate) fn version(text: Option<&str>) -> Version {
    text.and_then(|t| t.parse().ok())
}

#[derive(Debug)]
struct Held<T> {
    version: Version,
    object: Arc<T>,
}

/// What an operation changed about one key.
#[derive(Debug)]
pub(crate) struct Step<K, T> {
    pub(crate) key: K,
    pub(crate) before: Option<Arc<T>>,
    pub(crate) after: Option<Arc<T>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Table<K, T> {
    live: BTreeMap<K, Held<T>>,
    graves: BTreeMap<K, u64>,
    buried: VecDeque<(K, u64)>,
    /// Whether a complete list was applied.
    pub(crate) listed: bool,
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self {
            live: BTreeMap::new(),
            graves: BTreeMap::new(),
            buried: VecDeque::new(),
            listed: false,
        }
    }
}

impl<K: Ord + Clone, T> Table<K, T> {
    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&Arc<T>>
    where
        K: Borrow<Q>,
    {
        self.live.get(key).map(|h| &h.object)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &Arc<T>)> {
        self.live.iter().map(|(k, h)| (k, &h.object))
    }

    /// Those from `first` on.
    pub(crate) fn from(&self, first: &K) -> impl Iterator<Item = (&K, &Arc<T>)> {
        self.live.range(first..).map(|(k, h)| (k, &h.object))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<T>> {
        self.live.values().map(|h| &h.object)
    }

    /// Takes `object` unless something at least as new is known about `key`.
    pub(crate) fn apply(
        &mut self,
        key: K,
        version: Version,
        object: impl FnOnce() -> T,
    ) -> Option<Step<K, T>> {
        if let Some(v) = version {
            let held = self.live.get(&key).and_then(|h| h.version);
            let grave = self.graves.get(&key).copied();
            if held.is_some_and(|h| h >= v) || grave.is_some_and(|g| g >= v) {
                return None;
            }
        }
        let after = Arc::new(object());
        let before = self.live.insert(
            key.clone(),
            Held {
                version,
                object: after.clone(),
            },
        );
        Some(Step {
            key,
            before: before.map(|h| h.object),
            after: Some(after),
        })
    }

    /// Removes `key` unless something newer than `version` is known about it. Without a version, whatever is held
    /// goes, and nothing as old as that comes back.
    pub(crate) fn delete(&mut self, key: K, version: Version) -> Option<Step<K, T>> {
        let held = self.live.get(&key).map(|h| h.version);
        if let (Some(v), Some(Some(h))) = (version, held)
            && h > v
        {
            return None;
        }
        if let Some(v) = version.or(held.flatten()) {
            self.bury(key.clone(), v);
        }
        let before = self.live.remove(&key)?.object;
        Some(Step {
            key,
            before: Some(before),
            after: None,
        })
    }

    /// Makes the table what a complete list at `version` says. What is held in a newer version stays. Of a list
    /// without a version it is not known what it could have seen: all it lacks goes, but may come back as it was.
    pub(crate) fn reset(
        &mut self,
        version: Version,
        objects: Vec<(K, Version, T)>,
    ) -> Vec<Step<K, T>> {
        self.listed = true;
        let mut gone: BTreeSet<K> = self
            .live
            .iter()
            .filter(|(_, h)| match (h.version, version) {
                (Some(held), Some(list)) => held <= list,
                _ => true,
            })
            .map(|(k, _)| k.clone())
            .collect();
        let mut steps = Vec::new();
        for (key, v, object) in objects {
            gone.remove(&key);
            steps.extend(self.apply(key, v, || object));
        }
        for key in gone {
            if version.is_some() {
                steps.extend(self.delete(key, version));
            } else if let Some(held) = self.live.remove(&key) {
                steps.push(Step {
                    key,
                    before: Some(held.object),
                    after: None,
                });
            }
        }
        steps
    }

    fn bury(&mut self, key: K, version: u64) {
        let grave = self.graves.entry(key.clone()).or_insert(0);
        *grave = version.max(*grave);
        self.buried.push_back((key, version));
        while self.buried.len() > MAX_GRAVES {
            if let Some((old, v)) = self.buried.pop_front()
                && self.graves.get(&old).is_some_and(|g| *g == v)
            {
                self.graves.remove(&old);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(t: &Table<&'static str, u32>, k: &str) -> Option<u32> {
        t.get(k).map(|v| **v)
    }

    #[test]
    fn older_or_equal_versions_change_nothing() {
        let mut t = Table::default();
        assert!(t.apply("a", Some(5), || 1).is_some());
        assert!(t.apply("a", Some(5), || 2).is_none());
        assert!(t.apply("a", Some(4), || 3).is_none());
        assert_eq!(get(&t, "a"), Some(1));
        assert!(t.apply("a", Some(10), || 4).is_some(), "10 > 5 as numbers");
        assert_eq!(get(&t, "a"), Some(4));
    }

    #[test]
    fn a_deletion_outlives_late_writes_but_not_a_new_object() {
        let mut t = Table::default();
        t.apply("a", Some(5), || 1);
        assert!(t.delete("a", Some(7)).is_some());
        assert!(t.apply("a", Some(6), || 2).is_none());
        assert!(t.apply("a", Some(8), || 3).is_some());
        assert!(
            t.delete("a", Some(7)).is_none(),
            "the older deletion is about the older object"
        );
        assert_eq!(get(&t, "a"), Some(3));
    }

    #[test]
    fn a_list_removes_what_it_lacks_and_keeps_what_is_newer() {
        let mut t = Table::default();
        t.apply("old", Some(5), || 1);
        t.apply("new", Some(12), || 2);
        let steps = t.reset(Some(10), vec![("listed", Some(9), 3)]);
        assert_eq!(steps.len(), 2);
        assert_eq!(get(&t, "old"), None);
        assert_eq!(get(&t, "new"), Some(2), "written after the list was taken");
        assert_eq!(get(&t, "listed"), Some(3));
        assert!(t.listed);
    }

    #[test]
    fn a_list_without_a_version_does_not_keep_an_object_out() {
        let mut t = Table::default();
        t.apply("a", Some(5), || 1);
        t.reset(None, vec![]);
        assert_eq!(get(&t, "a"), None);
        assert!(t.apply("a", Some(5), || 1).is_some());
    }

    #[test]
    fn remembered_deletions_are_bounded() {
        let mut t: Table<u64, u32> = Table::default();
        for i in 0..(MAX_GRAVES as u64 + 10) {
            t.delete(i, Some(i + 1));
        }
        assert_eq!(t.graves.len(), MAX_GRAVES);
        assert_eq!(t.buried.len(), MAX_GRAVES);
    }
}
