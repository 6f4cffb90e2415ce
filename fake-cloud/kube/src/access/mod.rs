//! Who asks, and what they may: users from a request's headers, role-based access control by the roles and bindings
//! that are in the cluster, and the refusals of both. Whoever names no user is the cluster's administrator.

pub mod bootstrap;
pub mod rules;
pub mod users;

use serde_json::json;

use crate::error::{ApiError, qualified};
use crate::ops::State;
pub use users::User;

/// What somebody wants to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attributes {
    /// Something with objects.
    Resource {
        /// `get`, `list`, `create`, ...
        verb: String,
        /// API group.
        group: String,
        /// Plural, with the subresource after a slash.
        resource: String,
        /// Namespace, empty for all and for cluster-scoped resources.
        namespace: String,
        /// Object, empty where the request names none.
        name: String,
    },
    /// Something with a path that is no resource.
    Path {
        /// The HTTP method in lower case.
        verb: String,
        /// The path.
        path: String,
    },
}

/// Members of this group may do everything, whatever roles say.
pub const MASTERS: &str = "system:masters";

/// Refuses what a user may not do.
///
/// # Errors
/// 403.
pub fn check(state: &State, user: &User, wanted: &Attributes) -> Result<(), ApiError> {
    if rules::decide(state, user, wanted).allowed {
        return Ok(());
    }
    Err(denied(user, wanted))
}

fn denied(user: &User, wanted: &Attributes) -> ApiError {
    match wanted {
        Attributes::Path { verb, path } => {
            let who = &user.name;
            let mut error = ApiError::denied(format!(
                "forbidden: User {who:?} cannot {verb} path {path:?}"
            ));
            error.details = json!({});
            error
        }
        Attributes::Resource {
            verb,
            group,
            resource,
            namespace,
            name,
        } => {
            let plural = resource.split('/').next().unwrap_or(resource);
            let what = qualified(group, plural);
            let named = if name.is_empty() {
                what
            } else {
                format!("{what} {name:?}")
            };
            let place = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {namespace:?}")
            };
            let mut error = ApiError::denied(format!(
                "{named} is forbidden: User {:?} cannot {verb} resource {resource:?} in API group {group:?} {place}",
                user.name
            ));
            error.details = crate::error::details(name, group, plural);
            error
        }
    }
}
