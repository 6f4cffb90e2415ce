//! Selector terms to what they select: subnets (§12), security groups (§13) of `aws-provider.md`.

use std::collections::BTreeMap;

use karpenter_ec2_api::{Ec2, Ec2Error, Filter, SecurityGroup, Subnet};

use crate::nodeclass::{SecurityGroupStatus, SelectorTerm, SubnetStatus};

/// Subnets that any of the terms selects, most free addresses first, then by id.
pub(crate) async fn subnets(
    ec2: &dyn Ec2,
    terms: &[SelectorTerm],
) -> Result<Vec<Subnet>, Ec2Error> {
    let mut found = BTreeMap::new();
    for filters in filter_sets(terms, "subnet-id", None) {
        for subnet in ec2.describe_subnets(&filters).await? {
            found.insert(subnet.id.clone(), subnet);
        }
    }
    let mut found: Vec<_> = found.into_values().collect();
    // By id already; the sort is stable.
    found.sort_by_key(|s| std::cmp::Reverse(s.available_ips));
    Ok(found)
}

/// As the status shows them.
pub(crate) fn subnet_status(subnets: &[Subnet]) -> Vec<SubnetStatus> {
    subnets
        .iter()
        .map(|s| SubnetStatus {
            id: s.id.clone(),
            zone: s.zone.clone(),
            zone_id: s.zone_id.clone(),
        })
        .collect()
}

/// Security groups that any of the terms selects, by id.
pub(crate) async fn security_groups(
    ec2: &dyn Ec2,
    terms: &[SelectorTerm],
) -> Result<Vec<SecurityGroupStatus>, Ec2Error> {
    let mut found: BTreeMap<String, SecurityGroup> = BTreeMap::new();
    for filters in filter_sets(terms, "group-id", Some("group-name")) {
        for group in ec2.describe_security_groups(&filters).await? {
            found.insert(group.id.clone(), group);
        }
    }
    Ok(found
        .into_values()
        .map(|g| SecurityGroupStatus {
            id: g.id,
            name: g.name,
        })
        .collect())
}

/// One query for all ids, one for all names, one for each term of tags.
fn filter_sets(
    terms: &[SelectorTerm],
    by_id: &'static str,
    by_name: Option<&'static str>,
) -> Vec<Vec<Filter>> {
    let mut sets = Vec::new();
    let ids: Vec<&str> = terms.iter().filter_map(|t| t.id.as_deref()).collect();
    if !ids.is_empty() {
        sets.push(vec![Filter::new(by_id, ids)]);
    }
    let names: Vec<&str> = terms.iter().filter_map(|t| t.name.as_deref()).collect();
    if let Some(by_name) = by_name.filter(|_| !names.is_empty()) {
        sets.push(vec![Filter::new(by_name, names)]);
    }
    for term in terms {
        if term.id.is_none() && term.name.is_none() && !term.tags.is_empty() {
            sets.push(tag_filters(&term.tags));
        }
    }
    sets
}

/// Filters for a term's tags.
pub(crate) fn tag_filters(tags: &BTreeMap<String, String>) -> Vec<Filter> {
    tags.iter().map(|(k, v)| Filter::for_tag(k, v)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_share_a_query_and_tags_do_not() {
        let term = |id: Option<&str>, tag: Option<&str>| SelectorTerm {
            id: id.map(str::to_owned),
            tags: tag
                .map(|t| (t.to_owned(), "*".to_owned()))
                .into_iter()
                .collect(),
            name: None,
        };
        let terms = [
            term(Some("subnet-a"), None),
            term(None, Some("x")),
            term(Some("subnet-b"), None),
            term(None, Some("y")),
        ];
        assert_eq!(
            filter_sets(&terms, "subnet-id", None),
            [
                vec![Filter::new("subnet-id", ["subnet-a", "subnet-b"])],
                vec![Filter::new("tag-key", ["x"])],
                vec![Filter::new("tag-key", ["y"])],
            ]
        );
    }
}
