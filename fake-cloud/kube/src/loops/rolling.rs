//! The arithmetic of a rollout: how many pods the old and the new ReplicaSets may have at each step.

use serde_json::{Value, json};

use super::object::{at, int};
use super::pods::int_or_percent;

/// A ReplicaSet as the rollout sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) name: String,
    /// Wanted pods, changed as the rollout is computed.
    pub(crate) replicas: i64,
    pub(crate) available: i64,
    /// The number it was last scaled for, to notice that the Deployment itself was scaled.
    pub(crate) desired: i64,
}

/// The strategy in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) replicas: i64,
    pub(crate) max_surge: i64,
    pub(crate) max_unavailable: i64,
}

impl Bounds {
    pub(crate) fn read(deployment: &Value) -> Self {
        let replicas = int(deployment, &["spec", "replicas"]).unwrap_or(1);
        let rolling = |field: &str, up: bool| {
            let value = at(deployment, &["spec", "strategy", "rollingUpdate", field]);
            let default = json!("25%");
            let value = if value.is_null() { &default } else { value };
            int_or_percent(value, replicas, up).unwrap_or(0)
        };
        let (max_surge, mut max_unavailable) =
            (rolling("maxSurge", true), rolling("maxUnavailable", false));
        if max_surge == 0 && max_unavailable == 0 {
            // Both round to nothing: something must give, and surplus was not allowed.
            max_unavailable = 1;
        }
        Self {
            replicas,
            max_surge,
            max_unavailable: max_unavailable.min(replicas),
        }
    }
}

/// One step of a rolling update: new wanted numbers for the new set and the old ones (oldest first).
pub(crate) fn roll(bounds: Bounds, new: &mut Set, old: &mut [Set]) {
    let total = |new: &Set, old: &[Set]| new.replicas + old.iter().map(|s| s.replicas).sum::<i64>();
    // Up, as far as surge allows.
    if new.replicas > bounds.replicas {
        new.replicas = bounds.replicas;
        return;
    }
    if new.replicas < bounds.replicas {
        let room = bounds.replicas + bounds.max_surge - total(new, old);
        let step = room.min(bounds.replicas - new.replicas);
        if step > 0 {
            new.replicas += step;
            return;
        }
    }
    // Down, as far as availability allows; what is not available anyway goes first.
    let minimum = bounds.replicas - bounds.max_unavailable;
    let new_unavailable = (new.replicas - new.available).max(0);
    let mut spare = total(new, old) - minimum - new_unavailable;
    if spare <= 0 {
        return;
    }
    for set in &mut *old {
        let unhealthy = (set.replicas - set.available).max(0).min(spare);
        set.replicas -= unhealthy;
        spare -= unhealthy;
    }
    let available: i64 = new.available + old.iter().map(|s| s.available).sum::<i64>();
    let mut spare = available - minimum;
    for set in old {
        if spare <= 0 {
            break;
        }
        let step = set.replicas.min(spare);
        set.replicas -= step;
        spare -= step;
    }
}

/// Spreads a change of the Deployment's size over its sets in proportion, while a rollout is under way.
/// Sets that have pods come largest first; the first takes what rounding leaves over.
pub(crate) fn scale_in_proportion(bounds: Bounds, sets: &mut [&mut Set]) {
    let total: i64 = sets.iter().map(|s| s.replicas).sum();
    let allowed = if bounds.replicas > 0 {
        bounds.replicas + bounds.max_surge
    } else {
        0
    };
    let to_add = allowed - total;
    if to_add == 0 || total == 0 {
        return;
    }
    let mut added = 0;
    for set in &mut *sets {
        let share = (set.replicas * to_add * 2 + total * to_add.signum()) / (total * 2);
        let share = if to_add > 0 {
            share.min(to_add - added)
        } else {
            share.max(to_add - added)
        };
        let share = share.max(-set.replicas);
        set.replicas += share;
        added += share;
    }
    if let Some(first) = sets.first_mut() {
        first.replicas = (first.replicas + to_add - added).max(0);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn set(replicas: i64, available: i64) -> Set {
        Set {
            name: String::new(),
            replicas,
            available,
            desired: 0,
        }
    }

    #[rstest]
    // replicas, surge, unavailable | new, old before | new, old after
    #[case::surge_first((10, 3, 2), (0, 0), (10, 10), 3, 10)]
    #[case::then_down_to_the_minimum((10, 3, 2), (3, 0), (10, 10), 3, 8)]
    #[case::room_again((10, 3, 2), (3, 0), (8, 8), 5, 8)]
    #[case::waits_for_the_new((10, 3, 2), (5, 0), (8, 8), 5, 8)]
    #[case::new_ones_came((10, 3, 2), (5, 5), (8, 8), 5, 3)]
    #[case::unhealthy_old_go_first((10, 0, 2), (0, 0), (10, 5), 0, 8)]
    #[case::too_many_new((4, 1, 0), (6, 6), (0, 0), 4, 0)]
    fn rolling_steps(
        #[case] bounds: (i64, i64, i64),
        #[case] new: (i64, i64),
        #[case] old: (i64, i64),
        #[case] want_new: i64,
        #[case] want_old: i64,
    ) {
        let bounds = Bounds {
            replicas: bounds.0,
            max_surge: bounds.1,
            max_unavailable: bounds.2,
        };
        let (mut new, mut old) = (set(new.0, new.1), [set(old.0, old.1)]);
        roll(bounds, &mut new, &mut old);
        assert_eq!((new.replicas, old[0].replicas), (want_new, want_old));
    }

    #[test]
    fn a_rollout_ends_and_never_breaks_its_bounds() {
        for (replicas, max_surge, max_unavailable) in
            [(10, 3, 2), (1, 1, 0), (1, 0, 1), (7, 0, 3), (5, 5, 5)]
        {
            let bounds = Bounds {
                replicas,
                max_surge,
                max_unavailable,
            };
            let (mut new, mut old) = (set(0, 0), [set(replicas, replicas)]);
            for _ in 0..100 {
                roll(bounds, &mut new, &mut old);
                old[0].available = old[0].available.min(old[0].replicas);
                assert!(new.replicas + old[0].replicas <= replicas + max_surge);
                assert!(new.available + old[0].available >= replicas - max_unavailable);
                new.available = new.replicas;
            }
            assert_eq!((new.replicas, old[0].replicas), (replicas, 0));
        }
    }

    #[rstest]
    #[case(json!({"maxSurge": "25%", "maxUnavailable": "25%"}), (1, 1, 0))]
    #[case(json!({"maxSurge": 0, "maxUnavailable": "25%"}), (1, 0, 1))]
    #[case(json!({"maxSurge": 2, "maxUnavailable": 9}), (1, 2, 1))]
    fn bounds_of_one_replica(#[case] rolling: Value, #[case] want: (i64, i64, i64)) {
        let deployment = json!({"spec": {"replicas": 1, "strategy": {"rollingUpdate": rolling}}});
        let b = Bounds::read(&deployment);
        assert_eq!((b.replicas, b.max_surge, b.max_unavailable), want);
    }

    #[test]
    fn resizing_in_mid_rollout_keeps_proportions() {
        let bounds = Bounds {
            replicas: 20,
            max_surge: 2,
            max_unavailable: 0,
        };
        let (mut a, mut b) = (set(8, 8), set(3, 3));
        scale_in_proportion(bounds, &mut [&mut a, &mut b]);
        assert_eq!((a.replicas, b.replicas), (16, 6));
    }
}
