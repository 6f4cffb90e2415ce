//! Users: from impersonation headers and from tokens of service accounts.

use http::HeaderMap;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Attributes, MASTERS, check};
use crate::error::ApiError;
use crate::meta;
use crate::ops::State;

/// Group of everybody who said who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of everybody who did not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Who did not.
const ANONYMOUS: &str = "system:anonymous";
/// How names of service accounts begin.
const ACCOUNT: &str = "system:serviceaccount:";

/// Somebody who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// UID, if it has one.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
}

impl User {
    /// The administrator that clients are who do not say otherwise.
    #[must_use]
    pub fn admin() -> Self {
        Self {
            name: "kubernetes-admin".to_owned(),
            uid: String::new(),
            groups: vec![MASTERS.to_owned(), AUTHENTICATED.to_owned()],
        }
    }

    /// A user with the groups that come with the name.
    #[must_use]
    pub fn new(name: &str, groups: &[String]) -> Self {
        let mut groups = groups.to_vec();
        if groups.is_empty()
            && let Some((namespace, _)) = name.strip_prefix(ACCOUNT).and_then(|n| n.split_once(':'))
        {
            groups.push("system:serviceaccounts".to_owned());
            groups.push(format!("system:serviceaccounts:{namespace}"));
        }
        let known = if name == ANONYMOUS {
            UNAUTHENTICATED
        } else {
            AUTHENTICATED
        };
        let says = |g: &String| g == AUTHENTICATED || g == UNAUTHENTICATED;
        if !groups.iter().any(says) {
            groups.push(known.to_owned());
        }
        Self {
            name: name.to_owned(),
            uid: String::new(),
            groups,
        }
    }

    /// Whether the user may do everything.
    #[must_use]
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|g| g == MASTERS)
    }

    /// `authentication.k8s.io/v1 UserInfo`.
    #[must_use]
    pub fn info(&self) -> Value {
        let mut info = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            meta::as_map(&mut info).insert("uid".into(), self.uid.as_str().into());
        }
        info
    }
}

/// Who a request is from; none is the administrator.
///
/// # Errors
/// 401 for a token that is none of ours or has run out, 403 for acting as somebody else without the right to.
pub fn of(state: &State, headers: &HeaderMap) -> Result<Option<User>, ApiError> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let bearer = text("authorization").and_then(|a| a.strip_prefix("Bearer "));
    let own = bearer
        .map(|token| of_token(state, token).ok_or_else(ApiError::unauthorized))
        .transpose()?;
    let Some(name) = text("impersonate-user") else {
        return Ok(own);
    };
    let groups: Vec<String> = headers
        .get_all("impersonate-group")
        .iter()
        .filter_map(|v| v.to_str().ok().map(str::to_owned))
        .collect();
    if let Some(own) = &own {
        let wanted =
            std::iter::once(("users", name)).chain(groups.iter().map(|g| ("groups", g.as_str())));
        for (resource, name) in wanted {
            let wanted = Attributes::Resource {
                verb: "impersonate".to_owned(),
                group: String::new(),
                resource: resource.to_owned(),
                namespace: String::new(),
                name: name.to_owned(),
            };
            check(state, own, &wanted)?;
        }
    }
    Ok(Some(User::new(name, &groups)))
}

/// A token of a service account: the account's UID and when it runs out.
#[must_use]
pub fn token(account: &Value, expires: Timestamp) -> String {
    format!("{}.{}", meta::uid(account), expires.as_second())
}

/// Whose token it is; none when it is nobody's or has run out.
#[must_use]
pub fn of_token(state: &State, token: &str) -> Option<User> {
    let (uid, expires) = token.split_once('.')?;
    if expires.parse::<i64>().ok()? <= state.clock.wall().as_second() {
        return None;
    }
    let account = state
        .store
        .iter("serviceaccounts.", None, None)
        .find(|account| meta::uid(account) == uid)?;
    let name = format!(
        "{ACCOUNT}{}:{}",
        meta::namespace(account),
        meta::name(account)
    );
    let mut user = User::new(&name, &[]);
    uid.clone_into(&mut user.uid);
    Some(user)
}
