//! NodeOverlay (`karpenter.sh/v1alpha1`): changes price or extended resources of instance types in the eyes of
//! scheduling. The machine itself stays what it is.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use kube::core::ClusterResourceScope;
use serde::{Deserialize, Serialize};

use crate::kinds::{Condition, ObjectMeta, RawQuantity, RequirementSpec, Rest, TypeInfo};

/// A change to the instance types and offerings that match its requirements.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeOverlay {
    /// `apiVersion` and `kind`.
    #[serde(flatten)]
    pub types: TypeInfo,
    /// Standard metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is changed.
    #[serde(default)]
    pub spec: NodeOverlaySpec,
    /// Whether it is.
    #[serde(default)]
    pub status: NodeOverlayStatus,
}

/// Spec of a [`NodeOverlay`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeOverlaySpec {
    /// Which instance types and offerings; without `minValues`.
    #[serde(default)]
    pub requirements: Vec<RequirementSpec>,
    /// Price an hour that replaces the provider's; not beside `price_adjustment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<String>,
    /// Signed amount (`+0.01`) or percentage (`-10%`) that changes the provider's price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_adjustment: Option<String>,
    /// Extended resources that the types have besides.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub capacity: BTreeMap<String, RawQuantity>,
    /// Higher wins (1..=10000, none = 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
    /// Fields this build does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Status of a [`NodeOverlay`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeOverlayStatus {
    /// Conditions; see [`crate::condition::NODE_OVERLAY`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Fields this build does not know.
    #[serde(flatten)]
    pub rest: Rest,
}

crate::impl_kind!(
    NodeOverlay,
    "karpenter.sh",
    "v1alpha1",
    "NodeOverlay",
    "nodeoverlays",
    ClusterResourceScope
);

/// What an overlay does to a price.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PriceChange {
    /// It is this, in US dollars per hour.
    Set(f64),
    /// This much is added to it.
    Add(f64),
    /// It is multiplied by this.
    Scale(f64),
}

impl PriceChange {
    /// The price that `price` becomes; never below zero.
    #[must_use]
    pub fn of(self, price: f64) -> f64 {
        let changed = match self {
            Self::Set(new) => new,
            Self::Add(more) => price + more,
            Self::Scale(factor) => price * factor,
        };
        // Of a price that is no number nothing is known afterwards either.
        if changed < 0.0 { 0.0 } else { changed }
    }
}

impl NodeOverlaySpec {
    /// What it does to prices, if anything.
    ///
    /// # Errors
    /// The field that cannot be read, with what was expected.
    pub fn price_change(&self) -> Result<Option<PriceChange>, String> {
        match (&self.price, &self.price_adjustment) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => {
                Err("spec.price: expected none beside spec.priceAdjustment".to_owned())
            }
            (Some(text), None) => match plain(text) {
                Some(price) => Ok(Some(PriceChange::Set(price))),
                None => Err(format!(
                    "spec.price: {text:?}; expected US dollars an hour, such as 0.25"
                )),
            },
            (None, Some(text)) => match adjustment(text) {
                Some(change) => Ok(Some(change)),
                None => Err(format!(
                    "spec.priceAdjustment: {text:?}; expected a signed amount or percentage, such as +0.01 or -10%"
                )),
            },
        }
    }
}

/// A number of digits with at most one point.
fn plain(text: &str) -> Option<f64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number = text.parse::<f64>().ok()?;
    (digits && number.is_finite()).then_some(number)
}

fn adjustment(text: &str) -> Option<PriceChange> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1.0, rest),
        ("-", rest) => (-1.0, rest),
        _ => return None,
    };
    let Some(percent) = rest.strip_suffix('%') else {
        return plain(rest).map(|amount| PriceChange::Add(sign * amount));
    };
    let factor = 1.0 + sign * plain(percent)? / 100.0;
    (factor >= 0.0 && factor.is_finite()).then_some(PriceChange::Scale(factor))
}

impl NodeOverlay {
    /// The order in which overlays are applied: heavier first, and of one weight the later in the alphabet first.
    #[must_use]
    pub fn precedence(&self, other: &Self) -> Ordering {
        let key = |o: &Self| (o.spec.weight.unwrap_or_default(), o.metadata.name.clone());
        key(other).cmp(&key(self))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    /// More digits than any number has.
    const LONG: &str = concat!(
        "999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999",
        "999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999",
        "999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999",
        "999999999999999999999999999999999999999999999999999999999999999999999999999999999999999999"
    );

    fn overlay(name: &str, weight: Option<i32>) -> NodeOverlay {
        let spec = json!({ "requirements": [], "weight": weight });
        serde_json::from_value(json!({ "metadata": { "name": name }, "spec": spec })).unwrap()
    }

    #[test]
    fn heavier_first_then_later_in_the_alphabet() {
        let mut all = [
            overlay("a", None),
            overlay("b", Some(5)),
            overlay("c", Some(5)),
            overlay("d", None),
        ];
        all.sort_by(NodeOverlay::precedence);
        let names = all.map(|o| o.metadata.name.unwrap());
        assert_eq!(names, ["c", "b", "d", "a"]);
    }

    #[rstest]
    #[case::price(Some("0.25"), None, Ok(Some(0.25)))]
    #[case::for_nothing(Some("0"), None, Ok(Some(0.0)))]
    #[case::more(None, Some("+0.5"), Ok(Some(1.5)))]
    #[case::less(None, Some("-.25"), Ok(Some(0.75)))]
    #[case::never_below_zero(None, Some("-7"), Ok(Some(0.0)))]
    #[case::a_tenth_off(None, Some("-10%"), Ok(Some(0.9)))]
    #[case::all_off(None, Some("-100%"), Ok(Some(0.0)))]
    #[case::threefold(None, Some("+200%"), Ok(Some(3.0)))]
    #[case::nothing(None, None, Ok(None))]
    #[case::both(Some("1"), Some("+1"), Err("spec.price: expected none beside"))]
    #[case::negative(Some("-1"), None, Err("spec.price: \"-1\"; expected US dollars"))]
    #[case::words(Some("cheap"), None, Err("spec.price: \"cheap\""))]
    #[case::not_a_number(Some("NaN"), None, Err("spec.price"))]
    #[case::endless(Some("inf"), None, Err("spec.price"))]
    #[case::exponent(Some("1e3"), None, Err("spec.price"))]
    #[case::too_many_digits(Some(LONG), None, Err("spec.price"))]
    #[case::no_sign(None, Some("0.1"), Err("spec.priceAdjustment: \"0.1\""))]
    #[case::more_than_all(None, Some("-101%"), Err("spec.priceAdjustment: \"-101%\""))]
    #[case::empty(None, Some(""), Err("spec.priceAdjustment: \"\""))]
    #[case::umlaut(None, Some("\u{e4}1"), Err("spec.priceAdjustment"))]
    fn prices_change(
        #[case] price: Option<&str>,
        #[case] adjustment: Option<&str>,
        #[case] expected: Result<Option<f64>, &str>,
    ) {
        let spec = NodeOverlaySpec {
            price: price.map(str::to_owned),
            price_adjustment: adjustment.map(str::to_owned),
            ..NodeOverlaySpec::default()
        };
        match (spec.price_change(), expected) {
            (Ok(change), Ok(expected)) => {
                let now = change.map(|c| (c.of(1.0) * 1e9).round() / 1e9);
                assert_eq!(now, expected);
            }
            (Err(error), Err(expected)) => assert!(error.starts_with(expected), "{error}"),
            (got, expected) => panic!("{got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_price_that_is_no_number_stays_one_that_is_none() {
        assert!(PriceChange::Add(1.0).of(f64::NAN).is_nan());
        assert_eq!(PriceChange::Set(1.0).of(f64::NAN), 1.0);
    }

    #[test]
    fn nothing_is_lost() {
        let object = json!({
            "apiVersion": "karpenter.sh/v1alpha1", "kind": "NodeOverlay", "metadata": { "name": "a" },
            "spec": {
                "requirements": [{ "key": "k", "operator": "Exists" }], "priceAdjustment": "-10%",
                "capacity": { "smarter-devices/fuse": "1" }, "weight": 1, "later": [1],
            },
            "status": { "later": true },
        });
        let overlay: NodeOverlay = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(serde_json::to_value(overlay).unwrap(), object);
    }
}
