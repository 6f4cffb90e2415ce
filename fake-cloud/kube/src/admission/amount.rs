//! A quantity that keeps the notation it was written in, as Kubernetes' own does: sums are told as their first part was.

use std::fmt;

use karpenter_api::quantity::{Format, Quantity};
use serde_json::Value;

/// An amount of a resource.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amount {
    quantity: Quantity,
    format: Option<Format>,
}

impl Amount {
    /// One, of what is counted.
    #[must_use]
    pub const fn one() -> Self {
        Self {
            quantity: Quantity::from_units(1),
            format: None,
        }
    }

    /// Reads a JSON value; none when it is no quantity.
    #[must_use]
    pub fn read(value: &Value) -> Option<Self> {
        let (quantity, format) = Quantity::parse_with_format(value.as_str()?).ok()?;
        Some(Self {
            quantity,
            format: Some(format),
        })
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self {
            quantity: self
                .quantity
                .checked_add(more.quantity)
                .unwrap_or(self.quantity),
            format: if self.is_zero() {
                more.format.or(self.format)
            } else {
                self.format
            },
        }
    }

    /// The larger.
    #[must_use]
    pub fn or_more(self, other: Self) -> Self {
        if other.exceeds(self) { other } else { self }
    }

    /// Whether it is more than another.
    #[must_use]
    pub fn exceeds(self, other: Self) -> bool {
        self.quantity > other.quantity
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.quantity.nanos() == 0
    }

    /// In thousandths.
    #[must_use]
    pub fn millis(self) -> i64 {
        self.quantity.millis()
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = self.format.unwrap_or(Format::DecimalSi);
        f.write_str(&self.quantity.to_string_as(format))
    }
}
