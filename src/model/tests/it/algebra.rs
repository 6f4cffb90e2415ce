//! The requirement algebra as laws: what intersection, compatibility and writing out must keep for any input.

use std::collections::BTreeSet;

use karpenter_model::{LabelRegistry, Operator, Requirement, Requirements};
use proptest::prelude::*;

const KEY: &str = "example.com/size";

/// Values at and around every bound and list value that `requirement` draws, and words.
fn universe() -> Vec<String> {
    (-4..=9)
        .map(|n| n.to_string())
        .chain(["a", "b", "c", "", "03"].map(str::to_owned))
        .collect()
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        (0_i64..6).prop_map(|n| n.to_string()),
        prop::sample::select(vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]),
    ]
}

fn single() -> impl Strategy<Value = Requirement> {
    let values = || prop::collection::btree_set(value(), 1..4);
    let bound = || -3_i64..8;
    let make = |op, values: Vec<String>| Requirement::new(KEY, op, values).unwrap();
    prop_oneof![
        values().prop_map(move |v| make(Operator::In, v.into_iter().collect())),
        values().prop_map(move |v| make(Operator::NotIn, v.into_iter().collect())),
        Just(make(Operator::Exists, vec![])),
        Just(make(Operator::DoesNotExist, vec![])),
        (bound(), 0..4).prop_map(move |(n, op)| {
            let op = [Operator::Gt, Operator::Lt, Operator::Gte, Operator::Lte][op as usize];
            make(op, vec![n.to_string()])
        }),
    ]
}

/// A requirement as it comes about: some entries of one key, intersected.
fn requirement() -> impl Strategy<Value = Requirement> {
    (
        prop::collection::vec(single(), 1..4),
        prop::option::of(1_i64..5),
    )
        .prop_map(|(parts, min_values)| {
            let mut it = parts.into_iter();
            let first = it.next().unwrap();
            let mut r = it.fold(first, |acc, r| acc.intersection(&r));
            r.min_values = min_values;
            r
        })
}

fn members(r: &Requirement) -> BTreeSet<String> {
    universe().into_iter().filter(|v| r.has(v)).collect()
}

proptest! {
    #[test]
    fn intersection_has_what_both_have(a in requirement(), b in requirement()) {
        let both = a.intersection(&b);
        for v in universe() {
            prop_assert_eq!(both.has(&v), a.has(&v) && b.has(&v), "{} in {}, {}", v, a, b);
        }
    }

    #[test]
    fn intersection_is_commutative(a in requirement(), b in requirement()) {
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
    }

    #[test]
    fn intersection_is_associative(a in requirement(), b in requirement(), c in requirement()) {
        let left = a.intersection(&b).intersection(&c);
        let right = a.intersection(&b.intersection(&c));
        prop_assert_eq!(members(&left), members(&right));
        prop_assert_eq!(left.min_values, right.min_values);
    }

    #[test]
    fn intersection_is_idempotent(a in requirement()) {
        prop_assert_eq!(a.intersection(&a), a);
    }

    #[test]
    fn min_values_is_the_greater(a in requirement(), b in requirement()) {
        prop_assert_eq!(a.intersection(&b).min_values, a.min_values.max(b.min_values));
    }

    /// The predicate may say yes to two complements whose exclusions leave nothing (a quirk that is kept), never
    /// no to something that is there.
    #[test]
    fn has_intersection_is_what_intersection_leaves(a in requirement(), b in requirement()) {
        let both = a.intersection(&b);
        prop_assert_eq!(a.has_intersection(&b), b.has_intersection(&a));
        if a.complement && b.complement {
            prop_assert_eq!(a.has_intersection(&b), both.complement);
        } else {
            prop_assert_eq!(a.has_intersection(&b), !both.is_empty());
        }
    }

    #[test]
    fn any_is_a_member_and_always_the_same(a in requirement()) {
        match a.any() {
            Some(v) => prop_assert!(a.has(&v), "{} of {}", v, a),
            // Complements without a non-negative integer have none to give.
            None => prop_assert!(a.is_empty() || (0..=9_i64).all(|n| !a.has(&n.to_string()))),
        }
        prop_assert_eq!(a.any(), a.clone().any());
    }

    #[test]
    fn writing_out_and_reading_back_keeps_all(a in requirement()) {
        let specs = a.to_specs();
        let back = Requirements::from_specs(&specs, &LabelRegistry::default()).unwrap();
        prop_assert_eq!(back.get(KEY), Some(&a), "{:?}", specs);
        prop_assert!(specs.iter().all(|s| s.min_values == a.min_values));
        let bounds = usize::from(a.gte.is_some()) + usize::from(a.lte.is_some());
        prop_assert!(specs.len() >= bounds);
    }

    #[test]
    fn adding_narrows(a in requirement(), b in requirement()) {
        let mut set = Requirements::new();
        set.add(a.clone());
        set.add(b.clone());
        prop_assert_eq!(set.get(KEY), Some(&a.intersection(&b)));
    }

    /// A set is compatible with itself once everything in it can be met.
    #[test]
    fn whatever_can_be_met_intersects_itself(a in requirement()) {
        let set: Requirements = [a.clone()].into_iter().collect();
        let meetable = !a.is_empty() || a.allows_absence();
        prop_assert_eq!(set.does_intersect(&set), meetable);
        prop_assert_eq!(set.intersects(&set).is_ok(), set.does_intersect(&set));
    }
}
