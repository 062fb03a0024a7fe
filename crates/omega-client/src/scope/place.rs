//! Waiting for a permit: a future that holds a place in the queue, and gives it up when it is dropped.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use omega_policy::{Call, Rejection, Ticket, Timestamp};

use crate::clock::Timer;

use super::state::Look;
use super::{Counters, Held, Scope};

/// A place in the queue, as a future of its end. Dropped, it is given up, together with a permit that had come for it.
pub(crate) struct Place {
    pub(super) scope: Arc<Scope>,
    /// `None` once it has ended.
    pub(super) ticket: Option<Ticket>,
    pub(super) call: Call,
    pub(super) until: Timestamp,
    pub(super) timer: Timer,
}

impl Future for Place {
    type Output = Result<Held, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let ticket = this.ticket.expect("a place is not polled after its end");
        loop {
            let now = this.scope.clock.now();
            let until = this.until;
            let (scope, call) = (&this.scope, &this.call);
            let seen = scope.decide(now, |state| match state.look(ticket, call, until, cx.waker(), now) {
                Look::Served(result) => Ok(result.map(|permit| scope.hold(permit))),
                Look::Wait { until } => Err(until),
            });
            match seen {
                Ok(result) => {
                    this.ticket = None;
                    if let Err(rejection) = &result {
                        scope.counters.refused_by(rejection);
                    }
                    return Poll::Ready(result);
                }
                Err(until) => {
                    if this.timer.poll_at(until, &*this.scope.clock, cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl Place {
    /// Gives the place up for a better one: nobody went away.
    pub(crate) fn leave(mut self) {
        self.give_up();
    }

    fn give_up(&mut self) -> bool {
        let Some(ticket) = self.ticket.take() else { return false };
        let now = self.scope.clock.now();
        self.scope.decide(now, |state| state.leave(ticket, now));
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.give_up() {
            Counters::add(&self.scope.counters.cancelled);
        }
    }
}
