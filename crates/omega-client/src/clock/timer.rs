//! Waiting for a moment of the client's clock.

use std::pin::Pin;
use std::task::{Context, Poll};

use omega_policy::Timestamp;
use tokio::time::Sleep;

use crate::clock::Clock;

/// A timer that can be moved. It costs nothing until it is first waited for.
#[derive(Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready once `at` has come. Until then the task is woken at the moment that was named last, and no other.
    pub(crate) fn poll_at(&mut self, at: Timestamp, clock: &dyn Clock, cx: &mut Context<'_>) -> Poll<()> {
        let at = clock.instant(at);
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(cx)
    }
}
