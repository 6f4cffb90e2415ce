//! Kubernetes quantities, exactly: a count of 10⁻⁹ units in 128 bits. No floats.
//! Syntax and rounding follow `k8s.io/apimachinery` `resource.Quantity`. Two differences: a number needs at least
//! one digit (Go reads `-` as 0), and amounts above 2^63-1 units are kept exactly instead of being cut to that.

use std::fmt;
use std::str::FromStr;

use crate::kinds::RawQuantity;

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

    /// Reads a quantity together with the notation it was written in, which Go's printing keeps.
    ///
    /// # Errors
    /// When the text is not a quantity.
    pub fn parse_with_format(text: &str) -> Result<(Self, Format), ParseQuantityError> {
        parse(text).ok_or_else(|| ParseQuantityError {
            text: text.to_owned(),
        })
    }

    /// Canonical text with decimal suffixes: `1500m`, `2G`.
    #[must_use]
    pub fn to_decimal_string(self) -> String {
        self.to_string_as(Format::DecimalSi)
    }
    /// Canonical text with binary suffixes: `1536Mi`. Fractions are rounded up; amounts under 1024 fall back to
    /// decimal suffixes, as in Go.
    #[must_use]
    pub fn to_binary_string(self) -> String {
        self.to_string_as(Format::BinarySi)
    }
    /// Canonical text in the notation of choice: no fraction, the largest suffix that loses nothing.
    #[must_use]
    pub fn to_string_as(self, format: Format) -> String {
        match format {
            Format::BinarySi if self.nanos.abs() >= 1024 * NANOS_PER_UNIT => binary(self.nanos),
            Format::BinarySi | Format::DecimalSi => {
                let (mantissa, exponent) = thousands(self.nanos, 18);
                let suffix = DECIMAL_SUFFIXES
                    .iter()
                    .find(|(_, power)| *power == exponent)
                    .map_or("", |(suffix, _)| suffix);
                format!("{mantissa}{suffix}")
            }
            Format::DecimalExponent => match thousands(self.nanos, i32::MAX) {
                (mantissa, 0) => mantissa.to_string(),
                (mantissa, exponent) => format!("{mantissa}e{exponent}"),
            },
        }
    }

    /// Sum, unless it leaves the range of 128 bits.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.nanos.checked_add(other.nanos) {
            Some(nanos) => Some(Self { nanos }),
            None => None,
        }
    }
    /// Difference, unless it leaves the range of 128 bits.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.nanos.checked_sub(other.nanos) {
            Some(nanos) => Some(Self { nanos }),
            None => None,
        }
    }
    /// Sum, held at the ends of the range.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_add(other.nanos),
        }
    }
    /// Difference, held at the ends of the range.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_sub(other.nanos),
        }
    }
    /// Whether it is zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.nanos == 0
    }
}

/// Notation of a quantity's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `n u m k M G T P E` or no suffix.
    #[default]
    DecimalSi,
    /// `Ki Mi Gi Ti Pi Ei`.
    BinarySi,
    /// `e3`, `E3`.
    DecimalExponent,
}

const NANOS_PER_UNIT: i128 = 1_000_000_000;
const NANO_DIGITS: i32 = 9;
/// Decimal suffixes and their powers of ten.
const DECIMAL_SUFFIXES: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
/// Binary suffixes and their powers of two.
const BINARY_SUFFIXES: [(&str, u32); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];

fn parse(text: &str) -> Option<(Quantity, Format)> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let number_end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at_checked(number_end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (power_of_two, power_of_ten, format) = read_suffix(suffix)?;
    let scale = power_of_ten
        .saturating_add(NANO_DIGITS)
        .saturating_sub(i32::try_from(fraction.len()).unwrap_or(i32::MAX));
    let digits = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0');
    let nanos = scaled(digits.collect(), 1 << power_of_two, scale);
    let nanos = if negative { -nanos } else { nanos };
    Some((Quantity { nanos }, format))
}

/// Power of two, power of ten and notation of a suffix.
fn read_suffix(suffix: &str) -> Option<(u32, i32, Format)> {
    if let Some((_, power)) = DECIMAL_SUFFIXES.iter().find(|(s, _)| *s == suffix) {
        return Some((0, *power, Format::DecimalSi));
    }
    if let Some((_, power)) = BINARY_SUFFIXES.iter().find(|(s, _)| *s == suffix) {
        return Some((*power, 0, Format::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((0, exponent.parse().ok()?, Format::DecimalExponent))
}

/// `digits * factor * 10^power`, rounded away from zero and held at the largest amount. Works on decimal digits, so
/// that no length of text makes it inexact.
fn scaled(mut digits: Vec<u8>, factor: u64, power: i32) -> i128 {
    if factor != 1 {
        digits = multiply(&digits, factor);
    }
    let mut up = false;
    if power < 0 {
        let cut = usize::try_from(power.unsigned_abs()).unwrap_or(usize::MAX);
        let stay = digits.len().saturating_sub(cut);
        up = digits.drain(stay..).any(|d| d != 0);
    }
    let whole = digits.iter().try_fold(0_i128, |sum, d| {
        sum.checked_mul(10)?.checked_add(i128::from(*d))
    });
    let exact = || -> Option<i128> {
        let whole = whole?;
        if whole == 0 {
            return Some(i128::from(up));
        }
        let shift = 10_i128.checked_pow(power.max(0).unsigned_abs())?;
        whole.checked_mul(shift)?.checked_add(i128::from(up))
    };
    exact().unwrap_or(i128::MAX)
}

/// Product of a number in decimal digits and a factor.
fn multiply(digits: &[u8], factor: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(digits.len() + 20);
    let mut carry = 0_u128;
    for digit in digits.iter().rev() {
        carry += u128::from(*digit) * u128::from(factor);
        out.push((carry % 10) as u8);
        carry /= 10;
    }
    while carry > 0 {
        out.push((carry % 10) as u8);
        carry /= 10;
    }
    out.reverse();
    out
}

/// `nanos` as `mantissa * 10^exponent` units, the exponent the largest multiple of 3 that is exact and at most `most`.
fn thousands(nanos: i128, most: i32) -> (i128, i32) {
    if nanos == 0 {
        return (0, 0);
    }
    let (mut mantissa, mut exponent) = (nanos, -NANO_DIGITS);
    while mantissa % 1000 == 0 && exponent < most {
        mantissa /= 1000;
        exponent += 3;
    }
    (mantissa, exponent)
}

/// Canonical binary text of `nanos`, fractions rounded up.
fn binary(nanos: i128) -> String {
    let units = div_up(nanos, NANOS_PER_UNIT);
    BINARY_SUFFIXES
        .iter()
        .rev()
        .find(|(_, power)| units % (1_i128 << power) == 0)
        .map_or_else(
            || units.to_string(),
            |(suffix, power)| format!("{}{suffix}", units >> power),
        )
}

fn div_up(n: i128, d: i128) -> i128 {
    n.div_euclid(d) + i128::from(n.rem_euclid(d) != 0)
}

fn clamp(n: i128) -> i64 {
    i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX })
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_decimal_string())
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse_with_format(text).map(|(quantity, _)| quantity)
    }
}

impl TryFrom<&RawQuantity> for Quantity {
    type Error = ParseQuantityError;

    fn try_from(raw: &RawQuantity) -> Result<Self, Self::Error> {
        raw.0.parse()
    }
}

impl From<Quantity> for RawQuantity {
    fn from(quantity: Quantity) -> Self {
        Self(quantity.to_decimal_string())
    }
}

#[cfg(test)]
#[path = "quantity_tests.rs"]
mod tests;
