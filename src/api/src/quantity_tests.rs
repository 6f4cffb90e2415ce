//! Quantities: Go's table of suffixes, rounding, canonical text, and the algebra by property.

use proptest::prelude::*;
use rstest::rstest;

use super::{Format, Quantity};
use crate::kinds::RawQuantity;

fn parse(text: &str) -> Quantity {
    text.parse().unwrap()
}

#[rstest]
#[case("0", 0)]
#[case("1n", 1)]
#[case("1u", 1_000)]
#[case("1m", 1_000_000)]
#[case("1", 1_000_000_000)]
#[case("1k", 1_000_000_000_000)]
#[case("1M", 1_000_000_000_000_000)]
#[case("1G", 1_000_000_000_000_000_000)]
#[case("1T", 1_000_000_000_000_000_000_000)]
#[case("1P", 1_000_000_000_000_000_000_000_000)]
#[case("1E", 1_000_000_000_000_000_000_000_000_000)]
#[case("1Ki", 1_024_000_000_000)]
#[case("1Mi", (1 << 20) * 1_000_000_000)]
#[case("1Gi", (1 << 30) * 1_000_000_000)]
#[case("1Ti", (1 << 40) * 1_000_000_000)]
#[case("1Pi", (1 << 50) * 1_000_000_000)]
#[case("1Ei", (1 << 60) * 1_000_000_000)]
#[case("1E3", 1_000_000_000_000)]
#[case("1e3", 1_000_000_000_000)]
#[case("1E+3", 1_000_000_000_000)]
#[case("1e-3", 1_000_000)]
#[case("1.5E", 1_500_000_000_000_000_000_000_000_000)]
#[case("+1", 1_000_000_000)]
#[case("-1", -1_000_000_000)]
#[case("-0", 0)]
#[case("007", 7_000_000_000)]
#[case("5.", 5_000_000_000)]
#[case(".5", 500_000_000)]
#[case("0.1", 100_000_000)]
#[case("1.5Gi", 3 * (1 << 29) * 1_000_000_000)]
#[case("0.3Ki", 307_200_000_000)]
#[case("9223372036854775807", 9_223_372_036_854_775_807_000_000_000)]
// Finer than a nano-unit: away from zero, so that wanting a little gets a little.
#[case("0.1n", 1)]
#[case("-0.1n", -1)]
#[case("1.0000000001", 1_000_000_001)]
#[case("1e-30", 1)]
#[case("0.000000000000000000000000000000000000000000001Ki", 1)]
#[case("0.12345678901234567890123Ei", 142_335_986_942_043_633_765_519_161)]
// Out of range: held there.
#[case("1e100", i128::MAX)]
#[case("-1e2000000000", -i128::MAX)]
#[case("0e2000000000", 0)]
fn reads_every_notation(#[case] text: &str, #[case] nanos: i128) {
    assert_eq!(parse(text).nanos(), nanos, "{text}");
}

#[rstest]
#[case("")]
#[case("-")]
#[case(".")]
#[case("1.1.M")]
#[case("1+1.0M")]
#[case("0.1mi")]
#[case("0.1am")]
#[case("aoeu")]
#[case(".5i")]
#[case("1i")]
#[case("1ki")]
#[case("1K")]
#[case("-3.01e-")]
#[case("1e")]
#[case("1e3.5")]
#[case("1e+-3")]
#[case("1 Gi")]
#[case(" 1")]
#[case("--1")]
#[case("1e99999999999")]
#[case("١")]
#[case("4é")]
fn refuses_what_go_refuses(#[case] text: &str) {
    let error = text.parse::<Quantity>().unwrap_err();
    assert_eq!(error.text, text);
    assert!(error.to_string().contains("is not a quantity"), "{error}");
}

#[rstest]
#[case("1500m", "1500m", "1500m")]
#[case("1000m", "1", "1")]
#[case("1000", "1k", "1k")]
#[case("1024", "1024", "1Ki")]
#[case("1.5Gi", "1610612736", "1536Mi")]
#[case("1.0001Ki", "1024102400u", "1025")]
#[case("2G", "2G", "1953125Ki")]
#[case("-2Ki", "-2048", "-2Ki")]
#[case("0", "0", "0")]
#[case("100E", "100E", "95367431640625Mi")]
#[case("1000000E", "1000000E", "953674316406250000Mi")]
fn prints_canonically(#[case] text: &str, #[case] decimal: &str, #[case] binary: &str) {
    assert_eq!(parse(text).to_decimal_string(), decimal);
    assert_eq!(parse(text).to_binary_string(), binary);
    assert_eq!(parse(text).to_string(), decimal);
    assert_eq!(RawQuantity::from(parse(text)).0, decimal);
}

#[rstest]
#[case("12e6", Format::DecimalExponent, "12e6")]
#[case("1200e3", Format::DecimalExponent, "1200e3")]
#[case("1e4", Format::DecimalExponent, "10e3")]
#[case("100e-3", Format::DecimalExponent, "100e-3")]
#[case("1e0", Format::DecimalExponent, "1")]
#[case("2G", Format::DecimalSi, "2G")]
#[case("1024Mi", Format::BinarySi, "1Gi")]
#[case("0.5Ki", Format::BinarySi, "512")]
fn keeps_the_notation(#[case] text: &str, #[case] format: Format, #[case] canonical: &str) {
    let (quantity, found) = Quantity::parse_with_format(text).unwrap();
    assert_eq!(found, format);
    assert_eq!(quantity.to_string_as(found), canonical);
}

#[test]
fn rounds_up_to_units_and_millis() {
    assert_eq!(parse("1.1m").millis(), 2);
    assert_eq!(parse("1001m").units(), 2);
    assert_eq!(parse("-1500m").units(), -1);
    assert_eq!(parse("1e30").units(), i64::MAX);
    assert_eq!(parse("-1e30").millis(), i64::MIN);
}

#[test]
fn arithmetic_says_when_it_overflows() {
    let most = Quantity::from_nanos(i128::MAX);
    assert_eq!(most.checked_add(Quantity::from_nanos(1)), None);
    assert_eq!(most.saturating_add(Quantity::from_nanos(1)), most);
    assert_eq!(Quantity::from_nanos(i128::MIN).checked_sub(most), None);
    assert_eq!(parse("1").checked_sub(parse("1500m")), Some(parse("-500m")));
    assert_eq!(parse("1").checked_add(parse("1Ki")), Some(parse("1025")));
}

#[test]
fn raw_quantities_may_be_numbers_in_json() {
    let raw: RawQuantity = serde_json::from_str("1000").unwrap();
    assert_eq!(Quantity::try_from(&raw), Ok(parse("1k")));
}

proptest! {
    #[test]
    fn decimal_text_loses_nothing(nanos in any::<i128>()) {
        let quantity = Quantity::from_nanos(nanos.max(-i128::MAX));
        for format in [Format::DecimalSi, Format::DecimalExponent] {
            prop_assert_eq!(parse(&quantity.to_string_as(format)), quantity);
        }
    }

    #[test]
    fn binary_text_loses_nothing_of_whole_units(units in any::<i64>()) {
        let quantity = Quantity::from_units(units);
        prop_assert_eq!(parse(&quantity.to_binary_string()), quantity);
    }

    #[test]
    fn canonical_text_is_the_shortest_suffix(units in any::<i64>(), format in prop_oneof![
        Just(Format::DecimalSi), Just(Format::BinarySi), Just(Format::DecimalExponent),
    ]) {
        let text = Quantity::from_units(units).to_string_as(format);
        let again = parse(&text).to_string_as(format);
        prop_assert_eq!(text, again);
    }

    #[test]
    fn a_suffix_is_a_factor(n in 0_u32..1_000_000, exponent in 0_u32..20) {
        let by_zeros = format!("{n}{}", "0".repeat(exponent as usize));
        prop_assert_eq!(parse(&format!("{n}e{exponent}")), parse(&by_zeros));
        prop_assert_eq!(parse(&format!("{n}Mi")).nanos(), i128::from(n) * 1_048_576_000_000_000);
    }

    #[test]
    fn moving_the_point_divides(n in any::<u64>(), places in 1_u32..19) {
        let nanos = i128::from(n) * 1_000_000_000;
        let divisor = 10_i128.pow(places);
        let digits = format!("{n:0>20}");
        let (whole, fraction) = digits.split_at(20 - places as usize);
        let expected = nanos / divisor + i128::from(nanos % divisor != 0);
        prop_assert_eq!(parse(&format!("{whole}.{fraction}")).nanos(), expected);
    }

    #[test]
    fn order_and_sums_follow_amounts(a in any::<i64>(), b in any::<i64>()) {
        let (x, y) = (Quantity::from_units(a), Quantity::from_units(b));
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        prop_assert_eq!(x.checked_add(y).and_then(|s| s.checked_sub(y)), Some(x));
    }

    #[test]
    fn never_panics(text in ".{0,40}") {
        let _ = text.parse::<Quantity>();
    }
}
