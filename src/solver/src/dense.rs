//! Resources as plain vectors: the names that pods ask for become positions once per solve, and amounts whole numbers of
//! what all requests of that name are multiples of, so that the inner loops compare small integers. Rounding a machine's
//! room down to such multiples changes no answer: sums of requests never lie between two of them.

use std::collections::BTreeMap;

use karpenter_api::Quantity;
use karpenter_model::ResourceList;
use smallvec::SmallVec;

use crate::mounts;

/// Amounts by position; positions past the end are zero.
pub(crate) type Dense = SmallVec<[i64; 6]>;

/// Far from where sums of rooms would overflow; more than any machine has.
pub(crate) const AMPLE: i64 = i64::MAX / 4;
/// A request that nothing has room for.
const ABSURD: i64 = i64::MAX / 2;

/// Positions and units of resource names.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Names {
    index: BTreeMap<String, usize>,
    /// 10⁻⁹ units in one of ours, by position.
    scale: Vec<i128>,
}

impl Names {
    /// The position of a name, made up if it is new. No new one after [`Self::settle`].
    pub(crate) fn position(&mut self, name: &str) -> usize {
        let next = self.index.len();
        if let Some(at) = self.index.get(name) {
            return *at;
        }
        self.index.insert(name.to_owned(), next);
        next
    }

    /// Takes note of all requests there are: their names, and what their amounts are multiples of, which divides the unit
    /// that others reckon in, if there is one.
    pub(crate) fn settle<'a>(
        &mut self,
        asked: impl IntoIterator<Item = &'a ResourceList>,
        unit: impl Fn(&str) -> i128,
    ) {
        let mut scale: Vec<i128> = Vec::new();
        for (name, amount) in asked.into_iter().flat_map(ResourceList::iter) {
            let at = self.position(name);
            if scale.len() <= at {
                scale.resize(at + 1, 0);
            }
            if let Some(slot) = scale.get_mut(at) {
                *slot = gcd(*slot, amount.nanos());
            }
        }
        scale.resize(self.index.len(), 0);
        for (name, at) in &self.index {
            let Some(slot) = scale.get_mut(*at) else {
                continue;
            };
            *slot = gcd(*slot, unit(name));
            if *slot == 0 || mounts::driver(name).is_some() {
                *slot = mounts::NANOS;
            }
        }
        self.scale = scale;
    }

    /// What a pod asks for. Amounts have to be among those that were taken note of.
    pub(crate) fn request(&self, list: &ResourceList) -> Dense {
        self.by_position(list, ABSURD).0
    }

    /// Room for pods: rounded down; names that nobody asks for are left out, but nothing fits where one of them is below
    /// zero (upstream's rule).
    pub(crate) fn room(&self, list: &ResourceList) -> Dense {
        let (mut out, overdrawn) = self.by_position(list, AMPLE);
        if overdrawn && let Some(first) = out.first_mut() {
            *first = -1;
        }
        out
    }

    fn by_position(&self, list: &ResourceList, most: i64) -> (Dense, bool) {
        let mut out = Dense::from_elem(0, self.scale.len());
        let mut overdrawn = false;
        for (name, amount) in list.iter() {
            let nanos = amount.nanos();
            match self.index.get(name) {
                Some(at) => {
                    if let (Some(slot), Some(scale)) = (out.get_mut(*at), self.scale.get(*at)) {
                        let units = nanos.div_euclid(*scale);
                        *slot = i64::try_from(units)
                            .unwrap_or(if units < 0 { -most } else { most })
                            .clamp(-most, most);
                    }
                }
                None => overdrawn |= nanos < 0,
            }
        }
        (out, overdrawn)
    }

    /// Sums of requests back to a list; zeros are left out.
    pub(crate) fn list(&self, dense: &[i64]) -> ResourceList {
        self.index
            .iter()
            .filter_map(|(name, at)| Some((name.as_str(), self.quantity(*at, *dense.get(*at)?))))
            .filter(|(_, amount)| *amount != Quantity::ZERO)
            .collect()
    }

    /// An amount at a position as a quantity.
    pub(crate) fn quantity(&self, at: usize, amount: i64) -> Quantity {
        let scale = self.scale.get(at).copied().unwrap_or(1);
        Quantity::from_nanos(i128::from(amount).saturating_mul(scale))
    }

    /// Names by position.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, usize)> {
        self.index.iter().map(|(name, at)| (name.as_str(), *at))
    }
}

/// The greatest that divides both; 0 is a multiple of everything.
pub(crate) fn gcd(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a.saturating_abs(), b.saturating_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// `a += times × b`.
pub(crate) fn add(a: &mut Dense, b: &[i64], times: i64) {
    if a.len() < b.len() {
        a.resize(b.len(), 0);
    }
    for (x, y) in a.iter_mut().zip(b) {
        *x = x.saturating_add(y.saturating_mul(times));
    }
}

/// How often `need` fits into `room`, at most `most` times. Nothing fits into negative room (upstream's rule).
pub(crate) fn times(need: &[i64], room: &[i64], most: usize) -> usize {
    // Comparing is far cheaper than dividing, and most questions end here.
    if most == 0 || !once(need, room) {
        return 0;
    }
    if most == 1 {
        return 1;
    }
    let mut out = most;
    for (n, have) in need.iter().zip(room).filter(|(n, _)| **n > 0) {
        out = out.min(usize::try_from(have / n).unwrap_or(usize::MAX));
    }
    out
}

/// Whether `need` fits into `room`.
pub(crate) fn fits(need: &[i64], room: &[i64]) -> bool {
    once(need, room)
}

fn once(need: &[i64], room: &[i64]) -> bool {
    let shared = need.len().min(room.len());
    room.iter().all(|r| *r >= 0)
        && need.iter().zip(room).all(|(n, r)| n <= r)
        && need.iter().skip(shared).all(|n| *n <= 0)
}

/// `a − b`, position by position.
pub(crate) fn minus(a: &[i64], b: &[i64]) -> Dense {
    let mut out = Dense::from_slice(a);
    add(&mut out, b, -1);
    out
}

/// A count as it multiplies amounts.
pub(crate) fn count_of(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
