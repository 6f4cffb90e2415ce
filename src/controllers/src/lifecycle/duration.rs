//! Durations as users write them in our API (`^(([0-9]+(s|m|h))+|Never)$`): `720h`, `1h30m`, `0s`; `Never` is none.

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
        let (unit, tail) = ["h", "m", "s"]
            .iter()
            .find_map(|unit| Some((*unit, tail.strip_prefix(unit)?)))?;
        let part = match unit {
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            _ => Duration::from_secs(number),
        };
        total = total.checked_add(part)?;
        rest = tail;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("720h", Some(720 * 3600))]
    #[case("1h30m", Some(5400))]
    #[case("30m1h", Some(5400))]
    #[case("0s", Some(0))]
    #[case("Never", None)]
    #[case("", None)]
    #[case("5", None)]
    #[case("-5s", None)]
    #[case("99999999999999999999h", None)]
    fn a_duration_is_read(#[case] text: &str, #[case] seconds: Option<u64>) {
        assert_eq!(parse(text), seconds.map(Duration::from_secs));
    }
}
