//! Query parameters and percent-decoding.

use crate::error::{ApiError, Result};

/// A request's query parameters, in order.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c=d`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key, true), decode(value, true))
        });
        Self(pairs.collect())
    }

    /// The same parameters with one term more in a comma-separated one.
    #[must_use]
    pub fn and(&self, key: &str, term: &str) -> Self {
        let mut pairs = self.0.clone();
        match pairs.iter_mut().find(|(k, v)| k == key && !v.is_empty()) {
            Some((_, terms)) => *terms = format!("{terms},{term}"),
            None => pairs.push((key.to_owned(), term.to_owned())),
        }
        Self(pairs)
    }

    /// The first value of a parameter that is not empty.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(k, v)| k == key && !v.is_empty())
            .map(|(_, v)| v.as_str())
    }

    /// Whether a flag is on.
    #[must_use]
    pub fn flag(&self, key: &str) -> bool {
        matches!(self.get(key), Some("true" | "1" | "True" | "t"))
    }

    /// A number.
    ///
    /// # Errors
    /// 400 when it is not one.
    pub fn number(&self, key: &str) -> Result<Option<i64>> {
        self.get(key)
            .map(|text| {
                text.parse().map_err(|_| {
                    ApiError::bad_request(format!(
                        "strconv.ParseInt: parsing {text:?}: invalid syntax"
                    ))
                })
            })
            .transpose()
    }

    /// A resourceVersion; the error is the text in which the real server says that it is none.
    ///
    /// # Errors
    /// When it is not one.
    pub fn version(&self, key: &str) -> std::result::Result<Option<u64>, String> {
        self.get(key)
            .map(|text| {
                text.parse().map_err(|_| {
                    format!(
                        "{key}: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
                    )
                })
            })
            .transpose()
    }
}

/// Decodes `%41`, and in queries `+`.
#[must_use]
pub fn decode(text: &str, plus_is_space: bool) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut ahead = bytes.clone();
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                match (digit(ahead.next()), digit(ahead.next())) {
                    (Some(high), Some(low)) => {
                        out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                        bytes = ahead;
                    }
                    _ => out.push(byte),
                }
            }
            b'+' if plus_is_space => out.push(b' '),
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes() {
        let query =
            Query::parse("labelSelector=a%3Db%2Cc+in+%28d%29&watch=true&limit=5&x=100%&empty=");
        assert_eq!(query.get("labelSelector"), Some("a=b,c in (d)"));
        assert!(query.flag("watch"));
        assert_eq!(query.number("limit").unwrap(), Some(5));
        assert_eq!(query.get("x"), Some("100%"));
        assert_eq!(query.get("empty"), None);
        assert!(query.number("labelSelector").is_err());
    }
}
