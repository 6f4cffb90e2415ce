//! Names of zones: `us-east-1a` and its account-independent id `use1-az1`.

/// A zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Name, such as `us-east-1a`.
    pub name: String,
    /// Id, such as `use1-az1`.
    pub id: String,
}

/// Zone numbers behind the letters in `us-east-1`: the third one takes no new accounts.
const US_EAST_1: [u32; 4] = [1, 2, 4, 6];

/// The first `count` zones (1..=6) of `region`.
#[must_use]
pub fn zones(region: &str, count: usize) -> Vec<Zone> {
    let prefix = zone_id_prefix(region);
    ('a'..='f')
        .zip(1u32..)
        .take(count.clamp(1, 6))
        .enumerate()
        .map(|(i, (letter, number))| {
            let number = match region {
                "us-east-1" => US_EAST_1.get(i).copied().unwrap_or(number),
                _ => number,
            };
            Zone {
                name: format!("{region}{letter}"),
                id: format!("{prefix}-az{number}"),
            }
        })
        .collect()
}

/// `us-east-1` -> `use1`, `ap-southeast-2` -> `apse2`, `us-gov-west-1` -> `usgw1`.
fn zone_id_prefix(region: &str) -> String {
    region
        .split('-')
        .enumerate()
        .map(|(i, part)| match part {
            _ if i == 0 => part.to_owned(),
            "northeast" => "ne".to_owned(),
            "northwest" => "nw".to_owned(),
            "southeast" => "se".to_owned(),
            "southwest" => "sw".to_owned(),
            _ => part.chars().take(1).collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("us-east-1", "use1")]
    #[case("ap-southeast-2", "apse2")]
    #[case("eu-central-1", "euc1")]
    #[case("us-gov-west-1", "usgw1")]
    fn prefixes(#[case] region: &str, #[case] want: &str) {
        assert_eq!(zone_id_prefix(region), want);
    }

    #[test]
    fn zones_of_us_east_1() {
        let ids: Vec<_> = zones("us-east-1", 4).into_iter().map(|z| z.id).collect();
        assert_eq!(ids, ["use1-az1", "use1-az2", "use1-az4", "use1-az6"]);
    }
}
