//! Claims that commands are about: those with one under way, and those that are left alone for a while because what was
//! to replace them could not be had.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::candidate::Candidate;
use crate::lifecycle::objects::later;

/// How long candidates are left alone after a first replacement that failed; each further time twice as long.
const HOLD_FIRST: Duration = Duration::from_secs(60);
/// Longest they are left alone: capacity that was out is often back by then.
const HOLD_MAX: Duration = Duration::from_secs(10 * 60);

/// A claim whose replacements failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// How often in a row.
    pub(crate) failures: u32,
    /// When it may be replaced again.
    pub(crate) until: Timestamp,
}

/// What commands are about, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busy {
    /// Claims with a command under way.
    pub(crate) queued: BTreeSet<Arc<str>>,
    /// Claims whose replacements failed.
    pub(crate) held: BTreeMap<Arc<str>, Held>,
}

/// The same, kept by the loop and by those that carry commands out; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnderWay {
    busy: Arc<Mutex<Busy>>,
}

impl UnderWay {
    /// As it is now.
    pub(crate) fn now(&self) -> Busy {
        self.busy.lock().clone()
    }
    /// Takes claims in whose command begins; how many are under way then.
    pub(super) fn add(&self, candidates: &[Candidate]) -> usize {
        let mut busy = self.busy.lock();
        busy.queued
            .extend(candidates.iter().map(|c| c.name.clone()));
        busy.queued.len()
    }
    pub(super) fn len(&self) -> usize {
        self.busy.lock().queued.len()
    }
    pub(super) fn remove(&self, candidates: &[Candidate]) {
        let mut busy = self.busy.lock();
        for candidate in candidates {
            busy.queued.remove(&candidate.name);
        }
    }
    /// What was to replace these could not be had: they are left alone, each time in a row for longer.
    pub(super) fn hold(&self, candidates: &[Candidate], now: Timestamp) {
        let mut busy = self.busy.lock();
        for candidate in candidates {
            let before = busy.held.get(&candidate.name).map_or(0, |h| h.failures);
            let wait = HOLD_FIRST.saturating_mul(2_u32.saturating_pow(before));
            let held = Held {
                failures: before.saturating_add(1),
                until: later(now, wait.min(HOLD_MAX)),
            };
            busy.held.insert(candidate.name.clone(), held);
        }
    }
    /// Forgets failures of claims that are gone.
    pub(super) fn keep_held(&self, is_there: impl Fn(&str) -> bool) {
        self.busy.lock().held.retain(|name, _| is_there(name));
    }
}
