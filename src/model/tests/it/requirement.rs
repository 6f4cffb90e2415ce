//! Requirements by example: reading, texts, errors, compatibility (`scheduling.md` §1).

use std::collections::BTreeMap;

use karpenter_api::kinds::RequirementSpec;
use karpenter_model::{LabelRegistry, Operator, Requirement, Requirements, Undefined};
use rstest::rstest;

fn spec(key: &str, operator: &str, values: &[&str]) -> RequirementSpec {
    RequirementSpec {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: values.iter().map(|v| (*v).to_owned()).collect(),
        min_values: None,
    }
}

/// `key Op v1 v2, key Op …`
fn set(text: &str) -> Requirements {
    let labels = LabelRegistry::default();
    text.split(", ")
        .filter(|t| !t.is_empty())
        .map(|t| {
            let mut words = t.split(' ');
            let (key, op) = (words.next().unwrap(), words.next().unwrap());
            let values: Vec<&str> = words.collect();
            Requirement::from_spec(&spec(key, op, &values), &labels).unwrap()
        })
        .collect()
}

#[rstest]
#[case("k In b a", "k In [a b]")]
#[case("k NotIn a", "k NotIn [a]")]
#[case("k Exists", "k Exists")]
#[case("k DoesNotExist", "k DoesNotExist")]
#[case("k Gt 3", "k Exists >=4")]
#[case("k Lt 3", "k Exists <=2")]
#[case("k Gte 3, k Lte 5", "k Exists >=3 <=5")]
#[case("k Gt 5, k Lt 5", "k In [] (contradicts itself)")]
#[case("k In 1 5 9 x, k Gt 1, k Lt 9", "k In [5]")]
#[case("k NotIn 4 100, k Gt 1, k Lt 9", "k NotIn [4] >=2 <=8")]
#[case("k In 1 2 3 4 5 6 7", "k In [1 2 3 4 5 and 2 more]")]
#[case("b Exists, a In x, kubernetes.io/hostname In n", "a In [x], b Exists")]
#[case(
    "failure-domain.beta.kubernetes.io/zone In z",
    "topology.kubernetes.io/zone In [z]"
)]
#[case("k Gt 9223372036854775807", "k In [] (contradicts itself)")]
#[case("k Lt -9223372036854775808", "k In [] (contradicts itself)")]
fn prints(#[case] input: &str, #[case] expected: &str) {
    assert_eq!(set(input).to_string(), expected);
}

#[rstest]
#[case("In", &[], "requirement k: operator In takes at least one value, got []")]
#[case("Exists", &["a"], r#"requirement k: operator Exists takes no values, got ["a"]"#)]
#[case("Gt", &["a"], r#"requirement k: operator Gt takes an integer, got "a""#)]
#[case("Lt", &["1", "2"], r#"requirement k: operator Lt takes exactly one integer, got ["1", "2"]"#)]
#[case("Near", &["1"], r#"requirement k: operator "Near" is unknown; expected one of In, NotIn, Exists, DoesNotExist, Gt, Lt, Gte, Lte"#)]
fn names_what_is_wrong(#[case] op: &str, #[case] values: &[&str], #[case] message: &str) {
    let error = Requirement::from_spec(&spec("k", op, values), &LabelRegistry::default());
    assert_eq!(error.unwrap_err().to_string(), message);
}

#[rstest]
#[case("k In a b", "a")]
#[case("k NotIn a", "0")]
#[case("k NotIn 0 1", "2")]
#[case("k Gte 7", "7")]
#[case("k Gte -3", "0")]
#[case("k Lt 0", "")]
#[case("k DoesNotExist", "")]
#[case("k NotIn 4, k Gte 4, k Lte 4", "")]
fn any_is_the_first_or_lowest(#[case] input: &str, #[case] expected: &str) {
    let any = set(input).get("k").unwrap().any();
    assert_eq!(any.as_deref().unwrap_or_default(), expected);
}

const ZONE: &str = "topology.kubernetes.io/zone";

#[rstest]
// Keys both state.
#[case("k In a b", "k In b c", true)]
#[case("k In a", "k In b", false)]
#[case("k In a", "k NotIn a", false)]
#[case("k NotIn a", "k DoesNotExist", true)]
#[case("k DoesNotExist", "k NotIn a", true)]
#[case("k Exists", "k DoesNotExist", false)]
#[case("k In a", "k DoesNotExist", false)]
#[case("k NotIn 5", "k Gte 5, k Lte 5", true)] // A quirk of upstream's, kept.
// Keys only the asking side states.
#[case("", "k In a", false)]
#[case("", "k Exists", false)]
#[case("", "k Gt 1", false)]
#[case("", "k NotIn a", true)]
#[case("", "k DoesNotExist", true)]
// Keys only the offering side states.
#[case("k In a", "", true)]
fn compatible_without_undefined_keys(
    #[case] there: &str,
    #[case] asked: &str,
    #[case] expected: bool,
) {
    let (there, asked) = (set(there), set(asked));
    assert_eq!(there.is_compatible(&asked, Undefined::Refused), expected);
    assert_eq!(
        there.compatible(&asked, Undefined::Refused).is_ok(),
        expected
    );
}

#[test]
fn well_known_keys_may_be_undefined_where_machines_are_yet_to_be_bought() {
    let labels = LabelRegistry::default();
    let asked = set(&format!("{ZONE} In a"));
    let none = Requirements::new();
    assert!(none.is_compatible(&asked, Undefined::WellKnown(&labels)));
    assert!(!none.is_compatible(&asked, Undefined::Refused));
    assert!(!none.is_compatible(&set("k In a"), Undefined::WellKnown(&labels)));
}

#[rstest]
#[case(
    "",
    "zone In a",
    "label zone is not defined (did you mean topology.kubernetes.io/zone?)"
)]
#[case(
    "",
    "x.io/zone In a",
    "label x.io/zone is not defined (did you mean topology.kubernetes.io/zone?)"
)]
#[case("", "team In a", "label team is not defined")]
#[case(
    "k In a, m In 1",
    "k In b, m In 2",
    "k In [b] does not meet k In [a], m In [2] does not meet m In [1]"
)]
fn incompatibility_says_why(#[case] there: &str, #[case] asked: &str, #[case] message: &str) {
    let labels = LabelRegistry::default();
    let error = set(there)
        .compatible(&set(asked), Undefined::WellKnown(&labels))
        .unwrap_err();
    assert_eq!(error.to_string(), message);
}

#[test]
fn labels_become_requirements_with_aliases_resolved() {
    let labels = BTreeMap::from([
        ("beta.kubernetes.io/arch".to_owned(), "arm64".to_owned()),
        ("team".to_owned(), "a".to_owned()),
    ]);
    let r = Requirements::from_labels(&labels, &LabelRegistry::default());
    assert_eq!(r.to_string(), "kubernetes.io/arch In [arm64], team In [a]");
}

/// Case 4: Exists after In on the same key leaves the earlier value.
#[test]
fn case_04_exists_keeps_an_earlier_value() {
    assert_eq!(set("k In a, k Exists").to_string(), "k In [a]");
}

/// Case 21: of different minValues on one key the greatest holds.
#[test]
fn case_21_the_greatest_min_values_holds() {
    let with = |n: i64, op: Operator, values: &[&str]| {
        let mut r = Requirement::new("k", op, values).unwrap();
        r.min_values = Some(n);
        r
    };
    let both =
        with(1, Operator::In, &["a", "b", "c"]).intersection(&with(2, Operator::NotIn, &["a"]));
    assert_eq!(both.to_string(), "k In [b c] minValues 2");
    let bounds = with(3, Operator::Gt, &["1"]).intersection(&with(2, Operator::Lt, &["9"]));
    let specs = bounds.to_specs();
    let text: Vec<String> = specs
        .iter()
        .map(|s| format!("{} {} {:?} {:?}", s.key, s.operator, s.values, s.min_values))
        .collect();
    assert_eq!(text, [r#"k Gte ["2"] Some(3)"#, r#"k Lte ["8"] Some(3)"#]);
}

#[test]
fn expressions_over_one_label_are_kept_each_by_itself() {
    let of = |op, values: &[&str]| Requirement::new("k", op, values).unwrap();
    let merged = |a: Requirement, b: Requirement| a.intersection(&b);
    let there_but_not_x = merged(of(Operator::Exists, &[]), of(Operator::NotIn, &["x"]));
    let nothing = merged(of(Operator::In, &["x"]), of(Operator::In, &["y"]));
    let crossed = merged(of(Operator::Gt, &["5"]), of(Operator::Lt, &["3"]));
    for all in [&there_but_not_x, &nothing, &crossed] {
        assert!(!all.allows_absence(), "{all}");
    }
    assert!(there_but_not_x.has("y") && !there_but_not_x.has("x"));
    assert_eq!(nothing.to_string(), "k In [] (contradicts itself)");
    let absent = merged(of(Operator::DoesNotExist, &[]), of(Operator::NotIn, &["x"]));
    assert!(absent.allows_absence());
    assert_eq!(absent.to_string(), "k DoesNotExist");
}
