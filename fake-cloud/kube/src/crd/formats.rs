//! String formats of schemas that the server checks; others are remarks.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// Whether a string has a format.
#[must_use]
pub fn is_string_of(format: &str, text: &str) -> bool {
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "byte" => BASE64_STANDARD.decode(text).is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "ip" => text.parse::<std::net::IpAddr>().is_ok(),
        "cidr" => is_cidr(text),
        "uuid" => is_uuid(text),
        "duration" => is_duration(text),
        "email" => is_email(text),
        "hostname" => crate::validate::names::subdomain_error(&text.to_ascii_lowercase()).is_none(),
        "mac" => is_mac(text),
        _ => true,
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let limit = match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= limit)
}

/// An address without a display name.
fn is_email(text: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "()<>[],;:\\\"".contains(c);
    text.rsplit_once('@').is_some_and(|(user, host)| {
        !user.is_empty() && !user.contains('@') && !host.is_empty() && !text.contains(odd)
    })
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    let hex = |p: &&str| p.len() == 2 && p.chars().all(|c| c.is_ascii_hexdigit());
    matches!(parts.len(), 6 | 8 | 20) && parts.iter().all(hex)
}

fn is_uuid(text: &str) -> bool {
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    hex.len() == 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
}

/// Go's durations: `1h30m`, `0`, `1.5s`, `300ms`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let digits = rest.len()
            - rest
                .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
                .len();
        let (number, after) = rest.split_at(digits);
        if number.parse::<f64>().is_err() {
            return false;
        }
        let Some(unit) = ["ns", "us", "µs", "ms", "s", "m", "h"].iter().find(|u| {
            after.strip_prefix(**u).is_some_and(|more| {
                more.is_empty() || more.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            })
        }) else {
            return false;
        };
        rest = after.strip_prefix(unit).unwrap_or("");
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("date-time", "2026-01-01T00:00:00Z", true)]
    #[case("date-time", "yesterday", false)]
    #[case("duration", "1h30m", true)]
    #[case("duration", "1.5s", true)]
    #[case("duration", "0", true)]
    #[case("duration", "1d", false)]
    #[case("duration", "", false)]
    #[case("cidr", "10.0.0.0/8", true)]
    #[case("cidr", "10.0.0.0/33", false)]
    #[case("uuid", "00000000-0000-4000-8000-000000000000", true)]
    #[case("byte", "aGk=", true)]
    #[case("byte", "a", false)]
    #[case("whatever", "x", true)]
    fn formats(#[case] format: &str, #[case] text: &str, #[case] ok: bool) {
        assert_eq!(is_string_of(format, text), ok, "{format} {text}");
    }
}
