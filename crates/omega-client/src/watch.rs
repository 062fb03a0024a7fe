//! The three clocks over one attempt, and the call's deadline over them all.
//!
//! First byte, first content, gap between pieces of content: each is silence of another kind. Keep-alives reset
//! none of them. A clock that runs out before the first content is a silent provider ([`FailureKind::Timeout`]);
//! after it, a broken stream; the call's own deadline is nobody's failure.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use omega_policy::{FailureKind, Timestamp};
use omega_protocol::ProviderError;
use tokio::time::Sleep;

use crate::clock::Clock;

/// How long each silence may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) first_byte: Duration,
    pub(crate) first_content: Duration,
    pub(crate) gap: Duration,
}

/// Why an attempt has no answer.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The provider failed, or stayed silent.
    Provider(ProviderError),
    /// The call's own time ran out. `heard`: whether the provider had said anything by then.
    Deadline { heard: bool },
}

impl From<ProviderError> for Fault {
    fn from(error: ProviderError) -> Self {
        Self::Provider(error)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has come.
    Sent,
    /// The head has come.
    Heard,
    /// Content is coming; the last of it came then.
    Flowing(Timestamp),
}

/// The clocks of one attempt.
pub(crate) struct Watch {
    clock: Arc<dyn Clock>,
    limits: Limits,
    sent_at: Timestamp,
    deadline: Timestamp,
    phase: Phase,
    /// One timer for all clocks, moved only when it fires too early: content would otherwise move it with every
    /// piece.
    timer: Option<Pin<Box<Sleep>>>,
    /// For what the timer was polled last, and who is woken by it: while neither has changed, a look is enough.
    armed: Option<(Timestamp, Waker)>,
}

impl Watch {
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        limits: Limits,
        sent_at: Timestamp,
        deadline: Timestamp,
    ) -> Self {
        Self { clock, limits, sent_at, deadline, phase: Phase::Sent, timer: None, armed: None }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn sent_at(&self) -> Timestamp {
        self.sent_at
    }

    /// The head of the answer came.
    pub(crate) fn heard(&mut self) {
        self.phase = Phase::Heard;
    }

    /// Content came. `true` if it is the first.
    pub(crate) fn content(&mut self, now: Timestamp) -> bool {
        let first = !self.flowing();
        self.phase = Phase::Flowing(now);
        first
    }

    /// Takes `span` out of the silence between pieces of content: the reader was away, so nobody listened.
    pub(crate) fn excuse(&mut self, span: Duration) {
        if let Phase::Flowing(last) = &mut self.phase {
            *last = *last + span;
        }
    }

    pub(crate) fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// Whether content has come.
    pub(crate) fn flowing(&self) -> bool {
        matches!(self.phase, Phase::Flowing(_))
    }

    /// Runs `future` under the clocks.
    pub(crate) async fn over<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Fault> {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending => self.poll_expired(cx).map(Err),
        })
        .await
    }

    /// Ready when a clock has run out.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        let due = self.due();
        if let (Some((armed_for, waker)), Some(timer)) = (&self.armed, &self.timer)
            && *armed_for <= due
            && waker.will_wake(cx.waker())
            && !timer.is_elapsed()
        {
            return Poll::Pending;
        }
        self.armed = Some((due, cx.waker().clone()));
        loop {
            let due = self.clock.instant(self.due());
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            if timer.deadline() > due {
                timer.as_mut().reset(due);
            }
            ready!(timer.as_mut().poll(cx));
            // By at least a timer's grain, or it would be polled again at once, without end.
            let later = timer.deadline() + Duration::from_millis(1);
            if let Some(fault) = self.expired(self.clock.now()) {
                return Poll::Ready(fault);
            }
            let due = self.clock.instant(self.due()).max(later);
            if let Some(timer) = &mut self.timer {
                timer.as_mut().reset(due);
            }
        }
    }

    /// Ready at `until`, whatever the clocks say.
    pub(crate) fn poll_until(&mut self, until: Timestamp, cx: &mut Context<'_>) -> Poll<()> {
        self.armed = None;
        let at = self.clock.instant(until);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx)
    }

    /// The fault of the clock that has run out by `now`, if one has. For bytes that never stop coming: a future that
    /// is always ready never asks a timer.
    pub(crate) fn expired(&self, now: Timestamp) -> Option<Fault> {
        if now >= self.deadline {
            return Some(Fault::Deadline { heard: self.phase != Phase::Sent });
        }
        if now < self.due() {
            return None;
        }
        let silent = |what: &str, limit: Duration| {
            ProviderError::new(FailureKind::Timeout, format!("no {what} within {} s", seconds(limit)))
        };
        let error = match self.phase {
            Phase::Sent if now >= self.sent_at + self.limits.first_byte => {
                silent("first byte", self.limits.first_byte)
            }
            Phase::Sent | Phase::Heard => silent("first content", self.limits.first_content),
            Phase::Flowing(_) => ProviderError::stream_broken(format!(
                "the stream stalled: no content for {} s",
                seconds(self.limits.gap)
            )),
        };
        Some(Fault::Provider(error))
    }

    fn due(&self) -> Timestamp {
        let clock = match self.phase {
            Phase::Sent => self.sent_at + self.limits.first_byte.min(self.limits.first_content),
            Phase::Heard => self.sent_at + self.limits.first_content,
            Phase::Flowing(last) => last + self.limits.gap,
        };
        clock.min(self.deadline)
    }
}

/// Whole seconds where they are whole.
pub(crate) fn seconds(span: Duration) -> String {
    if span.subsec_millis() == 0 { span.as_secs().to_string() } else { format!("{:.2}", span.as_secs_f64()) }
}
