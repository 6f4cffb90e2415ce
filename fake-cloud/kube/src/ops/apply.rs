//! Server-side apply: a manager says what it wants of an object, the server keeps who owns which field.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Part, State, Target, WriteOptions, create, replace};
use crate::apply::managers::{self, Manager, Operation};
use crate::apply::{FieldSet, fields, merge};
use crate::crd::versions;
use crate::error::{ApiError, Result};
use crate::managed;
use crate::meta::{self, at};
use crate::structure::Structure;

/// PATCH with an apply configuration; creates the object when it is not there.
///
/// # Errors
/// 400, 409 on a conflict without `force`, 422.
pub fn apply(
    state: &mut State,
    target: &Target,
    name: &str,
    subresource: &str,
    force: bool,
    mut object: Value,
    options: &mut WriteOptions,
) -> Result<Arc<Value>> {
    let part = match subresource {
        "scale" => return super::scale::apply(state, target, name, force, &object, options),
        "" => Part::Main,
        "status" if target.has_status() => Part::Status,
        _ => return Err(ApiError::no_such_resource()),
    };
    if at(&object, &["metadata", "managedFields"]).is_some_and(|m| !m.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let given = (
        meta::text(&object, &["apiVersion"]),
        meta::text(&object, &["kind"]),
    );
    if given != (&*target.api_version(), target.info.kind.as_str()) {
        let (group, version) = given.0.split_once('/').unwrap_or(("", given.0));
        return Err(ApiError::bad_request(format!(
            "invalid object type: {group}/{version}, Kind={}",
            given.1
        )));
    }
    create::check_kind(target, &mut object)?;
    let mut target = target.clone();
    target.namespace = create::place(&target, &mut object)?;
    create::check_name(&object, name)?;
    let mut applied = fields::of(&Structure::of(&target), &mut Vec::new(), &object);
    managers::strip(&mut applied, part, target.has_status());
    let Some(old) = state
        .store
        .get(&target.key, &target.namespace, name)
        .cloned()
    else {
        if part == Part::Status {
            return Err(ApiError::not_found(&target.info, name));
        }
        if !meta::uid(&object).is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {}, and no existing object was found",
                meta::uid(&object)
            );
            return Err(ApiError::conflict(&target.info, name, &why));
        }
        options.applied = Some(applied);
        return create::create(state, &target, object, options);
    };
    change(state, &target, &old, part, force, &object, applied, options)
}

#[allow(clippy::too_many_arguments)]
fn change(
    state: &mut State,
    target: &Target,
    old: &Arc<Value>,
    part: Part,
    force: bool,
    object: &Value,
    applied: FieldSet,
    options: &mut WriteOptions,
) -> Result<Arc<Value>> {
    let kept = old;
    let old = &versions::compared(target, kept);
    let structure = Structure::of(target);
    let mut me = Manager {
        name: options.manager.clone().unwrap_or_default(),
        operation: Operation::Apply,
        api_version: target.api_version(),
        subresource: managed::subresource(part),
        time: state.now(),
        fields: applied,
    };
    let mut owners = managers::of(old);
    let before = owners
        .iter()
        .position(|o| o.is_same(&me))
        .map(|at| owners.remove(at));

    let mut merged = merge::merge(&structure, &mut Vec::new(), old, object);
    let mut changed = fields::compare(&structure, &mut Vec::new(), old, &merged).changed;
    managers::strip(&mut changed, part, target.has_status());
    let conflicts: Vec<(&Manager, FieldSet)> = owners
        .iter()
        .map(|owner| (owner, owner.fields.intersection(&changed)))
        .filter(|(_, set)| !set.is_empty())
        .collect();
    if !conflicts.is_empty() && !force {
        return Err(conflict(&conflicts));
    }
    for owner in &mut owners {
        owner.fields = owner.fields.minus(&changed);
    }
    if let Some(before) = &before {
        let others = owners
            .iter()
            .fold(me.fields.clone(), |all, owner| all.union(&owner.fields));
        let gone = before.fields.minus(&others);
        merge::remove(&structure, &mut Vec::new(), &mut merged, &gone, &others);
    }
    let mut new = replace::prepare(state, target, old, part, merged, options)?;
    meta::set(
        meta::metadata(&mut new),
        "managedFields",
        at(old, &["metadata", "managedFields"]).cloned(),
    );
    let same_fields = before.as_ref().is_some_and(|b| b.fields == me.fields);
    let mut keep = new.clone();
    versions::to_keep(target, &mut keep);
    let changes_nothing = keep == **kept;
    if changes_nothing {
        // The time is that of the last change which the manager made to the object, and no change has none.
        me.time = before.map(|b| b.time).unwrap_or_default();
    }
    if !(same_fields && changes_nothing) {
        owners.push(me);
        managers::write(&mut new, owners);
    }
    replace::commit(state, target, kept, new, options)
}

/// 409, with who owns what.
pub(super) fn conflict(conflicts: &[(&Manager, FieldSet)]) -> ApiError {
    let mut causes = Vec::new();
    let mut texts = Vec::new();
    for (owner, set) in conflicts {
        let paths = set.paths();
        for path in &paths {
            causes.push(json!({
                "reason": "FieldManagerConflict",
                "message": format!("conflict with {}", owner.text()),
                "field": path,
            }));
        }
        texts.push((owner.text(), paths));
    }
    let texts: Vec<String> = texts
        .iter()
        .map(|(owner, paths)| match (conflicts.len(), paths.as_slice()) {
            (1, [one]) => format!("conflict with {owner}: {one}"),
            (_, many) => format!("conflicts with {owner}:\n- {}", many.join("\n- ")),
        })
        .collect();
    let plural = if causes.len() == 1 {
        "conflict"
    } else {
        "conflicts"
    };
    let message = format!(
        "Apply failed with {} {plural}: {}",
        causes.len(),
        texts.join("\n")
    );
    ApiError::apply_conflict(message, causes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use karpenter_runtime::{Clock, RngTree};
    use serde_json::json;

    struct World(State);

    impl World {
        fn new() -> Self {
            let mut state = State::new(Clock::real(), &RngTree::new(1));
            let target = state.target("", "namespaces", None).unwrap();
            let namespace = json!({"metadata": {"name": "default"}});
            create::create(&mut state, &target, namespace, &mut WriteOptions::default()).unwrap();
            Self(state)
        }

        fn apply(&mut self, manager: &str, force: bool, object: Value) -> Result<Arc<Value>> {
            let target = self
                .0
                .target("apps", "deployments", Some("default"))
                .unwrap();
            let mut options = WriteOptions {
                manager: Some(manager.to_owned()),
                ..WriteOptions::default()
            };
            let mut object = object;
            object["apiVersion"] = "apps/v1".into();
            object["kind"] = "Deployment".into();
            apply(&mut self.0, &target, "d", "", force, object, &mut options)
        }
    }

    fn deployment(replicas: Option<i64>, containers: Value) -> Value {
        let mut spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers}}});
        if let Some(replicas) = replicas {
            spec["replicas"] = replicas.into();
        }
        json!({"metadata": {"name": "d"}, "spec": spec})
    }

    fn names(object: &Value) -> Vec<&str> {
        object["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn fields_one_stops_applying_go_unless_another_owns_them() {
        let mut world = World::new();
        let two = json!([{"name": "x", "image": "1"}, {"name": "y", "image": "1"}]);
        let made = world.apply("one", false, deployment(Some(3), two)).unwrap();
        assert_eq!(made["spec"]["replicas"], 3);
        assert_eq!(made["metadata"]["managedFields"][0]["operation"], "Apply");
        world
            .apply(
                "two",
                false,
                json!({"metadata": {"name": "d", "labels": {"l": "1"}}, "spec": {"replicas": 3}}),
            )
            .unwrap();
        let less = world
            .apply(
                "one",
                false,
                deployment(None, json!([{"name": "x", "image": "1"}])),
            )
            .unwrap();
        assert_eq!(
            less["spec"]["replicas"], 3,
            "the other manager still wants it"
        );
        assert_eq!(names(&less), ["x"]);
        let gone = world
            .apply("two", false, json!({"metadata": {"name": "d"}}))
            .unwrap();
        assert_eq!(
            gone["spec"]["replicas"], 1,
            "nobody wants it: back to the default"
        );
        assert!(gone["metadata"].get("labels").is_none());
    }

    #[test]
    fn a_value_owned_by_another_is_a_conflict_until_forced() {
        let mut world = World::new();
        let one = json!([{"name": "x", "image": "1"}]);
        world.apply("one", false, deployment(Some(3), one)).unwrap();
        let other = json!({"metadata": {"name": "d"}, "spec": {"replicas": 4}});
        let error = world.apply("two", false, other.clone()).unwrap_err();
        assert_eq!((error.code, error.reason), (409, "Conflict"));
        assert_eq!(
            error.message,
            "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas"
        );
        assert_eq!(error.details["causes"][0]["reason"], "FieldManagerConflict");
        let forced = world.apply("two", true, other).unwrap();
        assert_eq!(forced["spec"]["replicas"], 4);
        let back = deployment(Some(3), json!([{"name": "x", "image": "1"}]));
        let error = world.apply("one", false, back).unwrap_err();
        assert!(
            error
                .message
                .contains("conflict with \"two\": .spec.replicas"),
            "{error}"
        );
    }

    #[test]
    fn applying_the_same_again_changes_nothing() {
        let mut world = World::new();
        let object = deployment(
            Some(3),
            json!([{"name": "x", "image": "1", "ports": [{"containerPort": 80}]}]),
        );
        let first = world.apply("one", false, object.clone()).unwrap();
        let again = world.apply("one", false, object).unwrap();
        assert_eq!(meta::version(&first), meta::version(&again));
    }

    #[test]
    fn updates_own_what_they_change_and_lose_what_is_removed() {
        let mut world = World::new();
        world
            .apply(
                "one",
                false,
                deployment(Some(3), json!([{"name": "x", "image": "1"}])),
            )
            .unwrap();
        let target = world
            .0
            .target("apps", "deployments", Some("default"))
            .unwrap();
        let patch = json!({"spec": {"replicas": 5}});
        let mut options = WriteOptions {
            manager: Some("kubectl-scale".to_owned()),
            ..WriteOptions::default()
        };
        let kind = crate::patch::PatchKind::Merge;
        super::super::patch::patch(&mut world.0, &target, "d", "", kind, &patch, &mut options)
            .unwrap();
        let error = world
            .apply(
                "one",
                false,
                deployment(Some(3), json!([{"name": "x", "image": "1"}])),
            )
            .unwrap_err();
        assert_eq!(
            error.message,
            "Apply failed with 1 conflict: conflict with \"kubectl-scale\" using apps/v1: .spec.replicas"
        );
        let without = world
            .apply(
                "one",
                false,
                deployment(None, json!([{"name": "x", "image": "2"}])),
            )
            .unwrap();
        assert_eq!(without["spec"]["replicas"], 5);
    }
}
