//! A word to all connections at once, that is asked for with every piece of every stream.
//!
//! A [`CancellationToken`] answers that under a lock, which connections on different processors would take from each other
//! thousands of times a second. Here a flag that is only read answers it, and the token wakes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// See the module. Clones are the same signal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signal {
    given: Arc<AtomicBool>,
    token: CancellationToken,
}

impl Signal {
    pub(crate) fn give(&self) {
        // First the flag: whoever is woken looks at it.
        self.given.store(true, Ordering::Release);
        self.token.cancel();
    }

    pub(crate) fn is_given(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }

    /// Waits for it.
    pub(crate) async fn given(&self) {
        self.token.cancelled().await;
    }

    /// For a task that asks again and again.
    pub(crate) fn watch(&self) -> Watching {
        Watching { signal: self.clone(), waiting: None }
    }
}

/// A task's eye on a [`Signal`]: once its waker waits for it, a look is enough.
pub(crate) struct Watching {
    signal: Signal,
    /// Boxed because most of them, those of short answers, are never polled.
    waiting: Option<(Pin<Box<WaitForCancellationFutureOwned>>, Waker)>,
}

impl Watching {
    /// Ready once the signal is given.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.signal.is_given() {
            return Poll::Ready(());
        }
        if self.waiting.as_ref().is_some_and(|(_, waker)| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        let token = &self.signal.token;
        let (waiting, waker) = self
            .waiting
            .get_or_insert_with(|| (Box::pin(token.clone().cancelled_owned()), cx.waker().clone()));
        waker.clone_from(cx.waker());
        waiting.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker_ref;

    use super::*;

    #[tokio::test]
    async fn whoever_asks_again_and_again_is_woken_once_it_is_given() {
        let signal = Signal::default();
        let mut watching = signal.watch();
        // Asked under another task's waker first, as a body is before its connection takes it over.
        assert!(watching.poll(&mut Context::from_waker(noop_waker_ref())).is_pending());
        let waiter = tokio_util::task::TaskTracker::new().spawn(async move {
            std::future::poll_fn(|cx| {
                let asked = watching.poll(cx);
                assert_eq!(asked, watching.poll(cx), "asked twice, the answer is the same");
                asked
            })
            .await;
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished() && !signal.is_given());
        signal.give();
        waiter.await.expect("woken");
        signal.given().await;
        assert!(signal.watch().poll(&mut Context::from_waker(noop_waker_ref())).is_ready());
    }
}
