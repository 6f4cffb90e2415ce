//! How long things take on simulated machines. Each is a range that a seeded draw is made from.

use std::time::Duration;

use karpenter_runtime::RngTree;

/// From a shortest to a longest time, both included, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Shortest, in milliseconds.
    pub min_millis: u64,
    /// Longest, in milliseconds.
    pub max_millis: u64,
}

impl Span {
    /// From seconds to seconds.
    #[must_use]
    pub const fn seconds(min: u64, max: u64) -> Self {
        Self {
            min_millis: min * 1000,
            max_millis: max * 1000,
        }
    }

    /// Always the same.
    #[must_use]
    pub const fn millis(millis: u64) -> Self {
        Self {
            min_millis: millis,
            max_millis: millis,
        }
    }

    /// A draw for `what` of `whom`: the same for the same seed, whoever else draws.
    #[must_use]
    pub fn draw(&self, rng: &RngTree, what: &str, whom: &str) -> Duration {
        let width = self.max_millis.saturating_sub(self.min_millis) + 1;
        let more = rng.child(what, whom).rng().below(width);
        Duration::from_millis(self.min_millis.saturating_add(more))
    }
}

/// Times of the kubelet model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KubeletOptions {
    /// The pull of an image that a host has not got; each image takes a time of its own.
    pub pull: Span,
    /// From images and volumes there to running.
    pub start: Span,
    /// From the stop signal to the end, for programs that heed it.
    pub exit: Span,
    /// How long a Job's pod runs when it does not say (see [`crate::kubelet::RUN_SECONDS`]).
    pub job_run: Span,
}

impl Default for KubeletOptions {
    fn default() -> Self {
        Self {
            pull: Span {
                min_millis: 500,
                max_millis: 2500,
            },
            start: Span {
                min_millis: 300,
                max_millis: 1000,
            },
            exit: Span {
                min_millis: 300,
                max_millis: 2000,
            },
            job_run: Span::seconds(20, 40),
        }
    }
}

impl KubeletOptions {
    /// As KWOK does it: next to no time.
    #[must_use]
    pub const fn instant() -> Self {
        Self {
            pull: Span::millis(0),
            start: Span::millis(10),
            exit: Span::millis(10),
            job_run: Span::millis(1000),
        }
    }
}

/// Times and strictness of machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineOptions {
    /// From launched to the Node object.
    pub boot: Span,
    /// From the Node object to Ready.
    pub ready: Span,
    /// From the Node object to the devices that plugins register.
    pub devices: Span,
    /// From Ready to the volume driver's entry in the CSINode.
    pub volume_driver: Span,
    /// From terminated to the cloud controller's deletion of the Node.
    pub cloud_controller: Span,
    /// Whether user data without the cluster's name, endpoint, certificate and service range is refused, as
    /// the operating system's own set-up refuses it.
    pub require_cluster: bool,
    /// The pods.
    pub kubelet: KubeletOptions,
}

impl Default for MachineOptions {
    fn default() -> Self {
        Self {
            boot: Span::seconds(20, 40),
            ready: Span::seconds(3, 8),
            devices: Span::seconds(10, 25),
            volume_driver: Span::seconds(4, 12),
            cloud_controller: Span::seconds(1, 5),
            require_cluster: true,
            kubelet: KubeletOptions::default(),
        }
    }
}

/// Times of KWOK nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KwokOptions {
    /// From created to Ready.
    pub ready: Span,
    /// The pods.
    pub kubelet: KubeletOptions,
}

impl Default for KwokOptions {
    fn default() -> Self {
        Self {
            ready: Span {
                min_millis: 100,
                max_millis: 500,
            },
            kubelet: KubeletOptions::instant(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_in_range_and_depend_on_the_name_only() {
        let (rng, span) = (RngTree::new(7), Span::seconds(20, 40));
        let draws: Vec<Duration> = (0..200)
            .map(|i| span.draw(&rng, "boot", &format!("i-{i}")))
            .collect();
        assert!(
            draws
                .iter()
                .all(|d| (20_000..=40_000).contains(&d.as_millis()))
        );
        assert!(draws.iter().any(|d| d.as_secs() < 25) && draws.iter().any(|d| d.as_secs() > 35));
        assert_eq!(draws[3], span.draw(&rng, "boot", "i-3"));
    }
}
