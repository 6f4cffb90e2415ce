//! Reads quantities until `karpenter_api::Quantity` implements `FromStr`; goes when it does.

use karpenter_api::Quantity;
use karpenter_api::quantity::ParseQuantityError;

/// Digits after the point that are looked at; finer ones only round up.
const NANO_DIGITS: usize = 9;

pub(crate) fn parse(text: &str) -> Result<Quantity, ParseQuantityError> {
    read(text).ok_or_else(|| ParseQuantityError {
        text: text.to_owned(),
    })
}

fn read(text: &str) -> Option<Quantity> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    let (number, suffix) = rest.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (multiplier, divisor): (i128, i128) = match suffix {
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "" => (1, 1),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E'])?;
            let n: i32 = digits.parse().ok()?;
            let power = 10_i128.checked_pow(n.unsigned_abs())?;
            if n < 0 { (1, power) } else { (power, 1) }
        }
    };
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let kept: String = fraction.chars().take(NANO_DIGITS).collect();
    let digits: i128 = if kept.is_empty() {
        0
    } else {
        kept.parse().ok()?
    };
    let scale = 10_i128.checked_pow(u32::try_from(NANO_DIGITS - kept.len()).ok()?)?;
    let nanos = whole
        .checked_mul(1_000_000_000)?
        .checked_add(digits.checked_mul(scale)?)?;
    let scaled = nanos.checked_mul(multiplier)?;
    let up = i128::from(scaled % divisor != 0);
    let nanos = scaled / divisor + up;
    Some(Quantity::from_nanos(if negative { -nanos } else { nanos }))
}
