//! Resources as plain vectors: names become positions once per solve, so that the inner loops compare numbers.

use std::collections::BTreeMap;

use karpenter_api::Quantity;
use karpenter_model::ResourceList;

/// Positions of resource names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    index: BTreeMap<String, usize>,
}

/// Amounts in 10⁻⁹ units by position; positions past the end are zero.
pub(crate) type Dense = Vec<i128>;

impl Names {
    /// The position of a name, made up if it is new.
    pub(crate) fn position(&mut self, name: &str) -> usize {
        let next = self.index.len();
        *self.index.entry(name.to_owned()).or_insert(next)
    }

    /// A list by position, new names included.
    pub(crate) fn dense(&mut self, list: &ResourceList) -> Dense {
        let mut out = vec![0; self.index.len()];
        for (name, amount) in list.iter() {
            let at = self.position(name);
            if at >= out.len() {
                out.resize(at + 1, 0);
            }
            if let Some(slot) = out.get_mut(at) {
                *slot = amount.nanos();
            }
        }
        out
    }

    /// A list by position; names that nobody asks for are left out.
    pub(crate) fn known(&self, list: &ResourceList) -> Dense {
        let mut out = vec![0; self.index.len()];
        for (name, amount) in list.iter() {
            if let Some(slot) = self.index.get(name).and_then(|at| out.get_mut(*at)) {
                *slot = amount.nanos();
            }
        }
        out
    }

    /// Back to a list; zeros are left out.
    pub(crate) fn list(&self, dense: &Dense) -> ResourceList {
        self.index
            .iter()
            .filter_map(|(name, at)| Some((name.as_str(), Quantity::from_nanos(*dense.get(*at)?))))
            .filter(|(_, amount)| *amount != Quantity::ZERO)
            .collect()
    }

    /// Names by position.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, usize)> {
        self.index.iter().map(|(name, at)| (name.as_str(), *at))
    }
}

/// `a += times × b`.
pub(crate) fn add(a: &mut Dense, b: &Dense, times: i128) {
    if a.len() < b.len() {
        a.resize(b.len(), 0);
    }
    for (x, y) in a.iter_mut().zip(b) {
        *x = x.saturating_add(y.saturating_mul(times));
    }
}

/// How often `need` fits into `room`, at most `most` times. Nothing fits into negative room (upstream's rule).
pub(crate) fn times(need: &Dense, room: &Dense, most: usize) -> usize {
    if room.iter().any(|r| *r < 0) {
        return 0;
    }
    let have = |at: usize| room.get(at).copied().unwrap_or(0);
    // Comparing is far cheaper than dividing, and most questions end here.
    if most == 0 || need.iter().enumerate().any(|(at, n)| *n > have(at).max(0)) {
        return 0;
    }
    let mut out = most;
    for (at, n) in need.iter().enumerate().filter(|(_, n)| **n > 0) {
        out = out.min(usize::try_from(have(at) / n).unwrap_or(usize::MAX));
    }
    out
}

/// Whether `need` fits into `room`.
pub(crate) fn fits(need: &Dense, room: &Dense) -> bool {
    times(need, room, 1) == 1 || need.iter().all(|n| *n <= 0) && room.iter().all(|r| *r >= 0)
}

/// `a − b`, position by position.
pub(crate) fn minus(a: &Dense, b: &Dense) -> Dense {
    let mut out = a.clone();
    add(&mut out, b, -1);
    out
}
