//! Durations as Go writes them (`72h3m0.5s`). Objects keep the user's text, so that tools which compare manifests
//! see no difference; this reads it when a length is needed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Text that stands for no duration at all.
pub const NEVER: &str = "Never";

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration: expected {expected}")]
pub struct ParseDurationError {
    /// The offending text.
    pub text: String,
    /// What would be one.
    pub expected: &'static str,
}

impl ParseDurationError {
    fn new(text: &str, expected: &'static str) -> Self {
        Self {
            text: text.to_owned(),
            expected,
        }
    }
}

const ANY_UNIT: &str =
    "numbers with units h, m, s, ms, us or ns, such as 1h30m, of at most 292 years together";
const WHOLE_HMS: &str = "whole numbers with units h, m or s, such as 1h30m";
const WHOLE_HMS_OR_NEVER: &str = "whole numbers with units h, m or s, such as 1h30m, or Never";

/// Nanoseconds in each unit.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    // U+00B5, the micro sign, and U+03BC, the Greek letter.
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a non-negative duration of any of Go's units: `1.5h`, `72h3m0.5s`, `100ms`, `0`.
///
/// # Errors
/// When the text is no duration, is negative, or is longer than Go can hold (2^63-1 ns).
pub fn parse(text: &str) -> Result<Duration, ParseDurationError> {
    nanos(text)
        .map(Duration::from_nanos)
        .ok_or_else(|| ParseDurationError::new(text, ANY_UNIT))
}

fn nanos(text: &str) -> Option<u64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(end)?;
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(end)?;
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(amount(number, *factor)?)?;
        rest = tail;
    }
    (total <= i64::MAX as u64).then_some(total)
}

/// `number * factor`, what is finer than a nanosecond cut off.
fn amount(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let (mut part, mut scale) = (0_u128, 1_u128);
    // 18 digits of an hour are finer than a nanosecond.
    for digit in fraction.bytes().take(18) {
        part = part * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    let part = u64::try_from(part * u128::from(factor) / scale).ok()?;
    whole.checked_mul(factor)?.checked_add(part)
}

/// Reads a duration as the API admits it (`terminationGracePeriod`, budget durations): whole hours, minutes and
/// seconds.
///
/// # Errors
/// When the text is not such a duration.
pub fn parse_hms(text: &str) -> Result<Duration, ParseDurationError> {
    let shaped = text
        .chars()
        .all(|c| c.is_ascii_digit() || matches!(c, 'h' | 'm' | 's'));
    let shaped = shaped && !text.contains("ms") && text != "0";
    shaped
        .then(|| nanos(text))
        .flatten()
        .map(Duration::from_nanos)
        .ok_or_else(|| ParseDurationError::new(text, WHOLE_HMS))
}

/// Writes a duration as Go does: `72h3m0.5s`, `1h0m0s`, `1.5ms`, `0s`.
#[must_use]
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    for (unit, scale) in [("ns", 1_u128), ("\u{b5}s", 1_000), ("ms", 1_000_000)] {
        if nanos < scale * 1_000 && nanos < 1_000_000_000 {
            return format!("{}{unit}", decimal(nanos, scale));
        }
    }
    let minutes = nanos / 60_000_000_000;
    let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, m) => format!("{m}m{seconds}s"),
        (h, m) => format!("{h}h{m}m{seconds}s"),
    }
}

/// `value / scale` without trailing zeros.
fn decimal(value: u128, scale: u128) -> String {
    let digits = scale.ilog10() as usize;
    let (whole, part) = (value / scale, value % scale);
    if part == 0 {
        return whole.to_string();
    }
    let fraction = format!("{part:0digits$}");
    format!("{whole}.{}", fraction.trim_end_matches('0'))
}

/// A duration that can be switched off, with the text it came from (`expireAfter`, `consolidateAfter`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NillableDuration {
    text: String,
    duration: Option<Duration>,
}

impl NillableDuration {
    /// The length; none = never.
    #[must_use]
    pub const fn duration(&self) -> Option<Duration> {
        self.duration
    }
    /// The user's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
    /// Whether it is switched off.
    #[must_use]
    pub const fn is_never(&self) -> bool {
        self.duration.is_none()
    }
}

impl FromStr for NillableDuration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let duration = if text == NEVER {
            None
        } else {
            let read = parse_hms(text);
            Some(read.map_err(|_| ParseDurationError::new(text, WHOLE_HMS_OR_NEVER))?)
        };
        Ok(Self {
            text: text.to_owned(),
            duration,
        })
    }
}

impl fmt::Display for NillableDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0", 0)]
    #[case("0s", 0)]
    #[case("1h", 3_600_000)]
    #[case("72h3m0.5s", 259_380_500)]
    #[case("1.5h", 5_400_000)]
    #[case(".5m", 30_000)]
    #[case("5.s", 5_000)]
    #[case("+3m", 180_000)]
    #[case("100ms", 100)]
    #[case("2000us", 2)]
    #[case("2000\u{b5}s", 2)]
    #[case("2000\u{3bc}s", 2)]
    #[case("3000000ns", 3)]
    #[case("1m1m", 120_000)]
    fn reads(#[case] text: &str, #[case] millis: u64) {
        assert_eq!(parse(text), Ok(Duration::from_millis(millis)));
    }

    #[rstest]
    #[case("")]
    #[case("1")]
    #[case("h")]
    #[case(".s")]
    #[case("1.2.3s")]
    #[case("-1s")]
    #[case("1d")]
    #[case("1h ")]
    #[case("Never")]
    #[case("2562048h")]
    #[case("99999999999999999999s")]
    fn refuses(#[case] text: &str) {
        let error = parse(text).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("{text:?} is not a duration: expected"))
        );
    }

    #[rstest]
    #[case("1h30m", true)]
    #[case("0s", true)]
    #[case("90m0s", true)]
    #[case("1.5h", false)]
    #[case("100ms", false)]
    #[case("0", false)]
    #[case("+1h", false)]
    #[case("Never", false)]
    #[case("", false)]
    fn the_api_admits_whole_hours_minutes_seconds(#[case] text: &str, #[case] ok: bool) {
        assert_eq!(parse_hms(text).is_ok(), ok);
    }

    #[test]
    fn nillable_keeps_the_text() {
        let never: NillableDuration = "Never".parse().unwrap();
        assert!(never.is_never());
        assert_eq!(never.to_string(), "Never");
        let hour: NillableDuration = "60m".parse().unwrap();
        assert_eq!(hour.duration(), Some(Duration::from_secs(3600)));
        assert_eq!(hour.as_str(), "60m");
        let error = "never".parse::<NillableDuration>().unwrap_err();
        assert!(error.to_string().contains("or Never"), "{error}");
    }

    #[rstest]
    #[case(0, "0s")]
    #[case(1, "1ns")]
    #[case(1_100, "1.1\u{b5}s")]
    #[case(2_500_000, "2.5ms")]
    #[case(500_000_000, "500ms")]
    #[case(3_600_000_000_000, "1h0m0s")]
    #[case(65_000_000_000, "1m5s")]
    #[case(259_380_500_000_000, "72h3m0.5s")]
    fn writes_as_go(#[case] nanos: u64, #[case] text: &str) {
        assert_eq!(format(Duration::from_nanos(nanos)), text);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(nanos in 0..=i64::MAX as u64) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn never_panics(text in "[0-9hmsnu.+-]{0,30}") {
            let _ = (parse(&text), parse_hms(&text));
        }
    }
}
