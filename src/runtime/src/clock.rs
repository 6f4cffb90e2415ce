//! The one clock. Two readings: [`Clock::now`] is monotonic and what waiting is measured in; [`Clock::wall`] is
//! civil time and what is written into objects. All waiting goes through tokio time, so that under a paused tokio
//! clock the whole system runs in virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// A cheap handle on the clock of a process or of a simulated world.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    /// Milliseconds that `wall` is off the truth; chaos runs move it.
    skew_millis: Arc<AtomicI64>,
}

#[derive(Clone, Debug)]
enum Source {
    /// The machine's clock.
    Real,
    /// Civil time derived from tokio's (pausable) clock: `epoch` at `start`.
    Virtual { epoch: Timestamp, start: Instant },
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn real() -> Self {
        Self {
            source: Source::Real,
            skew_millis: Arc::default(),
        }
    }

    /// A clock that reads `epoch` now and moves with tokio time.
    #[must_use]
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self {
            source: Source::Virtual {
                epoch,
                start: Instant::now(),
            },
            skew_millis: Arc::default(),
        }
    }

    /// Another clock on the same time whose wall reading can be skewed on its own (the API server's, say).
    #[must_use]
    pub fn with_own_skew(&self) -> Self {
        Self {
            source: self.source.clone(),
            skew_millis: Arc::default(),
        }
    }

    /// Moves the wall reading by `skew` against the truth; the monotonic reading is not touched.
    pub fn set_skew(&self, skew: SignedDuration) {
        let millis = i64::try_from(skew.as_millis()).unwrap_or(0);
        self.skew_millis.store(millis, Ordering::Relaxed);
    }

    /// Whether time is simulated.
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        matches!(self.source, Source::Virtual { .. })
    }

    /// Monotonic reading.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// Civil reading.
    #[must_use]
    pub fn wall(&self) -> Timestamp {
        let truth = match &self.source {
            Source::Real => real_wall(),
            Source::Virtual { epoch, start } => {
                add(*epoch, Instant::now().saturating_duration_since(*start))
            }
        };
        let skew = SignedDuration::from_millis(self.skew_millis.load(Ordering::Relaxed));
        truth.checked_add(skew).unwrap_or(truth)
    }

    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Waits until the wall reading is at least `when`; returns at once if it is.
    pub async fn sleep_until_wall(&self, when: Timestamp) {
        let wait = when.duration_since(self.wall());
        if let Ok(wait) = Duration::try_from(wait) {
            tokio::time::sleep(wait).await;
        }
    }
}

/// The only place that reads the machine's civil clock.
#[allow(clippy::disallowed_methods)]
fn real_wall() -> Timestamp {
    Timestamp::now()
}

fn add(base: Timestamp, elapsed: Duration) -> Timestamp {
    SignedDuration::try_from(elapsed)
        .ok()
        .and_then(|d| base.checked_add(d).ok())
        .unwrap_or(Timestamp::MAX)
}
