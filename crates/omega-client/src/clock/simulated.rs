//! Time for the slow checks: it stands still until the check moves it, and then wakes whoever waited for that.
//!
//! A timer wakes only for the moment it was set to last, as tokio's do: a wake-up too many would hide one that is missing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use omega_policy::Timestamp;
use tokio::time::Instant;

use super::Clock;

/// A clock of its own; clones show the same time. Its lock is the standard library's, for time is not what is checked,
/// and is never held where a task can be suspended.
#[derive(Clone, Default)]
pub struct SimulatedClock(Arc<Mutex<Time>>);

#[derive(Default)]
struct Time {
    now: Timestamp,
    timers: BTreeMap<u64, (Timestamp, Waker)>,
    timers_total: u64,
}

impl SimulatedClock {
    fn time(&self) -> MutexGuard<'_, Time> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(omega_shuttle)]
impl SimulatedClock {
    /// Moves on to `now`, and wakes whose moment has come by then.
    pub(crate) fn advance_to(&self, now: Timestamp) {
        let mut time = self.time();
        time.now = time.now.max(now);
        let due = time.timers.extract_if(.., |_, (at, _)| *at <= now).collect::<Vec<_>>();
        drop(time);
        due.into_iter().for_each(|(_, (_, waker))| waker.wake());
    }

    /// The moment for which somebody waits next.
    pub(crate) fn next_timer(&self) -> Option<Timestamp> {
        self.time().timers.values().map(|(at, _)| *at).min()
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        self.time().now
    }

    fn date(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }

    fn instant(&self, _: Timestamp) -> Instant {
        panic!("tokio's timers have no place where tasks are simulated")
    }

    fn simulated(&self) -> &SimulatedClock {
        self
    }
}

/// The counterpart of the ordinary one.
#[derive(Default)]
pub(crate) struct Timer(Option<(SimulatedClock, u64)>);

impl Timer {
    /// Ready once `at` has come. Until then the task is woken at the moment that was named last, and no other.
    pub(crate) fn poll_at(&mut self, at: Timestamp, clock: &dyn Clock, cx: &mut Context<'_>) -> Poll<()> {
        let (clock, number) = self.0.get_or_insert_with(|| {
            let clock = clock.simulated().clone();
            let number = {
                let mut time = clock.time();
                time.timers_total += 1;
                time.timers_total
            };
            (clock, number)
        });
        let mut time = clock.time();
        if at <= time.now {
            let unset = time.timers.remove(number);
            drop(time);
            drop(unset);
            return Poll::Ready(());
        }
        let reset = time.timers.insert(*number, (at, cx.waker().clone()));
        drop(time);
        drop(reset);
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some((clock, number)) = &self.0 {
            let unset = clock.time().timers.remove(number);
            drop(unset);
        }
    }
}
