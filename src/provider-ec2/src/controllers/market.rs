//! Loops that keep the market true: types and prices twice a day, and word of offerings that are to be had again.

use std::sync::Arc;
use std::time::Duration;

use karpenter_runtime::runner::Rounds;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;

/// Name in logs and metrics of the loop that asks; upstream has one for types and one for prices.
const CONTROLLER: &str = "providers.pricing";
/// How often types and prices are asked for.
const REFRESH_INTERVAL: Duration = Duration::from_secs(12 * 3600);
/// First wait after a failure, doubled up to the last one.
const RETRY_INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(1000));

/// Asks for types and prices until `stop`.
pub(crate) async fn refresh(shared: Arc<Shared>, changed: Arc<Notify>, stop: CancellationToken) {
    let mut retry = RETRY_INTERVALS.0;
    let mut first = true;
    let mut rounds = Rounds::new(CONTROLLER, &shared.rng);
    loop {
        let round = rounds.begin().run(async {
            let result = if first {
                shared.market.hydrate(&*shared.ec2).await.map(|()| true)
            } else {
                once(&shared).await
            };
            if let Err(error) = &result {
                tracing::warn!(%error, "cannot refresh instance types and prices");
            }
            result
        });
        let wait = match round.await {
            Ok(news) => {
                if news {
                    changed.notify_one();
                }
                first = false;
                retry = RETRY_INTERVALS.0;
                REFRESH_INTERVAL
            }
            Err(_) => {
                let wait = retry;
                retry = (retry * 2).min(RETRY_INTERVALS.1);
                wait
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = shared.clock.sleep(wait) => {}
        }
    }
}

async fn once(shared: &Shared) -> karpenter_ec2_api::Result<bool> {
    let types = shared.market.discover(&*shared.ec2).await;
    let prices = shared
        .market
        .pricing
        .refresh(&*shared.ec2, &shared.clock)
        .await;
    Ok(types? | prices?)
}

/// Tells of offerings that are to be had again, until `stop`.
pub(crate) async fn recover(shared: Arc<Shared>, changed: Arc<Notify>, stop: CancellationToken) {
    let marks = &shared.market.unavailable;
    loop {
        let end = marks.next_end();
        let ended = async {
            match end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = marks.marked.notified() => {}
            () = ended => {
                // Reading the version sweeps out what has ended.
                marks.version(shared.clock.now());
                changed.notify_one();
            }
        }
    }
}
