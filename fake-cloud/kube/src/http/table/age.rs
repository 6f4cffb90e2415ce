//! Durations as kubectl's users read them.

use jiff::Timestamp;
use serde_json::Value;

use crate::meta::text;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// A duration with the one or two units that matter.
#[must_use]
pub fn human(seconds: i64) -> String {
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{big}{big_unit}")
        } else {
            format!("{big}{big_unit}{small}{small_unit}")
        }
    };
    match seconds {
        s if s < -1 => "<invalid>".to_owned(),
        s if s < 0 => "0s".to_owned(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(s / DAY, "d", s % DAY / HOUR, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(s / YEAR, "y", s % YEAR / DAY, "d"),
        s => format!("{}y", s / YEAR),
    }
}

/// How long ago the time at `path` was; `<unknown>` where there is none.
#[must_use]
pub fn since(object: &Value, path: &[&str], now_seconds: i64) -> String {
    of(text(object, path), now_seconds)
}

/// How long ago a time was.
#[must_use]
pub fn of(time: &str, now_seconds: i64) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) => human(now_seconds - then.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(0, "0s")]
    #[case(119, "119s")]
    #[case(120, "2m")]
    #[case(599, "9m59s")]
    #[case(600, "10m")]
    #[case(3 * 3600 - 1, "179m")]
    #[case(3 * 3600, "3h")]
    #[case(3 * 3600 + 61, "3h1m")]
    #[case(47 * 3600, "47h")]
    #[case(49 * 3600, "2d1h")]
    #[case(30 * 86400, "30d")]
    #[case(3 * 365 * 86400 + 86400, "3y1d")]
    #[case(-5, "<invalid>")]
    fn humans(#[case] seconds: i64, #[case] text: &str) {
        assert_eq!(human(seconds), text);
    }
}
