//! How loops hear of changes: of everything that is there once the state is complete, and then of all that is new, until
//! the controller stops.

use tokio::sync::mpsc::UnboundedReceiver;

use crate::Context;

/// Whoever hears of changes.
pub(crate) trait Hearer<News>: Send {
    /// Whether what was new before everything was there has to be heard all the same. It is in what is there, so that
    /// only who minds every version needs it.
    const HEARS_ALL: bool = false;

    /// Looks at everything there is.
    fn everything(&mut self);
    /// Hears of something new.
    fn hear(&mut self, news: News);
}

/// Lets a hearer hear until the controller stops.
pub(crate) async fn listen<News: Send, H: Hearer<News>>(
    ctx: Context,
    mut news: UnboundedReceiver<News>,
    mut hearer: H,
) {
    tokio::select! {
        biased;
        () = ctx.stop.cancelled() => return,
        () = ctx.state.wait_synced() => {}
    }
    if !H::HEARS_ALL {
        while news.try_recv().is_ok() {}
    }
    hearer.everything();
    loop {
        tokio::select! {
            biased;
            () = ctx.stop.cancelled() => return,
            next = news.recv() => match next {
                Some(next) => hearer.hear(next),
                None => return,
            },
        }
    }
}
