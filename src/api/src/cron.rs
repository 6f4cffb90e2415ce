//! Cron schedules of disruption budgets, in UTC: five fields or a descriptor, as robfig/cron's `ParseStandard` reads
//! them. Days of the week are 0 to 6; there are no seconds, no years and no time zones.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// How far ahead a hit is looked for; a schedule such as 30 February has none.
const SEARCH_YEARS: i16 = 5;

/// When something is to happen, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether a day has to match both its fields; otherwise one of them will do.
    both_days: bool,
}

/// Why a text is not a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a schedule: {problem}")]
pub struct ParseScheduleError {
    /// The offending text.
    pub text: String,
    /// What is wrong with it.
    pub problem: String,
}

struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field {
        name: "minute",
        min: 0,
        max: 59,
        names: &[],
    },
    Field {
        name: "hour",
        min: 0,
        max: 23,
        names: &[],
    },
    Field {
        name: "day of month",
        min: 1,
        max: 31,
        names: &[],
    },
    Field {
        name: "month",
        min: 1,
        max: 12,
        names: &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    },
    Field {
        name: "day of week",
        min: 0,
        max: 6,
        names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    },
];

const DESCRIPTORS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

impl std::str::FromStr for Schedule {
    type Err = ParseScheduleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|problem| ParseScheduleError {
            text: text.to_owned(),
            problem,
        })
    }
}

fn parse(text: &str) -> Result<Schedule, String> {
    let fields = if text.starts_with('@') {
        let known = DESCRIPTORS.iter().find(|(name, _)| *name == text);
        let names = || DESCRIPTORS.map(|(name, _)| name).join(", ");
        known
            .ok_or_else(|| format!("expected one of {}", names()))?
            .1
    } else {
        text
    };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields.as_slice() else {
        let expected = "expected 5 fields: minute, hour, day of month, month, day of week";
        return Err(format!("{expected}; found {}", fields.len()));
    };
    let [f0, f1, f2, f3, f4] = &FIELDS;
    let (days, any_day) = f2.read(day)?;
    let (weekdays, any_weekday) = f4.read(weekday)?;
    Ok(Schedule {
        minutes: f0.read(minute)?.0,
        hours: f1.read(hour)?.0,
        days,
        months: f3.read(month)?.0,
        weekdays,
        both_days: any_day || any_weekday,
    })
}

impl Field {
    /// The values as bits, and whether the field says "any".
    fn read(&self, text: &str) -> Result<(u64, bool), String> {
        let (mut bits, mut any) = (0, false);
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (more, star) = self.range(part)?;
            bits |= more;
            any |= star;
        }
        if bits == 0 {
            return Err(format!("{} {text:?} names no value", self.name));
        }
        Ok((bits, any))
    }

    fn range(&self, part: &str) -> Result<(u64, bool), String> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let star = matches!(range, "*" | "?");
        let (low, high) = if star {
            (self.min, self.max)
        } else {
            match range.split_once('-') {
                Some((low, high)) => (self.value(low)?, self.value(high)?),
                // "N/step" runs to the end of the field.
                None if step.is_some() => (self.value(range)?, self.max),
                None => (self.value(range)?, self.value(range)?),
            }
        };
        let step = step.map_or(Ok(1), |text| number(text, self.name))?;
        if low < self.min || high > self.max || low > high {
            return Err(format!(
                "{} {part:?}: expected a range within {} to {}",
                self.name, self.min, self.max
            ));
        }
        let width = usize::try_from(step).unwrap_or(0);
        if width == 0 {
            return Err(format!("{} {part:?}: a step of 0", self.name));
        }
        let bits = (low..=high).step_by(width).fold(0, |b, v| b | 1 << v);
        Ok((bits, star && step == 1))
    }

    fn value(&self, text: &str) -> Result<u32, String> {
        let named = self
            .names
            .iter()
            .zip(self.min..)
            .find(|(name, _)| name.eq_ignore_ascii_case(text));
        match named {
            Some((_, value)) => Ok(value),
            None => number(text, self.name),
        }
    }
}

fn number(text: &str, field: &str) -> Result<u32, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| format!("{field}: {text:?} is not a number"))
}

impl Schedule {
    /// The first hit after `time`; none if there is none within five years.
    #[must_use]
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        let from = TimeZone::UTC.to_datetime(time);
        let last_year = from.year().checked_add(SEARCH_YEARS)?;
        let mut date = from.date();
        // The rest of the first day: later than the present minute, which has begun.
        if self.is_day(date)
            && let Some(hit) = self.within(date, from.hour(), from.minute().checked_add(1))
        {
            return TimeZone::UTC.to_timestamp(hit).ok();
        }
        loop {
            date = if self.months & (1 << date.month()) == 0 {
                date.first_of_month().checked_add(1.month()).ok()?
            } else {
                date.tomorrow().ok()?
            };
            if date.year() > last_year {
                return None;
            }
            if self.is_day(date)
                && let Some(hit) = self.within(date, 0, Some(0))
            {
                return TimeZone::UTC.to_timestamp(hit).ok();
            }
        }
    }

    fn is_day(&self, date: Date) -> bool {
        let day = self.days & (1 << date.day()) != 0;
        let weekday = self.weekdays & (1 << date.weekday().to_sunday_zero_offset()) != 0;
        let matches = if self.both_days {
            day && weekday
        } else {
            day || weekday
        };
        matches && self.months & (1 << date.month()) != 0
    }

    /// The first hit of a day at or after `hour:minute`.
    fn within(&self, date: Date, hour: i8, minute: Option<i8>) -> Option<DateTime> {
        let minute_now = minute
            .and_then(|m| first_bit(self.minutes, m))
            .filter(|_| self.hours & (1 << hour) != 0);
        if let Some(minute) = minute_now {
            return Some(date.at(hour, minute, 0, 0));
        }
        let hour = first_bit(self.hours, hour.checked_add(1)?)?;
        Some(date.at(hour, first_bit(self.minutes, 0)?, 0, 0))
    }
}

/// The lowest bit at or above `from`.
fn first_bit(bits: u64, from: i8) -> Option<i8> {
    let left = bits.checked_shr(u32::try_from(from).ok()?)?;
    let offset = i8::try_from(left.trailing_zeros()).ok()?;
    (left != 0).then(|| from + offset)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[rstest]
    #[case("* * * * *", "2026-03-01T10:20:30Z", "2026-03-01T10:21:00Z")]
    #[case("* * * * *", "2026-03-01T10:20:00Z", "2026-03-01T10:21:00Z")]
    #[case("* * * * *", "2026-03-01T10:19:59.999Z", "2026-03-01T10:20:00Z")]
    #[case("59 23 31 12 *", "2026-12-31T23:59:00Z", "2027-12-31T23:59:00Z")]
    #[case(
        "*/15 9-17 * * mon-fri",
        "2026-03-06T17:45:00Z",
        "2026-03-09T09:00:00Z"
    )]
    #[case("5/20 0 * * *", "2026-03-06T00:25:00Z", "2026-03-06T00:45:00Z")]
    #[case("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z")]
    #[case("0 0 31 * *", "2026-01-31T00:00:00Z", "2026-03-31T00:00:00Z")]
    #[case("0 9 ? JAN,Jul SUN", "2026-02-01T00:00:00Z", "2026-07-05T09:00:00Z")]
    // Both day fields given: either will do.
    #[case("0 0 13 * 5", "2026-03-01T00:00:00Z", "2026-03-06T00:00:00Z")]
    #[case("0 0 10 * 5", "2026-03-09T00:00:00Z", "2026-03-10T00:00:00Z")]
    // A step takes the "any" away: either will do here too.
    #[case("0 0 */2 * 1", "2026-03-01T12:00:00Z", "2026-03-02T00:00:00Z")]
    #[case("0 0 */1 * 1", "2026-03-03T12:00:00Z", "2026-03-09T00:00:00Z")]
    #[case("1,,2 * * * *", "2026-03-01T00:01:00Z", "2026-03-01T00:02:00Z")]
    #[case("  0   0\t* * *  ", "2026-03-01T12:00:00Z", "2026-03-02T00:00:00Z")]
    #[case("@yearly", "2026-03-01T12:00:00Z", "2027-01-01T00:00:00Z")]
    #[case("@annually", "2026-03-01T12:00:00Z", "2027-01-01T00:00:00Z")]
    #[case("@monthly", "2026-03-01T12:00:00Z", "2026-04-01T00:00:00Z")]
    #[case("@weekly", "2026-03-02T12:00:00Z", "2026-03-08T00:00:00Z")]
    #[case("@daily", "2026-03-01T12:00:00Z", "2026-03-02T00:00:00Z")]
    #[case("@midnight", "2026-03-01T12:00:00Z", "2026-03-02T00:00:00Z")]
    #[case("@hourly", "2026-03-01T12:00:00Z", "2026-03-01T13:00:00Z")]
    fn hits(#[case] text: &str, #[case] from: &str, #[case] next: &str) {
        let schedule: Schedule = text.parse().unwrap();
        assert_eq!(schedule.next_after(at(from)), Some(at(next)));
    }

    #[test]
    fn some_schedules_never_hit() {
        let schedule: Schedule = "0 0 30 2 *".parse().unwrap();
        assert_eq!(schedule.next_after(at("2026-01-01T00:00:00Z")), None);
        assert_eq!(schedule.next_after(Timestamp::MAX), None);
    }

    #[rstest]
    #[case("", "found 0")]
    #[case("* * * *", "found 4")]
    #[case("0 * * * * *", "found 6")]
    #[case("TZ=UTC * * * * *", "found 6")]
    #[case("@every 1h", "expected one of @yearly")]
    #[case("@Daily", "expected one of")]
    #[case("60 * * * *", "minute \"60\": expected a range within 0 to 59")]
    #[case("* 24 * * *", "hour")]
    #[case("* * 0 * *", "day of month")]
    #[case("* * * 13 *", "month")]
    #[case("* * * * 7", "day of week \"7\": expected a range within 0 to 6")]
    #[case("5-1 * * * *", "range")]
    #[case("*/0 * * * *", "a step of 0")]
    #[case("1/2/3 * * * *", "is not a number")]
    #[case("1-2-3 * * * *", "is not a number")]
    #[case("-1 * * * *", "is not a number")]
    #[case("+1 * * * *", "is not a number")]
    #[case("L * * * *", "is not a number")]
    #[case("* * * * mon#1", "is not a number")]
    #[case(", * * * *", "names no value")]
    #[case("99999999999 * * * *", "is not a number")]
    fn refusals(#[case] text: &str, #[case] expected: &str) {
        let error = text.parse::<Schedule>().unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{text:?} is not a schedule: ")),
            "{error}"
        );
        assert!(error.contains(expected), "{error}");
    }

    /// A field's text, and the values it stands for.
    fn field(min: u32, max: u32) -> impl Strategy<Value = String> {
        let value = min..=max;
        prop_oneof![
            3 => Just("*".to_owned()),
            2 => value.clone().prop_map(|v| v.to_string()),
            1 => (value.clone(), value.clone())
                .prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            1 => (2_u32..9).prop_map(|s| format!("*/{s}")),
            1 => (value.clone(), value).prop_map(|(a, b)| format!("{a},{b}")),
        ]
    }

    proptest! {
        #[test]
        fn never_panics(text in "[@0-9*/,? a-z-]{0,30}", second in any::<i32>()) {
            if let Ok(schedule) = text.parse::<Schedule>() {
                let _ = schedule.next_after(Timestamp::from_second(second.into()).unwrap());
            }
        }

        /// An independent implementation agrees wherever the two dialects do: with one of the day fields open.
        #[test]
        fn agrees_with_croner(
            (minute, hour, day, month) in (field(0, 59), field(0, 23), field(1, 28), field(1, 12)),
            weekday in field(0, 6),
            by_weekday in any::<bool>(),
            second in 1_700_000_000_i64..1_900_000_000,
        ) {
            let (day, weekday) = if by_weekday { ("*".to_owned(), weekday) } else { (day, "*".to_owned()) };
            let text = format!("{minute} {hour} {day} {month} {weekday}");
            let from = Timestamp::from_second(second).unwrap();
            let ours = text.parse::<Schedule>().unwrap().next_after(from);
            let theirs: croner::Cron = text.parse().unwrap();
            let zoned = from.to_zoned(TimeZone::UTC);
            let theirs = theirs.find_next_occurrence(&zoned, false).unwrap();
            prop_assert_eq!(ours, Some(theirs.timestamp()), "{}", text);
        }

        #[test]
        fn hits_come_in_order(minute in field(0, 59), hour in field(0, 23), second in 0..2_000_000_000_i64) {
            let schedule: Schedule = format!("{minute} {hour} * * *").parse().unwrap();
            let from = Timestamp::from_second(second).unwrap();
            let first = schedule.next_after(from).unwrap();
            prop_assert!(first > from);
            let just_before = first - SignedDuration::from_nanos(1);
            prop_assert_eq!(schedule.next_after(just_before), Some(first));
        }
    }
}
