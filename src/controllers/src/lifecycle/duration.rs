//! Durations as users write them in our API: `720h`, `1h30m`, `0s`; `Never` is none.

use std::time::Duration;

/// Reads a duration; none if it is `Never` or no duration.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at_checked(end)?;
        let number: u64 = number.parse().ok()?;
        let (unit, tail) = ["ms", "h", "m", "s"]
            .iter()
            .find_map(|unit| Some((*unit, tail.strip_prefix(unit)?)))?;
        let part = match unit {
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "s" => Duration::from_secs(number),
            _ => Duration::from_millis(number),
        };
        total = total.checked_add(part)?;
        rest = tail;
    }
    Some(total)
}
