//! What must hold all through a wait: judged at its start and at the end of every moment in which something changed.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use karpenter_fake_kube::server::{Gr, Subscription, gr};

use crate::expect::{Verdict, judge};
use crate::kinds;
use crate::report::Expectation;
use crate::scenario::schema::Expect;
use crate::world::World;

/// What a moment is: the smallest step of the clock. What changes within one is judged by what comes of it.
const MOMENT: Duration = Duration::from_millis(1);
/// How often machines are counted: a cloud tells of no change.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// Lets time pass, and judges while it does.
pub(crate) struct Holding<'a> {
    expect: Option<&'a Expect>,
    changes: Vec<Subscription>,
    fields: Vec<Field>,
}

/// One field of the expectation.
struct Field {
    latest: Verdict,
    /// The first time that it did not hold, and what was there.
    breach: Option<(f64, String)>,
}

impl<'a> Holding<'a> {
    /// From now on `expect` must hold; with none, time just passes.
    pub(crate) fn new(world: &World, expect: Option<&'a Expect>) -> Self {
        let mut holding = Self {
            expect,
            changes: Vec::new(),
            fields: Vec::new(),
        };
        if let Some(expect) = expect {
            holding.changes = resources(expect)
                .into_iter()
                .map(|resource| world.api.subscribe(resource))
                .collect();
            holding.judge(world, expect, world.elapsed());
        }
        holding
    }

    /// Lets `duration` pass.
    pub(crate) async fn sleep(&mut self, world: &World, duration: Duration) {
        let Some(expect) = self.expect else {
            world.clock.sleep(duration).await;
            return;
        };
        let end = world.clock.now() + duration;
        while world.clock.now() < end {
            let look = match expect.instances {
                Some(_) => end.min(world.clock.now() + COUNT_EVERY),
                None => end,
            };
            let has_changed = tokio::select! {
                biased;
                () = changed(&mut self.changes) => true,
                () = tokio::time::sleep_until(look) => false,
            };
            let at = world.elapsed();
            if has_changed {
                let next = end.min(world.clock.now() + MOMENT);
                tokio::time::sleep_until(next).await;
            }
            self.judge(world, expect, at);
        }
    }

    fn judge(&mut self, world: &World, expect: &Expect, at: f64) {
        for changes in &mut self.changes {
            while changes.try_next().is_some() {}
        }
        for (index, latest) in judge(world, expect).into_iter().enumerate() {
            let breach = (!latest.ok).then(|| (at, latest.saw.clone()));
            match self.fields.get_mut(index) {
                Some(field) => {
                    field.breach = field.breach.take().or(breach);
                    field.latest = latest;
                }
                None => self.fields.push(Field { latest, breach }),
            }
        }
    }

    /// What became of it: the first breach of each field, or what is there at the end.
    pub(crate) fn end(self, world: &World) -> Vec<Expectation> {
        let now = world.elapsed();
        let fields = self.fields.into_iter();
        fields
            .map(|field| {
                let (ok, (at, saw)) = match field.breach {
                    Some(breach) => (false, breach),
                    None => (true, (now, field.latest.saw)),
                };
                let expect = format!("holding {}", field.latest.expect);
                Expectation {
                    at,
                    expect,
                    ok,
                    saw,
                }
            })
            .collect()
    }
}

/// Where the changes happen that can make a difference to `expect`.
fn resources(expect: &Expect) -> Vec<Gr<'static>> {
    let mut all = vec![
        gr("", "nodes"),
        gr("", "pods"),
        gr("karpenter.sh", "nodeclaims"),
    ];
    if !expect.events.is_empty() {
        all.push(gr("", "events"));
    }
    let objects = expect.objects.iter().filter_map(|o| kinds::of(&o.kind));
    all.extend(objects.map(|place| place.resource));
    all
}

/// Waits for a change of any.
async fn changed(all: &mut [Subscription]) {
    poll_fn(|context| {
        for changes in all.iter_mut() {
            if let Poll::Ready(Some(_)) = pin!(changes.next()).poll(context) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use karpenter_runtime::Settings;
    use serde_json::json;

    use super::*;
    use crate::world::{CloudKind, WorldOptions, virtual_clock};

    fn world() -> World {
        let catalog = karpenter_provider_kwok::catalog::builtin();
        World::new(WorldOptions {
            seed: 1,
            clock: virtual_clock(),
            settings: Settings::default(),
            cloud: CloudKind::Kwok { catalog },
        })
        .unwrap()
    }

    /// A ConfigMap that is there from `at` on for `length`.
    fn appears(world: &World, at: Duration, length: Duration) {
        let (api, clock) = (world.api.clone(), world.clock.clone());
        tokio::spawn(async move {
            let place = gr("", "configmaps");
            clock.sleep(at).await;
            let object =
                json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "brief" } });
            api.create(place, Some("default"), object).unwrap();
            clock.sleep(length).await;
            api.delete(place, Some("default"), "brief", None).unwrap();
        });
    }

    fn expect() -> Expect {
        let absent = json!({ "kind": "ConfigMap", "name": "brief", "exists": false });
        serde_json::from_value(json!({ "nodes": 0, "objects": [absent] })).unwrap()
    }

    async fn judged(length: Duration) -> Vec<Expectation> {
        let (world, expect) = (world(), expect());
        appears(&world, Duration::from_millis(1300), length);
        let mut holding = Holding::new(&world, Some(&expect));
        holding.sleep(&world, Duration::from_secs(3)).await;
        assert!(
            (world.elapsed() - 3.0).abs() < f64::EPSILON,
            "the wait is as long as it was asked to be"
        );
        let verdicts = holding.end(&world);
        world.end().await;
        verdicts
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_breach_is_told_with_its_time_however_short_it_was() {
        let verdicts = judged(Duration::from_millis(7)).await;
        let shown: Vec<_> = verdicts
            .iter()
            .map(|e| (e.at, e.expect.as_str(), e.ok, e.saw.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                (3.0, "holding nodes: 0", true, "0"),
                (1.3, "holding ConfigMap brief does not exist", false, "1"),
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_and_goes_within_a_moment_never_was() {
        let verdicts = judged(Duration::ZERO).await;
        assert!(verdicts.iter().all(|e| e.ok), "{verdicts:?}");
    }
}
