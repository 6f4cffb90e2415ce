//! What may be done with a pod (`scheduling.md` §4). Questions about time take `now`: the model has no clock.

use jiff::{SignedDuration, Timestamp};
use karpenter_api::labels;

use crate::Pod;
use crate::pod::{Owner, Phase};
use crate::taints;

/// How long after its deletion timestamp a pod counts as one that will not go by itself.
const STUCK_AFTER: SignedDuration = SignedDuration::from_mins(1);

/// What the annotation `karpenter.sh/do-not-disrupt` says at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DoNotDisrupt {
    /// There is none.
    Absent,
    /// `true`, or a duration and no start time yet.
    Always,
    /// A duration that ends then.
    Until(Timestamp),
    /// A duration that ended then.
    Elapsed(Timestamp),
    /// Neither `true` nor a positive duration: ignored, with a warning event. The text as written.
    Invalid(String),
}

impl DoNotDisrupt {
    /// Whether it protects now.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Always | Self::Until(_))
    }
}

impl Pod {
    /// Whether it has ended.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self.phase, Phase::Failed | Phase::Succeeded)
    }
    /// Whether it is being deleted.
    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.deleted.is_some()
    }
    /// Neither ended nor being deleted.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.is_terminal() && !self.is_terminating()
    }
    /// Whether it has a node.
    #[must_use]
    pub fn is_scheduled(&self) -> bool {
        self.node_name.is_some()
    }
    /// Whether the scheduler makes room for it by preemption.
    #[must_use]
    pub fn is_preempting(&self) -> bool {
        self.nominated_node.is_some()
    }
    /// Whether a DaemonSet owns it.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.owner == Owner::DaemonSet
    }
    /// Whether it is a mirror of a static pod.
    #[must_use]
    pub fn is_mirror(&self) -> bool {
        self.owner == Owner::Node
    }
    /// Whether a node may be bought for it.
    #[must_use]
    pub fn is_provisionable(&self) -> bool {
        self.unschedulable
            && !self.is_scheduled()
            && !self.is_preempting()
            && !self.is_daemon()
            && !self.is_mirror()
    }
    /// Whether it comes back when its node goes.
    #[must_use]
    pub fn is_reschedulable(&self) -> bool {
        let comes_back =
            self.is_active() || (self.owner == Owner::StatefulSet && self.is_terminating());
        comes_back && !self.is_daemon() && !self.is_mirror()
    }
    /// What its do-not-disrupt annotation says at `now`.
    #[must_use]
    pub fn do_not_disrupt(&self, now: Timestamp) -> DoNotDisrupt {
        let Some(text) = self.annotations.get(labels::DO_NOT_DISRUPT) else {
            return DoNotDisrupt::Absent;
        };
        if text == "true" {
            return DoNotDisrupt::Always;
        }
        let Some(duration) = go_duration(text).filter(SignedDuration::is_positive) else {
            return DoNotDisrupt::Invalid(text.clone());
        };
        let Some(started) = self.started else {
            return DoNotDisrupt::Always;
        };
        match started.checked_add(duration) {
            Ok(end) if now < end => DoNotDisrupt::Until(end),
            Ok(end) => DoNotDisrupt::Elapsed(end),
            Err(_) => DoNotDisrupt::Always,
        }
    }
    /// Whether its do-not-disrupt annotation does not stand in the way at `now`.
    #[must_use]
    pub fn is_disruptable(&self, now: Timestamp) -> bool {
        !self.is_active() || !self.do_not_disrupt(now).is_active()
    }
    /// Whether it tolerates the taint of a node being disrupted, so that a drain leaves it.
    #[must_use]
    pub fn tolerates_disruption(&self) -> bool {
        let taint = taints::disrupted_taint();
        self.tolerations
            .iter()
            .any(|t| taints::tolerates(t, &taint))
    }
    /// Whether it may be evicted at `now`.
    #[must_use]
    pub fn is_evictable(&self, now: Timestamp) -> bool {
        self.is_active()
            && !self.tolerates_disruption()
            && !self.is_mirror()
            && !self.do_not_disrupt(now).is_active()
    }
    /// When it begins to count as stuck, if it is being deleted.
    #[must_use]
    pub fn stuck_at(&self) -> Option<Timestamp> {
        self.deleted?.checked_add(STUCK_AFTER).ok()
    }
    /// Whether it should have been gone for more than a minute.
    #[must_use]
    pub fn is_stuck_terminating(&self, now: Timestamp) -> bool {
        self.stuck_at().is_some_and(|at| now > at)
    }
    /// Whether a drain waits for it to go.
    #[must_use]
    pub fn is_drainable(&self, now: Timestamp) -> bool {
        !self.tolerates_disruption() && !self.is_stuck_terminating(now) && !self.is_mirror()
    }
    /// Whether it keeps its node from terminating.
    #[must_use]
    pub fn is_waiting_eviction(&self, now: Timestamp) -> bool {
        !self.is_terminal() && self.is_drainable(now)
    }
    /// Whether it will still be going when its node must be gone, so that its deletion has to be hurried.
    #[must_use]
    pub fn needs_forced_eviction(&self, node_deadline: Timestamp) -> bool {
        self.deleted.is_some_and(|at| at > node_deadline)
    }
    /// Whether it holds up the counts of topology rules: bound, not ended, not being deleted.
    #[must_use]
    pub fn counts_for_topology(&self) -> bool {
        self.is_scheduled() && self.is_active()
    }
    /// Whether it stands for a capacity buffer and exists nowhere else. An annotation alone does not make it so:
    /// anybody may write one, but no pod of a cluster can have the name of a chunk.
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        self.key.name.contains(crate::chunk::NUMBER_SIGN)
            && self
                .annotations
                .get(labels::BUFFER_FAKE_POD)
                .is_some_and(|v| v == "true")
    }
    /// What evicting it costs: 1, raised and lowered by its deletion cost and priority, within −10..=10
    /// (`scheduling.md` §5).
    #[must_use]
    pub fn eviction_cost(&self) -> f64 {
        let deletion_cost = self
            .annotations
            .get(labels::POD_DELETION_COST)
            .and_then(|text| text.parse::<f64>().ok())
            .filter(|cost| cost.is_finite())
            .unwrap_or(0.0);
        let cost = 1.0
            + deletion_cost / f64::from(1 << 27)
            + f64::from(self.priority) / f64::from(1 << 25);
        cost.clamp(-10.0, 10.0)
    }
}

/// A duration in Go's syntax: `1h30m`, `1.5h`, `250ms`.
fn go_duration(text: &str) -> Option<SignedDuration> {
    const UNITS: [(&str, i128); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(end)?;
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_end)?;
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: i128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        nanos = nanos.checked_add(whole.checked_mul(*scale)?)?;
        let mut part = *scale;
        for digit in fraction.chars() {
            part /= 10;
            nanos = nanos.checked_add(i128::from(digit.to_digit(10)?).checked_mul(part)?)?;
        }
        rest = tail;
    }
    let nanos = i64::try_from(if negative { -nanos } else { nanos }).ok()?;
    Some(SignedDuration::from_nanos(nanos))
}
