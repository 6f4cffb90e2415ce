//! Whether what a scenario expects holds now, and what is there instead.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_api::labels;
use karpenter_fake_kube::server::{ApiServer, gr};
use serde_json::Value;

use crate::json::{condition, is_daemon, is_ours, is_running, label, name, text};
use crate::kinds;
use crate::scenario::schema::{Count, EventExpect, Expect, ObjectExpect};
use crate::world::World;

/// One thing that was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What was expected.
    pub expect: String,
    /// Whether it holds.
    pub ok: bool,
    /// What is there.
    pub saw: String,
}

/// Judges every field of `expect` that is set.
#[must_use]
pub fn judge(world: &World, expect: &Expect) -> Vec<Verdict> {
    let api = &world.api;
    let mut out = Vec::new();
    // A wait judges once a second: only what it asks for is looked at.
    let mut count = |what: &str, want: Option<Count>, have: &dyn Fn() -> usize| {
        if let Some(want) = want {
            let n = u64::try_from(have()).unwrap_or(u64::MAX);
            out.push(Verdict {
                expect: format!("{what}: {want}"),
                ok: want.holds(n),
                saw: n.to_string(),
            });
        }
    };
    let nodes = LazyCell::new(|| {
        let mut nodes = api.list(gr("", "nodes"), None);
        nodes.retain(|n| is_ours(n));
        nodes
    });
    let pods = LazyCell::new(|| {
        let mut pods = api.list(gr("", "pods"), None);
        pods.retain(|p| !is_daemon(p));
        pods
    });
    let nodes_that = |fits: &dyn Fn(&Value) -> bool| nodes.iter().filter(|n| fits(n)).count();
    let pods_that = |fits: &dyn Fn(&Value) -> bool| pods.iter().filter(|p| fits(p)).count();
    count("nodes", expect.nodes, &|| nodes.len());
    let ready =
        |n: &Value| condition(n, "Ready") == "True" && label(n, labels::INITIALIZED) == "true";
    count("nodesReady", expect.nodes_ready, &|| nodes_that(&ready));
    for (pool, want) in &expect.nodes_by_pool {
        let of_pool = |n: &Value| label(n, labels::NODEPOOL) == pool;
        let what = format!("nodesByPool.{pool}");
        count(&what, Some(*want), &|| nodes_that(&of_pool));
    }
    count("nodeClaims", expect.node_claims, &|| {
        api.list(gr("karpenter.sh", "nodeclaims"), None).len()
    });
    count("instances", expect.instances, &|| world.machines().len());
    count("podsRunning", expect.pods_running, &|| {
        pods_that(&is_running)
    });
    let waiting =
        |p: &Value| text(p, "/spec/nodeName").is_empty() && text(p, "/status/phase") == "Pending";
    count("podsPending", expect.pods_pending, &|| pods_that(&waiting));
    if let Some(allowed) = &expect.instance_types {
        let odd: Vec<&str> = nodes
            .iter()
            .map(|n| label(n, labels::INSTANCE_TYPE))
            .filter(|t| {
                !allowed.iter().any(|a| {
                    a.strip_suffix('*')
                        .map_or(a == t, |prefix| t.starts_with(prefix))
                })
            })
            .collect();
        let types: Vec<&str> = nodes
            .iter()
            .map(|n| label(n, labels::INSTANCE_TYPE))
            .collect();
        out.push(Verdict {
            expect: format!("instanceTypes: [{}]", allowed.join(", ")),
            ok: odd.is_empty(),
            saw: format!("[{}]", types.join(", ")),
        });
    }
    out.extend(expect.events.iter().map(|e| event(api, e)));
    out.extend(expect.objects.iter().map(|o| object(api, o)));
    out
}

fn event(api: &ApiServer, want: &EventExpect) -> Verdict {
    let mut seen = 0_u64;
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    for event in api.list(gr("", "events"), None) {
        let times = event
            .get("count")
            .and_then(Value::as_u64)
            .unwrap_or(1)
            .max(1);
        *reasons
            .entry(text(&event, "/reason").to_owned())
            .or_default() += times;
        let fits = text(&event, "/reason") == want.reason
            && want
                .kind
                .as_ref()
                .is_none_or(|k| text(&event, "/involvedObject/kind") == k)
            && want
                .contains
                .as_ref()
                .is_none_or(|c| text(&event, "/message").contains(c.as_str()));
        if fits {
            seen += times;
        }
    }
    let ok = want.count.map_or(seen > 0, |c| c.holds(seen));
    let mut expect = format!("event {}", want.reason);
    for (what, value) in [("about", &want.kind), ("containing", &want.contains)] {
        if let Some(value) = value {
            expect.push_str(&format!(" {what} {value:?}"));
        }
    }
    if let Some(count) = want.count {
        expect.push_str(&format!(": {count}"));
    }
    let all = reasons
        .iter()
        .map(|(r, n)| format!("{r}×{n}"))
        .collect::<Vec<_>>()
        .join(", ");
    Verdict {
        expect,
        ok,
        saw: if ok {
            seen.to_string()
        } else {
            format!("{seen} of [{all}]")
        },
    }
}

/// The objects that a kind with a name or selector means.
#[must_use]
pub fn select(
    api: &ApiServer,
    kind: &str,
    namespace: Option<&str>,
    wanted: Option<&str>,
    selector: Option<&str>,
) -> Vec<Arc<Value>> {
    let Some(place) = kinds::of(kind) else {
        return Vec::new();
    };
    let namespace = place.namespaced.then_some(namespace.unwrap_or("default"));
    let mut all = api.list(place.resource, namespace);
    all.retain(|o| wanted.is_none_or(|n| name(o) == n) && selector.is_none_or(|s| matches(o, s)));
    all
}

/// `a=b,c!=d,e`: equality, inequality, existence.
fn matches(object: &Value, selector: &str) -> bool {
    selector
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .all(|part| {
            if let Some((key, value)) = part.split_once("!=") {
                label(object, key.trim()) != value.trim()
            } else if let Some((key, value)) = part.split_once('=') {
                label(object, key.trim()) == value.trim_start_matches('=').trim()
            } else {
                object
                    .pointer("/metadata/labels")
                    .is_some_and(|l| l.get(part).is_some())
            }
        })
}

fn object(api: &ApiServer, want: &ObjectExpect) -> Verdict {
    let found = select(
        api,
        &want.kind,
        want.namespace.as_deref(),
        want.name.as_deref(),
        want.selector.as_deref(),
    );
    let shown = want
        .name
        .as_deref()
        .or(want.selector.as_deref())
        .unwrap_or("any");
    let Some(path) = &want.path else {
        let exists = want.exists.unwrap_or(true);
        return Verdict {
            expect: format!(
                "{} {shown} {}",
                want.kind,
                if exists { "exists" } else { "does not exist" }
            ),
            ok: found.is_empty() != exists,
            saw: found.len().to_string(),
        };
    };
    let read = |o: &Value| match path.strip_prefix("condition:") {
        Some(kind) => Some(Value::from(condition(o, kind))).filter(|v| v != ""),
        None => o.pointer(path).cloned(),
    };
    let values: Vec<Option<Value>> = found.iter().map(|o| read(o)).collect();
    let show = |v: &Option<Value>| v.as_ref().map_or("absent".to_owned(), ToString::to_string);
    Verdict {
        expect: format!("{} {shown} {path}: {}", want.kind, show(&want.equals)),
        ok: !values.is_empty() && values.iter().all(|v| *v == want.equals),
        saw: if values.is_empty() {
            "no such object".to_owned()
        } else {
            values.iter().map(show).collect::<Vec<_>>().join(", ")
        },
    }
}
