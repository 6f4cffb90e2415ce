//! Kubelet settings: in v1beta1 a block of the pool, in v1 one of the class. Pools that share a class but not the
//! block get copies of it, one per distinct block.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{AWS, AWS_GROUP, Converted, NODE_CLASS, text};

/// A kubelet block on its way from a pool or claim to its class.
pub(super) struct Moving {
    pub(super) object: String,
    /// Where the block was: `spec.template.spec` or `spec`.
    pub(super) path: String,
    /// The EC2NodeClass referred to; none if it is of another kind.
    pub(super) class: Option<String>,
    pub(super) kubelet: Option<Value>,
}

impl Moving {
    /// As what the document at `index` of the output wants.
    pub(super) fn of(self, index: usize) -> Wish {
        Wish {
            moving: self,
            index,
            is_v1: false,
        }
    }
}

/// What a document of the output wants of its class.
pub(super) struct Wish {
    moving: Moving,
    index: usize,
    /// A v1 document uses the class as it is.
    is_v1: bool,
}

impl Wish {
    /// What a document that is v1 already wants: its class left as it is.
    pub(super) fn of_v1(doc: &Value, index: usize) -> Option<Self> {
        let path = match text(doc, "kind") {
            "NodePool" => "spec.template.spec",
            _ => "spec",
        };
        let pointer = format!("/{}/nodeClassRef", path.replace('.', "/"));
        let class = doc.pointer(&pointer)?;
        let ours = text(class, "group") == AWS_GROUP && text(class, "kind") == NODE_CLASS;
        Some(Self {
            moving: Moving {
                object: super::object_name(doc),
                path: path.to_owned(),
                class: ours.then(|| text(class, "name").to_owned()),
                kubelet: None,
            },
            index,
            is_v1: true,
        })
    }
}

/// A class that pools of one kubelet block share.
struct Variant {
    kubelet: Option<Value>,
    name: String,
}

/// Moves the blocks into their classes.
pub(super) fn settle(wishes: Vec<Wish>, out: &mut Converted) {
    let mut names: BTreeSet<String> = out.docs.iter().filter_map(class_name).collect();
    // Copies follow their originals; insertions wait until indexes are not needed any more.
    let mut copies: Vec<(usize, Value)> = Vec::new();
    let classes: BTreeSet<&String> = wishes
        .iter()
        .filter_map(|w| w.moving.class.as_ref())
        .collect();
    for class in classes {
        let of_class: Vec<&Wish> = wishes
            .iter()
            .filter(|w| w.moving.class.as_ref() == Some(class))
            .collect();
        let found = out
            .docs
            .iter()
            .position(|d| class_name(d).as_ref() == Some(class));
        match found {
            Some(original) => share(original, class, &of_class, &mut names, &mut copies, out),
            None => of_class.iter().for_each(|w| warn_of_missing(w, class, out)),
        }
    }
    for wish in wishes.iter().filter(|w| w.moving.class.is_none()) {
        if wish.moving.kubelet.is_some() {
            let field = format!("{}.kubelet", wish.moving.path);
            let message =
                "dropped: v1 has it in the EC2NodeClass, and the class is of another kind";
            out.warn(&wish.moving.object, &field, message);
        }
    }
    copies.sort_by_key(|(after, _)| *after);
    for (after, copy) in copies.into_iter().rev() {
        out.docs.insert(after + 1, copy);
    }
}

fn share(
    original: usize,
    class: &str,
    wishes: &[&Wish],
    names: &mut BTreeSet<String>,
    copies: &mut Vec<(usize, Value)>,
    out: &mut Converted,
) {
    let own = out
        .docs
        .get(original)
        .and_then(|d| d.pointer("/spec/kubelet"))
        .cloned();
    // Who wants the class as it is keeps it; otherwise the first one's block goes into it.
    let kept = wishes.iter().any(|w| w.is_v1 || w.moving.kubelet.is_none()) || own.is_some();
    let first = if kept {
        own
    } else {
        wishes.first().and_then(|w| w.moving.kubelet.clone())
    };
    if let Some(kubelet) = &first {
        set_kubelet(out.docs.get_mut(original), kubelet);
    }
    let mut variants = vec![Variant {
        kubelet: first,
        name: class.to_owned(),
    }];
    for wish in wishes {
        let Some(kubelet) = &wish.moving.kubelet else {
            continue;
        };
        if !variants.iter().any(|v| v.kubelet.as_ref() == Some(kubelet)) {
            let pool = wish
                .moving
                .object
                .split_once('/')
                .map_or("", |(_, name)| name);
            let name = free_name(class, pool, names);
            let mut copy = out.docs.get(original).cloned().unwrap_or_default();
            if let Some(metadata) = copy.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.insert("name".to_owned(), name.as_str().into());
            }
            set_kubelet(Some(&mut copy), kubelet);
            copies.push((original, copy));
            variants.push(Variant {
                kubelet: Some(kubelet.clone()),
                name,
            });
        }
        let variant = variants
            .iter()
            .find(|v| v.kubelet.as_ref() == Some(kubelet));
        let Some(variant) = variant.filter(|v| v.name != class) else {
            continue;
        };
        let pointer = format!("/{}/nodeClassRef/name", wish.moving.path.replace('.', "/"));
        if let Some(name) = out
            .docs
            .get_mut(wish.index)
            .and_then(|d| d.pointer_mut(&pointer))
        {
            *name = variant.name.as_str().into();
        }
        let field = format!("{}.kubelet", wish.moving.path);
        let message = format!(
            "differs from what others of class {class} want, so it went into a copy named {}; nodes of the pool will drift to it",
            variant.name
        );
        out.warn(&wish.moving.object, &field, message);
    }
}

fn set_kubelet(class: Option<&mut Value>, kubelet: &Value) {
    if let Some(spec) = class
        .and_then(|c| c.get_mut("spec"))
        .and_then(Value::as_object_mut)
    {
        spec.insert("kubelet".to_owned(), kubelet.clone());
    }
}

fn warn_of_missing(wish: &Wish, class: &str, out: &mut Converted) {
    if let Some(kubelet) = &wish.moving.kubelet {
        let field = format!("{}.kubelet", wish.moving.path);
        let message = format!(
            "dropped: class {class} is not among the documents; set its spec.kubelet to {kubelet}"
        );
        out.warn(&wish.moving.object, &field, message);
    }
}

fn class_name(doc: &Value) -> Option<String> {
    let ours = text(doc, "apiVersion") == AWS && text(doc, "kind") == NODE_CLASS;
    let name = doc.pointer("/metadata/name")?.as_str()?;
    ours.then(|| name.to_owned())
}

fn free_name(class: &str, pool: &str, names: &mut BTreeSet<String>) -> String {
    let wanted = format!("{class}-{pool}");
    let numbered = (2..).map(|n: u32| format!("{wanted}-{n}"));
    let name = std::iter::once(wanted.clone())
        .chain(numbered)
        .find(|name| !names.contains(name))
        .unwrap_or(wanted);
    names.insert(name.clone());
    name
}
