//! Images on hosts: the first pod that needs one waits until it is pulled, those after it find it there.

use std::collections::BTreeMap;

use karpenter_fake_kube::loops::object::{items, text};
use karpenter_runtime::RngTree;
use serde_json::Value;
use tokio::time::Instant;

use crate::options::Span;

/// Which images are on which host, and since (or from) when.
#[derive(Debug, Default)]
pub(crate) struct Images(BTreeMap<String, BTreeMap<String, Instant>>);

impl Images {
    /// When all images of a pod will be on a host; pulls of those that are missing begin now. An image takes the same time
    /// wherever it is pulled: it is as large as it is.
    pub(crate) fn there_at(
        &mut self,
        node: &str,
        pod: &Value,
        (pull, rng): (Span, &RngTree),
        now: Instant,
    ) -> Instant {
        let there = self.0.entry(node.to_owned()).or_default();
        ["initContainers", "containers"]
            .iter()
            .flat_map(|list| items(pod, &["spec", list]))
            .map(|container| {
                let image = text(container, &["image"]);
                let pulled = || now + pull.draw(rng, "pull", image);
                *there.entry(image.to_owned()).or_insert_with(pulled)
            })
            .fold(now, Instant::max)
    }

    /// A host is gone, with all that was on it.
    pub(crate) fn forget(&mut self, node: &str) {
        self.0.remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn an_image_is_pulled_once_to_a_host() {
        let now = Instant::now();
        let (rng, pull) = (RngTree::new(1), Span::seconds(5, 60));
        let pod = |images: &[&str]| {
            let containers: Vec<Value> = images.iter().map(|i| json!({"image": i})).collect();
            json!({"spec": {"containers": containers}})
        };
        let mut images = Images::default();
        let first = images.there_at("a", &pod(&["x"]), (pull, &rng), now);
        assert!(first >= now + Duration::from_secs(5));
        // Who comes while it is pulled waits for the same pull, who comes later does not wait.
        let soon = now + Duration::from_secs(1);
        assert_eq!(
            images.there_at("a", &pod(&["x"]), (pull, &rng), soon),
            first
        );
        let later = first + Duration::from_secs(9);
        assert_eq!(
            images.there_at("a", &pod(&["x"]), (pull, &rng), later),
            later
        );
        assert!(images.there_at("a", &pod(&["x", "y"]), (pull, &rng), later) > later);
        let elsewhere = images.there_at("b", &pod(&["x"]), (pull, &rng), now);
        assert_eq!(elsewhere, first);
        images.forget("a");
        let again = images.there_at("a", &pod(&["x"]), (pull, &rng), later);
        assert_eq!(again - later, first - now);
    }
}
