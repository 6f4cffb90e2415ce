//! Which subnet of each zone a launch uses (`aws-provider.md` §12): the one with the most free addresses, counting those
//! that launches on their way will take.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use karpenter_ec2_api::Subnet;
use parking_lot::Mutex;

use crate::nodeclass::SubnetStatus;

/// Free addresses by subnet.
#[derive(Debug, Default)]
pub(crate) struct FreeAddresses {
    subnets: Mutex<BTreeMap<String, Free>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Free {
    /// As last described.
    described: i64,
    /// With launches since then taken off; none = no launch since.
    expected: Option<i64>,
}

/// Subnets chosen for a launch, by zone, and what was taken off each.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    /// Subnet id by zone.
    pub(crate) by_zone: BTreeMap<Arc<str>, Arc<str>>,
    taken: BTreeMap<Arc<str>, (i64, i64)>,
}

impl FreeAddresses {
    /// Takes over what EC2 said.
    pub(crate) fn described(&self, subnets: &[Subnet]) {
        let mut held = self.subnets.lock();
        for subnet in subnets {
            let free = Free {
                described: i64::from(subnet.available_ips),
                expected: None,
            };
            held.insert(subnet.id.clone(), free);
        }
    }

    /// The best subnet of each zone; `min_pods` says how many addresses a machine in a zone takes at least.
    pub(crate) fn choose(
        &self,
        subnets: &[SubnetStatus],
        min_pods: impl Fn(&str) -> i64,
    ) -> Chosen {
        let mut held = self.subnets.lock();
        let free = |held: &BTreeMap<String, Free>, id: &str| {
            held.get(id)
                .map_or(0, |f| f.expected.unwrap_or(f.described))
        };
        let mut best: BTreeMap<&str, &SubnetStatus> = BTreeMap::new();
        for subnet in subnets {
            match best.get(subnet.zone.as_str()) {
                Some(other) if free(&held, &other.id) >= free(&held, &subnet.id) => {}
                _ => {
                    best.insert(&subnet.zone, subnet);
                }
            }
        }
        let mut chosen = Chosen::default();
        for (zone, subnet) in best {
            let pods = min_pods(zone);
            let entry = held.entry(subnet.id.clone()).or_default();
            let before = entry.expected.unwrap_or(entry.described);
            entry.expected = Some(before - pods);
            let id: Arc<str> = Arc::from(subnet.id.as_str());
            chosen.taken.insert(id.clone(), (pods, entry.described));
            chosen.by_zone.insert(Arc::from(zone), id);
        }
        chosen
    }

    /// Gives back what the launch did not use, unless EC2 has been asked since.
    pub(crate) fn settle(&self, chosen: &Chosen, used: &BTreeSet<Arc<str>>) {
        let mut held = self.subnets.lock();
        for (id, (pods, described)) in &chosen.taken {
            if used.contains(id) {
                continue;
            }
            if let Some(free) = held.get_mut(&**id)
                && free.described == *described
                && let Some(expected) = &mut free.expected
            {
                *expected += pods;
            }
        }
    }

    /// A subnet turned out to be full.
    pub(crate) fn full(&self, subnet: &str) {
        self.subnets
            .lock()
            .insert(subnet.to_owned(), Free::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_emptier_subnet_is_chosen_until_launches_have_filled_it() {
        let addresses = FreeAddresses::default();
        let subnet = |id: &str, ips| Subnet {
            id: id.into(),
            zone: "z".into(),
            available_ips: ips,
            ..Subnet::default()
        };
        addresses.described(&[subnet("a", 100), subnet("b", 90)]);
        let status = crate::resolve::subnet_status(&[subnet("a", 0), subnet("b", 0)]);
        let choose = || addresses.choose(&status, |_| 29);
        let id = |c: &Chosen| c.by_zone["z"].to_string();
        let first = choose();
        assert_eq!(id(&first), "a");
        let second = choose();
        assert_eq!(id(&second), "b");
        addresses.settle(&first, &BTreeSet::new());
        assert_eq!(id(&choose()), "a", "what was not used came back");
        addresses.full("a");
        assert_eq!(id(&choose()), "b");
    }
}
