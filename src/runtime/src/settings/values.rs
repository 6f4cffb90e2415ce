//! Values of settings: how they are read from text and written back.

use std::fmt::Write as _;
use std::time::Duration;

/// A value that a setting does not take. What it takes is the row's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// Which cloud the controller buys from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProviderKind {
    /// Amazon EC2.
    #[default]
    Ec2,
    /// Nodes made straight in the cluster.
    Kwok,
}

impl ProviderKind {
    /// As in settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Kwok => "kwok",
        }
    }
}

/// Least important log lines that are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happened.
    #[default]
    Info,
    /// What went wrong.
    Error,
}

impl LogLevel {
    /// As in settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Error => "error",
        }
    }
}

/// A boolean as the environment may spell it.
pub(super) fn env_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A duration as Go writes it: `300ms`, `1.5h`, `1m30s`, `0`. None if it is not one, or negative.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_u128;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .filter(|end| *end > 0)?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let nanos: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        if !whole.is_empty() {
            total = total.checked_add(whole.parse::<u128>().ok()?.checked_mul(nanos)?)?;
        }
        if !fraction.is_empty() {
            // More digits than a nanosecond of an hour needs change nothing.
            let digits: String = fraction.chars().take(18).collect();
            let scale = 10_u128.checked_pow(u32::try_from(digits.len()).ok()?)?;
            total = total.checked_add(digits.parse::<u128>().ok()?.checked_mul(nanos)? / scale)?;
        }
        rest = tail;
    }
    // Go counts in 64 bits of nanoseconds: nearly 300 years.
    i64::try_from(total).ok()?;
    let seconds = u64::try_from(total / 1_000_000_000).ok()?;
    let nanos = u32::try_from(total % 1_000_000_000).ok()?;
    Some(Duration::new(seconds, nanos))
}

/// A duration in the shortest form that [`parse_duration`] reads back: `1m30s`, `250ms`, `0s`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut text = String::new();
    let seconds = duration.as_secs();
    for (unit, amount) in [
        ("h", seconds / 3600),
        ("m", seconds / 60 % 60),
        ("s", seconds % 60),
    ] {
        if amount > 0 {
            // Writing into a String cannot fail.
            let _ = write!(text, "{amount}{unit}");
        }
    }
    let nanos = duration.subsec_nanos();
    if nanos > 0 {
        let _ = if nanos.is_multiple_of(1_000_000) {
            write!(text, "{}ms", nanos / 1_000_000)
        } else {
            write!(text, "{nanos}ns")
        };
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

/// Insertions, deletions and replacements between two words (Levenshtein).
pub(super) fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.to_lowercase().chars().enumerate() {
        let mut row = vec![i + 1];
        let mut corner = i;
        for (y, above) in b.iter().zip(previous.iter().skip(1)) {
            let left = row.last().copied().unwrap_or_default();
            row.push((corner + usize::from(x != *y)).min(left + 1).min(above + 1));
            corner = *above;
        }
        previous = row;
    }
    previous.last().copied().unwrap_or_default()
}
