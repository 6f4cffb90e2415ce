//! What NodeOverlays make of what a provider sells (`scheduling.md` §12): prices and extended resources of the types
//! that scheduling sees. Data in, data out; nothing that no overlay touches is copied.

use std::collections::BTreeMap;
use std::sync::Arc;

use karpenter_api::NodeOverlay;
use karpenter_api::condition::node_overlay as reasons;
use karpenter_api::nodeoverlay::PriceChange;
use karpenter_api::{Quantity, validation};

use crate::resources::{is_hugepages, names};
use crate::{InstanceType, LabelRegistry, Requirements, ResourceList, Undefined};

/// Resources that every provider tells of its machines.
pub const NATIVE_RESOURCES: [&str; 4] = [
    names::CPU,
    names::MEMORY,
    names::EPHEMERAL_STORAGE,
    names::PODS,
];

/// A list of types as providers hand it out.
pub type Types = Arc<Vec<Arc<InstanceType>>>;

/// What is sold for one NodePool.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// NodePool.
    pub pool: Arc<str>,
    /// The labels that its nodes get before their type is known: the template's and the pool's.
    pub labels: Requirements,
    /// What the provider sells.
    pub types: Types,
}

/// Why an overlay changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Something is wrong with it that the schema lets pass.
    RuntimeValidation(String),
    /// Another of the same weight got there first.
    Conflict(String),
}

impl Refusal {
    /// Reason of the condition that tells it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::RuntimeValidation(_) => reasons::RUNTIME_VALIDATION,
            Self::Conflict(_) => reasons::CONFLICT,
        }
    }
    /// Its message.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::RuntimeValidation(message) | Self::Conflict(message) => message,
        }
    }
}

/// What overlays come to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// By the shelves' order: what scheduling sees. The very list that was given where no overlay touches it.
    pub types: Vec<Types>,
    /// By name: whether an overlay counts.
    pub verdicts: BTreeMap<Arc<str>, Result<(), Refusal>>,
}

/// An overlay as it is applied.
struct Parsed {
    name: Arc<str>,
    weight: i32,
    requirements: Requirements,
    price: Option<PriceChange>,
    capacity: ResourceList,
}

/// Who was the last to say something, and what counts.
#[derive(Clone, Debug)]
struct Claimed<T> {
    /// The value of the first, that is of the heaviest.
    value: T,
    /// Weight and name of the last.
    weight: i32,
    by: Arc<str>,
}

/// What overlays change about one type.
#[derive(Clone, Debug, Default)]
struct Change {
    /// By the offering's place in the list.
    prices: BTreeMap<usize, Claimed<PriceChange>>,
    /// By resource.
    capacity: BTreeMap<String, Claimed<Quantity>>,
}

impl Change {
    /// Whether it comes to the same, whoever said it.
    fn is_like(&self, other: &Self) -> bool {
        let prices = |c: &Self| -> Vec<(usize, PriceChange)> {
            c.prices.iter().map(|(k, v)| (*k, v.value)).collect()
        };
        let capacity = |c: &Self| -> Vec<(String, Quantity)> {
            let all = c.capacity.iter();
            all.map(|(k, v)| (k.clone(), v.value)).collect()
        };
        prices(self) == prices(other) && capacity(self) == capacity(other)
    }
}

/// By the type's place in the list.
type Changes = BTreeMap<usize, Change>;

/// Applies overlays to what is sold. An overlay that conflicts with one before it, on whatever shelf, changes nothing.
#[must_use]
pub fn evaluate<'a>(
    overlays: impl IntoIterator<Item = &'a NodeOverlay>,
    shelves: &[Shelf],
    labels: &LabelRegistry,
) -> Outcome {
    let mut sorted: Vec<&NodeOverlay> = overlays.into_iter().collect();
    sorted.sort_by(|a, b| a.precedence(b));
    let mut verdicts = BTreeMap::new();
    let mut changes: Vec<Changes> = shelves.iter().map(|_| Changes::new()).collect();
    for overlay in sorted {
        let name: Arc<str> = overlay.metadata.name.as_deref().unwrap_or_default().into();
        let verdict =
            parse(overlay, labels).and_then(|parsed| stack(&parsed, shelves, &mut changes, labels));
        verdicts.insert(name, verdict);
    }
    let mut types: Vec<Types> = Vec::with_capacity(shelves.len());
    for (i, (shelf, own)) in shelves.iter().zip(&changes).enumerate() {
        // Pools that are sold the same and see the same share the copy, too.
        let twin = shelves.iter().zip(&changes).take(i).position(|(s, c)| {
            Arc::ptr_eq(&s.types, &shelf.types)
                && c.len() == own.len()
                && c.iter()
                    .zip(own)
                    .all(|((a, x), (b, y))| a == b && x.is_like(y))
        });
        let held = twin.and_then(|t| types.get(t)).cloned();
        types.push(held.unwrap_or_else(|| copy(&shelf.types, own)));
    }
    Outcome { types, verdicts }
}

fn parse(overlay: &NodeOverlay, labels: &LabelRegistry) -> Result<Parsed, Refusal> {
    let found = validation::node_overlay(overlay, &labels.native_resources, labels);
    if let Some(message) = found.message() {
        return Err(Refusal::RuntimeValidation(message));
    }
    let bad = Refusal::RuntimeValidation;
    let spec = &overlay.spec;
    Ok(Parsed {
        name: overlay.metadata.name.as_deref().unwrap_or_default().into(),
        weight: spec.weight.unwrap_or_default(),
        requirements: Requirements::from_specs(&spec.requirements, labels)
            .map_err(|e| bad(format!("spec.requirements: {e}")))?,
        price: spec.price_change().map_err(bad)?,
        capacity: ResourceList::from_raw(&spec.capacity)
            .map_err(|e| bad(format!("spec.capacity: {e}")))?,
    })
}

/// Puts what `overlay` changes under what is there already; all of it or, in case of a conflict, nothing.
fn stack(
    overlay: &Parsed,
    shelves: &[Shelf],
    changes: &mut [Changes],
    labels: &LabelRegistry,
) -> Result<(), Refusal> {
    let mut touched = Vec::new();
    for (s, shelf) in shelves.iter().enumerate() {
        for (t, sold) in shelf.types.iter().enumerate() {
            let offerings = matching(overlay, shelf, sold, labels);
            if !offerings.is_empty() {
                touched.push((s, t, offerings));
            }
        }
    }
    for (s, t, offerings) in &touched {
        let held = changes.get(*s).and_then(|c| c.get(t));
        if let (Some(held), Some(shelf)) = (held, shelves.get(*s))
            && let Some((other, what)) = conflict(overlay, held, offerings)
        {
            let sold = shelf.types.get(*t).map_or("", |t| &t.name);
            return Err(Refusal::Conflict(format!(
                "NodeOverlay {other:?} of the same weight {} {what} of {sold} for NodePool {:?} already; expected another weight or other requirements",
                overlay.weight, &*shelf.pool
            )));
        }
    }
    for (s, t, offerings) in touched {
        let Some(of_shelf) = changes.get_mut(s) else {
            continue;
        };
        let change = of_shelf.entry(t).or_default();
        if let Some(price) = overlay.price {
            for place in offerings {
                claim(&mut change.prices, place, price, overlay);
            }
        }
        for (resource, amount) in overlay.capacity.iter() {
            claim(&mut change.capacity, resource.to_owned(), amount, overlay);
        }
    }
    Ok(())
}

/// The first to say something is heard; the last is remembered.
fn claim<K: Ord, T>(all: &mut BTreeMap<K, Claimed<T>>, key: K, value: T, overlay: &Parsed) {
    let (weight, by) = (overlay.weight, overlay.name.clone());
    match all.get_mut(&key) {
        Some(held) => (held.weight, held.by) = (weight, by),
        None => {
            all.insert(key, Claimed { value, weight, by });
        }
    }
}

/// The offerings of a type that an overlay speaks of; none if it does not speak of the type.
fn matching(
    overlay: &Parsed,
    shelf: &Shelf,
    sold: &InstanceType,
    labels: &LabelRegistry,
) -> Vec<usize> {
    if overlay.price.is_none() && overlay.capacity.is_empty() {
        return Vec::new();
    }
    let asked = &overlay.requirements;
    // What the labels define must be met as well as what the type defines; a key that neither has is not met.
    let defined = asked.iter().all(|r| {
        r.allows_absence() || shelf.labels.contains(&r.key) || sold.requirements.contains(&r.key)
    });
    let meets =
        defined && shelf.labels.does_intersect(asked) && sold.requirements.does_intersect(asked);
    if !meets {
        return Vec::new();
    }
    let offerings = sold.offerings.iter().enumerate();
    offerings
        .filter(|(_, o)| asked.is_compatible(&o.requirements, Undefined::WellKnown(labels)))
        .map(|(place, _)| place)
        .collect()
}

/// Who has said something of what `overlay` speaks of with the same weight, and of what.
fn conflict(overlay: &Parsed, held: &Change, offerings: &[usize]) -> Option<(Arc<str>, String)> {
    if overlay.price.is_some() {
        let claimed = offerings.iter().filter_map(|o| held.prices.get(o));
        if let Some(other) = claimed.into_iter().find(|c| c.weight == overlay.weight) {
            return Some((other.by.clone(), "sets the price".to_owned()));
        }
    }
    overlay.capacity.iter().find_map(|(resource, _)| {
        let other = held.capacity.get(resource)?;
        (other.weight == overlay.weight).then(|| (other.by.clone(), format!("sets {resource}")))
    })
}

/// `types` with `changes`; the list itself if there are none.
fn copy(types: &Types, changes: &Changes) -> Types {
    if changes.is_empty() {
        return types.clone();
    }
    let copied = types.iter().enumerate().map(|(place, sold)| {
        let change = changes.get(&place);
        change.map_or_else(|| sold.clone(), |c| Arc::new(changed(sold, c)))
    });
    Arc::new(copied.collect())
}

fn changed(sold: &InstanceType, change: &Change) -> InstanceType {
    let mut out = sold.clone();
    for (place, claimed) in &change.prices {
        if let Some(offering) = out.offerings.get_mut(*place) {
            offering.price = claimed.value.of(offering.price);
            offering.overlaid = true;
        }
    }
    for (resource, claimed) in &change.capacity {
        let amount = claimed.value;
        if is_hugepages(resource) {
            // They come out of memory.
            let more = amount
                .nanos()
                .saturating_sub(out.capacity.get(resource).nanos());
            let left = out.allocatable.get(names::MEMORY).nanos();
            let left = Quantity::from_nanos(left.saturating_sub(more).max(0));
            out.allocatable.set(names::MEMORY, left);
        }
        out.capacity.set(resource, amount);
        out.allocatable.set(resource, amount);
        out.overlaid = true;
    }
    out
}
