//! Who belongs to what: members by what they have in common, kept up from changes. What nobody belongs to is forgotten.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use karpenter_runtime::Key;

/// Members, in order, by what they have in common.
#[derive(Debug)]
pub struct Index<K, M = Key>(BTreeMap<K, BTreeSet<M>>);

impl<K, M> Default for Index<K, M> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, M: Ord> Index<K, M> {
    /// A member belongs to `to`, whatever else it belongs to.
    pub fn add(&mut self, to: K, member: M) {
        self.0.entry(to).or_default().insert(member);
    }

    /// A member belongs to `from` no longer.
    pub fn remove<Q, N>(&mut self, from: &Q, member: &N)
    where
        K: Borrow<Q>,
        M: Borrow<N>,
        Q: Ord + ?Sized,
        N: Ord + ?Sized,
    {
        if let Some(members) = self.0.get_mut(from) {
            members.remove(member);
            if members.is_empty() {
                self.0.remove(from);
            }
        }
    }

    /// Whether anybody belongs to `what`.
    pub fn has<Q>(&self, what: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.0.contains_key(what)
    }

    /// Who belongs to `what`.
    pub fn of<'a, Q>(&'a self, what: &Q) -> impl Iterator<Item = &'a M> + Clone + use<'a, K, M, Q>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.0.get(what).into_iter().flatten()
    }

    /// All that somebody belongs to.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }
}

impl<M: Ord> Index<String, M> {
    /// A member belongs to `to` instead of `from`; an empty text is nothing to belong to.
    pub fn moved(&mut self, member: M, from: &str, to: &str) {
        if from == to {
            return;
        }
        self.remove(from, &member);
        if !to.is_empty() {
            self.add(to.to_owned(), member);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_belongs_to_is_forgotten() {
        let mut index: Index<String, u8> = Index::default();
        index.moved(1, "", "a");
        index.moved(2, "", "a");
        index.moved(1, "a", "b");
        assert_eq!(index.of("a").collect::<Vec<_>>(), [&2]);
        assert!(index.has("b"));
        index.moved(2, "a", "");
        index.remove("c", &2);
        assert!(!index.has("a"));
        assert_eq!(index.keys().collect::<Vec<_>>(), ["b"]);
    }
}
