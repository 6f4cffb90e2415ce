//! The batching window (`scheduling.md` §6.1): pods that come together are planned together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// Lengths of a window.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    /// Quiet time that closes it.
    pub idle: Duration,
    /// Longest it stays open.
    pub max: Duration,
}

/// One window, opened by a first trigger.
#[derive(Debug)]
pub struct Window {
    lengths: Lengths,
    opened: Instant,
    last_new: Instant,
    seen: BTreeSet<Arc<str>>,
}

impl Window {
    /// A window that `first` opens at `now`.
    #[must_use]
    pub fn open(lengths: Lengths, first: Arc<str>, now: Instant) -> Self {
        Self {
            lengths,
            opened: now,
            last_new: now,
            seen: BTreeSet::from([first]),
        }
    }
    /// Takes a trigger: one not seen in this window keeps it open for another idle time, one seen does not.
    pub fn add(&mut self, trigger: Arc<str>, now: Instant) {
        if self.seen.insert(trigger) {
            self.last_new = now;
        }
    }
    /// When it closes if nothing more comes.
    #[must_use]
    pub fn closes(&self) -> Instant {
        (self.last_new + self.lengths.idle).min(self.opened + self.lengths.max)
    }
    /// How many different triggers it has seen.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }
    /// Never: the first trigger is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }
}

/// Where triggers come from.
pub trait Triggers {
    /// The next trigger; none = there will be no more. Must lose nothing when dropped before it is done.
    fn next(&mut self) -> impl Future<Output = Option<Arc<str>>> + Send;
}

/// Waits for a first trigger, then until its window closes; none = there will be no more triggers.
pub async fn collect(source: &mut impl Triggers, lengths: Lengths) -> Option<Window> {
    let first = source.next().await?;
    let mut window = Window::open(lengths, first, Instant::now());
    loop {
        // Due first: a stream of triggers that are always ready must not hold a window open past its end.
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(window.closes()) => return Some(window),
            next = source.next() => window.add(next?, Instant::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    impl Triggers for UnboundedReceiver<Arc<str>> {
        async fn next(&mut self) -> Option<Arc<str>> {
            self.recv().await
        }
    }

    const LENGTHS: Lengths = Lengths {
        idle: Duration::from_secs(1),
        max: Duration::from_secs(10),
    };

    /// `(milliseconds, uid)` of each trigger, and when the window must close, in milliseconds.
    #[rstest]
    #[case::one(&[(0, "a")], 1_000, 1)]
    #[case::opened_late(&[(700, "a")], 1_700, 1)]
    #[case::a_new_one_extends(&[(0, "a"), (900, "b")], 1_900, 2)]
    #[case::a_seen_one_does_not(&[(0, "a"), (900, "a")], 1_000, 1)]
    #[case::next_window_is_not_touched(&[(0, "a"), (1_100, "b")], 1_000, 1)]
    #[tokio::test(start_paused = true)]
    async fn case_48_the_window_closes(
        #[case] triggers: &[(u64, &str)],
        #[case] closes: u64,
        #[case] seen: usize,
    ) {
        let (got_at, got) = run(triggers).await;
        assert_eq!((got_at, got), (closes, seen));
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_stream_closes_at_the_maximum() {
        let stream: Vec<(u64, String)> = (0..40).map(|i| (i * 500, format!("pod-{i}"))).collect();
        let stream: Vec<(u64, &str)> = stream.iter().map(|(t, n)| (*t, n.as_str())).collect();
        assert_eq!(run(&stream).await.0, 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn ends_with_its_source() {
        let (sender, mut receiver) = unbounded_channel::<Arc<str>>();
        drop(sender);
        assert!(collect(&mut receiver, LENGTHS).await.is_none());
    }

    async fn run(triggers: &[(u64, &str)]) -> (u64, usize) {
        let start = Instant::now();
        let (sender, mut receiver) = unbounded_channel::<Arc<str>>();
        let triggers: Vec<(u64, Arc<str>)> =
            triggers.iter().map(|(t, n)| (*t, Arc::from(*n))).collect();
        let feed = async move {
            for (at, uid) in triggers {
                tokio::time::sleep_until(start + Duration::from_millis(at)).await;
                let _ = sender.send(uid);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = feed => unreachable!("the feed never ends"),
            window = collect(&mut receiver, LENGTHS) => {
                let ms = u64::try_from(start.elapsed().as_millis()).unwrap();
                (ms, window.unwrap().len())
            }
        }
    }
}
