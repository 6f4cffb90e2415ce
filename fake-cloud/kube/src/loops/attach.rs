//! Attaching and detaching of volumes: the attach/detach controller and the attacher beside a CSI driver in one. A volume
//! is attached to the node of a pod that wants it before that pod can start, and taken off when no pod there wants it
//! any more: soon where the kubelet can unmount it, after six minutes where it cannot. What is attached is told by
//! VolumeAttachments, which hold up the end of a node as they do elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use karpenter_runtime::Key;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ephemeral;
use super::events::Events;
use super::feed::{Controller, Dirty, Mirror, gone_is_fine, parts, there_is_fine};
use super::index::Index;
use super::object::{self, items, text};
use super::podgc::out_of_service;
use super::pods::{earlier, look_at};
use super::resource::{CSI_DRIVERS, NODES, PODS, PVCS, PVS, VOLUME_ATTACHMENTS};
use crate::server::{ApiError, ApiServer, Change, Gr, PatchKind};

/// Times of a cloud's volumes in milliseconds, shortest and longest: until one is attached, until a kubelet has unmounted
/// it, until it is detached.
const ATTACH_MILLIS: (u64, u64) = (1_000, 4_000);
const UNMOUNT_MILLIS: (u64, u64) = (200, 1_500);
const DETACH_MILLIS: (u64, u64) = (1_500, 6_000);
/// How long a volume that no kubelet has unmounted is left on its node (`maxWaitForUnmountDuration`).
const UNMOUNT_WAIT: SignedDuration = SignedDuration::from_mins(6);
/// The driver of EBS volumes, those of the in-tree plugin included.
pub const EBS_DRIVER: &str = "ebs.csi.aws.com";

/// The driver that attaches a volume; none for volumes that are nobody's to attach.
#[must_use]
pub fn driver(volume: &Value) -> Option<&str> {
    match text(volume, &["spec", "csi", "driver"]) {
        "" if object::at(volume, &["spec", "awsElasticBlockStore"]).is_object() => Some(EBS_DRIVER),
        "" => None,
        driver => Some(driver),
    }
}

/// Name of the attachment of a volume to a node.
#[must_use]
pub fn name(volume: &str, node: &str) -> String {
    // Twice thirty-two bits, so that the volumes of a large cluster do not meet.
    let (a, b) = (json!([volume, node]), json!([node, volume]));
    format!(
        "csi-{}{}",
        object::template_hash(&a),
        object::template_hash(&b)
    )
}

/// Claims of a pod, by name: those it names and those made for its ephemeral volumes.
pub fn claims(pod: &Value) -> impl Iterator<Item = String> + '_ {
    items(pod, &["spec", "volumes"]).iter().filter_map(|v| {
        let named = text(v, &["persistentVolumeClaim", "claimName"]);
        if !named.is_empty() {
            return Some(named.to_owned());
        }
        object::at(v, &["ephemeral"])
            .is_object()
            .then(|| ephemeral::claim_name(pod, v))
    })
}

/// Whether every volume of a pod that has to be attached to its node is.
#[must_use]
pub fn all_attached(api: &ApiServer, pod: &Value) -> bool {
    let node = text(pod, &["spec", "nodeName"]);
    claims(pod).all(|claim| {
        let Ok(claim) = api.get(PVCS, Some(object::namespace(pod)), &claim) else {
            return false;
        };
        let volume = text(&claim, &["spec", "volumeName"]);
        let Ok(volume) = api.get(PVS, None, volume) else {
            return false;
        };
        let Some(driver) = driver(&volume) else {
            return true;
        };
        let exempt = api
            .get(CSI_DRIVERS, None, driver)
            .is_ok_and(|d| attaches_nothing(&d));
        exempt
            || api
                .get(VOLUME_ATTACHMENTS, None, &name(object::name(&volume), node))
                .is_ok_and(|a| attached(&a) && !object::deleting(&a))
    })
}

fn attaches_nothing(driver: &Value) -> bool {
    *object::at(driver, &["spec", "attachRequired"]) == Value::Bool(false)
}

fn attached(attachment: &Value) -> bool {
    object::flag(attachment, &["status", "attached"])
}

/// Whether a volume may be on one node only.
fn exclusive(volume: &Value) -> bool {
    let modes = items(volume, &["spec", "accessModes"]);
    !modes
        .iter()
        .any(|m| m == "ReadWriteMany" || m == "ReadOnlyMany")
}

fn draw(api: &ApiServer, what: &str, whom: &str, (min, max): (u64, u64)) -> SignedDuration {
    let millis = min + api.rng().child(what, whom).rng().below(max - min + 1);
    SignedDuration::try_from(Duration::from_millis(millis)).unwrap_or_default()
}

fn after(since: Timestamp, wait: SignedDuration) -> Timestamp {
    since.checked_add(wait).unwrap_or(since)
}

/// The loop.
pub struct Attacher {
    nodes: Mirror,
    drivers: Mirror,
    volumes: Mirror,
    claims: Mirror,
    attachments: Mirror,
    pods: Mirror,
    /// Pods that were given a node and use a claim, by claim.
    users: Index<Key>,
    /// Names of attachments by volume.
    by_volume: Index<String, String>,
    /// Since when an attachment is wanted by nobody.
    idle_since: BTreeMap<String, Timestamp>,
    /// When what was begun will be done, by attachment.
    due: BTreeMap<String, Timestamp>,
    events: Events,
}

impl Default for Attacher {
    fn default() -> Self {
        Self {
            nodes: Mirror::default(),
            drivers: Mirror::default(),
            volumes: Mirror::default(),
            claims: Mirror::default(),
            attachments: Mirror::default(),
            pods: Mirror::default(),
            users: Index::default(),
            by_volume: Index::default(),
            idle_since: BTreeMap::new(),
            due: BTreeMap::new(),
            events: Events::new("attachdetach-controller"),
        }
    }
}

impl Attacher {
    fn observe_pod(&mut self, change: &Change, dirty: &mut Dirty) {
        let (pod, there) = parts(change);
        let key = object::key(pod);
        let before = self.pods.get(&key).cloned();
        let using = |p: &Value| -> BTreeSet<Key> {
            if text(p, &["spec", "nodeName"]).is_empty() || object::terminal(p) {
                return BTreeSet::new();
            }
            claims(p)
                .map(|c| Key::namespaced(object::namespace(p), &c))
                .collect()
        };
        let was = before.as_deref().map(using).unwrap_or_default();
        let is = if there { using(pod) } else { BTreeSet::new() };
        // The mirror holds pods that use something only.
        if !is.is_empty() {
            self.pods.apply(change);
        } else if before.is_some() {
            self.pods.apply(&Change::Deleted(Arc::clone(pod)));
        }
        for claim in was.difference(&is) {
            self.users.remove(claim, &key);
        }
        for claim in &is {
            self.users.add(claim.clone(), key.clone());
        }
        for claim in was.union(&is) {
            self.touch_claim(claim, dirty);
        }
    }

    fn touch_claim(&self, claim: &Key, dirty: &mut Dirty) {
        let volume = self
            .claims
            .get(claim)
            .map_or("", |c| text(c, &["spec", "volumeName"]));
        if !volume.is_empty() {
            dirty.add(Key::cluster(volume));
        }
    }

    fn observe_attachment(&mut self, change: &Change, dirty: &mut Dirty) {
        let (attachment, there) = parts(change);
        let (name, volume) = (object::name(attachment).to_owned(), volume_of(attachment));
        self.attachments.apply(change);
        if there {
            self.by_volume.add(volume.to_owned(), name);
        } else {
            self.by_volume.remove(volume, &name);
            self.idle_since.remove(&name);
            self.due.remove(&name);
        }
        dirty.add(Key::cluster(volume));
    }

    /// A node came, went, or turned: what is attached there may be taken off sooner or later.
    fn observe_node(&mut self, change: &Change, dirty: &mut Dirty) {
        let before = self.nodes.apply(change);
        let (node, there) = parts(change);
        let same = there
            && before.is_some_and(|b| {
                unmounts(&b) == unmounts(node) && out_of_service(&b) == out_of_service(node)
            });
        if same {
            return;
        }
        let name = object::name(node);
        for (_, attachment) in self.attachments.iter() {
            if text(attachment, &["spec", "nodeName"]) == name {
                dirty.add(Key::cluster(volume_of(attachment)));
            }
        }
        for claim in self.users.keys() {
            self.touch_claim(claim, dirty);
        }
    }

    /// Nodes that pods want a volume on, each with one of those pods.
    fn wanted(&self, volume: &Value) -> BTreeMap<String, Key> {
        let claim = object::at(volume, &["spec", "claimRef"]);
        let key = Key::namespaced(text(claim, &["namespace"]), text(claim, &["name"]));
        let bound = self
            .claims
            .get(&key)
            .is_some_and(|c| text(c, &["spec", "volumeName"]) == object::name(volume));
        let mut nodes = BTreeMap::new();
        for user in self.users.of(&key).filter(|_| bound) {
            if let Some(pod) = self.pods.get(user) {
                let node = text(pod, &["spec", "nodeName"]).to_owned();
                nodes.entry(node).or_insert_with(|| user.clone());
            }
        }
        nodes
    }

    /// Moves one attachment on; answers when to look at it again.
    fn bring(
        &mut self,
        api: &ApiServer,
        attachment: &Value,
        wanted: bool,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, ApiError> {
        let name = object::name(attachment);
        let node = text(attachment, &["spec", "nodeName"]);
        let mut begun = |what, times| {
            *self
                .due
                .entry(name.to_owned())
                .or_insert_with(|| after(now, draw(api, what, name, times)))
        };
        if object::deleting(attachment) {
            let due = begun("detach", DETACH_MILLIS);
            if now < due {
                return Ok(Some(due));
            }
            let patch = json!({"metadata": {"finalizers": null}});
            let kind = PatchKind::Merge;
            gone_is_fine(api.patch(VOLUME_ATTACHMENTS, None, name, "", kind, patch))?;
            return Ok(None);
        }
        if wanted {
            self.idle_since.remove(name);
            if attached(attachment) {
                return Ok(None);
            }
            let due = begun("attach", ATTACH_MILLIS);
            if now < due {
                return Ok(Some(due));
            }
            self.due.remove(name);
            let patch = json!({"status": {"attached": true}});
            let kind = PatchKind::Merge;
            gone_is_fine(api.patch(VOLUME_ATTACHMENTS, None, name, "status", kind, patch))?;
            return Ok(None);
        }
        let since = *self.idle_since.entry(name.to_owned()).or_insert(now);
        let there = self.nodes.get(&Key::cluster(node));
        let wait = match there {
            Some(node) if out_of_service(node) => SignedDuration::ZERO,
            Some(node) if unmounts(node) => draw(api, "unmount", name, UNMOUNT_MILLIS),
            _ => UNMOUNT_WAIT,
        };
        let due = after(since, wait);
        if now < due {
            return Ok(Some(due));
        }
        self.due.remove(name);
        gone_is_fine(api.delete(VOLUME_ATTACHMENTS, None, name, None))?;
        Ok(None)
    }

    fn bring_volume(&mut self, api: &ApiServer, volume: &str) -> Result<Option<Instant>, ApiError> {
        let now = api.clock().wall();
        let object = self.volumes.get(&Key::cluster(volume)).map(Arc::clone);
        let driver = object.as_deref().and_then(driver).map(str::to_owned);
        let driver = driver.filter(|d| {
            let known = self.drivers.get(&Key::cluster(d));
            !known.is_some_and(|d| attaches_nothing(d))
        });
        let wanted = match (&object, &driver) {
            (Some(volume), Some(_)) => self.wanted(volume),
            _ => BTreeMap::new(),
        };
        let names: BTreeSet<String> = self.by_volume.of(volume).cloned().collect();
        let mut again = None;
        let mut held: Option<String> = None;
        for name in &names {
            let Some(attachment) = self.attachments.get(&Key::cluster(name)).map(Arc::clone) else {
                continue;
            };
            let node = text(&attachment, &["spec", "nodeName"]).to_owned();
            let next = self.bring(api, &attachment, wanted.contains_key(&node), now)?;
            again = earlier(again, next);
            held = Some(node);
        }
        let (Some(object), Some(driver)) = (object, driver) else {
            return Ok(look_at(api, again));
        };
        for (node, pod) in &wanted {
            if self.nodes.get(&Key::cluster(node)).is_none()
                || names.contains(&self::name(volume, node))
            {
                continue;
            }
            if exclusive(&object) && held.as_ref().is_some_and(|h| h != node) {
                self.complain(api, volume, pod);
                continue;
            }
            attach(api, volume, &driver, node)?;
            held = Some(node.clone());
        }
        Ok(look_at(api, again))
    }

    fn complain(&mut self, api: &ApiServer, volume: &str, pod: &Key) {
        let Some(pod) = self.pods.get(pod).map(Arc::clone) else {
            return;
        };
        let message = format!(
            "Multi-Attach error for volume {volume:?} Volume is already exclusively attached to one node and can't be attached to another"
        );
        let said = ("Warning", "FailedAttachVolume");
        self.events.write(api, ("v1", "Pod"), &pod, said, &message);
    }
}

/// Begins to attach a volume to a node.
fn attach(api: &ApiServer, volume: &str, driver: &str, node: &str) -> Result<(), ApiError> {
    let finalizer = format!("external-attacher/{}", driver.replace('.', "-"));
    let attachment = json!({
        "metadata": {"name": name(volume, node), "finalizers": [finalizer]},
        "spec": {"attacher": driver, "nodeName": node, "source": {"persistentVolumeName": volume}},
    });
    there_is_fine(api.create(VOLUME_ATTACHMENTS, None, attachment))
}

/// The volume that an attachment is of.
#[must_use]
pub fn volume_of(attachment: &Value) -> &str {
    text(attachment, &["spec", "source", "persistentVolumeName"])
}

/// Whether the kubelet of a node can be expected to unmount what is no longer used.
fn unmounts(node: &Value) -> bool {
    object::condition_status(node, "Ready") == "True"
}

impl Controller for Attacher {
    const NAME: &'static str = "attachdetach";
    const WATCHES: &'static [Gr<'static>] =
        &[NODES, CSI_DRIVERS, PVS, PVCS, VOLUME_ATTACHMENTS, PODS];

    fn observe(&mut self, watch: usize, change: &Change, dirty: &mut Dirty) {
        let (object, _) = parts(change);
        match watch {
            0 => self.observe_node(change, dirty),
            1 => {
                self.drivers.apply(change);
                for (key, _) in self.volumes.iter() {
                    dirty.add(key.clone());
                }
            }
            2 => {
                self.volumes.apply(change);
                dirty.add(object::key(object));
            }
            3 => {
                self.claims.apply(change);
                self.touch_claim(&object::key(object), dirty);
            }
            4 => self.observe_attachment(change, dirty),
            _ => self.observe_pod(change, dirty),
        }
    }

    fn reconcile(&mut self, api: &ApiServer, key: &Key) -> Result<Option<Instant>, ApiError> {
        self.bring_volume(api, &key.name)
    }
}
