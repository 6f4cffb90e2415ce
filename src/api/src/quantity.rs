//! Kubernetes quantities, exactly: a count of 10⁻⁹ units in 128 bits. No floats.
//! Syntax and rounding follow `k8s.io/apimachinery` `resource.Quantity`.

use std::fmt;

/// An amount of a resource. Compares by amount, whatever text it came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    nanos: i128,
}

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a quantity: expected a number with an optional suffix (n u m k M G T P E, Ki Mi Gi Ti Pi Ei, or an exponent such as e3)"
)]
pub struct ParseQuantityError {
    /// The offending text.
    pub text: String,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0 };

    /// From 10⁻⁹ units.
    #[must_use]
    pub const fn from_nanos(nanos: i128) -> Self {
        Self { nanos }
    }
    /// From thousandths (millicores, say).
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self {
            nanos: millis as i128 * 1_000_000,
        }
    }
    /// From whole units (bytes, pods, cores).
    #[must_use]
    pub const fn from_units(units: i64) -> Self {
        Self {
            nanos: units as i128 * 1_000_000_000,
        }
    }
    /// In 10⁻⁹ units.
    #[must_use]
    pub const fn nanos(self) -> i128 {
        self.nanos
    }
    /// In thousandths, rounded up, as Go's `MilliValue`.
    #[must_use]
    pub fn millis(self) -> i64 {
        clamp(div_up(self.nanos, 1_000_000))
    }
    /// In whole units, rounded up, as Go's `Value`.
    #[must_use]
    pub fn units(self) -> i64 {
        clamp(div_up(self.nanos, 1_000_000_000))
    }
}

fn div_up(n: i128, d: i128) -> i128 {
    n.div_euclid(d) + i128::from(n.rem_euclid(d) != 0)
}

fn clamp(n: i128) -> i64 {
    i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX })
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}n", self.nanos)
    }
}
