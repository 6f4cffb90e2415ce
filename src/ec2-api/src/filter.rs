//! Filters of Describe calls: a name and the values it may have.

/// One filter. Filters of a call are ANDed, values of a filter ORed; values may hold `*` and `?`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filter {
    /// Filter name, such as `tag:Name` or `instance-state-name`.
    pub name: String,
    /// Values, any of which may match.
    pub values: Vec<String>,
}

impl Filter {
    /// A filter of `name` with `values`.
    pub fn new<V: Into<String>>(
        name: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        Self {
            name: name.into(),
            values: values.into_iter().map(Into::into).collect(),
        }
    }

    /// The filter for a selector's tag: `tag-key` when the value is `*`, else `tag:<key>`.
    #[must_use]
    pub fn for_tag(key: &str, value: &str) -> Self {
        if value == "*" {
            Self::new("tag-key", [key])
        } else {
            Self::new(format!("tag:{key}"), [value])
        }
    }

    /// Whether any of the values matches `text`.
    #[must_use]
    pub fn accepts(&self, text: &str) -> bool {
        self.values.iter().any(|v| wildcard_match(v, text))
    }

    /// Whether `tags` pass this filter; none when it is not a tag filter.
    #[must_use]
    pub fn accepts_tags(&self, tags: &crate::Tags) -> Option<bool> {
        if self.name == "tag-key" {
            return Some(tags.keys().any(|k| self.accepts(k)));
        }
        let key = self.name.strip_prefix("tag:")?;
        Some(tags.get(key).is_some_and(|v| self.accepts(v)))
    }
}

/// EC2's wildcards: `*` any text, `?` one character.
#[must_use]
pub fn wildcard_match(pattern: &str, text: &str) -> bool {
    if !pattern.contains(['*', '?']) {
        return pattern == text;
    }
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where to resume after the last `*`: the pattern behind it, and the text it has swallowed so far.
    let mut resume: Option<(usize, usize)> = None;
    while let Some(have) = text.get(t) {
        match pattern.get(p) {
            Some('*') => {
                p += 1;
                resume = Some((p, t));
            }
            Some(want) if *want == '?' || want == have => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((after, swallowed)) = resume else {
                    return false;
                };
                p = after;
                t = swallowed + 1;
                resume = Some((after, t));
            }
        }
    }
    pattern.iter().skip(p).all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("abc", "abc", true)]
    #[case("abc", "abcd", false)]
    #[case("a*c", "abbbc", true)]
    #[case("a*c", "abbbd", false)]
    #[case("*", "", true)]
    #[case("a?c", "abc", true)]
    #[case("a?c", "ac", false)]
    #[case(
        "*-al2023-*-1.3?*",
        "amazon-eks-node-al2023-x86_64-standard-1.33-v1",
        true
    )]
    #[case("*ab", "aab", true)]
    fn wildcards(#[case] pattern: &str, #[case] text: &str, #[case] want: bool) {
        assert_eq!(wildcard_match(pattern, text), want);
    }

    #[test]
    fn tag_filters() {
        let tags = crate::Tags::from([("team".to_owned(), "a".to_owned())]);
        assert_eq!(Filter::for_tag("team", "*").accepts_tags(&tags), Some(true));
        assert_eq!(
            Filter::for_tag("team", "b").accepts_tags(&tags),
            Some(false)
        );
        assert_eq!(
            Filter::for_tag("other", "*").accepts_tags(&tags),
            Some(false)
        );
        assert_eq!(Filter::new("subnet-id", ["x"]).accepts_tags(&tags), None);
    }
}
